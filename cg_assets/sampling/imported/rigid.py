"""Bonds whose lengths never change: the constraints of the run that made a trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RIGID, _STIFFEST = 1e8, 5e6
"""A bond that varies less than one of the first force constant is rigid; no bond reaches the second [kJ/mol/nm²]."""
_FEWEST, _FEWEST_ROUNDED = 10, 30
"""Frames that show it: with fewer, a bond that vibrates may seem rigid by chance."""


def rigid_bonds(
    lengths: Sequence[NDArray[np.floating]], thermal_energy: float, grid: float | None
) -> NDArray[np.bool_] | None:
    """Which bonds are rigid in one of the files, or in all together; None where frames are too few or too coarse.

    A bond of force constant k varies by kT/k, and by g²/6 more where coordinates are rounded to steps of g.

    Args:
        lengths: `(n_frames, n_bonds)` of each file [nm].
        thermal_energy: k_B T [kJ/mol].
        grid: step of the coordinates [nm], or None.
    """
    most = thermal_energy / _RIGID + (0.0 if grid is None else grid**2 / 3)
    fewest = _FEWEST if grid is None else _FEWEST_ROUNDED
    squares = [((file - file.mean(axis=0)) ** 2).sum(axis=0) for file in lengths]
    counts = [len(file) for file in lengths]
    squares, counts = [*squares, np.sum(squares, axis=0)], [*counts, sum(counts) - len(counts) + 1]
    judged = [square < most * (count - 1) for square, count in zip(squares, counts, strict=True) if count >= fewest]
    return np.any(judged, axis=0) if judged and most < thermal_energy / _STIFFEST else None
