"""Lists of neighbours up to a skin beyond the cutoff, rebuilt when a bead has moved half of it; compiled, by cells.

Many beads are sorted into cells, so that the cost is linear in their number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.compilation import kept

SKIN = 0.08
"""Distance beyond the cutoff up to which neighbours are listed [nm]."""

CELLS = 300
"""Cells from which on they are faster than all pairs."""

FLAGS = {"contract", "nsz", "arcp", "reassoc"}
"""All fast-math flags except those that assume finite numbers."""

compiled = kept(error_model="numpy", fastmath=FLAGS)


class Lists(NamedTuple):
    """Neighbours of the beads of a replica.

    Attributes:
        place: `(n, 3)` positions [nm].
        before: `(n, 3)` positions of which they were listed.
        reaches: distances up to which they were, in the lists and in the pairs [nm].
        pairs: `(m, 2)` all pairs that may be within the cutoff of pairs, each once.
        starts: `(n + 1,)` where each bead's list begins.
        listed: all lists in turn. A list holds all beads that may be within the cutoff; each pair is in two lists.
    """

    place: NDArray[np.float64]
    before: NDArray[np.float64]
    reaches: tuple[float, float]
    pairs: NDArray[np.int64]
    starts: NDArray[np.int64]
    listed: NDArray[np.int64]


class NeighbourLists:
    """Of replicas of beads.

    Attributes:
        box: edges `(3,)` [nm], 0 where there are none.
    """

    def __init__(self, box: ArrayLike | None, cutoff: float, pair_cutoff: float = 0.0) -> None:
        """List nothing yet.

        Args:
            box: edges `(3,)` of the periodic box [nm], infinite or 0 along axes that are not periodic; None for none.
            cutoff: distance of the farthest neighbours [nm]; 0 for empty lists.
            pair_cutoff: the same of pairs.
        """
        edges = np.zeros(3) if box is None else np.array(box, dtype=np.float64)
        self.box = np.where(np.isfinite(edges), edges, 0.0)
        self.reaches = (cutoff + SKIN if cutoff else 0.0, pair_cutoff + SKIN if pair_cutoff else 0.0)
        self.lists: list[Lists] = []

    def of(self, points: NDArray[np.float64]) -> list[Lists]:
        """Of each replica of positions `(r, n, 3)`."""
        if [one.place.shape for one in self.lists] != [place.shape for place in points]:
            none, pairs = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
            self.lists = [
                Lists(place, np.full(place.shape, np.inf), self.reaches, pairs, none, none) for place in points
            ]
        for replica, place in enumerate(points):
            self.lists[replica] = renewed(self.lists[replica]._replace(place=place), self.box)
        return self.lists


@compiled
def renewed(lists: Any, box: Any) -> Any:
    """Lists of the positions, made again where a bead has moved by half the skin."""
    place, before = lists.place, lists.before
    for bead in range(len(place)):
        square = 0.0
        for axis in range(3):
            square += (place[bead, axis] - before[bead, axis]) ** 2
        if not square < 0.25 * SKIN * SKIN:
            before[:] = place
            pairs, starts, listed = _neighbours(place, box, lists.reaches)
            return Lists(place, before, lists.reaches, pairs, starts, listed)
    return lists


@compiled
def _neighbours(positions: Any, box: Any, reaches: Any) -> Any:
    """Pairs, and for each bead all others within reach: where its list begins, and the lists one after the other."""
    sizes, cells = _cells(positions, box, max(reaches))
    if sizes[0] * sizes[1] * sizes[2] < CELLS:
        return _by_pairs(positions, box, reaches)
    return _by_cells(positions, box, reaches, sizes, cells)


@compiled
def _by_pairs(positions: Any, box: Any, reaches: Any) -> Any:
    """The same of few beads, in rising order."""
    count, found, square, pair_square = len(positions), 0, reaches[0] ** 2, reaches[1] ** 2
    gaps, near, beads = np.empty((4, count)), np.empty((count, count), np.bool_), np.arange(count)
    pairs = np.empty((count * count // 2 + 1, 2), np.int64)
    for i in range(count):
        differences(positions, i, beads[:i], box, gaps)
        near[i, i] = False
        for j in range(i):
            near[i, j] = near[j, i] = gaps[3, j] < square
            pairs[found, 0], pairs[found, 1] = i, j
            found += gaps[3, j] < pair_square
    starts = np.zeros(count + 1, np.int64)
    for i in range(count):
        total = 0
        for j in range(count):
            total += near[i, j]
        starts[i + 1] = starts[i] + total
    listed, place = np.empty(starts[count], np.int64), 0
    for i in range(count):
        for j in range(count):
            if near[i, j]:
                listed[place] = j
                place += 1
    return pairs[:found].copy(), starts, listed


@compiled
def differences(place: Any, i: Any, mine: Any, box: Any, gaps: Any) -> None:
    """Differences of a bead from others, by minimum image, and squares of the distances: rows of `gaps`."""
    x, y, z, box_x, box_y, box_z = place[i, 0], place[i, 1], place[i, 2], box[0], box[1], box[2]
    per_x, per_y, per_z = inverse(box_x), inverse(box_y), inverse(box_z)
    for k in range(len(mine)):
        j = mine[k]
        by_x, by_y, by_z = x - place[j, 0], y - place[j, 1], z - place[j, 2]
        by_x -= box_x * np.rint(by_x * per_x)
        by_y -= box_y * np.rint(by_y * per_y)
        by_z -= box_z * np.rint(by_z * per_z)
        gaps[0, k], gaps[1, k], gaps[2, k] = by_x, by_y, by_z
        gaps[3, k] = by_x * by_x + by_y * by_y + by_z * by_z


@compiled
def inverse(edge: Any) -> Any:
    """Of an edge of the box, 0 along axes that are not periodic."""
    return 1.0 / edge if edge > 0.0 else 0.0


@compiled
def _cells(positions: Any, box: Any, reach: Any) -> Any:
    """Cells of at least half the reach along each axis `(3,)`, and those of each bead `(n, 3)`; one if below five."""
    count = len(positions)
    sizes, cells = np.ones(3, np.int64), np.zeros((count, 3), np.int64)
    most = max(5.0, 3.0 * float(count) ** (1.0 / 3.0))
    for axis in range(3):
        low, high = np.inf, -np.inf
        for i in range(count):
            low, high = min(low, positions[i, axis]), max(high, positions[i, axis])
        # Without a box, cells on opposite sides are neighbours too: a distance is what decides.
        edge = box[axis] if box[axis] > 0.0 else high - low + reach
        if not 2.5 * reach <= edge < np.inf:
            continue
        sizes[axis] = int(min(2.0 * edge / reach, most))
        for i in range(count):
            part = (positions[i, axis] - low) / edge
            part -= np.floor(part)
            if 0.0 <= part < 1.0:  # a number
                cells[i, axis] = min(int(part * sizes[axis]), sizes[axis] - 1)
    return sizes, cells


@compiled
def _by_cells(positions: Any, box: Any, reaches: Any, sizes: Any, cells: Any) -> Any:
    """The same of many beads: of each those in its own cell and up to two cells away, along axes with several."""
    count, square, pair_square = len(positions), reaches[0] ** 2, reaches[1] ** 2
    firsts, order = _by_cell(sizes, cells)
    far, gaps, beads = 2 * (sizes > 1), np.empty((4, count)), np.empty(count, np.int64)
    starts, listed, place = np.zeros(count + 1, np.int64), np.empty(32 * count, np.int64), 0
    pairs, found = np.empty((32 * count, 2), np.int64), 0
    for i in range(count):
        near = 0
        for x in range(cells[i, 0] - far[0], cells[i, 0] + far[0] + 1):
            for y in range(cells[i, 1] - far[1], cells[i, 1] + far[1] + 1):
                row = (x % sizes[0] * sizes[1] + y % sizes[1]) * sizes[2]
                for z in range(cells[i, 2] - far[2], cells[i, 2] + far[2] + 1):
                    cell = row + z % sizes[2]
                    for k in range(firsts[cell], firsts[cell + 1]):
                        beads[near] = order[k]
                        near += 1
        differences(positions, i, beads[:near], box, gaps)
        if place + near > len(listed):
            listed = np.concatenate((listed, np.empty(len(listed) + near, np.int64)))
        if found + near > len(pairs):
            pairs = np.concatenate((pairs, np.empty((len(pairs) + near, 2), np.int64)))
        for k in range(near):  # without branches, which would be guessed wrongly
            j, away = beads[k], gaps[3, k]
            listed[place] = j
            place += (away < square) & (j != i)
            pairs[found, 0], pairs[found, 1] = i, j
            found += (away < pair_square) & (j < i)
        starts[i + 1] = place
    return pairs[:found].copy(), starts, listed[:place].copy()


@compiled
def _by_cell(sizes: Any, cells: Any) -> Any:
    """Where the beads of each cell begin `(c + 1,)` in the beads in order of their cells `(n,)`."""
    count, own = len(cells), np.empty(len(cells), np.int64)
    firsts, order = np.zeros(sizes[0] * sizes[1] * sizes[2] + 1, np.int64), np.empty(count, np.int64)
    for i in range(count):
        own[i] = (cells[i, 0] * sizes[1] + cells[i, 1]) * sizes[2] + cells[i, 2]
        firsts[own[i] + 1] += 1
    for cell in range(1, len(firsts)):
        firsts[cell] += firsts[cell - 1]
    places = firsts.copy()
    for i in range(count):
        order[places[own[i]]] = i
        places[own[i]] += 1
    return firsts, order
