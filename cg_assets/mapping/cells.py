"""Periodic cells: an edge, three edges, three vectors, or a shape with an edge."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveFloat

from cg_assets.core.settings import Strict

_SHAPES = {
    "cubic": np.eye(3),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [1 / 2, 1 / 2, math.sqrt(2) / 2]]),
    "octahedron": np.array([[1, 0, 0], [1 / 3, 2 * math.sqrt(2) / 3, 0], [-1 / 3, math.sqrt(2) / 3, math.sqrt(6) / 3]]),
}
"""Vectors of the rhombic dodecahedron (with a square face in the plane of x and y) and the truncated octahedron."""
_SAME = 1e-3
DUMMY_EDGE = 0.11
"""Edge of a cell below which it stands for none: some programs write 1 Å or 0 [nm]."""


class CellShape(Strict):
    """A cell by its shape and the distance of neighbouring images."""

    shape: Literal["cubic", "dodecahedron", "octahedron"]
    """Of the periodic box."""
    edge: PositiveFloat
    """[nm]"""


def _is_cell(vectors: list[list[float]]) -> list[list[float]]:
    array = np.array(vectors)
    if not np.allclose(array, np.tril(array)) or (np.diag(array) <= 0).any():
        raise ValueError(
            "the first vector of a box must lie along x, the second in the plane of x and y, as [[a, 0, 0], "
            "[b, c, 0], [d, e, f]] with a, c and f positive [nm]"
        )
    return vectors


_Three = Annotated[list[float], Field(min_length=3, max_length=3)]
Cell = (
    PositiveFloat
    | Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)]
    | Annotated[list[_Three], Field(min_length=3, max_length=3), AfterValidator(_is_cell)]
    | CellShape
)
"""Edge of a cube, three edges, three vectors [nm], or a shape with an edge."""


def cell_vectors(cell: Any) -> NDArray[np.float64]:
    """Vectors `(3, 3)` of a cell in rows [nm], in reduced form.

    Args:
        cell: a `Cell`.
    """
    if isinstance(cell, CellShape):
        return reduced(cell.edge * _SHAPES[cell.shape])
    array = np.asarray(cell, dtype=np.float64)
    return reduced(array) if array.ndim == 2 else np.diag(np.broadcast_to(array, 3)).astype(np.float64)


def reduced(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same lattice by vectors `(3, 3)` as short as OpenMM wants them: b_x, c_x, c_y at most half the diagonal."""
    a, b, c = np.array(vectors, dtype=np.float64)
    c = c - b * np.round(c[1] / b[1])
    c = c - a * np.round(c[0] / a[0])
    b = b - a * np.round(b[0] / a[0])
    return np.array([a, b, c])


def shortest_vector(vectors: NDArray[np.float64]) -> float:
    """Distance of the nearest images [nm], given vectors `(3, 3)` in reduced form."""
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    return float(np.linalg.norm(steps[steps.any(axis=1)] @ vectors, axis=1).min())


def same_cell(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two lattices `(3, 3)` are equal to a thousandth: each is a whole combination of the other."""
    steps = one @ np.linalg.inv(other)
    return bool(np.abs(steps - np.round(steps)).max() < _SAME and abs(abs(np.linalg.det(steps)) - 1) < 3 * _SAME)


def shown_cell(vectors: NDArray[np.float64]) -> str:
    """A cell in words: `3 nm`, three edges, or three vectors."""
    edges = np.diag(vectors)
    if np.count_nonzero(vectors - np.diag(edges)):
        return f"[{', '.join('[' + ', '.join(f'{part:.5g}' for part in vector) + ']' for vector in vectors)}] nm"
    return f"{edges[0]:g} nm" if np.ptp(edges) == 0 else f"{' x '.join(f'{edge:g}' for edge in edges)} nm"


def is_dummy(box: NDArray[np.float64]) -> bool:
    """Whether a cell `(3, 3)` [nm] only fills a field: edges of 0, or of 1 Å."""
    return bool((np.diag(box) < DUMMY_EDGE).any())


def real_box(box: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """The box, or None where it is a dummy: absent, of zeros or NaN, or as small as an atom."""
    if box is None or not len(box):
        return None
    edges = np.linalg.norm(box, axis=2)
    with np.errstate(invalid="ignore"):
        fine = (edges > DUMMY_EDGE).all() and (np.abs(np.linalg.det(box)) > DUMMY_EDGE**3).all()
    return box if fine else None
