"""Angles, dihedrals and distant pairs of beads joined by bonds."""

from __future__ import annotations

from collections.abc import Sequence


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
    reached = []
    for bead in range(n_beads):
        found = {bead}
        for _ in range(3):
            found |= {other for one in found for other in near[one]}
        reached.append(found)
    pairs = [(i, j) for i in range(n_beads) for j in range(i + 1, n_beads) if j not in reached[i]]
    return angles, dihedrals, pairs
