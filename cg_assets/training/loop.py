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

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.potentials.networks import RadialBasis, SplineSurface, build_network, energy_and_forces
from cg_assets.training.data import TrainingData
from cg_assets.training.own_ensemble import own_ensemble
from cg_assets.training.torques import BondTorques
from cg_assets.training.torsion_torques import TorsionTorques, solve_torsions
from cg_assets.training.training_run import TrainingResult, TrainingRun, torch_device

if TYPE_CHECKING:
    from cg_assets.core.settings import Training

CLIP_FACTOR = 5.0
"""Gradients longer than this times their running mean length are shortened to it."""
TORQUE_WEIGHT = 10.0
"""Weight of a bond's torque against a bead's force, both in units of their own noise.

The free energy along phi of capped alanine (104,000 frames, 15 epochs) was left wrong by 0.80, 0.37 and 0.17 kJ/mol,
each with an error of 0.23, at weights of 1, 5 and 30; at 30 the held-out loss rose by 3 %.
"""
CHECKPOINT_VERSION = 2


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
    early after `training.patience` epochs without a better held-out loss. The readout of a `RadialBasis`, all of a
    `SplineSurface`, or the series in torsions of a `MessagePassing` network (for which it is simulated for a few ps) is
    then solved exactly. On a CPU the same seed gives the same weights, and a training that was interrupted and goes on
    from its checkpoint gives the weights of an uninterrupted one, bit for bit (for the same number of threads).

    Args:
        config: network config (`cg_assets.potentials.networks.build_network`); `bonds`, pairs of beads, where the
            beads form a molecule, and `bead_masses` [amu] where it has torsions.
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
    run = _ForceMatching(config, training, data, seed, torch_device(device), noise_floor)
    return run.complete(checkpoint, on_epoch, progress)


class _ForceMatching(TrainingRun):
    checkpoint_version = CHECKPOINT_VERSION
    more_state = ("squares", "gradient_norm")

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
        generator = torch.Generator().manual_seed(seed)
        try:
            module = build_network(config, generator)
            box = None if kept.box is None else torch.as_tensor(kept.box)
            module.fit_statistics(torch.as_tensor(kept.positions), box)
        except ValueError as error:
            raise TrainingError(f"this network does not fit the data: {error}") from error
        identity = [config, training.model_dump(mode="json"), data.hash(), seed]
        counts = (len(kept), len(held_out))
        super().__init__(module, training, generator, device, counts, identity, {"noise_floor": noise_floor})
        self.kept, self.held_out = _Batches.of(kept, device), _Batches.of(held_out, device)
        self.force_scale = float(self.kept.forces.double().square().mean().sqrt())
        if self.force_scale == 0.0:
            raise TrainingError("all force labels are zero; check the force map and the labels' column")
        self.torques = BondTorques(self.kept.forces.shape[1], config.get("bonds", []), device)
        self.seed = seed
        if config.get("torsions"):
            self.masses = config["bead_masses"]
            bonds = [(first, second) for first, second in config["bonds"]]
            self.turning = TorsionTorques(self.torques, bonds, self.module.torsions, self.module.thermal_energy)
        self.weights = torch.ones(self.kept.forces.shape[1] + len(self.torques.bonds), device=device)
        self.weights[self.kept.forces.shape[1] :] = TORQUE_WEIGHT
        self.squares = self._floored(self._squares(self.kept.positions, self.kept.forces).mean(dim=0))
        self.gradient_norm = 0.0

    def train_epoch(self, number: int) -> tuple[float, float]:
        total = torch.zeros_like(self.squares, dtype=torch.float64)
        for rows in self.batches(number):
            positions, labels, box = self.kept.part(rows)
            _, forces = energy_and_forces(self.module, positions, box=box)
            squares = self._squares(positions, forces - labels)
            loss = (self.weights * squares / self.squares).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self._clip_outliers()
            self.optimizer.step()
            total += squares.detach().sum(dim=0)
        training_loss = float(total[: forces.shape[1]].mean()) / self.n_training
        held_out_loss = self.held_out_loss()
        self._refuse_divergence(number, training_loss, held_out_loss)
        self.squares = self._floored(total / self.n_training)
        return training_loss, held_out_loss

    def _squares(self, positions: Tensor, difference: Tensor) -> Tensor:
        """Squares `(f, n_beads + n_bonds)` of each bead's force, by component, and of each bond's torque."""
        forces = difference.square().mean(dim=2)
        if not len(self.torques.bonds):
            return forces
        return torch.cat([forces, self.torques(positions, difference).square()], dim=1)

    def _own_frames(self) -> Tensor:
        return own_ensemble(self.module, self.kept.positions, self.masses, self.seed, self.progress)

    def _floored(self, squares: Tensor) -> Tensor:
        return squares.float().clamp_min(1e-6 * self.force_scale**2)

    def _clip_outliers(self) -> None:
        """Shorten gradients far longer than usual; clipping all of them would change the learning rate."""
        usual = self.gradient_norm * CLIP_FACTOR
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), usual or math.inf))
        shortened = min(norm, usual) if usual else norm
        self.gradient_norm += (shortened - self.gradient_norm) * (0.02 if usual else 1.0)

    @torch.no_grad()
    def held_out_loss(self) -> float:
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

    def take_best(self) -> None:
        """Then solve for what is linear: the readout, by least squares, or the series in torsions, for their PMF."""
        super().take_best()
        if isinstance(self.module, RadialBasis | SplineSurface):
            self.module.solve_readout(self.kept.positions, self.kept.forces)
        elif len(self.module.modes):
            # Held-out frames have done their work; a series that is not fitted to forces cannot flatter their loss.
            frames = [(part.positions, part.forces) for part in (self.kept, self.held_out)]
            solve_torsions(self.module, frames, self.turning, self._own_frames)
