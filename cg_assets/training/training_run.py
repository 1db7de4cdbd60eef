"""Common to all training by descent: epochs with a falling learning rate, the best one kept, checkpoints."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cg_assets.core.errors import DeviceError, TrainingError
from cg_assets.core.progress import Progress
from cg_assets.training.checkpoints import identity_of, read_checkpoint, write_checkpoint
from cg_assets.training.optimizer import MatrixMomentum, schedule

if TYPE_CHECKING:
    from cg_assets.core.settings import Training
    from cg_assets.potentials.base import Labels, Potential, PotentialConfig
    from cg_assets.training.data import TrainingSet


@dataclass(frozen=True)
class TrainingResult:
    """A trained network or potential.

    Attributes:
        module: with the weights of the best epoch, on the CPU.
        history: one record per epoch: epoch, training_loss, held_out_loss (of the epoch's last weights),
            learning_rate, seconds, and facts of the training.
        best_epoch: the epoch (from 1) whose weights were kept: the lowest held-out loss.
        held_out_loss: of the module, in the unit of the losses.
        frames_per_second: training frames a second, mean over the epochs of all runs.
        n_training: number of frames trained on.
        n_held_out: number of frames held out.
    """

    module: Any
    history: list[dict[str, float]]
    best_epoch: int
    held_out_loss: float
    frames_per_second: float
    n_training: int
    n_held_out: int


def torch_device(name: str) -> torch.device:
    """The device of a name.

    Raises:
        DeviceError: `cuda` was asked for and is not there.
    """
    if name not in {"cpu", "cuda"}:
        raise DeviceError(f"device is {name!r}; it must be cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device is cuda and torch finds no GPU; set CG_DEVICE=cpu or install a CUDA build of torch")
    return torch.device(name)


class TrainingRun(ABC):
    """One training with everything that its checkpoint must hold."""

    checkpoint_version: ClassVar[int]
    more_state: ClassVar[tuple[str, ...]] = ()
    """Names of further attributes that change from epoch to epoch: numbers and tensors."""
    counted: ClassVar[str] = "epochs"

    def __init__(
        self,
        module: Any,
        training: Training,
        generator: torch.Generator,
        device: torch.device,
        n_frames: tuple[int, int],
        identity: Any,
    ) -> None:
        """Begin with a network in its initial state.

        Args:
            module: the network, moved to the device.
            training: epochs, batch size, learning rate, patience.
            generator: source of the order of frames, which has drawn the network's weights.
            device: where to train.
            n_frames: number of frames for training, and held out.
            identity: everything (plain JSON) that determines the course of the training.
        """
        self.module, self.training, self.generator, self.device = module.to(device), training, generator, device
        self.n_training, self.n_held_out = n_frames
        self.facts: dict[str, Any] = {}  # further entries of each record
        self.optimizer = MatrixMomentum(module.parameters(), training.learning_rate, weight_decay=training.weight_decay)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        self.seconds = 0.0
        self.progress: Progress | None = None
        self.identity = identity_of(identity)

    @abstractmethod
    def train_epoch(self, number: int) -> tuple[float, float]:
        """Train once over all frames; training and held-out loss.

        Raises:
            TrainingError: training diverged.
        """

    @abstractmethod
    def held_out_loss(self) -> float:
        """Of the present weights."""

    def take_best(self) -> None:
        """Go back to the weights of the best epoch."""
        self.module.load_state_dict(self.best_weights)

    def complete(
        self,
        checkpoint: Path | None,
        on_epoch: Callable[[dict[str, float]], None] | None,
        progress: Progress | None,
    ) -> TrainingResult:
        """Train to the end, from the checkpoint on if it exists; the network of the best epoch.

        Raises:
            TrainingError: the checkpoint belongs to another training, or training diverged.
        """
        self.progress = progress
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
        while not self._finished:
            record = self._epoch()
            if checkpoint is not None:
                self._store(checkpoint)
            if on_epoch is not None:
                on_epoch(record)
            if progress is not None:
                progress(len(self.history), self.training.epochs, self.counted)
        return self._result()

    def batches(self, number: int) -> Iterator[Tensor]:
        """Rows of each batch of an epoch in random order, with the learning rate set for it."""
        per_epoch = math.ceil(self.n_training / self.training.batch_size)
        order = torch.randperm(self.n_training, generator=self.generator).to(self.device)
        for index, rows in enumerate(order.split(self.training.batch_size)):
            step, steps = (number - 1) * per_epoch + index, per_epoch * self.training.epochs
            self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * schedule(step, steps)
            yield rows

    @property
    def _finished(self) -> bool:
        done = len(self.history)
        return done >= self.training.epochs or done - self.best_epoch >= self.training.patience

    def _epoch(self) -> dict[str, float]:
        started, number = time.perf_counter(), len(self.history) + 1
        training_loss, held_out_loss = self.train_epoch(number)
        if not self.best_epoch or held_out_loss < self.history[self.best_epoch - 1]["held_out_loss"]:
            self.best_epoch = number
            self.best_weights = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        seconds = time.perf_counter() - started
        self.seconds += seconds
        record = {
            "epoch": number,
            "training_loss": training_loss,
            "held_out_loss": held_out_loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            **self.facts,
        }
        self.history.append(record)
        return record

    def _store(self, path: Path) -> None:
        """Replace the checkpoint by the present state."""
        content = {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": json.dumps(self.history),
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "seconds": self.seconds,
            **{name: getattr(self, name) for name in self.more_state},
        }
        write_checkpoint(path, self.checkpoint_version, self.identity, content)

    def _restore(self, path: Path) -> None:
        content = read_checkpoint(path, self.checkpoint_version, self.identity, self.device)
        self.module.load_state_dict(content["weights"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"].cpu())
        self.history = json.loads(content["history"])
        for name in ("best_epoch", "best_weights", "seconds", *self.more_state):
            setattr(self, name, content[name])

    def _result(self) -> TrainingResult:
        self.take_best()
        held_out_loss = self.held_out_loss()
        self.module.to("cpu").requires_grad_(False).eval()
        speed = self.n_training * len(self.history) / self.seconds
        return TrainingResult(
            self.module, self.history, self.best_epoch, held_out_loss, speed, self.n_training, self.n_held_out
        )


def take_statistics(potential: Potential, data: TrainingSet) -> None:
    """Let a potential take its statistics from training data.

    Raises:
        TrainingError: it does not fit them.
    """
    labels = data.labels()
    positions, box = labels.configurations()
    try:
        potential.fit_statistics(positions, box, labels.forces)
    except ValueError as error:
        raise TrainingError(f"this potential does not fit the data: {error}") from error


class Descent(TrainingRun):
    """A potential that descends along the loss of its labels and is then solved for what is linear."""

    def __init__(
        self,
        potential: Potential,
        config: PotentialConfig,
        training: Training,
        data: Any,
        seed: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Hold out rows, and take statistics from the others.

        Args:
            potential: with its initial weights.
            config: of the potential.
            training: epochs, batch size, learning rate, patience, held-out fraction.
            data: a `TrainingSet`.
            seed: of the split and whatever else is drawn at random.
            generator: which has drawn the weights.
            device: where to train.

        Raises:
            TrainingError: the data cannot train this potential.
        """
        self.data, self.config, self.seed = data, config, seed
        self.held_out_rows = data.held_out(training.held_out_fraction, seed)
        self.kept, self.apart = data.select(~self.held_out_rows), data.select(self.held_out_rows)
        take_statistics(potential, self.kept)
        identity = [config, training.model_dump(mode="json"), data.hash(), seed]
        super().__init__(potential, training, generator, device, (len(self.kept), len(self.apart)), identity)

    def labels(self) -> Labels:
        """What the trained potential is solved from."""
        return self.data.labels(self.held_out_rows)

    def take_best(self) -> None:
        """Then solve for what is linear."""
        super().take_best()
        self.module.solve(self.labels())
