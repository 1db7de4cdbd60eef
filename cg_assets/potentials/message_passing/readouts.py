"""The readouts of W(R, T) moved along energies of the atoms, at the least cost in the loss of forces.

W and U are linear in the readouts. Descent along forces shapes the features and finds the readouts that fit forces;
energies in its loss turn the features away from forces, and a helix then folds too little (docs/results/helix.md). So
energies come afterwards, for given features: the loss of forces and of torques about bonds rises from its minimum as
its curvature demands, that of energies falls, and their sum has one minimum. Each square has the weight of its inverse
variance, that of what the potential leaves over: of forces it grows with T, of energies with T². In the descent
torques have a weight of their own, so that its readouts are near that minimum, not at it. In U, readouts are pulled to
those of the descent as strongly as frames that were held out ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor

from cg_assets.potentials.torsions.torques import BondTorques

if TYPE_CHECKING:
    from cg_assets.potentials.base import Labels
    from cg_assets.potentials.message_passing.module import ThermalMessagePassing
    from cg_assets.potentials.thermal.dependent import TemperatureDependent

ENERGY_SHARE = 0.2
"""Weight of an energy against its inverse variance: energies at given beads stay correlated five times longer."""
MOST_FRAMES = 40_000
"""Frames drawn from those that descent has seen; of those held out, a quarter of that."""
COMPONENTS_AT_ONCE = 200_000
"""Derivatives of distances of pairs that are evaluated at once: 148 frames of ten beads."""
MOST_COMPONENTS = 300 * COMPONENTS_AT_ONCE
"""And at all, which takes minutes."""
PULLS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Weights of the squared change of a readout at a temperature, in parts of what energies give it."""


def solve_readouts(network: ThermalMessagePassing, whole: TemperatureDependent, labels: Labels) -> dict[str, float]:
    """Set the readouts of a network; constants are left to `TemperatureDependent.solve`, which follows.

    Args:
        network: whose readouts are changed.
        whole: the potential that the labels are of, a sum with the network or the network.
        labels: forces `(f, n, 3)` [kJ/mol/nm] at temperatures `(f,)` [K], and in `values` the energies `mean_energy`
            `(f,)` [kJ/mol], NaN where they are not known.

    Returns:
        The pull that was taken; nothing where no more energies are known than W has terms, and readouts stay.

    Raises:
        ValueError: labels have no temperatures, or there is no solution.
    """
    if int(labels.values["mean_energy"].isfinite().sum()) <= network.n_terms:
        return {}
    count, each = len(labels.positions), 3 * network.n_beads * len(network.first_bead)
    most = min(MOST_FRAMES, max(1, MOST_COMPONENTS // each))
    apart = torch.zeros(count, dtype=torch.bool) if labels.held_out is None else labels.held_out.cpu()
    draw = torch.randperm(count, generator=torch.Generator().manual_seed(labels.seed))
    seen, unseen = draw[~apart[draw]][:most], draw[apart[draw]][: most // 4]
    own = others = _Equations(network, whole, labels, seen)
    own.fill(own.variances, labels.progress)
    if len(unseen):
        others = _Equations(network, whole, labels, unseen)
        others.fill(own.variances, labels.progress)
    found = [(pull, own.solved(pull)) for pull in PULLS]
    pull, change = min(found, key=lambda one: others.loss(one[1]))
    if not change.isfinite().all():
        raise ValueError("the readouts that fit energies are not finite; check the energies of the frames")
    kinds, terms, features = network.readout.shape
    readouts = change[: network.readout.numel()].reshape(terms, kinds, features)
    with torch.no_grad():
        network.readout.add_(readouts.transpose(0, 1).to(network.readout))
    return {"readout_pull": pull}


class _Equations:
    """Normal equations of the changes of readouts, then of constants, for some frames.

    Attributes:
        variances: of components of the forces of each bead and of each torque, at 1 K, and of energies, at 1 K.
    """

    def __init__(
        self, network: ThermalMessagePassing, whole: TemperatureDependent, labels: Labels, rows: Tensor
    ) -> None:
        """Find what the whole potential leaves over of the labels of some rows."""
        if labels.temperature is None:
            raise ValueError("this potential depends on temperature, and its labels have none")
        self.network, place = network, network.readout.device

        def taken(values: Tensor) -> Tensor:
            return values[rows.to(values.device)].to(place)

        self.positions = taken(labels.positions).to(network.readout)
        self.box = None if labels.box is None else taken(labels.box).to(network.readout)
        self.kelvin = taken(labels.temperature).double()
        forces, energy = taken(labels.forces).to(self.positions), taken(labels.values["mean_energy"]).double()
        self.torques = BondTorques(self.positions.shape[1], labels.bonds, place)
        self.shares = network.coefficients_at(self.kelvin, self.positions)[0]
        self.energy_shares = network.energy_shares(self.kelvin, self.positions)
        left, energies = [], []
        for part in torch.arange(len(rows), device=place).split(whole.frames_at_once):
            about = self._about(part)
            with torch.no_grad():
                left.append(forces[part] - whole.energy_and_forces(*about)[1])
            energies.append(whole.energies(*about)[1].double())
        self.forces, self.energy = torch.cat(left), energy - torch.cat(energies)
        self.known = torch.isfinite(self.energy)
        constants = network.n_beads * self.energy_shares[self.known]
        fit = torch.linalg.pinv(constants, rtol=1e-8) @ self.energy[self.known]
        scatter = (self.energy[self.known] - constants @ fit) / self.kelvin[self.known]
        cold = (self.forces / self.kelvin.sqrt()[:, None, None].to(self.forces)).double()
        about_bonds = self.torques(self.positions, cold.to(self.positions)).double()
        squares = cold.square().mean(dim=(0, 2)), about_bonds.square().mean(dim=0), scatter.square().mean()
        self.variances = tuple(square.clamp_min(1e-12) for square in squares)
        size = network.readout.numel() + network.n_terms
        self.products, self.target = cold.new_zeros(size, size), cold.new_zeros(size)
        self.pull = torch.zeros_like(self.products)

    def _about(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.positions[rows], self.kelvin[rows], None if self.box is None else self.box[rows]

    def fill(self, variances: Sequence[Tensor], progress: Callable[[int, int, str], None] | None) -> None:
        """Add all rows up, squares having the weight of an inverse variance."""
        at_once = max(1, COMPONENTS_AT_ONCE // (self.positions[0].numel() * len(self.network.first_bead)))
        beads, bonds, energy = variances
        per_component = beads.repeat_interleave(self.positions.shape[2]).rsqrt().to(self.positions)
        size = self.network.readout.numel() // self.network.n_terms
        temperatures = self.kelvin.unique()
        for number, kelvin in enumerate(temperatures):
            same = torch.where(self.kelvin == kelvin)[0]
            of_forces, of_energy = self.target.new_zeros(size, size), self.target.new_zeros(size + 1, size + 1)
            target = self.target.new_zeros(size + 1)
            for rows in same.split(at_once):
                values, slopes = self._features(rows)
                levers = self.torques.levers(self.positions[rows]).flatten(2)
                weighted = [slopes * per_component[:, None], levers @ slopes * bonds.rsqrt().to(slopes)[:, None]]
                for lines in (part.flatten(0, 1) for part in weighted):
                    of_forces += (lines.T @ lines).double()
                known = self.known[rows]
                lines = torch.nn.functional.pad(values[known].double(), (0, 1), value=self.network.n_beads)
                of_energy += lines.T @ lines
                target += lines.T @ self.energy[rows][known]
            shares, energy_shares = self.shares[same[0]], self.energy_shares[same[0]]
            weight = ENERGY_SHARE / (energy * kelvin**2)
            alone = of_energy.diagonal().clone()
            alone[size:] = 0.0
            self._add(self.products, shares, of_forces / kelvin)
            self._add(self.products, energy_shares, of_energy * weight)
            self._add(self.pull, energy_shares, torch.diag(alone) * weight)
            self.target[self._places(size + 1)] += torch.kron(energy_shares, target * weight)
            if progress is not None:
                progress(number + 1, len(temperatures), "temperatures")

    def _places(self, size: int) -> Tensor:
        """Where equations of each term, in readouts and perhaps the constant, are in those of all."""
        terms, readouts = self.network.n_terms, self.network.readout.numel()
        order = torch.arange(len(self.target), device=self.target.device)
        own, constants = order[:readouts].reshape(terms, -1), order[readouts:, None]
        return torch.cat([own, constants], dim=1)[:, :size].flatten()

    def _add(self, total: Tensor, shares: Tensor, products: Tensor) -> None:
        """Add products at one temperature to those of all terms."""
        place = self._places(len(products))
        total.index_put_((place[:, None], place), torch.kron(torch.outer(shares, shares), products), accumulate=True)

    def _features(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What readouts multiply `(r, p)` and its derivatives `(r, 3 n, p)` [kJ/mol, kJ/mol/nm]."""
        positions, _, box = self._about(rows)
        components = positions[0].numel()
        along = torch.eye(components).to(positions).reshape(components, *positions.shape[1:])
        with torch.no_grad(), forward.dual_level():
            point = forward.make_dual(
                positions.repeat_interleave(components, dim=0), along.repeat(len(rows), 1, 1).contiguous()
            )
            edges = None if box is None else box.repeat_interleave(components, dim=0)
            value, slope = forward.unpack_dual(self.network.features(point, edges))
            assert slope is not None
        return value[::components], slope.reshape(len(rows), components, -1)

    def solved(self, pull: float) -> Tensor:
        """The changes, pulled to zero."""
        diagonal = self.products.diagonal()
        ridge = torch.diag(1e-9 * diagonal + 1e-12 * diagonal.mean())
        return torch.linalg.solve(self.products + pull * self.pull + ridge, self.target)

    def loss(self, change: Tensor) -> float:
        """What a change adds to the weighted squares of energies, and of forces about their minimum."""
        return float(change @ self.products @ change - 2 * change @ self.target)
