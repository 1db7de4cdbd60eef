"""Torques about bonds: the directions of force space in which a molecule is soft."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.mapping.chains import splitting_bonds

_LEAST_NOISE = 1e-9
"""Mean square of a torque [(k_B T)^2]: forces may all be zero."""


class BondTorques:
    """Torque of forces about each bond that splits the molecule, on the smaller of its two sides.

    Attributes:
        bonds: `(b, 2)` beads of the bonds about which something can turn.
        sides: `(b, n_beads)` 1 for beads that turn, 0 for others.
    """

    def __init__(self, n_beads: int, bonds: Sequence[tuple[int, int]], device: torch.device | None = None) -> None:
        """Find the bonds that are in no ring and have further beads on both sides."""
        splitting = splitting_bonds(bonds)
        kept = [bond for bond, _ in splitting]
        sides = [[float(bead in side) for bead in range(n_beads)] for _, side in splitting]
        self.bonds = torch.tensor(kept, dtype=torch.long, device=device).reshape(-1, 2)
        self.sides = torch.tensor(sides, dtype=torch.float32, device=device).reshape(-1, n_beads)

    def of_torsions(self, torsions: Tensor) -> tuple[Tensor, Tensor]:
        """For each torsion `(k, 4)` its bond, and 1 where the torque on that bond's side turns it up, -1 where down.

        Raises:
            TrainingError: a torsion is not about one of the bonds.
        """
        known = {tuple(sorted(bond)): place for place, bond in enumerate(self.bonds.tolist())}
        places, signs = [], []
        for beads in torsions.tolist():
            place = known.get(tuple(sorted(beads[1:3])))
            if place is None:
                raise TrainingError(
                    f"torsion of beads {beads}: no bond between its inner two splits the molecule; set "
                    "network.torsion_order to 0"
                )
            forth = self.bonds[place].tolist() == beads[1:3]
            turned = bool(self.sides[place, beads[3]])
            places.append(place)
            signs.append(1.0 if forth == turned else -1.0)
        return torch.tensor(places, device=self.bonds.device), torch.tensor(signs, device=self.bonds.device)

    def __call__(self, positions: Tensor, forces: Tensor) -> Tensor:
        """Torques `(f, b)` [energy per radian] of forces on positions, both `(f, n_beads, 3)`."""
        first, axis = self._axes(positions)
        sides = self.sides.to(forces)
        about_origin = sides @ torch.linalg.cross(positions, forces, dim=2)
        total = sides @ forces
        return ((about_origin - torch.linalg.cross(first, total, dim=2)) * axis).sum(dim=2)

    def levers(self, positions: Tensor) -> Tensor:
        """By how much forces on positions `(f, n_beads, 3)` turn bonds: `(f, b, n_beads, 3)`, torques by forces."""
        first, axis = self._axes(positions)
        arms = positions[:, None] - first[:, :, None]
        return torch.linalg.cross(axis[:, :, None].expand_as(arms), arms, dim=3) * self.sides[:, :, None].to(positions)

    def _axes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Where each bond begins and its direction, `(f, b, 3)`."""
        first, second = positions[:, self.bonds[:, 0]], positions[:, self.bonds[:, 1]]
        return first, torch.nn.functional.normalize(second - first, dim=2)


class SlopeEquations:
    """Normal equations of a Fourier series in torsions whose slopes are fitted to torques.

    A rigid turn of one side of a bond changes its torsion alone, so that the mean torque at given torsions is the slope
    of their PMF. Multiples of variates without a mean (`TorsionTorques`), which make torques less noisy, are fitted
    with the series, for each torsion its own. Equations of parts of the data add up, which makes a jackknife cheap.

    Attributes:
        numbers: `(m, k)` whole numbers of each wave along each torsion.
        products, target: matrix and right-hand side of the equations: cosines, sines, then variates of each torsion.
        square, count: sum of squares of all torques [(k_B T)^2] and their number.
    """

    def __init__(self, numbers: Tensor, variates: int = 0) -> None:
        """No data yet."""
        self.numbers, self.variates = numbers.double(), variates
        size = 2 * len(numbers) + variates * numbers.shape[1]
        self.products, self.target = self.numbers.new_zeros(size, size), self.numbers.new_zeros(size)
        self.square, self.count = 0.0, 0

    def add(self, phase: Tensor, torque: Tensor, variates: Tensor | None = None) -> None:
        """Add frames.

        Args:
            phase: `(m, f)` phases of the waves.
            torque: `(f, k)` torques that turn the torsions up [k_B T / rad].
            variates: `(f, v)` of zero mean at any torsions; None for none.
        """
        sine, cosine = phase.double().sin(), phase.double().cos()
        waves = 2 * len(self.numbers)
        for place, (number, one) in enumerate(zip(self.numbers.T, torque.double().T, strict=True)):
            columns = [-number[:, None] * sine, number[:, None] * cosine]
            rows = torch.arange(waves, device=phase.device)
            if variates is not None:
                columns.append(variates.double().T)
                start = waves + place * self.variates
                rows = torch.cat([rows, torch.arange(start, start + self.variates, device=phase.device)])
            slopes = torch.cat(columns)
            self.products[rows[:, None], rows] += slopes @ slopes.T
            self.target[rows] -= slopes @ one
        self.square += float(torque.double().square().sum())
        self.count += torque.numel()

    def combined(self, others: Iterable[SlopeEquations], sign: int = 1) -> SlopeEquations:
        """These equations with the data of others, or (sign -1) without them."""
        total = SlopeEquations(self.numbers, self.variates)
        total.products, total.target = self.products.clone(), self.target.clone()
        total.square, total.count = self.square, self.count
        for other in others:
            total.products += sign * other.products
            total.target += sign * other.target
            total.square += sign * other.square
            total.count += sign * other.count
        return total

    def solve(self, spread: float = 1.0, mean: Tensor | None = None) -> Tensor:
        """Coefficients `(2, m)` of cosines and sines [k_B T].

        A priori, wave m has coefficients of a standard deviation of `spread` kT / |m| about their mean,
        which keeps the series near to it where there are none. Fewer than ten frames for each variate do without them.

        Args:
            spread: see above [k_B T].
            mean: `(2, m)` means; None for zero.
        """
        waves, size = 2 * len(self.numbers), len(self.target)
        if self.count < 10 * (size - waves):
            size = waves
        own, pull = self.products[waves:size, waves:size].clone(), self.target[waves:size]
        own += 1e-9 * own.trace() * torch.eye(len(own)).to(own)  # some variates are sums of others
        left = self.square - float(pull @ torch.linalg.solve(own, pull))
        noise = max(left / (self.count - len(own)), _LEAST_NOISE)
        matrix, target = self.products[:size, :size] / noise, self.target[:size] / noise
        matrix[waves:, waves:] = own / noise
        # 1 / variance of a coefficient [1 / kT^2]
        certain = self.numbers.square().sum(dim=1).repeat(2) / spread**2
        matrix.diagonal()[:waves] += certain
        if mean is not None:
            target[:waves] += certain * mean.double().flatten()
        return torch.linalg.solve(matrix, target)[:waves].reshape(2, -1)
