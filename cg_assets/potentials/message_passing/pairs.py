"""The pairs of beads of a network: their types, distances, and what training data show of these."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cg_assets.potentials.base import Potential
from cg_assets.potentials.thermal.pairs import NO_BOX

MAX_STATISTICS = 4_000_000
"""Distances per pair type kept for quantiles; minimum and maximum always come from all."""


class BeadPairs(Potential):
    """A potential of the distances of all pairs of beads.

    Attributes:
        n_kinds: number of types of beads.
        n_pair_kinds: of types of pairs.
        n_inputs: of features of a pair.
        unique: whether no two beads are alike.
        cutoff: largest distance that counts [nm]; None for all.
    """

    thermal_energy: float
    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    low_stiffness: Tensor
    high_stiffness: Tensor
    centers: Tensor
    widths: Tensor
    kinds: Tensor
    pair_kinds: Tensor
    first_bead: Tensor
    second_bead: Tensor
    first_slot: Tensor
    second_slot: Tensor
    neighbours: Tensor

    def _place_pairs(self, bead_types: Sequence[int], cutoff: float | None, basis: int) -> None:
        """Find the pairs, whose statistics are not known yet, with so many basis functions.

        Raises:
            ValueError: there are fewer than two beads.
        """
        self.dimension, self.cutoff, self.n_inputs = 3, cutoff, basis + 2
        self._index_beads([int(kind) for kind in bead_types])
        n_pair_kinds = self.n_pair_kinds
        for name, value in (("mean", 0.4), ("deviation", 0.1), ("low", 0.0), ("high", math.inf)):
            self.register_buffer(name, torch.full((n_pair_kinds,), value))
        for name in ("low_stiffness", "high_stiffness"):
            self.register_buffer(name, torch.zeros(n_pair_kinds))
        self.register_buffer("centers", torch.linspace(0.1, 1.0, basis).repeat(n_pair_kinds, 1))
        self.register_buffer("widths", torch.full((n_pair_kinds, basis), 0.9 / basis))

    def _index_beads(self, bead_types: list[int]) -> None:
        """Number types and pair types from zero, and order pairs so that equal types stand together."""
        n = self.n_beads = len(bead_types)
        if n < 2:
            raise ValueError(f"bead_types has {n} bead(s); message passing needs at least 2")
        names = list(dict.fromkeys(bead_types))
        kinds = [names.index(kind) for kind in bead_types]
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        pair_names = list(dict.fromkeys(tuple(sorted((kinds[i], kinds[j]))) for i, j in pairs))
        number = {name: index for index, name in enumerate(pair_names)}
        pairs.sort(key=lambda pair: number[tuple(sorted((kinds[pair[0]], kinds[pair[1]])))])
        pair_kinds = [number[tuple(sorted((kinds[i], kinds[j])))] for i, j in pairs]
        self.n_kinds, self.n_pair_kinds, self.n_pairs = len(names), len(pair_names), len(pairs)
        self.unique = len(names) == n
        self.pair_counts = [pair_kinds.count(kind) for kind in range(len(pair_names))]
        index = {
            "kinds": torch.tensor(kinds),
            "pair_kinds": torch.tensor(pair_kinds),
            "first_bead": torch.tensor([i for i, _ in pairs]),
            "second_bead": torch.tensor([j for _, j in pairs]),
        }
        if self.unique:
            of_pair = {pair: index for index, pair in enumerate(pairs)}
            neighbours = [[of_pair[min(i, j), max(i, j)] for j in range(n) if j != i] for i in range(n)]
            index["neighbours"] = torch.tensor(neighbours).flatten()
            index["first_slot"] = torch.tensor([i * (n - 1) + j - 1 for i, j in pairs])
            index["second_slot"] = torch.tensor([j * (n - 1) + i for i, j in pairs])
        else:
            index["first_slot"] = torch.tensor([i * len(names) + kinds[j] for i, j in pairs])
            index["second_slot"] = torch.tensor([j * len(names) + kinds[i] for i, j in pairs])
        for name, value in index.items():
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Set standardisation, basis and walls of each pair type from training positions `(f, n, 3)`.

        Walls start at the extreme distances of the data. Their stiffness is k_B T / s^2, where s is 0.55 times the
        distance between the extreme and the first (last) percentile: for Gaussian data s is about the standard
        deviation, so a wall is about as stiff as the data's own distribution.

        Pair types that never come within the cutoff do not interact and keep their initial statistics.

        Raises:
            ValueError: no distance lies within the cutoff, or those of a pair type never change.
        """
        self.check(positions, temperature=1.0, box=box)
        stride = max(1, len(positions) * self.n_pairs // (MAX_STATISTICS * self.n_pair_kinds))
        samples: list[list[Tensor]] = [[] for _ in range(self.n_pair_kinds)]
        low = torch.full_like(self.low, math.inf)
        high = torch.zeros_like(self.high)
        chunk = max(1, 2_000_000 // self.n_pairs)
        for begin in range(0, len(positions), chunk):
            part = None if box is None else box if box.ndim == 1 else box[begin : begin + chunk]
            distance = self._distances(positions[begin : begin + chunk].to(self.mean), part)[1]
            for kind, rows in enumerate(distance.split(self.pair_counts)):
                low[kind] = torch.minimum(low[kind], rows.min())
                high[kind] = torch.maximum(high[kind], rows.max())
                samples[kind].append(rows[:, (-begin) % stride :: stride].flatten())
        limit = math.inf if self.cutoff is None else self.cutoff
        if not low.min() < limit:
            raise ValueError(f"no two beads come closer than {float(low.min()):.4g}; the cutoff {limit} is too short")
        for kind, parts in enumerate(samples):
            values = torch.cat(parts)
            values = values[values < limit].double()
            if len(values) < 2:
                continue
            if not values.std() > 1e-6 * values.mean():
                raise ValueError(
                    f"the distances of pair type {kind} never change (mean {float(values.mean()):.6g}); use frames of "
                    "a simulation"
                )
            ordered = values.sort().values
            count = len(ordered)
            quantile = lambda q: ordered[min(int(q * count), count - 1)]  # noqa: B023, E731
            self.mean[kind], self.deviation[kind] = values.mean(), values.std()
            self._place_basis(kind, quantile(0.0005), quantile(0.9995))
            floor = 1e-3 * values.std()
            edges = (quantile(0.01) - low[kind], high[kind] - quantile(0.99))
            self.low_stiffness[kind] = (0.55 * edges[0]).clamp_min(floor).pow(-2)
            always_inside = high[kind] < limit and box is None
            self.high_stiffness[kind] = (0.55 * edges[1]).clamp_min(floor).pow(-2) if always_inside else 0.0
        self.low.copy_(low)
        self.high.copy_(high)

    def _place_basis(self, kind: int, low: Tensor, high: Tensor) -> None:
        count = self.centers.shape[1]
        place = (torch.arange(count).to(low) + 0.5) / count if count < 2 else torch.arange(count).to(low) / (count - 1)
        self.centers[kind] = low + (high - low) * place
        self.widths[kind] = 1.3 * (high - low) / max(count - 1, 1)

    def _distances(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Differences `(n_pairs, 3, f)` and distances `(n_pairs, f)`, minimum image where there is a box."""
        rows = positions.permute(1, 2, 0).contiguous()
        difference = rows.index_select(0, self.first_bead) - rows.index_select(0, self.second_bead)
        if box is not None:
            edges = self.edges(positions, box)
            edges = edges.reshape(1, 3, 1) if edges.ndim == 1 else edges.T[None]
            difference = difference - edges * torch.round(difference / edges)
        return difference, difference.square().sum(dim=1).sqrt()

    def edges(self, positions: Tensor, box: Tensor) -> Tensor:
        """Edges of boxes, which are infinite along axes that are not periodic.

        Raises:
            ValueError: they are too short for the cutoff.
        """
        edges = torch.as_tensor(box).to(positions).clamp(max=NO_BOX)
        if self.cutoff is None or self.cutoff > 0.5 * float(edges.min()):
            raise ValueError(
                f"cutoff {self.cutoff} is beyond half the smallest box edge {float(edges.min()):.4g}: neighbours would "
                "be lost; train with a cutoff of at most half the box"
            )
        return edges
