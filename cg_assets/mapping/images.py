"""Nearest periodic images in any cell, and molecules kept together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError

_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=np.float64)
_CLEAR = 1.1
"""Distance of the second nearest image of a molecule, relative to the nearest, from which on it is clear."""


def nearest_image(steps: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest image of each vector.

    Rounding of fractional coordinates alone is wrong near the corners of a triclinic cell, so the 27 cells around are
    tried; this is exact for reduced cells (those of GROMACS, AMBER and OpenMM).

    Args:
        steps: `(..., 3)` [nm].
        box: `(3, 3)` or `(..., 3, 3)` rows are the vectors of the cell [nm].

    Returns:
        `(..., 3)` [nm].
    """
    return _images(steps, box)[0]


def _images(steps: NDArray[np.float64], box: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shortest image of each vector, and the length `(...)` of the second shortest."""
    fractions = np.einsum("...i,...ij->...j", steps, np.linalg.inv(box))
    near = steps - np.einsum("...i,...ij->...j", np.round(fractions), box)
    around = near[..., None, :] + np.einsum("ki,...ij->...kj", _AROUND, box)
    lengths = np.linalg.norm(around, axis=-1)
    order = np.argsort(lengths, axis=-1)
    best = np.take_along_axis(around, order[..., :1, None], axis=-2)[..., 0, :]
    return best, np.take_along_axis(lengths, order[..., 1:2], axis=-1)[..., 0]


def keep_together(
    positions: NDArray[np.float64], groups: NDArray[np.int64], box: NDArray[np.float64], file: str = ""
) -> NDArray[np.float64]:
    """Frames in which each molecule is at the image nearest to the others.

    Molecules are placed one by one: of those not yet placed, the one whose centre is nearest to a placed one is next.

    Args:
        positions: `(n_frames, n_atoms, 3)` of whole molecules [nm].
        groups: `(n_atoms,)` the molecule of each atom, counted from 0.
        box: `(n_frames, 3, 3)` rows are the vectors of the cell [nm].
        file: where they are from, to name it.

    Returns:
        `(n_frames, n_atoms, 3)` [nm].

    Raises:
        SamplingError: in a frame two images of a molecule are equally near.
    """
    number = int(groups.max()) + 1
    if number < 2:
        return positions
    members = [np.flatnonzero(groups == group) for group in range(number)]
    centres = np.stack([positions[:, atoms].mean(axis=1) for atoms in members], axis=1)
    shifts, frames = np.zeros_like(centres), np.arange(len(positions))
    placed = np.zeros((len(positions), number), dtype=bool)
    placed[:, 0] = True
    for _ in range(number - 1):
        steps = centres[:, None, :, :] - (centres + shifts)[:, :, None, :]
        best, second = _images(steps, box[:, None, None])
        lengths = np.linalg.norm(best, axis=-1)
        lengths = np.where(placed[:, :, None] & ~placed[:, None, :], lengths, np.inf)
        anchor, added = np.unravel_index(lengths.reshape(len(positions), -1).argmin(axis=1), lengths.shape[1:])
        unclear = second[frames, anchor, added] < _CLEAR * lengths[frames, anchor, added]
        if unclear.any():
            _refuse(int(np.argmax(unclear)), lengths, second, anchor, added, file)
        shifts[frames, added] = best[frames, anchor, added] - steps[frames, anchor, added]
        placed[frames, added] = True
    return positions + shifts[:, groups]


def _refuse(
    frame: int, lengths: NDArray, second: NDArray, anchor: Sequence[int], added: Sequence[int], file: str
) -> None:
    place = frame, anchor[frame], added[frame]
    raise SamplingError(
        f"{file}: frame {frame}: molecule {added[frame] + 1} has two images {lengths[place]:.3g} and "
        f"{second[place]:.3g} nm from molecule {anchor[frame] + 1}, so which one belongs to it is ambiguous; set "
        "model.box, so that the beads are periodic, or write frames with the molecules together (gmx trjconv -pbc "
        "cluster)"
    )
