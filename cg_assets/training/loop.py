"""Force matching: fit a potential to force labels.

The loss is the mean squared difference of predicted and labelled force components. Its minimum over all potentials is
the noise floor of the labels, which the caller knows; only loss minus floor says how good a potential is.

Any positive quadratic form of the residual has the same minimiser, so the one that is minimised weights directions of
force space by how much noise they carry, as in generalised least squares: a bead that drags hydrogens has four times
the noise of a carbonyl oxygen, and the torque about a bond, which decides on the populations of conformers, is far less
noisy than the forces of its beads suggest. The sum is of each bead's squared residual and of each bond's squared
residual torque, each divided by its own mean of the epoch before, torques with ten times the weight of beads.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cg_assets.errors import DeviceError, TrainingError
from cg_assets.potentials.networks import RadialBasis, build_network, energy_and_forces
from cg_assets.progress import Progress
from cg_assets.training.checkpoints import identity_of, read_checkpoint, write_checkpoint
from cg_assets.training.data import TrainingData
from cg_assets.training.optimizer import MatrixMomentum, schedule
from cg_assets.training.torques import BondTorques

if TYPE_CHECKING:
    from cg_assets.systems.spec import Training

CLIP_FACTOR = 5.0
"""Gradients longer than this times their running mean length are shortened to it."""
TORQUE_WEIGHT = 10.0
"""Weight of a bond's torque against a bead's force, both in units of their own noise.

The free energy along phi of capped alanine (104,000 frames, 15 epochs) was left wrong by 0.80, 0.37 and 0.17 kJ/mol,
each with an error of 0.23, at weights of 1, 5 and 30; at 30 the held-out loss rose by 3 %.
"""
CHECKPOINT_VERSION = 2


@dataclass(frozen=True)
class TrainingResult:
    """A trained potential.

    Attributes:
        module: network with the weights of the best epoch, on the CPU.
        history: one record per epoch: epoch, training_loss, held_out_loss (of the epoch's last weights),
            learning_rate, seconds, noise_floor; losses in [force unit]^2 per component.
        best_epoch: the epoch (from 1) whose weights were kept: the lowest held-out loss.
        held_out_loss: of the module [force unit]^2.
        frames_per_second: training frames a second, mean over the epochs of all runs.
        n_training: number of frames trained on.
        n_held_out: number of frames held out.
    """

    module: torch.nn.Module
    history: list[dict[str, Any]]
    best_epoch: int
    held_out_loss: float
    frames_per_second: float
    n_training: int
    n_held_out: int


@dataclass
class _Batches:
    """Data as tensors on the device."""

    positions: Tensor
    forces: Tensor
    box: Tensor | None

    @staticmethod
    def of(data: TrainingData, device: torch.device) -> _Batches:
        box = None if data.box is None else torch.as_tensor(data.box).to(device)
        return _Batches(torch.as_tensor(data.positions).to(device), torch.as_tensor(data.forces).to(device), box)

    def part(self, index: Tensor | slice) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.positions[index], self.forces[index], None if self.box is None else self.box[index]


def train(
    config: dict[str, Any],
    training: Training,
    data: TrainingData,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    noise_floor: float | None = None,
) -> TrainingResult:
    """Fit the potential that `config` describes.

    The learning rate rises over the first 100 steps and falls by a cosine to zero at the last epoch; training stops
    early after `training.patience` epochs without a better held-out loss. The readout of a `RadialBasis` is then solved
    exactly. On a CPU the same seed
    gives the same weights, and a training that was interrupted and goes on from its checkpoint gives the weights of an
    uninterrupted one, bit for bit (for the same number of threads).

    Args:
        config: network config (`cg_assets.potentials.networks.build_network`); `bonds`, pairs of beads, where the
            beads form molecules.
        training: epochs, batch size, learning rate, patience, held-out fraction.
        data: frames and labels.
        seed: of the split, the initial weights and the order of frames.
        device: `cpu` or `cuda`.
        progress: told the finished epochs.
        checkpoint: file that is rewritten after each epoch, and from which training goes on if it exists.
        on_epoch: called with each epoch's record, for tracking; records of epochs finished before an interruption
            are not repeated.
        noise_floor: least possible loss of these labels [force unit]^2, stored in each record as it is.

    Raises:
        TrainingError: the data cannot train this network, the checkpoint belongs to another training, or training
            diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    run = _Run(config, training, data, seed, torch_device(device), noise_floor)
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint)
    while not run.finished:
        record = run.epoch()
        if checkpoint is not None:
            run.store(checkpoint)
        if on_epoch is not None:
            on_epoch(record)
        if progress is not None:
            progress(record["epoch"], training.epochs, "epochs")
    return run.result()


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


class _Run:
    """One training with everything that its checkpoint must hold."""

    def __init__(
        self,
        config: dict[str, Any],
        training: Training,
        data: TrainingData,
        seed: int,
        device: torch.device,
        noise_floor: float | None,
    ) -> None:
        kept, held_out = data.split(training.held_out_fraction, seed)
        self.training, self.device, self.noise_floor = training, device, noise_floor
        self.generator = torch.Generator().manual_seed(seed)
        try:
            self.module = build_network(config, self.generator)
            box = None if kept.box is None else torch.as_tensor(kept.box)
            self.module.fit_statistics(torch.as_tensor(kept.positions), box)
        except ValueError as error:
            raise TrainingError(f"this network does not fit the data: {error}") from error
        self.module.to(device)
        self.kept, self.held_out = _Batches.of(kept, device), _Batches.of(held_out, device)
        self.force_scale = float(self.kept.forces.double().square().mean().sqrt())
        if self.force_scale == 0.0:
            raise TrainingError("all force labels are zero; check the force map and the labels' column")
        self.torques = BondTorques(self.kept.forces.shape[1], config.get("bonds", []), device)
        self.weights = torch.ones(self.kept.forces.shape[1] + len(self.torques.bonds), device=device)
        self.weights[self.kept.forces.shape[1] :] = TORQUE_WEIGHT
        self.squares = self._floored(self._squares(self.kept.positions, self.kept.forces).mean(dim=0))
        self.optimizer = MatrixMomentum(self.module.parameters(), training.learning_rate)
        self.gradient_norm = 0.0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}
        self.seconds = 0.0
        identity = [config, training.model_dump(mode="json"), data.hash(), seed]
        self.identity = identity_of(identity)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience has run out."""
        done = len(self.history)
        return done >= self.training.epochs or done - self.best_epoch >= self.training.patience

    def epoch(self) -> dict[str, Any]:
        """Train once over all frames, then measure the held-out loss."""
        started = time.perf_counter()
        number = len(self.history) + 1
        count = len(self.kept.positions)
        order = torch.randperm(count, generator=self.generator).to(self.device)
        per_epoch = math.ceil(count / self.training.batch_size)
        total = torch.zeros_like(self.squares, dtype=torch.float64)
        for index, rows in enumerate(order.split(self.training.batch_size)):
            step, steps = (number - 1) * per_epoch + index, per_epoch * self.training.epochs
            self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * schedule(step, steps)
            positions, labels, box = self.kept.part(rows)
            _, forces = energy_and_forces(self.module, positions, box=box)
            squares = self._squares(positions, forces - labels)
            loss = (self.weights * squares / self.squares).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self._clip_outliers()
            self.optimizer.step()
            total += squares.detach().sum(dim=0)
        training_loss = float(total[: forces.shape[1]].mean()) / count
        held_out_loss = self._held_out_loss()
        self._refuse_divergence(number, training_loss, held_out_loss)
        self.squares = self._floored(total / count)
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
            "noise_floor": self.noise_floor,
        }
        self.history.append(record)
        return record

    def _squares(self, positions: Tensor, difference: Tensor) -> Tensor:
        """Squares `(f, n_beads + n_bonds)` of each bead's force, by component, and of each bond's torque."""
        forces = difference.square().mean(dim=2)
        if not len(self.torques.bonds):
            return forces
        return torch.cat([forces, self.torques(positions, difference).square()], dim=1)

    def _floored(self, squares: Tensor) -> Tensor:
        return squares.float().clamp_min(1e-6 * self.force_scale**2)

    def _clip_outliers(self) -> None:
        """Shorten gradients far longer than usual; clipping all of them would change the learning rate."""
        usual = self.gradient_norm * CLIP_FACTOR
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), usual or math.inf))
        shortened = min(norm, usual) if usual else norm
        self.gradient_norm += (shortened - self.gradient_norm) * (0.02 if usual else 1.0)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        total = 0.0
        for rows in torch.arange(len(self.held_out.positions)).split(1024):
            positions, labels, box = self.held_out.part(rows)
            _, forces = energy_and_forces(self.module, positions, box=box)
            total += float((forces - labels).double().square().mean()) * len(rows)
        return total / len(self.held_out.positions)

    def _refuse_divergence(self, epoch: int, training_loss: float, held_out_loss: float) -> None:
        worst = 100.0 * self.force_scale**2
        if not (math.isfinite(training_loss) and math.isfinite(held_out_loss) and training_loss < worst):
            raise TrainingError(
                f"training diverged in epoch {epoch}: training loss {training_loss:.4g}, held-out loss "
                f"{held_out_loss:.4g} where the labels' mean square is {self.force_scale**2:.4g}; lower "
                f"training.learning_rate (now {self.training.learning_rate}) or raise training.batch_size "
                f"(now {self.training.batch_size})"
            )

    # ----------------------------------------------------------------------------------- checkpoints

    def store(self, path: Path) -> None:
        """Replace the checkpoint by the present state."""
        content = {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "squares": self.squares,
            "gradient_norm": self.gradient_norm,
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
        self.squares = content["squares"]
        self.gradient_norm = content["gradient_norm"]
        self.generator.set_state(content["generator"].cpu())
        self.history = json.loads(content["history"])
        self.best_epoch = content["best_epoch"]
        self.best_weights = content["best_weights"]
        self.seconds = content["seconds"]

    def result(self) -> TrainingResult:
        """The potential of the best epoch, its readout solved where that is linear in one sweep."""
        self.module.load_state_dict(self.best_weights)
        if isinstance(self.module, RadialBasis):
            self.module.solve_readout(self.kept.positions, self.kept.forces)
        held_out_loss = self._held_out_loss()
        self.module.to("cpu").requires_grad_(False).eval()
        count = len(self.kept.positions)
        speed = count * len(self.history) / self.seconds
        held_out = len(self.held_out.positions)
        return TrainingResult(self.module, self.history, self.best_epoch, held_out_loss, speed, count, held_out)
