"""Fit a classical force field of a chain of beads to the statistics of its configurations.

Bonds, cosines of angles and dihedrals of a chain are independent coordinates: without repulsion the density of its
configurations factorises into r² exp(-E), exp(-E) in the cosine and exp(-E) in the angle. Each term is the most likely
one of its family for the data (a normal density, exp of a polynomial of fourth order on [-1, 1], exp of a Fourier
series), so that no histogram is inverted: constants of bonds cannot become negative, and ranges without data are
bridged with a slight pull to zero. A network corrects the prior afterwards, since both are one potential that is
trained on forces.

The families are those in use for C-alpha models (Majewski et al., Nat. Commun. 14, 5739 (2023)), but for that of
angles, which is harmonic there and cannot fit two peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.geometry import torsion
from cg_assets.core.statistics.metrics import jensen_shannon_divergences
from cg_assets.mapping.chains import chain_terms
from cg_assets.potentials.chain_prior.module import ANGLE_ORDER

if TYPE_CHECKING:
    from cg_assets.potentials.chain_prior.settings import ChainPriorSettings

FloatArray = NDArray[np.float64]

LEAST_FRAMES = 100
"""Fewer configurations do not determine the ends of a distribution."""
CONTACT_QUANTILE = 0.001
"""Quantile of a pair's distance at which its repulsion is k_B T."""
_PULL = 1e-3
"""Weight of the squared coefficients of a density, against one for all data together."""
_SLIGHT_PULL = 1e-6
"""The same for angles, whose coefficients belong to powers that resemble one another."""
_LEAST_FALL = 0.1
"""A fall of the energy beyond the data that matters [k_B T]."""
_BINS = 60
_GRID = 2401


@dataclass(frozen=True)
class PriorTerm:
    """One term, fitted.

    Attributes:
        kind: `bonds`, `angles`, `dihedrals` or `repulsion`.
        beads: which.
        name: their names, joined by dashes.
        numbers: parameters as `cg_assets.potentials.chain_prior.module.ChainPrior` reads them.
        edges: bin edges of the coordinate [nm, cosine or rad].
        data: probability of each bin in the data.
        model: that of the term alone; empty for a repulsion.
        note: anything unusual.
    """

    kind: str
    beads: tuple[int, ...]
    name: str
    numbers: tuple[float, ...]
    edges: FloatArray
    data: FloatArray
    model: FloatArray
    note: str = ""

    @property
    def divergence(self) -> float:
        """Jensen-Shannon divergence of the fit from the data; nan for a repulsion."""
        if not len(self.model):
            return float("nan")
        return float(jensen_shannon_divergences(self.data[None], self.model[None])[0])


@dataclass(frozen=True)
class PriorFit:
    """All terms of a prior."""

    terms: tuple[PriorTerm, ...]

    def config(self) -> dict[str, list[list[float]]]:
        """The config of `ChainPrior`, plain JSON."""
        found: dict[str, list[list[float]]] = {}
        for term in self.terms:
            found.setdefault(term.kind, []).append([*term.beads, *term.numbers])
        return found

    def rows(self) -> list[dict[str, str]]:
        """Each kind of term as rows of a table."""
        rows = []
        for kind in dict.fromkeys(term.kind for term in self.terms):
            of_kind = [term for term in self.terms if term.kind == kind]
            fitted = [term for term in of_kind if len(term.model)]
            worst = max(fitted, key=lambda term: term.divergence, default=None)
            notes = dict.fromkeys(f"{term.name}: {term.note}" for term in of_kind if term.note)
            rows.append(
                {
                    "term": f"{kind} ({len(of_kind)})",
                    "largest JSD of a fit": "" if worst is None else f"{worst.divergence:.2g} ({worst.name})",
                    "remarks": "; ".join(notes),
                }
            )
        return rows

    def divergences(self, positions: ArrayLike) -> FloatArray:
        """Jensen-Shannon divergence of each term's coordinate in some configurations from the data."""
        found = self.histograms(positions)
        pairs = zip(self.terms, found, strict=True)
        return np.array([jensen_shannon_divergences(term.data[None], mine[None])[0] for term, mine in pairs])

    def histograms(self, positions: ArrayLike) -> list[FloatArray]:
        """Probability of each bin of each term's coordinate in configurations `(n_frames, n_beads, 3)` [nm]."""
        points = np.asarray(positions, dtype=np.float64)
        return [_histogram(_values(points, term.kind, term.beads), term.edges) for term in self.terms]

    def columns(self) -> dict[str, list[Any]]:
        """The terms as columns of a table."""
        return {
            "term": [term.kind for term in self.terms],
            "beads": [term.name for term in self.terms],
            "parameters": [", ".join(f"{number:.6g}" for number in term.numbers) for term in self.terms],
            "divergence": [term.divergence for term in self.terms],
            "remark": [term.note for term in self.terms],
        }


def fit_prior(
    positions: ArrayLike, bonds: Sequence[tuple[int, int]], bead_names: Sequence[str], settings: ChainPriorSettings
) -> PriorFit:
    """Fit the terms that the settings name.

    Args:
        positions: `(n_frames, n_beads, 3)` training configurations of one molecule [nm].
        bonds: pairs of bonded beads.
        bead_names: of all beads.
        settings: terms and order.

    Raises:
        TrainingError: there are too few frames, nothing is bonded, or a bond or angle never changes.
    """
    points = np.asarray(positions, dtype=np.float64)
    if len(points) < LEAST_FRAMES:
        raise TrainingError(
            f"network.prior is fitted to {len(points)} frames, which are too few; sample at least {LEAST_FRAMES}, "
            "or leave prior out"
        )
    if not bonds:
        raise TrainingError("network.prior needs a chain of beads, but no two beads are bonded; leave it out")
    angles, dihedrals, pairs = chain_terms(bonds, points.shape[1])
    of_kind: dict[str, list[Any]] = {
        "bonds": [tuple(bond) for bond in bonds],
        "angles": angles,
        "dihedrals": dihedrals,
        "repulsion": pairs,
    }
    terms = []
    for kind in settings.terms:
        for beads in of_kind[kind]:
            name, values = " - ".join(bead_names[bead] for bead in beads), _values(points, kind, beads)
            if kind == "bonds":
                terms.append(_bond(values, beads, name))
            elif kind == "angles":
                terms.append(_angle(values, beads, name))
            elif kind == "dihedrals":
                terms.append(_dihedral(values, beads, name, settings.dihedral_order))
            else:
                terms.append(_repulsion(values, beads, name))
    return PriorFit(tuple(terms))


def _bond(values: FloatArray, beads: tuple[int, ...], name: str) -> PriorTerm:
    mean, variance = values.mean(), _spread(values, f"bond {name}") ** 2
    length = mean - 2.0 * variance / mean  # r² exp(-E) has its mean there, to first order
    reach = 6.0 * np.sqrt(variance)
    grid = np.linspace(max(mean - reach, 1e-3), mean + reach, _GRID)
    weight = grid**2 * np.exp(-0.5 * (grid - length) ** 2 / variance)
    return _term("bonds", beads, name, (length, 1.0 / variance), values, grid, weight)


def _angle(values: FloatArray, beads: tuple[int, ...], name: str) -> PriorTerm:
    """exp(-E) is the density of the cosine: the sine of the angle in its own density is that of the change of variable.

    A polynomial of fourth order has room for two peaks. Where the data do not hold it down it could fall again, to a
    minimum that no configuration has; the most likely polynomial of lower order takes its place there.
    """
    mean, deviation = float(values.mean()), _spread(values, f"angle {name}")
    grid, note = np.linspace(-1.0, 1.0, _GRID), ""
    for order in (ANGLE_ORDER, 2, 1):
        powers = np.arange(1, order + 1)[:, None]
        features = ((grid - mean) / deviation) ** powers
        moments = (((values - mean) / deviation) ** powers).mean(axis=1)
        coefficients = most_likely(features, moments, pull=_SLIGHT_PULL)
        energy = -Polynomial([0.0, *coefficients])(Polynomial([-mean, 1.0]) / deviation)
        if not _falls_beyond(energy, values.min(), values.max()):
            break
        note = "falls beyond the data at fourth order, so one peak"
    numbers = np.zeros(ANGLE_ORDER)
    numbers[: len(energy.coef) - 1] = energy.coef[1:]
    exponent = coefficients @ features
    span = max(-1.0, mean - 10.0 * deviation), min(1.0, mean + 10.0 * deviation)
    return _term("angles", beads, name, tuple(numbers), values, grid, np.exp(exponent - exponent.max()), note, span)


def _falls_beyond(energy: Polynomial, low: float, high: float) -> bool:
    """Whether an energy [k_B T] of the cosine falls anywhere on its way from the data to straight or folded legs."""
    for edge, end in ((low, -1.0), (high, 1.0)):
        way = energy(np.linspace(edge, end, _GRID))
        if (np.maximum.accumulate(way) - way).max() > _LEAST_FALL:
            return True
    return False


def _dihedral(values: FloatArray, beads: tuple[int, ...], name: str, order: int) -> PriorTerm:
    grid = np.linspace(-np.pi, np.pi, _GRID)
    waves = np.arange(1, order + 1)[:, None]

    def features(angle: FloatArray) -> FloatArray:
        return np.stack([np.cos(waves * angle), np.sin(waves * angle)], axis=1).reshape(2 * order, -1)

    coefficients = most_likely(features(grid), features(values).mean(axis=1))
    empty = (np.histogram(values, _BINS, (-np.pi, np.pi))[0] == 0).mean()
    note = f"{empty:.0%} of the circle without data" if empty >= 0.1 else ""
    weight = np.exp(coefficients @ features(grid))
    return _term("dihedrals", beads, name, tuple(-coefficients), values, grid, weight, note)


def _repulsion(values: FloatArray, beads: tuple[int, ...], name: str) -> PriorTerm:
    contact = float(np.quantile(values, CONTACT_QUANTILE))
    edges = np.linspace(0.0, values.max(), _BINS + 1)
    return PriorTerm("repulsion", beads, name, (contact,), edges, _histogram(values, edges), np.empty(0))


def _values(points: FloatArray, kind: str, beads: tuple[int, ...]) -> FloatArray:
    """The coordinate of a term in each frame."""
    if kind == "dihedrals":
        return torsion(points, (beads[0], beads[1], beads[2], beads[3]))[0]
    if kind == "angles":
        legs = [points[:, end] - points[:, beads[1]] for end in (beads[0], beads[2])]
        one, two = (leg / np.linalg.norm(leg, axis=1, keepdims=True) for leg in legs)
        return np.einsum("fd,fd->f", one, two)
    return np.linalg.norm(points[:, beads[0]] - points[:, beads[1]], axis=1)


def _histogram(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Probability of each bin; what lies beyond the outer edges is in the outer bins."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)


def _spread(values: FloatArray, what: str) -> float:
    deviation = float(values.std())
    if not deviation > 1e-6 * max(abs(float(values.mean())), 1e-3):
        raise TrainingError(
            f"network.prior: {what} never changes (mean {values.mean():.6g}), so its constant would be infinite; use "
            "frames of a simulation, or leave prior out"
        )
    return deviation


def _term(
    kind: str,
    beads: tuple[int, ...],
    name: str,
    numbers: tuple[float, ...],
    values: FloatArray,
    grid: FloatArray,
    weight: FloatArray,
    note: str = "",
    span: tuple[float, float] | None = None,
) -> PriorTerm:
    """A term with the histograms of the data and of its own density, known on a grid up to a factor."""
    low, high = span or (float(grid[0]), float(grid[-1]))
    edges = np.linspace(low, high, _BINS + 1)
    sums = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]))])
    model = np.diff(np.interp(edges, grid, sums)) / sums[-1]
    parameters = tuple(float(number) for number in numbers)
    return PriorTerm(kind, beads, name, parameters, edges, _histogram(values, edges), model, note)


def most_likely(features: FloatArray, moments: FloatArray, pull: float = _PULL) -> FloatArray:
    """Coefficients c of the density exp(c · features) whose mean features are the given ones, by Newton's method.

    That is the most likely density of its family for data with these means. The problem is convex, and a slight pull
    to zero keeps it bounded where data are missing.

    Args:
        features: `(k, n_grid)` on an even grid from end to end; sums over it are by the trapezoidal rule.
        moments: `(k,)` their means in the data.
        pull: weight of the squared coefficients, against one for all data together.
    """
    weights = np.ones(features.shape[1])
    weights[[0, -1]] = 0.5

    def objective(trial: FloatArray) -> float:
        exponent = trial @ features
        top = exponent.max()
        return float(top + np.log(weights @ np.exp(exponent - top)) - trial @ moments + 0.5 * pull * trial @ trial)

    coefficients = np.zeros(len(features))
    for _ in range(100):
        exponent = coefficients @ features
        density = weights * np.exp(exponent - exponent.max())
        density /= density.sum()
        mean = features @ density
        covariance = (features * density) @ features.T - np.outer(mean, mean)
        slope = mean - moments + pull * coefficients
        step = np.linalg.solve(covariance + pull * np.eye(len(mean)), -slope)
        before, share = objective(coefficients), 1.0
        while objective(coefficients + share * step) > before and share > 1e-6:
            share *= 0.5
        coefficients = coefficients + share * step
        if np.abs(step).max() < 1e-10:
            break
    return coefficients
