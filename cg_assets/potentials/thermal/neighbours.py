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
        reach: distance up to which they were [nm].
        starts: `(n + 1,)` where each bead's list begins.
        listed: all lists in turn. A list holds all beads that may be within the cutoff; each pair is in two lists.
    """

    place: NDArray[np.float64]
    before: NDArray[np.float64]
    reach: float
    starts: NDArray[np.int64]
    listed: NDArray[np.int64]


class NeighbourLists:
    """Of replicas of beads.

    Attributes:
        box: edges `(3,)` [nm], 0 where there are none.
    """

    def __init__(self, box: ArrayLike | None, cutoff: float) -> None:
        """List nothing yet.

        Args:
            box: edges `(3,)` of the periodic box [nm], infinite or 0 along axes that are not periodic; None for none.
            cutoff: distance of the farthest neighbours [nm].
        """
        edges = np.zeros(3) if box is None else np.array(box, dtype=np.float64)
        self.box, self.reach = np.where(np.isfinite(edges), edges, 0.0), cutoff + SKIN
        self.lists: list[Lists] = []

    def of(self, points: NDArray[np.float64]) -> list[Lists]:
        """Of each replica of positions `(r, n, 3)`."""
        if [one.place.shape for one in self.lists] != [place.shape for place in points]:
            none = np.zeros(0, np.int64)
            self.lists = [Lists(place, np.full(place.shape, np.inf), self.reach, none, none) for place in points]
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
            starts, listed = _neighbours(place, box, lists.reach)
            return Lists(place, before, lists.reach, starts, listed)
    return lists


@compiled
def separation(one: Any, two: Any, box: Any, result: Any) -> Any:
    """Difference of two positions by minimum image, into `result`; gives its square."""
    square = 0.0
    for axis in range(3):
        d = one[axis] - two[axis]
        if box[axis] > 0.0:
            d -= box[axis] * np.rint(d / box[axis])
        result[axis] = d
        square += d * d
    return square


@compiled
def _neighbours(positions: Any, box: Any, reach: Any) -> Any:
    """For each bead all others within reach: where its list begins `(n + 1,)`, and the lists one after the other."""
    sizes, cells = _cells(positions, box, reach)
    if sizes[0] * sizes[1] * sizes[2] < CELLS:
        return _by_pairs(positions, box, reach)
    return _by_cells(positions, box, reach, sizes, cells)


@compiled
def _by_pairs(positions: Any, box: Any, reach: Any) -> Any:
    """The same of few beads, in rising order."""
    count = len(positions)
    starts, gap, near = np.zeros(count + 1, np.int64), np.empty(3), np.empty((count, count), np.bool_)
    for i in range(count):
        near[i, i] = False
        for j in range(i):
            near[i, j] = near[j, i] = separation(positions[i], positions[j], box, gap) < reach * reach
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
    return starts, listed


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
def _by_cells(positions: Any, box: Any, reach: Any, sizes: Any, cells: Any) -> Any:
    """The same of many beads: of each those in its own cell and up to two cells away, along axes with several."""
    count = len(positions)
    heads, following = np.full(sizes[0] * sizes[1] * sizes[2], -1), np.empty(count, np.int64)
    for i in range(count):
        own = (cells[i, 0] * sizes[1] + cells[i, 1]) * sizes[2] + cells[i, 2]
        following[i], heads[own] = heads[own], i
    far = 2 * (sizes > 1)
    starts, listed, place, gap = np.zeros(count + 1, np.int64), np.empty(32 * count, np.int64), 0, np.empty(3)
    for i in range(count):
        for x in range(cells[i, 0] - far[0], cells[i, 0] + far[0] + 1):
            for y in range(cells[i, 1] - far[1], cells[i, 1] + far[1] + 1):
                row = (x % sizes[0] * sizes[1] + y % sizes[1]) * sizes[2]
                for z in range(cells[i, 2] - far[2], cells[i, 2] + far[2] + 1):
                    j = heads[row + z % sizes[2]]
                    while j >= 0:
                        if j != i and separation(positions[i], positions[j], box, gap) < reach * reach:
                            if place == len(listed):
                                listed = np.concatenate((listed, np.empty(len(listed), np.int64)))
                            listed[place] = j
                            place += 1
                        j = following[j]
        starts[i + 1] = place
    return starts, listed[:place].copy()
