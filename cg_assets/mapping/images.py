"""Nearest periodic images in any cell, and molecules made whole and kept together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError

_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=np.float64)
_CLEAR, _FAR = 1.1, 3.0
"""Distance of the second nearest image of a molecule, relative to the nearest, from which on it is clear: from the
other molecules, and from where it was in the frame before."""


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


class MoleculesTogether:
    """Places each molecule of a trajectory, frame after frame, at the image nearest to the others.

    Molecules are placed one by one: of those not yet placed, the one whose centre is nearest to a placed one is next.
    Where two images of a molecule are about equally near, all are placed where they moved least since the frame before.

    Attributes:
        number: of molecules.
        last: `(n_molecules, 3)` centres in the last frame relative to the first molecule's [nm]; None before any.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        """Takes the molecule `(n_atoms,)` of each atom, counted from 0."""
        self._groups = groups
        self.number = int(groups.max()) + 1
        self._members = [np.flatnonzero(groups == group) for group in range(self.number)]
        self.last: NDArray[np.float64] | None = None

    def apply(
        self, positions: NDArray[np.float64], box: NDArray[np.float64], numbers: NDArray[np.int64], file: str = ""
    ) -> NDArray[np.float64]:
        """Frames with their molecules together.

        Args:
            positions: `(n_frames, n_atoms, 3)` of whole molecules [nm], which follow those before.
            box: `(n_frames, 3, 3)` rows are the vectors of the cell [nm].
            numbers: `(n_frames,)` of the frames in their file, for messages.
            file: where they are from, to name it.

        Returns:
            `(n_frames, n_atoms, 3)` [nm].

        Raises:
            SamplingError: in a frame two images of a molecule are about equally near, and the frame before does not
                show which one it is.
        """
        if self.number < 2 or not len(positions):
            return positions
        centres = np.stack([positions[:, atoms].mean(axis=1) for atoms in self._members], axis=1)
        shifts, unclear = _nearest_shifts(centres, box)
        for frame, words in unclear.items():
            before = self.last if frame == 0 else (centres + shifts)[frame - 1]
            moved = None if before is None else _least_shifts(centres[frame], before, box[frame])
            if moved is None:
                raise SamplingError(
                    f"{file}: frame {numbers[frame]}: {words}, so which one belongs to it is ambiguous; set model.box, "
                    "so that the beads are periodic, or write frames with the molecules together and without a box"
                )
            shifts[frame] = moved
        self.last = (centres + shifts)[-1] - centres[-1, :1]
        return positions + shifts[:, self._groups]


def _nearest_shifts(
    centres: NDArray[np.float64], box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Shifts `(n_frames, n_molecules, 3)` to nearest images, and frames where one is not clear, in words."""
    number, frames = centres.shape[1], np.arange(len(centres))
    shifts, unclear = np.zeros_like(centres), dict[int, str]()
    placed = np.zeros((len(centres), number), dtype=bool)
    placed[:, 0] = True
    for _ in range(number - 1):
        steps = centres[:, None, :, :] - (centres + shifts)[:, :, None, :]
        best, second = _images(steps, box[:, None, None])
        lengths = np.linalg.norm(best, axis=-1)
        lengths = np.where(placed[:, :, None] & ~placed[:, None, :], lengths, np.inf)
        anchor, added = np.unravel_index(lengths.reshape(len(frames), -1).argmin(axis=1), lengths.shape[1:])
        near, far = lengths[frames, anchor, added], second[frames, anchor, added]
        for frame in np.flatnonzero(far < _CLEAR * near).tolist():
            one, other = added[frame] + 1, anchor[frame] + 1
            words = f"molecule {one} has two images {near[frame]:.3g} and {far[frame]:.3g} nm from molecule {other}"
            unclear.setdefault(frame, words)
        shifts[frames, added] = best[frames, anchor, added] - steps[frames, anchor, added]
        placed[frames, added] = True
    return shifts, dict(sorted(unclear.items()))


def _least_shifts(
    centres: NDArray[np.float64], before: NDArray[np.float64], box: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Shifts `(n_molecules, 3)` by which molecules moved least relative to the first; None where that is not clear."""
    steps = centres - centres[:1] - (before - before[:1])
    best, second = _images(steps, box)
    if (second < _FAR * np.linalg.norm(best, axis=-1)).any():
        return None
    return best - steps


class WholeMolecules:
    """Makes molecules whole along their bonds, in boxes of any shape."""

    def __init__(self, n_atoms: int, bonds: Sequence[tuple[int, int]]) -> None:
        """Orders the bonds so that each atom but the first of a molecule follows one that is in place.

        Args:
            n_atoms: atoms of a frame.
            bonds: pairs of them.
        """
        near: list[list[int]] = [[] for _ in range(n_atoms)]
        for first, second in bonds:
            near[first].append(second)
            near[second].append(first)
        levels: list[list[tuple[int, int]]] = []
        seen = [False] * n_atoms
        for root in range(n_atoms):
            if seen[root]:
                continue
            seen[root], front, depth = True, [root], 0
            while front:
                pairs = []
                for atom in front:
                    for other in near[atom]:
                        if not seen[other]:
                            seen[other] = True
                            pairs.append((atom, other))
                front = [other for _, other in pairs]
                if pairs:
                    levels.extend([[] for _ in range(depth + 1 - len(levels))])
                    levels[depth] += pairs
                depth += 1
        self._levels = [np.array(pairs) for pairs in levels]

    def apply(self, positions: NDArray[np.floating], box: NDArray[np.float64] | None) -> NDArray[np.floating]:
        """Positions `(n_frames, n_atoms, 3)` of whole molecules [nm]; the first atom of each stays where it is.

        Args:
            positions: as in the file [nm].
            box: `(n_frames, 3, 3)` vectors [nm], or None.
        """
        if box is None or not len(positions):
            return positions
        inverse = np.linalg.inv(box)
        bonds = np.concatenate(self._levels) if self._levels else np.zeros((0, 2), int)
        steps = positions[:, bonds[:, 1]] - positions[:, bonds[:, 0]]
        if not (np.abs(np.einsum("fbi,fij->fbj", steps, inverse)) >= 0.5).any():
            return positions
        positions = np.array(positions, np.float64)
        for pairs in self._levels:
            step = positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]]
            turns = np.round(np.einsum("fbi,fij->fbj", step, inverse))
            positions[:, pairs[:, 1]] -= np.einsum("fbi,fij->fbj", turns, box)
        return positions
