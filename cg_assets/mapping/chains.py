"""Groups of connected atoms; angles, dihedrals and distant pairs of beads joined by bonds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def chain_terms(
    bonds: Sequence[tuple[int, int]], n_beads: int
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int, int]], list[tuple[int, int]]]:
    """Angles, dihedrals, and pairs more than three bonds apart, of beads joined by bonds."""
    near: dict[int, list[int]] = {bead: [] for bead in range(n_beads)}
    for i, j in bonds:
        near[i].append(j)
        near[j].append(i)
    angles = [(i, j, k) for j in range(n_beads) for i in sorted(near[j]) for k in sorted(near[j]) if i < k]
    dihedrals = [
        (i, j, k, m)
        for j, k in sorted((min(bond), max(bond)) for bond in bonds)
        for i in sorted(near[j])
        for m in sorted(near[k])
        if len({i, j, k, m}) == 4
    ]
    near_ones = []
    for bead in range(n_beads):
        found = {bead}
        for _ in range(3):
            found |= {other for one in found for other in near[one]}
        near_ones.append(found)
    pairs = [(i, j) for i in range(n_beads) for j in range(i + 1, n_beads) if j not in near_ones[i]]
    return angles, dihedrals, pairs


def connected_groups(n_atoms: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number of the group `(n_atoms,)` that each atom is connected to by pairs; groups in order of first atoms."""
    from scipy.sparse import coo_array, csgraph

    ends = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(n_atoms, n_atoms))
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def reached(start: int, without: int, bonds: Sequence[tuple[int, int]]) -> set[int]:
    """Beads that bonds connect to `start` other than by its bond to `without`."""
    found, front = {start}, [start]
    while front:
        bead = front.pop()
        for i, j in bonds:
            for here, there in ((i, j), (j, i)):
                if here == bead and there not in found and {here, there} != {start, without}:
                    found.add(there)
                    front.append(there)
    return found


def splitting_bonds(bonds: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, int], set[int]]]:
    """Bonds about which something can turn, each with the beads on its smaller side.

    They are in no ring and have further beads on both sides.
    """
    found = []
    for first, second in bonds:
        one, other = reached(first, second, bonds), reached(second, first, bonds)
        if not one & other and min(len(one), len(other)) >= 2:
            found.append(((first, second), min(one, other, key=len)))
    return found
