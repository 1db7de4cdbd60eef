"""Neural networks for the coarse-grained potential W(R), and their exact forces.

This file is self-contained: it imports nothing but torch and the standard library, so that it can travel inside a
stored model and run where this package is not installed.

Every potential is built from a JSON config by `build_potential` and has

- `forward(positions, temperature=None, box=None) -> energy`, differentiable to any order, and
- `energy_and_forces(positions, box=None)`, the same energy with forces from a hand-written backward pass. It is
  differentiable with respect to the weights, so one reverse sweep trains on forces, and it is the fast way to evaluate.

Inside the range that the training data cover the network alone is the potential, or corrects a `ChainPrior` where the
config holds one. Beyond it, where no data can teach anything, the energy continues by harmonic walls, so that
simulations stay where the network knows.
Energies are in the unit of `thermal_energy`; the weights are dimensionless, in units of k_B T.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SOFT_LIMIT = 5.0
"""Number of standard deviations at which the standardised distance saturates."""

MAX_STATISTICS = 4_000_000
"""Distances per pair type kept for quantiles; minimum and maximum always come from all."""


MAX_CHIRAL_BEADS = 16
"""Up to this many unlike beads, all sets of four are searched for centres that keep their handedness."""

LEAST_VOLUME = 0.25
"""Smallest |volume| in the data, as a part of the mean, from which on a set of four beads counts as a handed centre.
Sets that bend nearly flat now and then do so further than finite data show, and a wall there would be in the way."""

FLAT_ENERGY = 50.0
"""Least energy of a wall where its centre is flat [k_B T]: not even hot replicas change hands."""

ANGLE_ORDER = 4
"""Order of the polynomial in the cosine of an angle: the lowest with two minima that rises beyond both."""

LARGEST_BEND = 3.0
"""Standard deviation of a second difference of spline coefficients where the data say nothing [k_B T]."""

RISE = 2.0
"""Energy of a spline coefficient without data, one knot away from the nearest with some [k_B T]."""

EVALUATION_BATCH = 256
"""Frames evaluated at once without gradients; larger temporaries leave the cache (200 frames ran 1.8 x faster a
frame than 400)."""


def build_potential(config: dict[str, Any]) -> RadialBasis | SplineSurface | MessagePassing | Committee:
    """Build a potential from its config, before its weights are read.

    Args:
        config: that of `build_network`; with `committee`, the number of further networks, the potential is a
            `Committee`.

    Raises:
        ValueError: a key is missing or out of range.
    """
    network = build_network(config)
    members = [build_network(config) for _ in range(config.get("committee", 0))]
    return Committee(network, members) if members else network


def build_network(
    config: dict[str, Any], generator: torch.Generator | None = None
) -> RadialBasis | SplineSurface | MessagePassing:
    """Build a network from its config, with initial weights from `generator` (seed 0 where None).

    Args:
        config: `type` is `radial_basis` (`range`, `basis_functions`, `basis_width`, `hidden`), `spline_surface` (the
            `range` of each of two coordinates by name, `spacing`) or `message_passing` (`bead_types`, `features`,
            `interactions`, `basis_functions`, `cutoff`, optionally `torsions`, sets of four beads, and the
            `torsion_order` of the Fourier series in them, and `prior`, see `ChainPrior`); all need `thermal_energy`,
            the k_B T of the training data. Further keys are kept by whoever stores the config and ignored here.
        generator: source of the initial weights.

    Raises:
        ValueError: a key is missing or out of range.
    """
    generator = generator or torch.Generator().manual_seed(0)
    types: dict[str, Any] = {
        "message_passing": MessagePassing,
        "radial_basis": RadialBasis,
        "spline_surface": SplineSurface,
    }
    if config.get("type") not in types:
        raise ValueError(f"type is {config.get('type')!r}; it must be one of {', '.join(types)}")
    thermal_energy = config.get("thermal_energy")
    if not isinstance(thermal_energy, int | float) or not 0 < thermal_energy < math.inf:
        raise ValueError(f"thermal_energy is {thermal_energy!r}; give k_B T of the training data as a positive number")
    return types[config["type"]](config, generator)


def energy_and_forces(
    module: Any, positions: Tensor, temperature: Any = None, box: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Energy `(f,)` and forces `(f, n, d)`, the exact negative gradient, of positions `(f, n, d)`.

    `temperature` is accepted for the common interface of all potentials; these hold at the temperature of their
    training data only and do not depend on it. Without gradients, long batches are cut into pieces that fit the cache.
    """
    if torch.is_grad_enabled() or len(positions) <= EVALUATION_BATCH:
        return module.energy_and_forces(positions, box)
    boxes = [None if box is None else box] * len(positions.split(EVALUATION_BATCH))
    if box is not None and box.ndim == 2:
        boxes = list(box.split(EVALUATION_BATCH))
    parts = [module.energy_and_forces(*part) for part in zip(positions.split(EVALUATION_BATCH), boxes, strict=True)]
    return torch.cat([energy for energy, _ in parts]), torch.cat([forces for _, forces in parts])


def autograd_energy_and_forces(
    module: torch.nn.Module, positions: Tensor, box: Tensor | None = None, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """The same as `energy_and_forces` by automatic differentiation of `forward`, for any module."""
    with torch.enable_grad():
        positions = positions.detach().requires_grad_(True)
        energy = module(positions, box=box)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
    return (energy, -gradient) if create_graph else (energy.detach(), -gradient)


def _activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its derivative."""
    gate = torch.sigmoid(x)
    value = x * gate
    return value, gate * (1.0 + x - value)


def _normal(generator: torch.Generator, *shape: int, gain: float = 1.0) -> torch.nn.Parameter:
    """Weights `(..., outputs, inputs)` that keep the variance times `gain` squared."""
    return torch.nn.Parameter(torch.randn(*shape, generator=generator) * (gain / math.sqrt(shape[-1])))


def _wall(excess: Tensor, stiffness: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic energy [k_B T] of a positive excess and its derivative with respect to the excess."""
    excess = excess.clamp_min(0.0)
    slope = stiffness * excess
    return 0.5 * slope * excess, slope


def _volumes(rows: Tensor, fours: Tensor) -> tuple[Tensor, Tensor]:
    """Signed volumes `(v, f)` of sets of four beads `(v, 4)`, and gradients `(v, 4, 3, f)`, from rows `(n, 3, f)`."""
    corner, a, b, c = (rows[fours[:, place]] for place in range(4))
    a, b, c = a - corner, b - corner, c - corner
    by_a, by_b, by_c = (torch.linalg.cross(*pair, dim=1) for pair in ((b, c), (c, a), (a, b)))
    return (a * by_a).sum(dim=1), torch.stack([-by_a - by_b - by_c, by_a, by_b, by_c], dim=1)


def torsion_angles(rows: Tensor, fours: Tensor) -> tuple[Tensor, Tensor]:
    """Torsions `(k, f)` of sets of four beads `(k, 4)` and gradients `(k, 4, 3, f)`, from rows `(n, 3, f)`.

    Formulas and sign of Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    one, two, three, four = (rows[fours[:, place]] for place in range(4))
    before, axis, after = one - two, two - three, four - three
    left, right = torch.linalg.cross(before, axis, dim=1), torch.linalg.cross(after, axis, dim=1)
    length = axis.square().sum(dim=1, keepdim=True).sqrt()
    sine = (torch.linalg.cross(right, left, dim=1) * axis).sum(dim=1) / length[:, 0]
    angle = torch.atan2(sine, (left * right).sum(dim=1))
    left = left / left.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    right = right / right.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    lean = (before * axis).sum(dim=1, keepdim=True) / length * left
    lean = lean - (after * axis).sum(dim=1, keepdim=True) / length * right
    return angle, torch.stack([-length * left, length * left + lean, -length * right - lean, length * right], dim=1)


def fourier_modes(n_torsions: int, order: int) -> list[list[int]]:
    """Waves exp(i m . angle), one of each pair of opposite ones, in at most two angles with |m| up to `order`."""
    waves = [
        [*mode]
        for mode in itertools.product(range(-order, order + 1), repeat=n_torsions)
        if sum(number * number for number in mode) <= order * order and 1 <= sum(map(bool, mode)) <= 2
    ]
    return [mode for mode in waves if next(number for number in mode if number) > 0]


class RadialBasis(torch.nn.Module):
    """PMF W(x) of one CG coordinate: Gaussian basis functions and a dense network (as arXiv 2510.11148 uses).

    Beyond the interval `[low, high]` that the training data cover (`fit_statistics`), W continues along its tangent
    plus a harmonic wall of stiffness 25 k_B T / basis_width^2. W and its first derivative are continuous.
    Value and derivative run through the layers together, so forces need no automatic differentiation.
    """

    centers: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        """See `build_potential`."""
        super().__init__()
        low, high = (float(edge) for edge in config["range"])
        width = float(config["basis_width"])
        if not low < high or width <= 0:
            raise ValueError(f"range {[low, high]} must rise and basis_width {width} must be positive")
        self.thermal_energy = float(config["thermal_energy"])
        self.width = width
        sizes = [int(config["basis_functions"]), *(int(size) for size in config["hidden"])]
        self.register_buffer("centers", torch.linspace(low, high, sizes[0]))
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        layers = list(itertools.pairwise(sizes))
        self.weights = torch.nn.ParameterList([_normal(generator, b, a, gain=1.5) for a, b in layers])
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(b)) for _, b in layers])
        self.readout = _normal(generator, sizes[-1], gain=0.5)

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None) -> None:
        """Set the covered interval from training positions `(f, 1, 1)`, within the range of the basis."""
        self._check(positions)
        self.low.copy_(positions.min().clamp(self.centers[0], self.centers[-1]))
        self.high.copy_(positions.max().clamp(self.centers[0], self.centers[-1]))

    @torch.no_grad()
    def solve_readout(self, positions: Tensor, forces: Tensor) -> None:
        """Least-squares readout weights for force labels `(f, 1, 1)`, the other weights kept as they are.

        W is linear in these weights, so no iteration is needed. Gradient steps alone leave the soft directions, such as
        the height between two basins, unfinished: on six data sets of 200,000 frames of the Müller-Brown potential the
        PMF was wrong by 0.020 to 0.035 kT before this and 0.009 to 0.027 kT after (integrating binned labels: 0.008 to
        0.024 kT).
        """
        self._check(positions)
        size = len(self.readout)
        matrix = torch.zeros(size, size, dtype=torch.float64, device=positions.device)
        vector = matrix[0].clone()
        for x, force in zip(positions[:, 0, 0].split(50_000), forces[:, 0, 0].split(50_000), strict=True):
            slopes = self._features(x.clamp(self.low, self.high))[1].double()
            matrix += slopes.T @ slopes
            vector -= slopes.T @ (force.double() / self.thermal_energy + slopes @ self.readout.double())
        # Directions that the data hardly see stay where they are.
        matrix.diagonal().add_(1e-4 * matrix.diagonal().mean())
        self.readout.add_(torch.linalg.solve(matrix, vector).to(self.readout))

    def forward(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, 1, 1)`."""
        self._check(positions)
        return self._energy_and_slope(positions[:, 0, 0])[0]

    def energy_and_forces(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, 1, 1)`."""
        self._check(positions)
        energy, slope = self._energy_and_slope(positions[:, 0, 0])
        return energy, -slope[:, None, None]

    def _check(self, positions: Tensor) -> None:
        if positions.ndim != 3 or positions.shape[1:] != (1, 1):
            raise ValueError(f"positions have shape {tuple(positions.shape)}; this potential needs (n_frames, 1, 1)")

    def _energy_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(self.low, self.high)
        beyond = x - inside
        energy, slope = self._network(inside)
        stiffness = 25.0 / self.width**2
        energy = energy + slope * beyond + 0.5 * stiffness * beyond.square()
        slope = slope + stiffness * beyond
        return self.thermal_energy * energy, self.thermal_energy * slope

    def _network(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W and dW/dx in units of k_B T."""
        value, slope = self._features(x)
        return value @ self.readout, slope @ self.readout

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `(f, n)` of the last hidden layer and their derivatives: forward-mode differentiation by hand."""
        scaled = (x[:, None] - self.centers) / self.width
        value = torch.exp(-0.5 * scaled.square())
        slope = -scaled * value / self.width
        for weight, bias in zip(self.weights, self.biases, strict=True):
            value, gain = _activation(torch.addmm(bias, value, weight.T))
            slope = gain * (slope @ weight.T)
        return value, slope


class SplineSurface(torch.nn.Module):
    """PMF W(x, y) of two CG coordinates: products of cubic B-splines on even knots, linear in their coefficients.

    Least squares therefore solves it exactly. A slight pull of second differences of neighbouring coefficients to zero
    continues the surface where there are no data (P-splines: Eilers and Marx, Stat. Sci. 11, 89 (1996)). Coefficients
    that no training frame touches rise, besides, with the square of their distance from those that one does
    (`fit_statistics`), so that simulations stay where the data are. Beyond its range W continues along its tangent plus
    a harmonic wall. W and its first derivatives are continuous.
    """

    low: Tensor
    high: Tensor
    wall: Tensor

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        """See `build_potential`; the generator is not used, for all coefficients begin with zero."""
        super().__init__()
        limits = torch.tensor([[float(edge) for edge in edges] for edges in config["range"].values()]).T
        spacing = float(config["spacing"])
        if limits.shape != (2, 2) or not (limits[0] < limits[1]).all() or spacing <= 0:
            raise ValueError(f"range {config['range']} must rise in two coordinates, spacing {spacing} be positive")
        self.thermal_energy = float(config["thermal_energy"])
        self.cells = [max(1, round(float(high - low) / spacing)) for low, high in limits.T]
        for name, value in (("low", limits[0]), ("high", limits[1])):
            self.register_buffer(name, value)
        shape = [cells + 3 for cells in self.cells]
        self.register_buffer("wall", torch.zeros(shape))
        self.coefficients = torch.nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None) -> None:
        """Find the coefficients that training positions `(f, 2, 1)` touch, and let the others rise.

        Raises:
            ValueError: positions lie outside the range.
        """
        self._check(positions)
        places = positions[:, :, 0].to(self.low)
        if (places < self.low).any() or (places > self.high).any():
            reach = [f"{float(x.min()):.3g} to {float(x.max()):.3g}" for x in places.T]
            raise ValueError(f"the frames reach from {' and '.join(reach)}, beyond its range; widen it")
        held = torch.zeros(self.cells, dtype=torch.bool, device=places.device)
        held[self._cell(places)[0].unbind(dim=1)] = True
        touched = torch.zeros_like(self.wall, dtype=torch.bool)
        for i, j in itertools.product(range(4), repeat=2):
            touched[i : i + self.cells[0], j : j + self.cells[1]] |= held
        distance = torch.cdist((~touched).nonzero().float(), touched.nonzero().float()).amin(dim=1)
        self.wall.zero_()
        self.wall[~touched] = RISE * distance.square().to(self.wall)

    @torch.no_grad()
    def solve_readout(self, positions: Tensor, forces: Tensor) -> None:
        """Least-squares coefficients for force labels `(f, 2, 1)`.

        The pull to zero is a Gaussian prior: second differences of standard deviation `LARGEST_BEND`, against labels
        whose noise is at most their own mean square.
        """
        self._check(positions)
        size, width = self.coefficients.numel(), self.coefficients.shape[1]
        matrix = torch.zeros(size * size, dtype=torch.float64, device=positions.device)
        vector = torch.zeros(size, dtype=torch.float64, device=positions.device)
        labels = forces[:, :, 0].double() / self.thermal_energy
        for part, label in zip(positions[:, :, 0].double().split(10_000), labels.split(10_000), strict=True):
            cell, values, slopes = self._basis(part.clamp(self.low, self.high))
            near = torch.arange(4, device=part.device)
            index = (cell[:, :1, None] + near[:, None]) * width + cell[:, 1:, None] + near
            index = index.flatten(start_dim=1)
            for axis in range(2):
                one = slopes[:, 0] if axis == 0 else values[:, 0]
                other = slopes[:, 1] if axis == 1 else values[:, 1]
                row = -(one[:, :, None] * other[:, None]).flatten(start_dim=1)
                vector.index_add_(0, index.flatten(), (row * label[:, axis, None]).flatten())
                pairs = (index[:, :, None] * size + index[:, None]).flatten()
                matrix.index_add_(0, pairs, (row[:, :, None] * row[:, None]).flatten())
        normal = matrix.reshape(size, size)
        bends = torch.zeros_like(normal)
        for axis, count in enumerate(self.coefficients.shape):
            second = torch.eye(count).to(normal).diff(n=2, dim=0)
            factors = [torch.eye(n).to(normal) for n in self.coefficients.shape]
            factors[axis] = second.T @ second
            bends += torch.kron(factors[0], factors[1])
        normal += (labels.square().mean() / LARGEST_BEND**2) * bends
        normal.diagonal().add_(1e-10 * normal.diagonal().mean())  # W is known up to a constant
        solution = torch.linalg.solve(normal, vector)
        self.coefficients.copy_((solution - solution.mean()).reshape(self.coefficients.shape))

    def forward(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, 2, 1)`."""
        return self._energy_and_slopes(positions)[0]

    def energy_and_forces(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, 2, 1)`."""
        energy, slopes = self._energy_and_slopes(positions)
        return energy, -slopes[:, :, None]

    def _check(self, positions: Tensor) -> None:
        if positions.ndim != 3 or positions.shape[1:] != (2, 1):
            raise ValueError(f"positions have shape {tuple(positions.shape)}; this potential needs (n_frames, 2, 1)")

    def _energy_and_slopes(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        self._check(positions)
        places = positions[:, :, 0]
        inside = places.clamp(self.low, self.high)
        beyond = places - inside
        cell, values, slopes = self._basis(inside)
        near = torch.arange(4, device=places.device)
        rows, columns = cell[:, :1, None] + near[:, None], cell[:, 1:, None] + near
        weights = (self.coefficients + self.wall)[rows, columns]

        def summed(one: Tensor, other: Tensor) -> Tensor:
            return torch.einsum("fi,fij,fj->f", one, weights, other)

        value = summed(values[:, 0], values[:, 1])
        slope = torch.stack([summed(slopes[:, 0], values[:, 1]), summed(values[:, 0], slopes[:, 1])], dim=1)
        twist = summed(slopes[:, 0], slopes[:, 1])
        stiffness = 2.0 * RISE / (self._step() ** 2)
        energy = value + (slope * beyond).sum(dim=1) + 0.5 * (stiffness * beyond.square()).sum(dim=1)
        moved = torch.where(beyond == 0.0, twist[:, None] * beyond.flip(1), torch.zeros_like(beyond))
        return self.thermal_energy * energy, self.thermal_energy * (slope + stiffness * beyond + moved)

    def _step(self) -> Tensor:
        """Distance of the knots `(2,)`."""
        return (self.high - self.low) / torch.tensor(self.cells).to(self.low)

    def _cell(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the cell `(f, 2)` of places `(f, 2)` inside the range, and the place in it, from 0 to 1."""
        scaled = (places - self.low) / self._step()
        last = torch.tensor(self.cells, device=places.device) - 1
        cell = torch.minimum(scaled.detach().long(), last)
        return cell, scaled - cell

    def _basis(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cells `(f, 2)`, and the four B-splines there along each axis, with their derivatives, `(f, 2, 4)`."""
        cell, t = self._cell(places)
        u = 1.0 - t
        values = torch.stack([u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3], dim=2) / 6.0
        slopes = torch.stack([-u * u, 3 * t * t - 4 * t, 4 * u - 3 * u * u, t * t], dim=2) / 2.0
        return cell, values, slopes / self._step()[:, None]


class ChainPrior(torch.nn.Module):
    """A classical force field of a chain of beads, in units of k_B T: what a network need not learn.

    Its config holds lists of terms, each of which begins with its beads:

    - `bonds`: [i, j, length, k], k/2 (r - length)²;
    - `angles`: [i, j, l, a_1, a_2, a_3, a_4], Σ a_n cosⁿ θ, which is smooth for straight chains, too, and has room for
      the two peaks of an angle of alpha carbons, in helices and in strands;
    - `dihedrals`: [i, j, l, m, a_1, b_1, a_2, b_2, ...], Σ a_n cos nφ + b_n sin nφ;
    - `repulsion`: [i, j, σ], (σ/r)⁶.

    The odd part of the dihedrals tells left from right.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the terms.

        Raises:
            ValueError: a term has too few numbers, or one that is not finite, or a bond has a negative constant.
        """
        super().__init__()
        for name, beads in (("bonds", 2), ("angles", 3), ("dihedrals", 4), ("repulsion", 2)):
            terms = config.get(name, [])
            numbers = torch.tensor([term[beads:] for term in terms] or [[0.0]], dtype=torch.float64)[: len(terms)]
            constants = numbers[:, -1] if name == "bonds" else numbers[:0]
            if not torch.isfinite(numbers).all() or (constants < 0).any():
                raise ValueError(f"prior.{name} holds a number that is not finite, or a negative force constant")
            if name == "angles" and len(terms) and numbers.shape[1] != ANGLE_ORDER:
                raise ValueError(
                    f"prior.angles has terms of {numbers.shape[1]} numbers, not the {ANGLE_ORDER} coefficients of a "
                    "polynomial; fit the prior again"
                )
            index = torch.tensor([term[:beads] for term in terms], dtype=torch.long).reshape(-1, beads)
            self.register_buffer(f"{name}_beads", index, persistent=False)
            self.register_buffer(name, numbers.float())

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(n, 3, f)` from rows `(n, 3, f)` of positions."""
        energy, forces = torch.zeros_like(rows[0, 0]), torch.zeros_like(rows)
        for name, evaluate in (
            ("bonds", self._bonds),
            ("angles", self._angles),
            ("dihedrals", self._dihedrals),
            ("repulsion", self._repulsion),
        ):
            beads = getattr(self, f"{name}_beads")
            if len(beads):
                more, gradients = evaluate(rows, beads, getattr(self, name))
                energy = energy + more.sum(dim=0)
                forces = forces.index_add(0, beads.flatten(), -gradients.flatten(0, 1))
        return energy, forces

    @staticmethod
    def _bonds(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(b, f)` and gradients `(b, 2, 3, f)`."""
        length, stiffness = numbers[:, :1], numbers[:, 1:]
        difference = rows[beads[:, 0]] - rows[beads[:, 1]]
        distance = difference.square().sum(dim=1).sqrt()
        slope = stiffness * (distance - length)
        pull = (slope / distance)[:, None] * difference
        return 0.5 * slope * (distance - length), torch.stack([pull, -pull], dim=1)

    @staticmethod
    def _angles(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(a, f)` and gradients `(a, 3, 3, f)`."""
        one, two = rows[beads[:, 0]] - rows[beads[:, 1]], rows[beads[:, 2]] - rows[beads[:, 1]]
        lengths = [leg.square().sum(dim=1, keepdim=True).sqrt() for leg in (one, two)]
        one, two = one / lengths[0], two / lengths[1]
        cosine = (one * two).sum(dim=1)
        energy = slope = torch.zeros_like(cosine)
        for power in range(ANGLE_ORDER, 0, -1):  # Horner's scheme
            slope = energy + slope * cosine
            energy = numbers[:, power - 1, None] + energy * cosine
        energy, slope = energy * cosine, energy + slope * cosine
        by_one = slope[:, None] * (two - cosine[:, None] * one) / lengths[0]
        by_two = slope[:, None] * (one - cosine[:, None] * two) / lengths[1]
        return energy, torch.stack([by_one, -by_one - by_two, by_two], dim=1)

    @staticmethod
    def _dihedrals(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(d, f)` and gradients `(d, 4, 3, f)`."""
        angle, gradients = torsion_angles(rows, beads)
        order = torch.arange(1, numbers.shape[1] // 2 + 1).to(numbers)[None, :, None]
        phase = order * angle[:, None]
        cosine, sine = numbers[:, 0::2, None], numbers[:, 1::2, None]
        energy = (cosine * phase.cos() + sine * phase.sin()).sum(dim=1)
        slope = (order * (sine * phase.cos() - cosine * phase.sin())).sum(dim=1)
        return energy, slope[:, None, None] * gradients

    @staticmethod
    def _repulsion(rows: Tensor, beads: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(p, f)` and gradients `(p, 2, 3, f)`."""
        difference = rows[beads[:, 0]] - rows[beads[:, 1]]
        square = difference.square().sum(dim=1)
        energy = (numbers.square() / square).pow(3)
        pull = (-6.0 * energy / square)[:, None] * difference
        return energy, torch.stack([pull, -pull], dim=1)


class MessagePassing(torch.nn.Module):
    """Many-body potential of beads by message passing over bead distances.

    The potential sees distances only: it is invariant to translation, rotation, reflection and, because all weights
    belong to bead types, to exchanging beads of one type. Each pair type standardises its distance with the mean and
    standard deviation of the training data, saturating at five standard deviations, and adds Gaussians across its
    range: bonds a few thousandths of a nanometre wide and flexible pairs then teach equally fast.

    A potential of distances cannot tell left from right, so the way through a flat centre, which no data cover, must be
    closed: where the signed volume of four unlike beads of an isolated molecule keeps its sign in all data, by more
    than five standard deviations, and never comes near zero, a wall acts below the smallest |volume| of the data.

    To this comes a Fourier series in some torsions, where the config names any; it tells left from right. It is zero
    until training ends: slow motions change the forces so little that descent leaves them unfinished, and the series is
    then solved so that the PMF of the torsions is that of the labels
    (`cg_assets.training.torsion_torques.solve_torsions`).

    Where the config holds a `prior`, its energy is added: trained on forces, the network learns what the prior lacks.

    Layers, for beads i of type t and pair features b(r):

    - first message `h_i = s(sum_j A[t_i, t_j] b(r_ij))`: its filters mix features freely for each pair of types;
    - each further interaction passes learned features, `m_i = sum_j (G[t_i t_j] b(r_ij)) * (S[t_j] h_j)`;
    - residual dense layers of each bead type between them, and a dense readout summed over the beads.

    Beyond the smallest and largest distance that the data hold for a pair type, a harmonic wall acts on that pair; its
    stiffness follows from the sharpness of the data's own edge (docs: `fit_statistics`). With a cutoff, features decay
    smoothly to zero there, and only pair types that always stay within it keep their upper wall.

    Beads run along the first axis and frames along the last, which makes all products batched and all gathers copies
    of whole rows.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    low_stiffness: Tensor
    high_stiffness: Tensor
    centers: Tensor
    widths: Tensor
    volume_low: Tensor
    volume_stiffness: Tensor
    kinds: Tensor
    pair_kinds: Tensor
    first_bead: Tensor
    second_bead: Tensor
    first_slot: Tensor
    second_slot: Tensor
    neighbours: Tensor
    fours: Tensor
    torsions: Tensor
    modes: Tensor
    series: Tensor

    def __init__(self, config: dict[str, Any], generator: torch.Generator) -> None:
        """See `build_potential`."""
        super().__init__()
        self.thermal_energy = float(config["thermal_energy"])
        self.cutoff = None if config.get("cutoff") is None else float(config["cutoff"])
        features, basis = int(config["features"]), int(config["basis_functions"])
        interactions = int(config["interactions"])
        if min(features, basis, interactions) < 1:
            raise ValueError("features, basis_functions and interactions must be at least 1")
        self._index_beads([int(kind) for kind in config["bead_types"]])
        self.n_inputs = basis + 2
        for name in ("volume_low", "volume_stiffness"):
            self.register_buffer(name, torch.zeros(len(self.fours)))
        n_kinds, n_pair_kinds, channels = self.n_kinds, self.n_pair_kinds, max(features // 2, 1)
        for name, value in (("mean", 0.4), ("deviation", 0.1), ("low", 0.0), ("high", math.inf)):
            self.register_buffer(name, torch.full((n_pair_kinds,), value))
        for name in ("low_stiffness", "high_stiffness"):
            self.register_buffer(name, torch.zeros(n_pair_kinds))
        self.register_buffer("centers", torch.linspace(0.1, 1.0, basis).repeat(n_pair_kinds, 1))
        self.register_buffer("widths", torch.full((n_pair_kinds, basis), 0.9 / basis))

        torsions = config.get("torsions", [])
        modes = fourier_modes(len(torsions), int(config.get("torsion_order", 0))) if torsions else []
        self.register_buffer("torsions", torch.tensor(torsions, dtype=torch.long).reshape(-1, 4), persistent=False)
        self.register_buffer("modes", torch.tensor(modes).float().reshape(len(modes), len(torsions)), persistent=False)
        self.register_buffer("series", torch.zeros(2, len(modes)), persistent=bool(modes))
        self.prior = ChainPrior(config["prior"]) if config.get("prior") else None

        slots = self.n_beads - 1 if self.unique else n_kinds
        self.first = _normal(generator, n_kinds, features, slots * self.n_inputs, gain=1.5)
        self.first_bias = torch.nn.Parameter(torch.zeros(n_kinds, features, 1))
        more = range(interactions - 1)
        stack, dense = torch.nn.ParameterList, (n_kinds, features, features)
        self.filters = stack([_normal(generator, n_pair_kinds, channels, self.n_inputs) for _ in more])
        self.senders = stack([_normal(generator, n_kinds, channels, features) for _ in more])
        self.receivers = stack([_normal(generator, n_kinds, features, channels) for _ in more])
        self.receiver_biases = stack([torch.nn.Parameter(torch.zeros(n_kinds, features, 1)) for _ in more])
        self.residuals = stack([_normal(generator, *dense) for _ in range(interactions)])
        self.residual_biases = stack(
            [torch.nn.Parameter(torch.zeros(n_kinds, features, 1)) for _ in range(interactions)]
        )
        self.hidden = _normal(generator, *dense)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(n_kinds, features, 1))
        self.readout = _normal(generator, n_kinds, 1, features, gain=0.3)

    def _index_beads(self, bead_types: list[int]) -> None:
        """Number types and pair types from zero, and order pairs so that equal types stand together."""
        n = self.n_beads = len(bead_types)
        if n < 2:
            raise ValueError(f"bead_types has {n} bead(s); message passing needs at least 2")
        names = list(dict.fromkeys(bead_types))
        kinds = [names.index(kind) for kind in bead_types]
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        pair_names = list(dict.fromkeys(tuple(sorted((kinds[i], kinds[j]))) for i, j in pairs))
        number = {name: index for index, name in enumerate(pair_names)}
        pairs.sort(key=lambda pair: number[tuple(sorted((kinds[pair[0]], kinds[pair[1]])))])
        pair_kinds = [number[tuple(sorted((kinds[i], kinds[j])))] for i, j in pairs]
        self.n_kinds, self.n_pair_kinds, self.n_pairs = len(names), len(pair_names), len(pairs)
        self.unique = len(names) == n
        self.pair_counts = [pair_kinds.count(kind) for kind in range(len(pair_names))]
        index = {
            "kinds": torch.tensor(kinds),
            "pair_kinds": torch.tensor(pair_kinds),
            "first_bead": torch.tensor([i for i, _ in pairs]),
            "second_bead": torch.tensor([j for _, j in pairs]),
        }
        if self.unique:
            of_pair = {pair: index for index, pair in enumerate(pairs)}
            neighbours = [[of_pair[min(i, j), max(i, j)] for j in range(n) if j != i] for i in range(n)]
            index["neighbours"] = torch.tensor(neighbours).flatten()
            index["first_slot"] = torch.tensor([i * (n - 1) + j - 1 for i, j in pairs])
            index["second_slot"] = torch.tensor([j * (n - 1) + i for i, j in pairs])
        else:
            index["first_slot"] = torch.tensor([i * len(names) + kinds[j] for i, j in pairs])
            index["second_slot"] = torch.tensor([j * len(names) + kinds[i] for i, j in pairs])
        searched = self.unique and n <= MAX_CHIRAL_BEADS
        index["fours"] = (
            torch.tensor(list(itertools.combinations(range(n if searched else 0), 4))).reshape(-1, 4).long()
        )
        for name, value in index.items():
            self.register_buffer(name, value, persistent=False)

    # ------------------------------------------------------------------------------- statistics of the data

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None) -> None:
        """Set standardisation, basis and walls of each pair type from training positions `(f, n, 3)`.

        Walls start at the extreme distances of the data. Their stiffness is k_B T / s^2, where s is 0.55 times the
        distance between the extreme and the first (last) percentile: for Gaussian data s is about the standard
        deviation, so a wall is about as stiff as the data's own distribution.

        Pair types that never come within the cutoff do not interact and keep their initial statistics.

        Raises:
            ValueError: no distance lies within the cutoff, or those of a pair type never change.
        """
        stride = max(1, len(positions) * self.n_pairs // (MAX_STATISTICS * self.n_pair_kinds))
        samples: list[list[Tensor]] = [[] for _ in range(self.n_pair_kinds)]
        low = torch.full_like(self.low, math.inf)
        high = torch.zeros_like(self.high)
        chunk = max(1, 2_000_000 // self.n_pairs)
        for begin in range(0, len(positions), chunk):
            part = None if box is None else box if box.ndim == 1 else box[begin : begin + chunk]
            distance = self._distances(positions[begin : begin + chunk].to(self.mean), part)[1]
            for kind, rows in enumerate(distance.split(self.pair_counts)):
                low[kind] = torch.minimum(low[kind], rows.min())
                high[kind] = torch.maximum(high[kind], rows.max())
                samples[kind].append(rows[:, (-begin) % stride :: stride].flatten())
        limit = math.inf if self.cutoff is None else self.cutoff
        if not low.min() < limit:
            raise ValueError(f"no two beads come closer than {float(low.min()):.4g}; the cutoff {limit} is too short")
        for kind, parts in enumerate(samples):
            values = torch.cat(parts)
            values = values[values < limit].double()
            if len(values) < 2:
                continue
            if not values.std() > 1e-6 * values.mean():
                raise ValueError(
                    f"the distances of pair type {kind} never change (mean {float(values.mean()):.6g}); use frames of "
                    "a simulation"
                )
            ordered = values.sort().values
            count = len(ordered)
            quantile = lambda q: ordered[min(int(q * count), count - 1)]  # noqa: B023, E731
            self.mean[kind], self.deviation[kind] = values.mean(), values.std()
            self._place_basis(kind, quantile(0.0005), quantile(0.9995))
            floor = 1e-3 * values.std()
            edges = (quantile(0.01) - low[kind], high[kind] - quantile(0.99))
            self.low_stiffness[kind] = (0.55 * edges[0]).clamp_min(floor).pow(-2)
            always_inside = high[kind] < limit and box is None
            self.high_stiffness[kind] = (0.55 * edges[1]).clamp_min(floor).pow(-2) if always_inside else 0.0
        self.low.copy_(low)
        self.high.copy_(high)
        self.volume_stiffness.zero_()
        if box is None:
            self._fit_volumes(positions)

    def _fit_volumes(self, positions: Tensor) -> None:
        """Walls of sets of four beads that keep their handedness; stiffness as for distances, but closed when flat."""
        for index, four in enumerate(self.fours):
            volume = _volumes(positions.to(self.mean).permute(1, 2, 0), four[None])[0][0]
            size = volume.abs()
            keeps_away = size.min() > LEAST_VOLUME * size.mean() > LEAST_VOLUME * 5 * size.std()
            if volume.min() * volume.max() <= 0 or not keeps_away:
                continue
            edge = size.kthvalue(max(1, len(size) // 100)).values - size.min()
            self.volume_low[index] = size.min()
            as_for_distances = (0.55 * edge).clamp_min(1e-3 * size.std()).pow(-2)
            self.volume_stiffness[index] = torch.maximum(as_for_distances, 2.0 * FLAT_ENERGY / size.min().square())

    def _place_basis(self, kind: int, low: Tensor, high: Tensor) -> None:
        count = self.centers.shape[1]
        place = (torch.arange(count).to(low) + 0.5) / count if count < 2 else torch.arange(count).to(low) / (count - 1)
        self.centers[kind] = low + (high - low) * place
        self.widths[kind] = 1.3 * (high - low) / max(count - 1, 1)

    # ------------------------------------------------------------------------------- energy

    def forward(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)` with box edges `(3,)` or `(f, 3)`."""
        distance = self._distances(positions, box)[1]
        inputs = self._inputs(distance)[0]
        hidden = _activation(self._typed(self.first, self._collect(inputs), self.first_bias))[0]
        for layer, (weight, bias) in enumerate(zip(self.residuals, self.residual_biases, strict=True)):
            if layer:
                sent = self._typed(self.senders[layer - 1], hidden)
                message = self._gather_messages(self._pair_typed(self.filters[layer - 1], inputs), sent)
                received = self._typed(self.receivers[layer - 1], message, self.receiver_biases[layer - 1])
                hidden = hidden + _activation(received)[0]
            hidden = hidden + _activation(self._typed(weight, hidden, bias))[0]
        last = _activation(self._typed(self.hidden, hidden, self.hidden_bias))[0]
        energy = self._typed(self.readout, last).sum(dim=(0, 1)) + self._walls(distance)[0]
        for more, _ in self._further_terms(positions):
            energy = energy + more
        return self.thermal_energy * energy

    def energy_and_forces(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)` from one forward and one hand-written backward sweep."""
        difference, distance = self._distances(positions, box)
        inputs, input_slopes = self._inputs(distance, slopes=True)
        hidden, first_gain = _activation(self._typed(self.first, self._collect(inputs), self.first_bias))
        record = []
        for layer, (weight, bias) in enumerate(zip(self.residuals, self.residual_biases, strict=True)):
            sent = filters = receiver_gain = hidden.new_zeros(0)
            if layer:
                sent = self._typed(self.senders[layer - 1], hidden)
                filters = self._pair_typed(self.filters[layer - 1], inputs)
                message = self._gather_messages(filters, sent)
                received = self._typed(self.receivers[layer - 1], message, self.receiver_biases[layer - 1])
                step, receiver_gain = _activation(received)
                hidden = hidden + step
            step, gain = _activation(self._typed(weight, hidden, bias))
            hidden = hidden + step
            record.append((sent, filters, receiver_gain, gain))
        last, last_gain = _activation(self._typed(self.hidden, hidden, self.hidden_bias))
        wall, wall_slope = self._walls(distance)
        energy = self._typed(self.readout, last).sum(dim=(0, 1)) + wall

        readout = (self.readout if self.unique else self.readout[self.kinds]).transpose(1, 2)
        gradient = self._typed_back(self.hidden, last_gain * readout)
        from_filters: Tensor | float = 0.0
        for layer in reversed(range(len(record))):
            sent, filters, receiver_gain, gain = record[layer]
            gradient = gradient + self._typed_back(self.residuals[layer], gain * gradient)
            if layer:
                received = self._typed_back(self.receivers[layer - 1], receiver_gain * gradient)
                at_first, at_second = (
                    received.index_select(0, self.first_bead),
                    received.index_select(0, self.second_bead),
                )
                to_filters = at_first * sent.index_select(0, self.second_bead) + at_second * sent.index_select(
                    0, self.first_bead
                )
                from_filters = from_filters + self._pair_typed_back(self.filters[layer - 1], to_filters)
                to_sent = self._sum_to_beads(filters * at_second, filters * at_first)
                gradient = gradient + self._typed_back(self.senders[layer - 1], to_sent)
        to_inputs = self._spread(self._typed_back(self.first, first_gain * gradient)) + from_filters
        slope = (to_inputs * input_slopes).sum(dim=1) + wall_slope
        pair_force = (self.thermal_energy * slope / distance)[:, None] * difference
        forces = torch.zeros_like(difference[:1]).repeat(self.n_beads, 1, 1)
        forces = forces.index_add(0, self.first_bead, -pair_force).index_add(0, self.second_bead, pair_force)
        for more_energy, more_forces in self._further_terms(positions):
            energy, forces = energy + more_energy, forces + self.thermal_energy * more_forces
        return self.thermal_energy * energy, forces.permute(2, 0, 1)

    # ------------------------------------------------------------------------------- parts of the sweeps

    def _distances(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Differences `(n_pairs, 3, f)` and distances `(n_pairs, f)`, minimum image where there is a box."""
        if positions.ndim != 3 or positions.shape[1:] != (self.n_beads, 3):
            expected = f"(n_frames, {self.n_beads}, 3)"
            raise ValueError(f"positions have shape {tuple(positions.shape)}; this potential needs {expected}")
        rows = positions.permute(1, 2, 0).contiguous()
        difference = rows.index_select(0, self.first_bead) - rows.index_select(0, self.second_bead)
        if box is not None:
            edges = torch.as_tensor(box).to(positions)
            if self.cutoff is None or self.cutoff > 0.5 * float(edges.min()):
                raise ValueError(
                    f"cutoff {self.cutoff} is beyond half the smallest box edge {float(edges.min()):.4g}: neighbours "
                    "would be lost; train with a cutoff of at most half the box"
                )
            edges = edges.reshape(1, 3, 1) if edges.ndim == 1 else edges.T[None]
            difference = difference - edges * torch.round(difference / edges)
        return difference, difference.square().sum(dim=1).sqrt()

    def _inputs(self, distance: Tensor, slopes: bool = False) -> tuple[Tensor, Tensor]:
        """Pair features `(n_pairs, n_inputs, f)` and, if asked for, their derivatives by the distance."""
        kinds = slice(None) if self.unique else self.pair_kinds
        scale = 1.0 / self.deviation[kinds][:, None]
        standard = (distance - self.mean[kinds][:, None]) * scale
        soft = torch.rsqrt(1.0 + (standard / SOFT_LIMIT).square())
        bounded = standard * soft
        scaled = (distance[:, None] - self.centers[kinds][..., None]) / self.widths[kinds][..., None]
        gaussians = torch.exp(-0.5 * scaled.square())
        values = torch.cat([0.3 * bounded[:, None], 0.1 * bounded.square()[:, None] - 0.1, gaussians], dim=1)
        derivatives = values[:0]
        if slopes:
            rise = soft * soft * soft * scale
            gaussian_slopes = gaussians * scaled * (-1.0 / self.widths[kinds][..., None])
            derivatives = torch.cat([0.3 * rise[:, None], (0.2 * bounded * rise)[:, None], gaussian_slopes], dim=1)
        if self.cutoff is not None:
            part = (distance / self.cutoff).clamp(max=1.0)[:, None]
            envelope = 1.0 - part * part * part * (10.0 - 15.0 * part + 6.0 * part * part)
            if slopes:
                fall = (-30.0 / self.cutoff) * (part * (1.0 - part)).square()
                derivatives = derivatives * envelope + values * fall
            values = values * envelope
        return values, derivatives

    def _walls(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` of all walls and its derivative `(n_pairs, f)` [k_B T]."""
        kinds = slice(None) if self.unique else self.pair_kinds
        below, fall = _wall(self.low[kinds][:, None] - distance, self.low_stiffness[kinds][:, None])
        above, rise = _wall(distance - self.high[kinds][:, None], self.high_stiffness[kinds][:, None])
        return (below + above).sum(dim=0), rise - fall

    def _further_terms(self, positions: Tensor) -> list[tuple[Tensor | float, Tensor | float]]:
        """Energies `(f,)` and forces `(n, 3, f)` of what has no weights [k_B T]."""
        terms = [self._volume_walls(positions), self._torsion_series(positions)]
        return terms if self.prior is None else [*terms, self.prior(positions.permute(1, 2, 0))]

    def _volume_walls(self, positions: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Energy `(f,)` of the walls on handed centres and their forces `(n, 3, f)` [k_B T]."""
        active = self.volume_stiffness.nonzero()[:, 0]
        if not len(active):
            return 0.0, 0.0
        rows, fours = positions.permute(1, 2, 0), self.fours[active]
        volume, gradients = _volumes(rows, fours)
        below, slope = _wall(self.volume_low[active][:, None] - volume.abs(), self.volume_stiffness[active][:, None])
        pull = (slope * volume.sign())[:, None, None] * gradients
        forces = torch.zeros_like(rows).index_add(0, fours.flatten(), pull.flatten(0, 1))
        return below.sum(dim=0), forces

    def torsion_phases(self, positions: Tensor) -> Tensor:
        """Phases `(m, f)` of the waves of the series in torsions."""
        return self.modes @ torsion_angles(positions.permute(1, 2, 0), self.torsions)[0]

    def _torsion_series(self, positions: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Energy `(f,)` of the Fourier series in torsions and its forces `(n, 3, f)` [k_B T]."""
        if not self.series.any():
            return 0.0, 0.0
        rows = positions.permute(1, 2, 0)
        angle, gradients = torsion_angles(rows, self.torsions)
        phase = self.modes @ angle
        cosine, sine = self.series[0][:, None], self.series[1][:, None]
        energy = (cosine * phase.cos() + sine * phase.sin()).sum(dim=0)
        slope = self.modes.T @ (sine * phase.cos() - cosine * phase.sin())
        pull = -slope[:, None, None] * gradients
        return energy, torch.zeros_like(rows).index_add(0, self.torsions.flatten(), pull.flatten(0, 1))

    def _collect(self, inputs: Tensor) -> Tensor:
        """For each bead its pair features, one slot per neighbour type: `(n_beads, slots * n_inputs, f)`."""
        if self.unique:
            return inputs.index_select(0, self.neighbours).reshape(self.n_beads, -1, inputs.shape[-1])
        slots = inputs.new_zeros(self.n_beads * self.n_kinds, *inputs.shape[1:])
        slots = slots.index_add(0, self.first_slot, inputs).index_add(0, self.second_slot, inputs)
        return slots.reshape(self.n_beads, -1, inputs.shape[-1])

    def _spread(self, gradient: Tensor) -> Tensor:
        """Transpose of `_collect`."""
        slots = gradient.reshape(-1, self.n_inputs, gradient.shape[-1])
        return slots.index_select(0, self.first_slot) + slots.index_select(0, self.second_slot)

    def _typed(self, weight: Tensor, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """Dense layer of each bead's type: weight `(n_kinds, b, a)` on rows `(n_beads, a, f)`."""
        if not self.unique:
            weight = weight[self.kinds]
            bias = None if bias is None else bias[self.kinds]
        return torch.bmm(weight, rows) if bias is None else torch.baddbmm(bias, weight, rows)

    def _typed_back(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Transpose of `_typed`."""
        weight = weight if self.unique else weight[self.kinds]
        return torch.bmm(weight.transpose(1, 2), gradient)

    def _pair_typed(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Linear map of each pair's type: weight `(n_pair_kinds, b, a)` on rows `(n_pairs, a, f)`."""
        if self.unique:
            return torch.bmm(weight, rows)
        parts = zip(weight, rows.split(self.pair_counts), strict=True)
        return torch.cat([torch.bmm(one.expand(len(part), -1, -1), part) for one, part in parts])

    def _pair_typed_back(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Transpose of `_pair_typed`."""
        return self._pair_typed(weight.transpose(1, 2), gradient)

    def _gather_messages(self, filters: Tensor, sent: Tensor) -> Tensor:
        """What each bead receives `(n_beads, channels, f)`: the senders' features times the pair's filter."""
        return self._sum_to_beads(
            filters * sent.index_select(0, self.second_bead), filters * sent.index_select(0, self.first_bead)
        )

    def _sum_to_beads(self, to_first: Tensor, to_second: Tensor) -> Tensor:
        beads = torch.zeros_like(to_first[:1]).repeat(self.n_beads, 1, 1)
        return beads.index_add(0, self.first_bead, to_first).index_add(0, self.second_bead, to_second)


class Committee(torch.nn.Module):
    """A potential, with networks of resampled data beside it whose scatter is its uncertainty.

    Energy and forces are those of the potential alone, at its cost; the others are asked by name.
    """

    def __init__(self, potential: torch.nn.Module, members: Sequence[torch.nn.Module]) -> None:
        """Join networks of one kind."""
        super().__init__()
        self.potential = potential
        self.members = torch.nn.ModuleList(members)

    def forward(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of the potential."""
        return self.potential(positions, temperature, box)

    def energy_and_forces(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, d)` of the potential."""
        return self.potential.energy_and_forces(positions, box)  # type: ignore[operator]

    @torch.no_grad()
    def force_deviation(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Standard deviation `(f, n, d)` of the members' forces."""
        forces = [energy_and_forces(member, positions, temperature, box)[1] for member in self.members]
        return torch.stack(forces).std(dim=0)
