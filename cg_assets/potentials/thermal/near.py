"""Neighbours of sixteen beads side by side (`cg_assets.potentials.lanes`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.lanes import LANES
from cg_assets.potentials.thermal.neighbours import compiled, differences
from cg_assets.potentials.thermal.pairs_alone import PairEnergy

ROWS = 4
"""Rows of lanes for each neighbour: its unit vector, which is its difference before `to_units`, and distance."""


class Surroundings(NamedTuple):
    """What decides which beads are neighbours, and what pairs pull alone.

    Attributes:
        box: `(3,)` edges, 0 where there are none [nm].
        kinds: `(n,)` of the beads.
        n_kinds: how many there are.
        cutoff: of the neighbours [nm].
        alone: see `cg_assets.potentials.thermal.pairs_alone`.
    """

    box: NDArray[np.float64]
    kinds: NDArray[np.int64]
    n_kinds: int
    cutoff: float
    alone: PairEnergy


class Room(NamedTuple):
    """Memory for the neighbours of sixteen beads.

    Attributes:
        rows: of lanes, `ROWS` for each neighbour.
        others: `(m, LANES)` their numbers.
        firsts: `(n_kinds + 1,)` where those of each kind begin.
        sizes: `(LANES,)` how many each bead has.
        gaps: `(4, k)` differences and squares of distances of all that may be neighbours of a bead.
        chosen: `(k + 1,)` which of them are near enough.
    """

    rows: NDArray[np.float32]
    others: NDArray[np.int64]
    firsts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    gaps: NDArray[np.float64]
    chosen: NDArray[np.int64]


@compiled
def room(starts: Any, n_kinds: Any) -> Any:
    """See `Room`; `starts` as for `gather`."""
    most = 0
    for i in range(len(starts) - 1):
        most = max(most, starts[i + 1] - starts[i])
    rows = np.empty(((n_kinds * most + 1) * ROWS, LANES), np.float32)
    others, firsts = np.empty((n_kinds * most + 1, LANES), np.int64), np.zeros(n_kinds + 1, np.int64)
    return Room(
        rows,
        others,
        firsts,
        np.empty(LANES, np.int64),
        np.empty((4, most)),
        np.empty(most + 1, np.int64),
    )


@compiled
def gather(lists: Any, around: Any, block: Any, near: Any) -> None:
    """Neighbours within the cutoff of sixteen beads.

    Lanes with fewer neighbours than others are filled with the bead itself at the cutoff, where potentials end.

    Args:
        lists: of neighbours, see `cg_assets.potentials.thermal.neighbours`.
        around: see `Surroundings`.
        block: number of the sixteen beads.
        near: see `Room`.
    """
    place, starts, listed = lists.place, lists.starts, lists.listed
    square, count = around.cutoff**2, len(place)
    rows, others, firsts = near.rows, near.others, near.firsts
    for kind in range(around.n_kinds):
        first = most = firsts[kind]
        for lane in range(LANES):
            i, size = block * LANES + lane, first
            mine = listed[starts[min(i, count)] : starts[min(i + 1, count)]]
            if len(mine):
                differences(place, i, mine, around.box, near.gaps)
            count_near = 0
            for k in range(len(mine)):  # without branches, which would be guessed wrongly
                near.chosen[count_near] = k
                count_near += (near.gaps[3, k] < square) & (around.kinds[mine[k]] == kind)
            for one in range(count_near):
                k = near.chosen[one]
                for axis in range(3):
                    rows[ROWS * size + axis, lane] = near.gaps[axis, k]
                others[size, lane] = mine[k]
                size += 1
            near.sizes[lane] = size
            most = max(most, size)
        firsts[kind + 1] = most
        for lane in range(LANES):
            for size in range(near.sizes[lane], most):
                rows[ROWS * size, lane] = around.cutoff
                rows[ROWS * size + 1, lane] = rows[ROWS * size + 2, lane] = 0.0
                others[size, lane] = min(block * LANES + lane, count - 1)


@compiled
def give(near: Any, step: Any, pulls: Any, forces: Any) -> None:
    """Add three rows of lanes to the forces on the neighbours of a step."""
    for lane in range(LANES):
        j = near.others[step, lane]
        for axis in range(3):
            forces[j, axis] += pulls[axis, lane]


@compiled
def take(block: Any, pulls: Any, forces: Any) -> None:
    """Subtract three rows of lanes from the forces on sixteen beads."""
    for lane in range(min(LANES, len(forces) - block * LANES)):
        for axis in range(3):
            forces[block * LANES + lane, axis] -= pulls[axis, lane]
