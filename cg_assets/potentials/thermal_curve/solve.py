"""Curves W(s, T) from labels of forces, their derivatives by temperature, and energies: generalised least squares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets.potentials.base import Labels
from cg_assets.potentials.thermal.dependent import TemperatureDependent
from cg_assets.potentials.thermal_curve.module import ThermalCurve

LARGEST_BEND = 3.0
"""Standard deviation of a second difference of spline coefficients without data [k_B T_0]."""
FOLDS = 5
_BLOCK = 20_000
_SMALLEST = 1e-13
"""Eigenvalues of the normal matrix below this part of the largest are left out: constants, which forces leave open."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CurveFit:
    """A curve that was solved for.

    Attributes:
        module: the potential.
        covariance: `(n, n)` of all its coefficients, term by term: what the scatter of the labels about the solution,
            which is that of whole frames with all of their labels, does to them (H. White, Econometrica 48, 817
            (1980)), without what the slight pull towards straight lines leaves open where there are no data.
        held_out_loss: mean squared deviation of force labels that the solution has not seen [reduced force squared].
    """

    module: ThermalCurve
    covariance: FloatArray
    held_out_loss: float

    def drawn(self, count: int, seed: int) -> list[ThermalCurve]:
        """Curves whose scatter is the error of this one, for errors of what follows from it.

        Args:
            count: how many.
            seed: of the draws.
        """
        import copy

        values, vectors = np.linalg.eigh(self.covariance)
        noise = np.random.default_rng(seed).standard_normal((count, len(values))) * np.sqrt(np.maximum(values, 0.0))
        curves = []
        for row in noise @ vectors.T:
            curve = copy.deepcopy(self.module)
            curve.coefficients += torch.as_tensor(row).reshape(curve.coefficients.shape)
            curves.append(curve)
        return curves


def solve_curve(module: ThermalCurve, labels: Labels) -> CurveFit:
    """Solve for the coefficients of a curve.

    Each label is weighted by its inverse variance times the emphasis of its quantity. Second differences of
    neighbouring coefficients are pulled slightly to zero (`LARGEST_BEND`), which continues the curve where there are no
    data.

    Args:
        module: the curve, whose coefficients are set.
        labels: with temperatures, errors and an emphasis of each quantity.

    Raises:
        ValueError: there are no temperatures, or an error of a label is zero.
    """
    if labels.temperature is None or labels.frame is None:
        raise ValueError("a curve is solved from response labels, with temperatures and numbers of frames")
    shares = module.shares(labels.temperature)
    frame = np.unique(labels.frame.numpy(), return_inverse=True)[1]
    fold = np.random.default_rng(labels.seed).permutation(int(frame.max()) + 1)[frame] % FOLDS
    blocks = list(_blocks(module, labels, shares))
    size = module.n_terms * module.n_functions
    matrix, vector = np.zeros((FOLDS, size, size)), np.zeros((FOLDS, size))
    for rows, _, design, weight, label in blocks:
        for number in range(FOLDS):
            mine = fold[rows] == number
            weighted = design[mine] * weight[mine, None]
            matrix[number] += weighted.T @ design[mine]
            vector[number] += weighted.T @ label[mine]
    penalty = _penalty(module)
    inverse = np.linalg.pinv(matrix.sum(axis=0) + penalty, rcond=_SMALLEST, hermitian=True)
    solution = inverse @ vector.sum(axis=0)
    scores = np.zeros((int(frame.max()) + 1, size))
    for rows, _, design, weight, label in blocks:
        np.add.at(scores, frame[rows], design * (weight * (label - design @ solution))[:, None])
    module.coefficients.copy_(torch.as_tensor(solution).reshape(module.coefficients.shape))
    TemperatureDependent.solve(module, labels)
    spread = inverse @ scores.T
    total, count = 0.0, 0
    for number in range(FOLDS):
        apart = np.arange(FOLDS) != number
        rest = np.linalg.pinv(matrix[apart].sum(axis=0) + penalty, rcond=_SMALLEST, hermitian=True)
        without = rest @ vector[apart].sum(axis=0)
        for rows, quantity, design, _, label in blocks:
            if quantity == "forces":
                left = (label - design @ without)[fold[rows] == number]
                total, count = total + float(left @ left), count + len(left)
    return CurveFit(module, spread @ spread.T, total / max(count, 1))


_Block = tuple[NDArray[np.int64], str, FloatArray, FloatArray, FloatArray]


def _blocks(module: ThermalCurve, labels: Labels, shares: Mapping[str, FloatArray]) -> Iterator[_Block]:
    """Known labels in blocks: their rows, the quantity, design `(n, n_terms * n_functions)`, weights and labels."""
    value, slope = (basis.numpy() for basis in module.basis(labels.positions[:, 0, 0].double()))
    for quantity, of_term in shares.items():
        emphasis, error = labels.emphasis.get(quantity, 0.0), labels.errors[quantity].double().reshape(-1).numpy()
        known = np.flatnonzero(np.isfinite(error)) if emphasis else np.zeros(0, dtype=np.int64)
        if len(known) and not (error[known] > 0).all():
            raise ValueError(f"an error of {quantity} is zero; give labels with their errors")
        functions = value if quantity == "mean_energy" else -slope
        label = labels.values[quantity].double().reshape(-1).numpy()
        for first in range(0, len(known), _BLOCK):
            rows = known[first : first + _BLOCK]
            design = (of_term[rows][:, :, None] * functions[rows][:, None]).reshape(len(rows), -1)
            yield rows, quantity, design, emphasis / error[rows] ** 2, label[rows]


def _penalty(module: ThermalCurve) -> FloatArray:
    """Inverse covariance of the coefficients before any label; straight lines are nearly free."""
    second = np.diff(np.eye(module.n_functions), n=2, axis=0)
    one = second.T @ second / (LARGEST_BEND * module.dependence.origin) ** 2
    return np.kron(np.eye(module.n_terms), one + 1e-6 * one.max() * np.eye(module.n_functions))
