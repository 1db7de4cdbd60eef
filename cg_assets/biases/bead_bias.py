"""Biases on collective variables of the beads, evaluated for all replicas of a CG simulation at once.

The biases are those of atomistic sampling (`cg_assets.biases.fixed`): a grid bias is evaluated in torch from the
same spline, formulas and umbrella windows by the original code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cg_assets.biases.fixed import GridBias, UmbrellaBias, bias_from_definition, slope_matrix
from cg_assets.core.errors import SamplingError
from cg_assets.mapping.collective_variables import Torsion

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads

HERMITE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]], dtype=np.float64)
"""Coefficients of 1, t, t^2, t^3 from (value left, value right, slope left, slope right)."""


def cg_bias(beads: Beads, definition: Mapping[str, Any], device: str = "cpu") -> BeadBias:
    """The bias that a definition describes, on these beads.

    Raises:
        SamplingError: the definition cannot be used, or names a collective variable that the beads lack.
    """
    return BeadBias(beads, definition, torch.device(device))


class BeadBias:
    """Energy and forces of a bias for a batch of replicas, in float64.

    Under umbrella windows, replica i is in window i modulo the number of windows.
    """

    def __init__(self, beads: Beads, definition: Mapping[str, Any], device: torch.device) -> None:
        """See `cg_bias`."""
        self.bias = bias_from_definition(definition)
        self.names = self.bias.collective_variables
        unknown = set(self.names) - set(beads.variable_names)
        if unknown:
            raise SamplingError(f"the bias needs {sorted(unknown)}; system {beads.name} has {beads.variable_names}")
        self.linear = not beads.collective_variables
        torsions: list[tuple[str, list[int]]] = []
        distances: list[tuple[str, list[int]]] = []
        for name in [] if self.linear else self.names:
            variable = beads.collective_variables[name]
            sites = [beads.cg_map.bead_on_atom(atom) for atom in variable.atoms]
            (torsions if isinstance(variable, Torsion) else distances).append((name, sites))
        self.torsion_names = [name for name, _ in torsions]
        self.distance_names = [name for name, _ in distances]
        self.torsion_sites = torch.tensor([sites for _, sites in torsions], dtype=torch.long, device=device)
        self.distance_sites = torch.tensor([sites for _, sites in distances], dtype=torch.long, device=device)
        self.spline = _Spline(self.bias, device) if isinstance(self.bias, GridBias) else None

    def energy_and_forces(self, positions: Tensor, replica: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` and forces `(r, n, d)` of positions `(r, n, d)`.

        Args:
            positions: of whole molecules, any float type.
            replica: `(r,)` number of each replica, 0, 1, ... where None; matters to umbrella windows only.
        """
        points = positions.double()
        variables, back = self._variables(points)
        if self.spline is not None:
            energy, slopes = self.spline(variables)
        else:
            energy, slopes = self._by_formula(variables, replica)
        return energy, -back(slopes)

    def _by_formula(self, variables: dict[str, Tensor], replica: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        values = {name: value.cpu().numpy() for name, value in variables.items()}
        like = next(iter(variables.values()))
        window = None
        if isinstance(self.bias, UmbrellaBias):
            numbers = np.arange(len(like)) if replica is None else replica.cpu().numpy()
            window = numbers % len(self.bias.centers)
        energy = torch.as_tensor(self.bias.energy(values, window)).to(like)
        slopes = self.bias.gradient(values, window)
        return energy, {name: torch.as_tensor(slope).to(like) for name, slope in slopes.items()}

    def _variables(self, points: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Values of the collective variables, and the function that carries slopes by them back to the beads."""
        if self.linear:
            return {name: points[:, 0, 0] for name in self.names}, lambda slopes: slopes[self.names[0]][:, None, None]
        values: dict[str, Tensor] = {}
        parts: list[tuple[list[str], Tensor, Tensor]] = []
        if self.torsion_names:
            angles, gradient = _torsions(points, self.torsion_sites)
            values |= dict(zip(self.torsion_names, angles, strict=True))
            parts.append((self.torsion_names, self.torsion_sites, gradient))
        if self.distance_names:
            vector = points[:, self.distance_sites[:, 1]] - points[:, self.distance_sites[:, 0]]
            length = vector.norm(dim=-1)
            unit = (vector / length[..., None]).transpose(0, 1)
            values |= dict(zip(self.distance_names, length.T, strict=True))
            parts.append((self.distance_names, self.distance_sites, torch.stack([-unit, unit], dim=2)))

        def back(slopes: dict[str, Tensor]) -> Tensor:
            total = torch.zeros_like(points)
            for names, sites, gradient in parts:
                for row, name in enumerate(names):
                    total.index_add_(1, sites[row], slopes[name][:, None, None] * gradient[row])
            return total

        return values, back


class _Spline:
    """The cubic spline of a grid bias as polynomial coefficients of each cell."""

    def __init__(self, bias: GridBias, device: torch.device) -> None:
        self.names = bias.collective_variables
        self.limits, self.periodic, self.shape = bias.limits, bias.periodic, bias.values.shape
        coefficients = bias.values
        for axis, (size, periodic) in enumerate(zip(self.shape, self.periodic, strict=True)):
            values = np.moveaxis(coefficients, axis, 0)
            slopes = np.tensordot(slope_matrix(size, periodic), values, axes=1)
            following = np.roll(values, -1, axis=0), np.roll(slopes, -1, axis=0)
            corners = np.stack([values, following[0], slopes, following[1]])
            coefficients = np.moveaxis(np.tensordot(HERMITE, corners, axes=1), (0, 1), (-1, axis))
        # (cells..., powers of the first variable, powers of the second)
        self.coefficients = torch.as_tensor(np.ascontiguousarray(coefficients)).to(device)

    def __call__(self, variables: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Energy `(r,)` and its derivative with respect to each variable."""
        cells, powers, slopes = [], [], []
        for axis, name in enumerate(self.names):
            (low, high), size, periodic = self.limits[axis], self.shape[axis], self.periodic[axis]
            spacing = (high - low) / (size if periodic else size - 1)
            place = (variables[name] - low) / spacing
            inside = torch.ones_like(place)
            if periodic:
                place = place.remainder(size)
            else:
                inside = ((place >= 0) & (place <= size - 1)).to(place)
                place = place.clamp(0, size - 1)
            cell = place.floor().clamp(max=size - 1 if periodic else size - 2)
            t = place - cell
            one = torch.ones_like(t)
            cells.append(cell.long())
            powers.append(torch.stack([one, t, t * t, t * t * t], dim=1))
            slopes.append(torch.stack([0 * t, one, 2 * t, 3 * t * t], dim=1) * (inside / spacing)[:, None])
        patch = self.coefficients[tuple(cells)]
        if len(self.names) == 1:
            return (patch * powers[0]).sum(dim=1), {self.names[0]: (patch * slopes[0]).sum(dim=1)}
        along_second = (patch * powers[1][:, None]).sum(dim=2)
        by_second = (patch * slopes[1][:, None]).sum(dim=2)
        energy = (along_second * powers[0]).sum(dim=1)
        gradients = (along_second * slopes[0]).sum(dim=1), (by_second * powers[0]).sum(dim=1)
        return energy, dict(zip(self.names, gradients, strict=True))


def _torsions(points: Tensor, sites: Tensor) -> tuple[Tensor, Tensor]:
    """Dihedral angles `(v, r)` and gradients `(v, r, 4, 3)` of sites `(v, 4)` (IUPAC sign, trans is pi).

    Gradients after A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    i, j, k, m = points[:, sites].permute(2, 1, 0, 3)
    f, g, h = i - j, j - k, m - k
    a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
    length = g.norm(dim=-1, keepdim=True)
    sine = (torch.linalg.cross(b, a) * g).sum(dim=-1) / length[..., 0]
    angle = torch.atan2(sine, (a * b).sum(dim=-1))
    by_a = -length * a / a.square().sum(dim=-1, keepdim=True)
    by_b = length * b / b.square().sum(dim=-1, keepdim=True)
    along_a = (f * g).sum(dim=-1, keepdim=True) / length.square() * by_a
    along_b = (h * g).sum(dim=-1, keepdim=True) / length.square() * by_b
    return angle, torch.stack([by_a, -by_a - along_a - along_b, along_a + along_b - by_b, by_b], dim=2)
