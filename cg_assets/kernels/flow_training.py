"""Flow matching: the velocity field of a flow kernel, learned from configurations alone (arXiv 2506.19628).

The loss is the mean square of v(t, y) + noise ξ at y = R + (1 - t) noise ξ, in units of the noise: its minimum over all
fields is the mean of the noise at given y, and the part of the noise that cannot be told from y stays in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.errors import TrainingError
from cg_assets.kernels.flow_network import RESIDUAL_NOISE, build_flow
from cg_assets.progress import Progress
from cg_assets.training.checkpoints import identity_of, read_checkpoint, write_checkpoint
from cg_assets.training.data import held_out_mask
from cg_assets.training.loop import TrainingResult, torch_device
from cg_assets.training.optimizer import MatrixMomentum, schedule

if TYPE_CHECKING:
    from cg_assets.systems.spec import Training

CHECKPOINT_VERSION = 1
_HELD_OUT_BATCH = 2048
_HELD_OUT_SAMPLES = 20_000
"""Noised configurations, at least, that the held-out loss is the mean of; always the same."""


def train_flow(
    config: dict[str, Any],
    training: Training,
    positions: NDArray,
    group: NDArray[np.int64],
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Fit the velocity field that `config` describes; noise is drawn afresh for each frame in each epoch.

    Learning rate, early stopping, seeds and checkpoints are those of `cg_assets.training.loop.train`.

    Args:
        config: of `cg_assets.kernels.flow_network.build_flow`.
        training: epochs, batch size, learning rate, patience, held-out fraction.
        positions: `(n_frames, n_beads, dimension)` configurations of the density to be learned [nm or reduced].
        group: `(n_frames,)` frames of one group are never split between training and held-out.
        seed: of the split, the initial weights, the order of frames and the noise.
        device: `cpu` or `cuda`.
        progress: told the finished epochs.
        checkpoint: file that is rewritten after each epoch, and from which training goes on if it exists.
        on_epoch: called with each epoch's record.

    Returns:
        The field; losses are without unit, 1 for a field of zero.

    Raises:
        TrainingError: the frames cannot train, the checkpoint belongs to another training, or training diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    run = _Run(config, training, positions, group, seed, torch_device(device))
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint)
    while not run.finished:
        record = run.epoch()
        if checkpoint is not None:
            run.store(checkpoint)
        if on_epoch is not None:
            on_epoch(record)
        if progress is not None:
            progress(record["epoch"], training.epochs, "epochs of the flow")
    return run.result()


class _Run:
    """One training with everything that its checkpoint must hold."""

    def __init__(
        self,
        config: dict[str, Any],
        training: Training,
        positions: NDArray,
        group: NDArray[np.int64],
        seed: int,
        device: torch.device,
    ) -> None:
        if not np.isfinite(positions).all():
            raise TrainingError("positions are not finite; find the broken batch with its schema check")
        held_out = held_out_mask(group, training.held_out_fraction, seed)
        frames = np.asarray(positions, dtype=np.float64)
        if frames.shape[2] == 3:
            frames = frames - frames.mean(axis=1, keepdims=True)
        frames = frames.astype(np.float32)
        self.training, self.device = training, device
        self.generator = torch.Generator().manual_seed(seed)
        try:
            self.module = build_flow(config, self.generator)
            self.kept, self.held_out = torch.as_tensor(frames[~held_out]), torch.as_tensor(frames[held_out])
            self.module.fit_statistics(self.kept)
        except ValueError as error:
            raise TrainingError(f"this flow does not fit the data: {error}") from error
        self.module.to(device)
        self.kept = self.kept.to(device)
        self.optimizer = MatrixMomentum(self.module.parameters(), training.learning_rate)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        self.seconds = 0.0
        content = hashlib.sha256(frames.tobytes() + np.ascontiguousarray(group).tobytes()).hexdigest()
        self.identity = identity_of([config, training.model_dump(mode="json"), content, seed])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience has run out."""
        done = len(self.history)
        return done >= self.training.epochs or done - self.best_epoch >= self.training.patience

    def epoch(self) -> dict[str, Any]:
        """Train once over all frames, then measure the held-out loss."""
        started = time.perf_counter()
        number, count = len(self.history) + 1, len(self.kept)
        per_epoch = math.ceil(count / self.training.batch_size)
        order = torch.randperm(count, generator=self.generator).to(self.device)
        total = 0.0
        for index, rows in enumerate(order.split(self.training.batch_size)):
            step, steps = (number - 1) * per_epoch + index, per_epoch * self.training.epochs
            self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * schedule(step, steps)
            loss = self._loss(self.kept[rows], self.generator)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows)
        training_loss, held_out_loss = total / count, self._held_out_loss()
        if not (math.isfinite(training_loss) and training_loss < 10.0):
            raise TrainingError(
                f"training of the flow diverged in epoch {number} (loss {training_loss:.4g}, where a field of zero has "
                f"1); lower its training.learning_rate (now {self.training.learning_rate})"
            )
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
        }
        self.history.append(record)
        return record

    def _loss(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        noise = self.module.noise
        time = torch.rand(len(clean), generator=generator)
        pushed, left = (torch.randn(clean.shape, generator=generator).to(clean) for _ in range(2))
        place = clean + (noise * (1.0 - time)).to(clean)[:, None, None] * pushed + RESIDUAL_NOISE * noise * left
        return (self.module(time.to(clean), place) / noise + pushed).square().mean()

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        generator = torch.Generator().manual_seed(0)
        total, repeats = 0.0, math.ceil(_HELD_OUT_SAMPLES / len(self.held_out))
        for _ in range(repeats):
            for part in self.held_out.split(_HELD_OUT_BATCH):
                total += float(self._loss(part.to(self.device), generator)) * len(part)
        return total / len(self.held_out) / repeats

    def store(self, path: Path) -> None:
        """Replace the checkpoint by the present state."""
        content = {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": json.dumps(self.history),
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "seconds": self.seconds,
        }
        write_checkpoint(path, CHECKPOINT_VERSION, self.identity, content)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: the file cannot be read, or belongs to another training.
        """
        content = read_checkpoint(path, CHECKPOINT_VERSION, self.identity, self.device)
        self.module.load_state_dict(content["weights"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"].cpu())
        self.history = json.loads(content["history"])
        self.best_epoch = content["best_epoch"]
        self.best_weights = content["best_weights"]
        self.seconds = content["seconds"]

    def result(self) -> TrainingResult:
        """The field of the best epoch."""
        self.module.load_state_dict(self.best_weights)
        held_out_loss = self._held_out_loss()
        self.module.to("cpu").requires_grad_(False).eval()
        count = len(self.kept)
        speed = count * len(self.history) / self.seconds
        held_out = len(self.held_out)
        return TrainingResult(self.module, self.history, self.best_epoch, held_out_loss, speed, count, held_out)
