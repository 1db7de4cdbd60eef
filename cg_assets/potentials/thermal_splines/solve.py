"""Splines from response labels: weighted linear least squares, regularised as much as cross-validation asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.potentials.base import Labels
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.potentials.thermal.loss import QUANTITIES, label_weights
from cg_assets.potentials.thermal_splines.module import SplinePotential

FOLDS = 5
"""Parts of the CG frames that take turns in being held out."""
STRENGTHS = tuple(10.0**power for power in range(-9, 2))
"""Regularisations that are tried, relative to the diagonal of the normal matrix."""


@dataclass(frozen=True)
class SplineFit:
    """Splines that were solved for.

    Attributes:
        module: the potential.
        covariance: `(n, n)` of all its coefficients, term by term, from the errors of the labels and from what the
            regularisation leaves open (the posterior of Bayesian regression where weights are inverse variances).
            Errors are taken as independent, although those of one CG frame come from the same samples.
        strengths: the regularisation that cross-validation chose for each order in temperature (for values and slopes
            of the anchored form), of `STRENGTHS`.
        held_out_loss: weighted loss of held-out frames [(kJ/mol/nm)²].
        noise_floor: the weighted loss of a perfect potential [(kJ/mol/nm)²].
        misfit: of each quantity the variance that is neither noise nor fitted [its unit²].
        n_frames: number of CG frames.
    """

    module: SplinePotential
    covariance: NDArray[np.float64]
    strengths: list[float]
    held_out_loss: float
    noise_floor: float
    misfit: dict[str, float]
    n_frames: int


@dataclass
class _Normal:
    """Normal equations of one fold: theta' H theta - 2 theta' v + c is its weighted loss."""

    matrix: NDArray[np.float64]
    vector: NDArray[np.float64]
    constant: float
    noise: NDArray[np.float64]
    """What errors of the labels do to `vector`: its covariance."""
    floor: float

    def __add__(self, other: _Normal) -> _Normal:
        return _Normal(
            self.matrix + other.matrix,
            self.vector + other.vector,
            self.constant + other.constant,
            self.noise + other.noise,
            self.floor + other.floor,
        )

    def scaled(self, scale: NDArray[np.float64]) -> _Normal:
        """The equations of `scale` times the coefficients."""
        squares = np.outer(scale, scale)
        return _Normal(self.matrix / squares, self.vector / scale, self.constant, self.noise / squares, self.floor)

    def loss(self, solution: NDArray[np.float64]) -> float:
        return float(solution @ self.matrix @ solution - 2.0 * solution @ self.vector + self.constant)


def solve_splines(module: SplinePotential, labels: Labels) -> SplineFit:
    """Solve for the coefficients of splines.

    Twice: the first solution shows what splines cannot fit (`misfit`), which then enters the weights of the labels.

    Args:
        module: the splines, whose coefficients are set.
        labels: with temperatures, errors and an emphasis of each quantity; `seed` is that of the folds.

    Raises:
        TrainingError: the data cannot train these splines.
    """
    rows = _Rows.of(labels)
    frames = np.unique(rows.frame)
    if len(frames) < 2:
        raise TrainingError(f"there are {len(frames)} CG frames; cross-validation needs at least 2, label more frames")
    fold = np.random.default_rng(labels.seed).permutation(len(frames)) % min(FOLDS, len(frames))
    misfit = dict.fromkeys(QUANTITIES, 0.0)
    designs = list(_designs(module, labels, rows, frames))
    for turn in (0, 1):
        weights = label_weights(labels, module.dependence.origin, misfit)
        parts = _normal_equations(module, rows, weights, designs, fold)
        scale = _scale(module, sum(parts[1:], start=parts[0]).matrix)
        parts = [part.scaled(scale) for part in parts]
        total = sum(parts[1:], start=parts[0])
        penalty = _penalty(module, scale)
        group = _groups(module)
        strengths, loss = _chosen_strengths(parts, total, penalty, group)
        penalty = _strong(penalty, strengths, group)
        factor = scipy.linalg.cho_factor(total.matrix + penalty)
        solution = scipy.linalg.cho_solve(factor, total.vector)
        module.coefficients.copy_(torch.as_tensor(solution / scale).reshape(module.coefficients.shape))
        if turn == 0:
            misfit = _misfit(module, rows, labels.emphasis, designs)
    ThermalPotential.solve(module, labels)
    noise = scipy.linalg.cho_solve(factor, total.noise)
    unit = np.trace(noise) / np.trace(scipy.linalg.cho_solve(factor, total.matrix))
    half = noise + unit * scipy.linalg.cho_solve(factor, penalty)
    covariance = scipy.linalg.cho_solve(factor, half.T) / np.outer(scale, scale)
    return SplineFit(module, covariance, strengths, loss, total.floor, misfit, len(frames))


@dataclass(frozen=True)
class _Rows:
    """Labels as arrays in double precision."""

    temperature: NDArray[np.float64]
    frame: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    errors: dict[str, NDArray[np.float64]]

    @staticmethod
    def of(labels: Labels) -> _Rows:
        """From labels of a potential that depends on temperature.

        Raises:
            TrainingError: they are not of that kind.
        """
        if labels.temperature is None or labels.frame is None:
            raise TrainingError("splines are solved from response labels, with temperatures and numbers of frames")
        values, errors = (
            {name: array.double().numpy() for name, array in arrays.items()}
            for arrays in (labels.values, labels.errors)
        )
        return _Rows(labels.temperature.double().numpy(), labels.frame.numpy(), values, errors)


_Design = tuple[int, NDArray[np.int64], dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]


def _designs(module: SplinePotential, labels: Labels, rows: _Rows, frames: NDArray[np.int64]) -> Iterator[_Design]:
    """For each CG frame its number, its rows, and what the basis and the prior give for forces and energies."""
    order = np.argsort(rows.frame, kind="stable")
    starts = np.searchsorted(rows.frame[order], frames)
    for number, mine in enumerate(np.split(order, starts[1:])):
        place = labels.positions[mine[:1]]
        box = None if labels.box is None else labels.box[mine[:1]]
        functions, designs, prior_forces = module.force_functions(place, box)
        prior = module.terms(place, box) - functions @ module.coefficients.T
        basis = {"forces": designs[0].flatten(0, 1).numpy(), "mean_energy": functions.numpy()}
        known = {"forces": prior_forces[0].flatten().numpy(), "mean_energy": prior[0, :1].numpy()}
        yield number, mine, basis, known
        if labels.progress is not None:
            labels.progress(number + 1, len(frames), "frames")


def _normal_equations(
    module: SplinePotential,
    rows: _Rows,
    weights: Mapping[str, NDArray[np.float64]],
    designs: list[_Design],
    fold: NDArray[np.int64],
) -> list[_Normal]:
    size, terms = module.n_terms * module.n_functions, module.n_terms
    by_quantity = module.shares(torch.as_tensor(rows.temperature))
    parts = [
        _Normal(np.zeros((size, size)), np.zeros(size), 0.0, np.zeros((size, size)), 0.0)
        for _ in range(int(fold.max()) + 1)
    ]
    for number, mine, basis, known in designs:
        part = parts[fold[number]]
        for quantity in weights:
            design = basis["mean_energy" if quantity == "mean_energy" else "forces"]
            for row in mine:
                label, error = np.ravel(rows.values[quantity][row]), np.ravel(rows.errors[quantity][row])
                if quantity in known:
                    label = label - known[quantity]
                weight = np.ravel(weights[quantity][row])
                if not weight.any():
                    continue
                by_term = by_quantity[quantity][row]
                outer = np.outer(by_term, by_term)
                weighted = weight[:, None] * design
                blocks = outer[:, None, :, None] * (design.T @ weighted)[None, :, None]
                part.matrix += blocks.reshape(size, size)
                scattered = weighted.T @ ((error**2)[:, None] * weighted)
                part.noise += (outer[:, None, :, None] * scattered[None, :, None]).reshape(size, size)
                part.vector += (by_term[:, None] * (weighted.T @ label)).reshape(terms * module.n_functions)
                part.constant += float(weight @ label**2)
                part.floor += float(weight @ error**2)
    return parts


def _scale(module: SplinePotential, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the diagonal, the unit of one over each coefficient; functions that data hardly see are held by it."""
    diagonal = np.diag(matrix).reshape(module.n_terms, module.n_functions)
    return np.sqrt(np.maximum(diagonal, 1e-9 * diagonal.max())).ravel()


def _penalty(module: SplinePotential, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squares of the scaled coefficients, constants as good as left out, and second differences of those of pairs."""
    penalty = np.eye(len(scale))
    differences = np.diff(np.eye(module.pair_functions), n=2, axis=0)
    for term in range(module.n_terms):
        constant = term * module.n_functions
        penalty[constant, constant] = 1e-6
        block = term * module.n_functions + 1 + np.arange(module.pair_functions)
        unit = scale[block]
        penalty[np.ix_(block, block)] += (unit**2).mean() * (differences.T @ differences) / np.outer(unit, unit)
    return penalty


def _groups(module: SplinePotential) -> NDArray[np.int64]:
    """Which coefficients share a strength of regularisation: those of an order, or values and slopes of anchors."""
    of_term = np.arange(module.n_terms)
    if module.dependence.form == "anchored":
        of_term = of_term * 2 // module.n_terms
    return np.repeat(of_term, module.n_functions)


def _strong(penalty: NDArray[np.float64], strengths: list[float], group: NDArray[np.int64]) -> NDArray[np.float64]:
    root = np.sqrt(strengths)[group]
    return penalty * np.outer(root, root)


def _chosen_strengths(
    parts: list[_Normal], total: _Normal, penalty: NDArray[np.float64], group: NDArray[np.int64]
) -> tuple[list[float], float]:
    """Strengths of each group with the least loss of held-out frames, found one group after the other, and the loss."""
    strengths = [STRENGTHS[len(STRENGTHS) // 2]] * (int(group.max()) + 1)
    loss = np.inf
    for _ in range(2):
        for number in range(len(strengths)):
            tried = [[*strengths[:number], strength, *strengths[number + 1 :]] for strength in STRENGTHS]
            losses = [_held_out_loss(parts, total, _strong(penalty, each, group)) for each in tried]
            strengths, loss = tried[int(np.argmin(losses))], min(losses)
    return strengths, loss


def _held_out_loss(parts: list[_Normal], total: _Normal, penalty: NDArray[np.float64]) -> float:
    loss = 0.0
    for part in parts:
        factor = scipy.linalg.cho_factor(total.matrix - part.matrix + penalty)
        loss += part.loss(scipy.linalg.cho_solve(factor, total.vector - part.vector))
    return loss


def _misfit(
    module: SplinePotential, rows: _Rows, emphasis: Mapping[str, float], designs: list[_Design]
) -> dict[str, float]:
    """Mean squared deviation less the noise of the labels, for the quantities that have a weight."""
    by_quantity = module.shares(torch.as_tensor(rows.temperature))
    solved = module.coefficients.numpy()
    totals, counts = dict.fromkeys(QUANTITIES, 0.0), dict.fromkeys(QUANTITIES, 0)
    for _, mine, basis, known in designs:
        for quantity in QUANTITIES:
            design = basis["mean_energy" if quantity == "mean_energy" else "forces"]
            predicted = by_quantity[quantity][mine] @ solved @ design.T + known.get(quantity, 0.0)
            label, error = (arrays[quantity][mine].reshape(len(mine), -1) for arrays in (rows.values, rows.errors))
            labelled = np.isfinite(error)
            totals[quantity] += float(((label - predicted)[labelled] ** 2).sum() - (error[labelled] ** 2).sum())
            counts[quantity] += int(labelled.sum())
    return {
        quantity: max(0.0, total / max(counts[quantity], 1)) if emphasis.get(quantity) else 0.0
        for quantity, total in totals.items()
    }
