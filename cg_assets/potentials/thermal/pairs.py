"""Pairs of beads within a cutoff, by minimum image in a periodic box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Pairs of the beads of all frames, numbered `frame * n_beads + bead`."""

    first: Tensor
    """`(p,)`."""
    second: Tensor
    """`(p,)`."""
    difference: Tensor
    """`(p, 3)` position of the first less that of the second [nm]."""
    distance: Tensor
    """`(p,)` [nm]."""

    def within(self, cutoff: float) -> Pairs:
        """Those that are closer."""
        close = self.distance < cutoff
        return Pairs(*(part[close] for part in self))

    def both_ways(self) -> Pairs:
        """Each pair twice, once from either bead."""
        return Pairs(
            torch.cat([self.first, self.second]),
            torch.cat([self.second, self.first]),
            torch.cat([self.difference, -self.difference]),
            torch.cat([self.distance, self.distance]),
        )


def edges_of(positions: Tensor, box: Tensor | None, cutoff: float) -> Tensor | None:
    """Edges `(f, 3)` of the boxes of frames `(f, n, 3)`; None without a box.

    Raises:
        ValueError: the cutoff is beyond half the smallest edge, where neighbours would be lost.
    """
    if box is None:
        return None
    edges = torch.as_tensor(box, device=positions.device).to(positions.dtype)
    edges = edges.clamp(max=1e6)  # infinite where there is no box
    if edges.numel() and cutoff > 0.5 * float(edges.min()):
        raise ValueError(
            f"cutoff {cutoff:g} nm is beyond half the smallest box edge {float(edges.min()):.4g} nm: neighbours would "
            "be lost; use a cutoff of at most half the box"
        )
    return edges.expand(len(positions), 3)


def neighbour_pairs(positions: Tensor, box: Tensor | None, cutoff: float) -> Pairs:
    """All pairs of beads of a frame that are closer than the cutoff, each once; differentiable by the positions.

    Args:
        positions: `(f, n, 3)` [nm], wrapped into the box or not.
        box: edges `(3,)` or `(f, 3)` of the periodic box [nm], or None.
        cutoff: largest distance [nm].

    Raises:
        ValueError: wrong shape, or a cutoff beyond half the box.
    """
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(f"positions have shape {tuple(positions.shape)}; this potential needs (n_frames, n_beads, 3)")
    edges, n_beads = edges_of(positions, box, cutoff), positions.shape[1]
    with torch.no_grad():
        one, two = torch.triu_indices(n_beads, n_beads, 1, device=positions.device)
        parts = []
        chunk = max(1, 4_000_000 // max(len(one), 1))
        for begin in range(0, len(positions), chunk):
            rows = positions[begin : begin + chunk]
            gap = rows[:, one] - rows[:, two]
            if edges is not None:
                part = edges[begin : begin + chunk, None]
                gap = gap - part * torch.round(gap / part)
            frame, pair = torch.nonzero(gap.square().sum(dim=2) < cutoff * cutoff, as_tuple=True)
            parts.append(torch.stack([(frame + begin) * n_beads + one[pair], (frame + begin) * n_beads + two[pair]]))
        first, second = torch.cat(parts, dim=1) if parts else one.new_zeros(2, 0)
    flat = positions.reshape(-1, 3)
    difference = flat[first] - flat[second]
    if edges is not None:
        of_pair = edges[first // n_beads]
        difference = difference - of_pair * torch.round(difference.detach() / of_pair)
    return Pairs(first, second, difference, difference.square().sum(dim=1).sqrt())
