"""Steps of `MatrixMomentum` in single precision on a CPU, compiled: products of small matrices near the peak of a core.

Matrices are kept as panels of `LANES` columns, `(panels * rows, LANES)`, padded with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cg_assets.potentials.lanes import LANES, TILE, clear, compiled, get, put, spread, tile, turn


@compiled
def move_matrices(
    weights: Any, gradients: Any, averages: Any, momentum: Any, rate: Any, shrink: Any, coefficients: Any, steps: Any
) -> None:
    """Move matrices `(m, p, q)` along their orthogonalised Nesterov momentum.

    Args:
        weights: changed.
        gradients: of the loss by them.
        averages: of the gradients, changed.
        momentum: part of the average that stays.
        rate: length of the step.
        shrink: factor of the weights.
        coefficients: `(3,)` of the Newton-Schulz iteration.
        steps: of it.
    """
    count, p, q = weights.shape
    b, a = min(p, q), max(p, q)
    rows, columns = -(-b // LANES) * LANES, -(-a // LANES) * LANES
    wide = np.zeros((columns // LANES * rows, LANES), np.float32)
    other, turned = np.zeros_like(wide), np.zeros_like(wide)
    gram = np.zeros((rows // LANES * rows, LANES), np.float32)
    square, ahead = np.zeros_like(gram), np.empty((p, q), np.float32)
    for number in range(count):
        for i in range(p):
            for j in range(q):
                gradient, average = gradients[number, i, j], averages[number, i, j]
                average = average + (np.float32(1.0) - momentum) * (gradient - average)
                averages[number, i, j] = average
                ahead[i, j] = gradient + momentum * (average - gradient)
        _pack(ahead, wide, rows)
        _normalise(wide)
        for _ in range(steps):
            _iterate(wide, turned, gram, square, other, rows, columns, coefficients)
            wide, other = other, wide
        _unpack(wide, ahead, rows)
        for i in range(p):
            for j in range(q):
                weights[number, i, j] = weights[number, i, j] * shrink - rate * ahead[i, j]


@compiled
def _pack(matrix: Any, wide: Any, rows: Any) -> None:
    """Write a matrix, or its transpose if that has fewer rows, into panels."""
    p, q = matrix.shape
    for i in range(p):
        if p > q:
            for j in range(q):
                wide[i // LANES * rows + j, i % LANES] = matrix[i, j]
        else:
            for first in range(0, q, LANES):
                for lane in range(min(LANES, q - first)):
                    wide[first // LANES * rows + i, lane] = matrix[i, first + lane]


@compiled
def _unpack(wide: Any, matrix: Any, rows: Any) -> None:
    """Back again."""
    p, q = matrix.shape
    for i in range(p):
        if p > q:
            for j in range(q):
                matrix[i, j] = wide[i // LANES * rows + j, i % LANES]
        else:
            for first in range(0, q, LANES):
                for lane in range(min(LANES, q - first)):
                    matrix[i, first + lane] = wide[first // LANES * rows + i, lane]


@compiled
def _normalise(wide: Any) -> None:
    """Divide by the Frobenius norm."""
    total = spread(np.float32(0.0))
    for row in range(len(wide)):
        total = total + get(wide, row) * get(wide, row)
    sums = np.empty((1, LANES), np.float32)
    put(sums, 0, total)
    scale = np.float32(1.0) / (np.sqrt(sums.sum()) + np.float32(1e-12))
    for row in range(len(wide)):
        put(wide, row, get(wide, row) * scale)


@compiled
def _iterate(
    wide: Any, turned: Any, gram: Any, square: Any, result: Any, rows: Any, columns: Any, coefficients: Any
) -> None:
    """(x + y A + z A²) X with A = X Xᵀ for panels X of `rows` rows, into a result; the rest is memory."""
    x, y, z = coefficients
    for across in range(columns // LANES):
        for down in range(rows // LANES):
            turn(wide, across * rows + down * LANES, turned, down * columns + across * LANES)
    _multiply(wide, turned, gram, rows, columns, rows, True)
    for row in range(len(gram)):
        put(turned, row, get(gram, row) * z)
    for row in range(rows):
        turned[row // LANES * rows + row, row % LANES] += y
    _multiply(turned, gram, square, rows, rows, rows, True)
    for row in range(rows):
        square[row // LANES * rows + row, row % LANES] += x
    _multiply(square, wide, result, rows, rows, columns, False)


@compiled
def _multiply(left: Any, right: Any, result: Any, rows: Any, inner: Any, columns: Any, symmetric: Any) -> None:
    """The product of panels `(rows, inner)` and `(inner, columns)`; half of it if symmetric."""
    for panel in range(columns // LANES):
        begin = panel * LANES if symmetric else 0
        clear(result, panel * rows + begin, rows - begin)
        for part in range(begin, rows, TILE):
            for middle in range(0, inner, LANES):
                place = (middle // LANES * rows + part) * LANES
                tile(left, place, LANES, 1, right, panel * inner + middle, LANES, result, panel * rows + part)
        if symmetric:
            for down in range(panel + 1, rows // LANES):
                turn(result, panel * rows + down * LANES, result, down * rows + panel * LANES)


@compiled
def move_by_adam(weights: Any, gradients: Any, averages: Any, squares: Any, rate: Any, first: Any, second: Any) -> None:
    """Move weights `(m,)` by Adam.

    Args:
        weights: changed.
        gradients: of the loss by them.
        averages: of the gradients, changed.
        squares: averages of their squares, changed.
        rate: of the step, over the weight of all gradients in their average.
        first: what a gradient counts in their average.
        second: what a square counts in theirs, and the weight of all squares in it.
    """
    for k in range(len(weights)):
        gradient = gradients[k]
        average = averages[k] + first * (gradient - averages[k])
        square = squares[k] + second[0] * (gradient * gradient - squares[k])
        averages[k], squares[k] = average, square
        weights[k] -= rate * average / (np.sqrt(square / second[1]) + np.float32(1e-8))
