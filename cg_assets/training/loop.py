"""Force matching: fit a potential to force labels.

The loss is the mean squared difference of predicted and labelled force components. Its minimum over all potentials is
the noise floor of the labels; only loss minus floor measures a potential.

Any positive quadratic form of the residual has the same minimiser, so the one that is minimised weights directions of
force space by their noise, as in generalised least squares: a bead with hydrogens has four times
the noise of a carbonyl oxygen, and the torque about a bond, which decides on the populations of conformers, is far less
noisy than the forces of its beads suggest. The sum is of each bead's squared residual and of each bond's squared
residual torque, each divided by its own mean of the epoch before, torques with ten times the weight of beads. Frames at
several temperatures have weights 1/T, the inverse of the noise of forces: <|f - F|²> = kT <∇ · (F - f)> at given beads;
labels of several sources those of the noise of each.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.potentials.base import Labels, Potential, PotentialConfig
from cg_assets.potentials.torsions.torques import BondTorques
from cg_assets.training.own_ensemble import own_ensemble
from cg_assets.training.training_run import Descent

if TYPE_CHECKING:
    from cg_assets.core.settings import Training
    from cg_assets.training.data import TrainingData

CLIP_FACTOR = 5.0
"""Gradients longer than this times their running mean length are shortened to it."""
TORQUE_WEIGHT = 10.0
"""Weight of a bond's torque against a bead's force, both in units of their own noise.

The free energy along phi of capped alanine (104,000 frames, 15 epochs) was left wrong by 0.80, 0.37 and 0.17 kJ/mol,
each with an error of 0.23, at weights of 1, 5 and 30; at 30 the held-out loss rose by 3 %.
"""
ENERGY_WEIGHT = 1.0
"""Weight of an energy against a bead's force, both in units of their own noise."""
CHECKPOINT_VERSION = 4


class _Rows(NamedTuple):
    """Frames as tensors on the device; energies and labels of dF/dT only where they are learnt, 0 where not known."""

    positions: Tensor
    forces: Tensor
    temperature: Tensor | None
    box: Tensor | None
    """`(3,)` where it is that of all frames, else `(f, 3)`."""
    energy: Tensor | None
    first_order: Tensor | None
    shares: Tensor | None = None
    """What each square counts `(f, n_columns)`, the inverse of its noise; 0 where there is no label, None for 1."""

    @classmethod
    def of(cls, data: TrainingData, energies: bool, device: torch.device) -> _Rows:
        """All frames of data, with their energies or without."""
        energy, first_order = data.energy if energies else None, data.first_order
        if energy is not None:
            energy = np.nan_to_num(energy - np.nanmean(energy))
        if first_order is not None:
            first_order = np.nan_to_num(first_order)
        box = data.box
        if box is not None and len(box) and (box == box[0]).all():
            box = box[0]
        arrays = data.positions, data.forces, data.temperature, box, energy, first_order
        tensors: Any = (None if array is None else torch.as_tensor(array).to(device) for array in arrays)
        return cls(*tensors)

    def part(self, index: Tensor) -> _Rows:
        """Some of them."""
        box = self.box if self.box is None or self.box.ndim == 1 else self.box[index]
        picked: Any = (None if values is None else values[index] for values in self._replace(box=None))
        return _Rows(*picked)._replace(box=box)


class ForceMatching(Descent):
    """See the module."""

    checkpoint_version = CHECKPOINT_VERSION
    more_state = ("squares", "gradient_norm")

    def __init__(
        self,
        potential: Potential,
        config: PotentialConfig,
        training: Training,
        data: TrainingData,
        seed: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Begin; arguments are those of `Descent`.

        Args:
            potential: with its initial weights.
            config: of the potential; `bonds`, pairs of beads, where these form a molecule, and `bead_masses` [amu].
            training: how to train.
            data: frames and labels.
            seed: of the split.
            generator: which has drawn the weights.
            device: where to train.

        Raises:
            TrainingError: the data cannot train this potential.
        """
        super().__init__(potential, config, training, data, seed, generator, device)
        self.facts = {"noise_floor": data.noise_floor}
        self.solves_energies = (
            data.learns == "energies"
            and data.temperature is not None
            and data.noise is None  # labels of one source, and none of the response
            and data.first_order is None
            and potential.solves_energies(torch.as_tensor(data.temperature))
        )
        energies = data.learns_energies and not self.solves_energies
        self.rows, self.held_out = (_Rows.of(part, energies, device) for part in (self.kept, self.apart))
        self.force_scale = float(self.rows.forces.double().square().mean().sqrt())
        if self.force_scale == 0.0:
            raise TrainingError("all force labels are zero; check the force map and the labels' column")
        n_beads = self.rows.forces.shape[1]
        self.torques = BondTorques(n_beads, [(a, b) for a, b in config.get("bonds", ())], device)
        self.middle = 1.0 if data.temperature is None else 1.0 / float((1.0 / self.kept.temperature).mean())
        self._weigh(n_beads, training.torque_weight or TORQUE_WEIGHT)
        nothing = torch.zeros_like(self.rows.forces)
        squares = self._squares(self.rows, nothing, nothing[:, 0, 0], nothing)
        self.squares = self._floored(squares.mean(dim=0) * self.missing)
        self.gradient_norm = 0.0

    def _weigh(self, n_beads: int, torque_weight: float) -> None:
        """Set what each column of squares counts, and each square of a row."""
        kinds = {  # columns of squares: their number, weight, power of T by which noise grows, and unit against forces
            "forces": (n_beads, 1.0, 1, 1.0),
            "torques": (len(self.torques.bonds), torque_weight, 1, 1.0),
            "energy": (int(self.rows.energy is not None), ENERGY_WEIGHT, 2, 1.0),
            "first_order": (0 if self.rows.first_order is None else n_beads, 1.0, -1, self.middle**-2),
        }
        counts, *columns = (torch.tensor(row, device=self.device) for row in zip(*kinds.values(), strict=True))
        self.weights, self.powers, self.units = (column.repeat_interleave(counts) for column in columns)
        ends = np.cumsum([kind[0] for kind in kinds.values()]).tolist()
        self.columns = {name: slice(end - kinds[name][0], end) for name, end in zip(kinds, ends, strict=True)}
        self.rows, self.held_out = (
            rows._replace(shares=self._shares(part, rows))
            for rows, part in ((self.rows, self.kept), (self.held_out, self.apart))
        )
        shares = self.rows.shares
        self.missing = 1.0 if shares is None else self.n_training / (shares > 0).sum(dim=0).clamp(min=1)

    def _shares(self, data: TrainingData, rows: _Rows) -> Tensor | None:
        """What each square of a row counts; see `_Rows`. Noise of forces grows with T where none is given."""
        if rows.temperature is None and data.noise is None:
            return None
        warm = torch.ones(len(data), device=self.device)
        if rows.temperature is not None:
            warm = (self.middle / rows.temperature).to(warm)
        shares = warm[:, None] ** self.powers
        noise = {"forces": data.noise, "torques": data.noise, "first_order": data.response_noise}
        for name, variance in noise.items():
            if variance is not None:
                share = torch.as_tensor(np.nan_to_num(1.0 / variance), device=self.device)
                shares[:, self.columns[name]] = (share / share[share > 0].mean()).to(shares)[:, None]
        for name, labels in {"energy": data.energy, "first_order": data.first_order}.items():
            if labels is not None:
                unknown = np.isnan(labels.reshape(len(labels), -1)).any(axis=1)
                shares[torch.as_tensor(unknown, device=self.device), self.columns[name]] = 0.0
        return shares

    def labels(self) -> Labels:
        """All frames on the device, and what the potential's own ensemble is made from."""
        labels, where = super().labels(), self.device
        positions, forces = labels.positions.to(where), labels.forces.to(where)
        held_out = None if labels.held_out is None else labels.held_out.to(where)
        return replace(
            labels,
            positions=positions,
            forces=forces,
            held_out=held_out,
            bonds=[(a, b) for a, b in self.config.get("bonds", ())],
            seed=self.seed,
            solve_energies=self.solves_energies,
            own_frames=self._own_frames,
            progress=self.progress,
        )

    def _own_frames(self, torsions: Tensor) -> Tensor:
        masses, thermal_energy = self.config["bead_masses"], self.config["thermal_energy"]
        place, told = self.rows.positions, self.progress
        return own_ensemble(self.module, torsions, place, masses, thermal_energy, self.seed, told)

    def train_epoch(self, number: int) -> tuple[float, float]:
        """Train once over all rows; training and held-out loss.

        Raises:
            TrainingError: training diverged.
        """
        total = torch.zeros_like(self.squares, dtype=torch.float64)
        for rows in self.batches(number):
            part = self.rows.part(rows)
            squares = self._squares(part, *self._predicted(part))
            ratios = self.weights * squares / self.squares
            if part.shares is not None:
                ratios = ratios * part.shares
            loss = ratios.mean()
            self.optimizer.zero_grad()
            loss.backward()
            self._clip_outliers()
            self.optimizer.step()
            total += squares.detach().sum(dim=0)
        training_loss = float(total[: part.forces.shape[1]].mean()) / self.n_training
        held_out_loss = self.held_out_loss()
        self._refuse_divergence(number, training_loss, held_out_loss)
        self.squares = self._floored(total / self.n_training * self.missing)
        return training_loss, held_out_loss

    def _predicted(self, part: _Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Forces, mean energies and dF/dT, the latter two only where they are learnt."""
        about = part.positions, part.temperature, part.box
        known = self._known(part, "first_order")
        if part.first_order is not None and bool(known.all()):
            response = self.module.response(*about)
            return response.forces, response.mean_energy, response.first_order
        if part.energy is None:
            forces = energy = self.module.energy_and_forces(*about)[1]
        else:
            forces, energy = self.module.forces_and_mean_energy(*about)
        if part.first_order is None or not bool(known.any()):
            return forces, energy, torch.zeros_like(forces)
        some = part.part(known.nonzero()[:, 0])
        found = self.module.response(some.positions, some.temperature, some.box).first_order
        return forces, energy, torch.zeros_like(forces).index_add(0, known.nonzero()[:, 0], found)

    def _known(self, part: _Rows, name: str) -> Tensor:
        """Which rows `(f,)` have a label of energy or dF/dT."""
        if part.shares is None or not part.shares[:, self.columns[name]].shape[1]:
            return torch.ones(len(part.positions), dtype=torch.bool, device=self.device)
        return part.shares[:, self.columns[name].start] > 0

    def _squares(self, part: _Rows, forces: Tensor, energy: Tensor, first_order: Tensor) -> Tensor:
        """Squares `(f, n_columns)` of what is left over.

        They are of each bead's force, by component, of each bond's torque, of the energy, up to what energies of the
        beads that are constants make up for, and of each bead's dF/dT, by component.
        """
        difference = forces - part.forces
        columns = [difference.square().mean(dim=2)]
        if len(self.torques.bonds):
            columns.append(self.torques(part.positions, difference).square())
        if part.energy is not None:
            known = self._known(part, "energy")
            left = (energy.double() - part.energy) * known
            constants = self.module.energy_shares(part.temperature, part.positions) * known[:, None]
            left = left - constants @ (torch.linalg.pinv(constants, rtol=1e-8) @ left)
            columns.append(left.square().to(difference)[:, None])
        if part.first_order is not None:
            columns.append((first_order - part.first_order).square().mean(dim=2))
        return torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]

    def _floored(self, squares: Tensor) -> Tensor:
        return squares.float().maximum(1e-6 * self.force_scale**2 * self.units)

    def _clip_outliers(self) -> None:
        """Shorten gradients far longer than usual; clipping all of them would change the learning rate."""
        usual = self.gradient_norm * CLIP_FACTOR
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), usual or math.inf))
        shortened = min(norm, usual) if usual else norm
        self.gradient_norm += (shortened - self.gradient_norm) * (0.02 if usual else 1.0)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Of the present weights."""
        total = 0.0
        for rows in torch.arange(len(self.held_out.positions)).split(1024):
            part = self.held_out.part(rows)
            forces = self.module.energy_and_forces(part.positions, part.temperature, part.box)[1]
            squares = (forces - part.forces).double().square()
            if self.data.noise is not None and part.shares is not None:  # their mean is one
                squares = squares * part.shares[:, 0, None, None]
            total += float(squares.mean()) * len(rows)
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
