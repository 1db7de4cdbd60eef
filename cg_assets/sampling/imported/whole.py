"""Molecules that a periodic box has cut are made whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.mapping.cells import DUMMY_EDGE


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


def real_box(box: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """The box, or None where it is a dummy: absent, of zeros or NaN, or as small as an atom."""
    if box is None or not len(box):
        return None
    edges = np.linalg.norm(box, axis=2)
    with np.errstate(invalid="ignore"):
        fine = (edges > DUMMY_EDGE).all() and (np.abs(np.linalg.det(box)) > DUMMY_EDGE**3).all()
    return box if fine else None
