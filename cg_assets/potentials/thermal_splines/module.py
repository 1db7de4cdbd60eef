"""The fast potential: cubic splines in pair distances and a small product basis of triples, linear in its coefficients.

Beads of one type. For each bead i with neighbours j and k, unit vectors u and the angle between them,

    W = n c_0 + sum_{i<j,a} c_a B_a(r_ij) + 1/2 sum_{i,a<=b,l} c_abl sum_{j,k != j} B_a(r_ij) B_b(r_ik) P_l(u_j.u_k)

with cubic B-splines B_a on an even grid that end with value, slope and curvature zero at the cutoff, and Legendre
polynomials P_l. Below the least distance of the data splines continue along their tangents, and the prior repels.

The triple sum is a square: with moments A_a,m = sum_j B_a(r_ij) x_m(u_j) over monomials x_m of degree p, products
sum_m multinomial_m A_a,m A_b,m are the sums over pairs of neighbours of B_a B_b (u_j.u_k)^p, in which j = k is
subtracted. The cost is linear in the number of neighbours (R. Drautz, Phys. Rev. B 99, 014104 (2019)).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import MISSING, Engine, Labels, PairFunction
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.potentials.thermal.dependent import ThermalConfig
from cg_assets.potentials.thermal.pairs import Pairs, neighbour_pairs

MAX_DEGREE = 6
FADE = 0.003
"""Distance within which slopes of triples fade below those of the data [nm]."""


def cubic_splines(distance: Tensor, low: Tensor, cutoff: float, count: int) -> tuple[Tensor, Tensor]:
    """B-splines `(p, count)` of distances `(p,)` and their derivatives; below `low` they are continued linearly."""
    step = (cutoff - low) / count
    inside = torch.maximum(distance, low)
    place = (inside - low)[:, None] / step + 1 - torch.arange(count).to(distance)
    size = place.abs()
    outer, inner = (2 - size).clamp_min(0), (1 - size).clamp_min(0)
    value = (outer**3 - 4 * inner**3) / 6
    slope = place.sign() * (4 * inner.square() - outer.square()) / (2 * step)
    return value + slope.detach() * (distance - inside)[:, None], slope


def monomials(degree: int) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Exponents of all monomials in three variables up to a degree, in order of degree, and their multinomials."""
    exponents = [(a, b, p - a - b) for p in range(degree + 1) for a in range(p, -1, -1) for b in range(p - a, -1, -1)]
    numbers = [math.factorial(sum(e)) // math.prod(math.factorial(part) for part in e) for e in exponents]
    return exponents, numbers


def legendre(degree: int) -> Tensor:
    """Coefficients `(degree + 1, degree + 1)` of Legendre polynomials (rows) in powers (columns), in float64."""
    table = torch.zeros(degree + 1, degree + 1, dtype=torch.float64)
    table[0, 0] = 1.0
    if degree:
        table[1, 1] = 1.0
    for order in range(1, degree):
        table[order + 1, 1:] = (2 * order + 1) / (order + 1) * table[order, :-1]
        table[order + 1] -= order / (order + 1) * table[order - 1]
    return table


class SplinesConfig(ThermalConfig, total=False):
    """With its settings."""

    pair_cutoff: float
    pair_functions: int
    triple_cutoff: float | None
    triple_functions: int
    triple_degree: int


class SplinePotential(ThermalPotential):
    """See the module; coefficients are solved for (`solve`), in float64."""

    coefficients: Tensor
    couple: Tensor
    low_triple: Tensor
    powers: Tensor
    multinomials: Tensor
    degrees: Tensor
    legendre: Tensor

    def __init__(self, config: SplinesConfig, generator: torch.Generator) -> None:
        """Build the potential, with all coefficients zero.

        Args:
            config: that of `ThermalPotential`, with `pair_cutoff` [nm], `pair_functions`, and, for three-body terms,
                a `triple_cutoff` [nm], `triple_functions` and `triple_degree` (of the Legendre polynomials).
            generator: not used; nothing here is random.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        if len(set(self.bead_types)) > 1:
            raise ValueError(
                f"bead_types are {sorted(set(self.bead_types))}: splines support beads of one type only; use the "
                "message-passing form for mixtures"
            )
        self.pair_cutoff, self.pair_functions = float(config["pair_cutoff"]), int(config["pair_functions"])
        triple_cutoff = config.get("triple_cutoff")
        self.triple_functions = int(config["triple_functions"]) if triple_cutoff else 0
        self.triple_cutoff = float(triple_cutoff) if triple_cutoff and self.triple_functions else 0.0
        self.degree = int(config["triple_degree"]) if self.triple_functions else 0
        if self.pair_cutoff <= 0 or self.pair_functions < 4:
            raise ValueError(
                f"pair_cutoff {self.pair_cutoff} must be positive and pair_functions {self.pair_functions} at least 4"
            )
        if self.triple_functions and not (self.triple_cutoff > 0 and 0 <= self.degree <= MAX_DEGREE):
            raise ValueError(
                f"triple_cutoff {self.triple_cutoff} must be positive and triple_degree {self.degree} at most "
                f"{MAX_DEGREE}"
            )
        self.couples = list(itertools.combinations_with_replacement(range(self.triple_functions), 2))
        exponents, numbers = monomials(self.degree)
        index = {
            "powers": torch.tensor(exponents),
            "multinomials": torch.tensor(numbers).double(),
            "degrees": torch.tensor([sum(e) for e in exponents]),
            "legendre": legendre(self.degree),
            "couple": torch.tensor(self.couples).reshape(-1, 2),
        }
        for name, value in index.items():
            self.register_buffer(name, value, persistent=False)
        self.n_functions = 1 + self.pair_functions + len(self.couples) * (self.degree + 1)
        self.register_buffer("low_triple", torch.zeros((), dtype=torch.float64))
        self.register_buffer("coefficients", torch.zeros(self.n_terms, self.n_functions, dtype=torch.float64))

    @property
    def cutoff(self) -> float:
        """Range of the potential [nm]."""
        return max(self.pair_cutoff, self.triple_cutoff)

    def _place(self, distance: Tensor) -> None:
        limit = min(self.pair_cutoff, self.triple_cutoff or self.pair_cutoff)
        if not self.low < limit:
            raise ValueError(f"no two beads come closer than {float(self.low):.4g} nm; the cutoff {limit} is too short")
        self.low_triple.copy_(self.low)

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol]."""
        self.coefficients[:, 0] += values.to(self.coefficients)

    @torch.no_grad()
    def solve(self, labels: Labels) -> dict[str, float]:
        """Coefficients by least squares, regularised as much as cross-validation asks for, and constants.

        Returns:
            `held_out_loss`, `noise_floor` and the `strength_<order>` of each regularisation.

        Raises:
            TrainingError: the data cannot train these splines.
        """
        from cg_assets.potentials.thermal_splines.solve import solve_splines

        fit = solve_splines(self, labels)
        facts = {"held_out_loss": fit.held_out_loss, "noise_floor": fit.noise_floor}
        return facts | {f"strength_{order}": strength for order, strength in enumerate(fit.strengths)}

    def engine(self, temperature: float | None = None, box: Any = None, device: torch.device | None = None) -> Engine:
        """On a CPU compiled code with neighbour lists."""
        if device is not None and device.type != "cpu":
            return super().engine(temperature, box, device)
        from cg_assets.potentials.thermal_splines.engine import SplineEngine

        if temperature is None:
            raise ValueError(MISSING["temperature"])
        return SplineEngine(self, temperature, box)

    def pair_function(self, temperature: float | None = None) -> PairFunction | None:
        """Pair splines and the prior at a temperature; None with triples."""
        if self.triple_functions:
            return None
        if temperature is None:
            raise ValueError(MISSING["temperature"])
        weights = self.dependence.coefficients(torch.tensor([temperature]))[0, 0]
        constant, *of_pairs = weights @ self.coefficients.cpu()

        def energy(distance: Tensor) -> Tensor:
            splines = cubic_splines(distance, self.low, self.pair_cutoff, self.pair_functions)[0]
            return splines @ torch.stack(of_pairs) + self.repulsion(distance)

        return PairFunction(energy, self.pair_cutoff, float(self.low), float(self.n_beads * constant))

    def own_terms(self, pairs: Pairs, n_frames: int) -> Tensor:
        """The energies `(f, n_terms)` without the prior [kJ/mol]."""
        functions = self.functions(pairs, n_frames)
        return functions.to(self.coefficients) @ self.coefficients.T

    def functions(self, pairs: Pairs, n_frames: int) -> Tensor:
        """The basis functions `(f, n_functions)` whose coefficients are W: number of beads, pairs, triples."""
        low = self.low.to(pairs.distance)
        constant = torch.full((n_frames, 1), float(self.n_beads)).to(pairs.distance)
        near = pairs.within(self.pair_cutoff)
        value, _ = cubic_splines(near.distance, low, self.pair_cutoff, self.pair_functions)
        parts = [constant, self.per_frame(value, near.first, n_frames)]
        if self.triple_functions:
            near = pairs.within(self.triple_cutoff).both_ways()
            value, _, angular, _ = self._triple_factors(near)
            moments = self._moments(near, value, angular, n_frames)
            a, b = self.couple.T
            squares = moments[:, a] * moments[:, b] * self.multinomials.to(value)
            powers = squares.new_zeros(*squares.shape[:2], self.degree + 1).index_add(2, self.degrees, squares)
            total = powers.reshape(n_frames, self.n_beads, len(a), self.degree + 1).sum(dim=1)
            alone = self.per_frame(value[:, a] * value[:, b], near.first, n_frames)
            triples = 0.5 * (total - alone[..., None]) @ self.legendre.T.to(value)
            parts.append(triples.flatten(1))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def force_functions(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What coefficients are solved from: everything that is linear in them.

        Args:
            positions: `(f, n, 3)` [nm].
            box: edges `(3,)` or `(f, 3)` [nm], or None.

        Returns:
            Basis functions `(f, n_functions)`, their forces (negative gradients) `(f, n, 3, n_functions)` and the
            forces of the prior `(f, n, 3)`, all in float64.
        """
        positions = positions.double()
        frames = len(positions)
        pairs = neighbour_pairs(positions, box, self.cutoff)
        forces = positions.new_zeros(frames * self.n_beads, 3, self.n_functions)
        near = pairs.within(self.pair_cutoff)
        direction = near.difference / near.distance[:, None]
        slope = cubic_splines(near.distance, self.low, self.pair_cutoff, self.pair_functions)[1]
        pull = direction[:, :, None] * slope[:, None]
        forces[:, :, 1 : 1 + self.pair_functions] = self._on_beads(near, -pull, frames)
        if self.triple_functions:
            near = pairs.within(self.triple_cutoff).both_ways()
            pull = self._triple_gradients(near, frames)
            forces[:, :, 1 + self.pair_functions :] = self._on_beads(near, -pull, frames)
        with torch.enable_grad():
            points = positions.clone().requires_grad_(True)
            prior = self._prior_energy(neighbour_pairs(points, box, self.cutoff), frames)
            (gradient,) = torch.autograd.grad(prior.sum(), points)
        return self.functions(pairs, frames), forces.reshape(frames, self.n_beads, 3, -1), -gradient

    def _on_beads(self, pairs: Pairs, pull: Tensor, n_frames: int) -> Tensor:
        """Sums over beads of forces `(p, 3, k)` on the first of each pair, and their opposites on the second."""
        total = pull.new_zeros(n_frames * self.n_beads, *pull.shape[1:])
        return total.index_add_(0, pairs.first, pull).index_add_(0, pairs.second, -pull)

    def _triple_factors(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Splines `(p, a)` with slopes, monomials `(p, m)` of the unit vectors, and these unit vectors `(p, 3)`.

        Nearer than any data slopes fade within `FADE`: continued, they can be steeper than the repulsion of pairs, and
        beads fall together.
        """
        low = self.low_triple.to(pairs.distance)
        inside = torch.maximum(pairs.distance, low)
        fade = torch.exp((pairs.distance - inside) / FADE)
        value, slope = cubic_splines(inside, low, self.triple_cutoff, self.triple_functions)
        value, slope = value + FADE * slope.detach() * (fade - 1.0)[:, None], slope * fade.detach()[:, None]
        unit = pairs.difference / pairs.distance[:, None]
        return value, slope, self._monomials(unit, self.powers), unit

    @staticmethod
    def _monomials(unit: Tensor, powers: Tensor) -> Tensor:
        table = torch.stack([unit.pow(p) for p in range(int(powers.max()) + 1)], dim=2)
        return table[:, 0, powers[:, 0]] * table[:, 1, powers[:, 1]] * table[:, 2, powers[:, 2]]

    def _moments(self, pairs: Pairs, value: Tensor, angular: Tensor, n_frames: int) -> Tensor:
        product = value[:, :, None] * angular[:, None]
        total = product.new_zeros(n_frames * self.n_beads, *product.shape[1:])
        return total.index_add(0, pairs.first, product)

    def _triple_gradients(self, pairs: Pairs, n_frames: int) -> Tensor:
        """Gradients `(p, 3, n)` of the triple functions of the first bead of each pair by the pair's difference."""
        value, slope, angular, unit = self._triple_factors(pairs)
        moments = self._moments(pairs, value, angular, n_frames) * self.multinomials
        turned = []
        for axis in range(3):
            lowered = self.powers.clone()
            lowered[:, axis] = (lowered[:, axis] - 1).clamp_min(0)
            turned.append(self.powers[:, axis] * self._monomials(unit, lowered))
        by_unit = torch.stack(turned, dim=1)
        across = by_unit - unit[:, :, None] * (unit[:, :, None] * by_unit).sum(dim=1, keepdim=True)
        across = across / pairs.distance[:, None, None]
        gradients = (
            unit[:, :, None, None] * slope[:, None, :, None] * angular[:, None, None]
            + value[:, None, :, None] * across[:, :, None]
        )
        a, b = self.couple.T
        columns = []
        for degree in range(self.degree + 1):
            mine = self.degrees == degree
            products = gradients[..., mine] @ moments[pairs.first][..., mine].transpose(1, 2)[:, None]
            columns.append(products[:, :, a, b] + products[:, :, b, a])
        alone = slope[:, a] * value[:, b] + value[:, a] * slope[:, b]
        powers = torch.stack(columns, dim=3) - (unit[:, :, None] * alone[:, None])[..., None]
        return (0.5 * powers @ self.legendre.T).flatten(2)
