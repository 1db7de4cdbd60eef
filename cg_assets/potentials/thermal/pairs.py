"""Pairs of beads within a cutoff, by minimum image in a periodic box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_BOX = 1e6
"""Edge of a box from which on there is none [nm]."""

BEADS_IN_CELLS = 1000
"""Beads from which on cells are faster than all pairs."""


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
    edges = edges.clamp(max=NO_BOX)  # infinite where there is no box
    if edges.numel() and cutoff > 0.5 * float(edges.min()):
        raise ValueError(
            f"cutoff {cutoff:g} nm is beyond half the smallest box edge {float(edges.min()):.4g} nm: neighbours would "
            "be lost; use a cutoff of at most half the box"
        )
    return edges.expand(len(positions), 3)


def _close(rows: Tensor, one: Tensor, two: Tensor, begin: int, edges: Tensor | None, cutoff: float) -> Tensor:
    """Which pairs of beads are closer than the cutoff, `(2, p)` numbers in all frames, for frames from `begin` on."""
    gap = rows[:, one] - rows[:, two]
    if edges is not None:
        part = edges[begin : begin + len(rows), None]
        gap = gap - part * torch.round(gap / part)
    frame, pair = torch.nonzero(gap.square().sum(dim=2) < cutoff * cutoff, as_tuple=True)
    first = (frame + begin) * rows.shape[1]
    return torch.stack([first + one[pair], first + two[pair]])


def _candidates(places: Tensor, edges: Tensor | None, cutoff: float) -> tuple[Tensor, Tensor]:
    """Pairs of beads `(n, 3)` in the same cell or in cells that touch, in rising order; their number is linear in n."""
    count, places = len(places), places.nan_to_num(0.0, 0.0, 0.0).double()
    low, span = places.amin(dim=0), places.amax(dim=0) - places.amin(dim=0) + cutoff
    # Without a box, cells on opposite sides are neighbours too: a distance is what decides.
    sides = span if edges is None else torch.where(edges < NO_BOX, edges.double(), span)
    sizes = (sides / cutoff).floor().clamp(1.0, 2.0 * count ** (1.0 / 3.0)).long()
    sizes[sizes < 3] = 1
    part = (places - low) / sides
    cell = torch.minimum(((part - part.floor()) * sizes).long(), sizes - 1)
    steps = torch.cartesian_prod(*[torch.arange(-1, 2 if size > 1 else 0, device=cell.device) for size in sizes])
    number = torch.stack([sizes[1] * sizes[2], sizes[2], torch.ones_like(sizes[0])])
    own, order = (cell @ number).sort(stable=True)
    begins = torch.searchsorted(own, torch.arange(int(sizes.prod()) + 1, device=own.device))
    around = ((cell[:, None] + steps) % sizes) @ number
    lengths = (begins[around + 1] - begins[around]).flatten()
    one = torch.arange(count, device=own.device).repeat_interleave(lengths.reshape(count, -1).sum(dim=1))
    shift = begins[around].flatten() - (lengths.cumsum(dim=0) - lengths)
    two = order[torch.arange(len(one), device=own.device) + shift.repeat_interleave(lengths)]
    pair = (one * count + two)[one < two].sort().values
    return pair // count, pair % count


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
        if n_beads < BEADS_IN_CELLS:
            one, two = torch.triu_indices(n_beads, n_beads, 1, device=positions.device)
            chunk = max(1, 4_000_000 // max(len(one), 1))
            parts = [
                _close(positions[begin : begin + chunk], one, two, begin, edges, cutoff)
                for begin in range(0, len(positions), chunk)
            ]
        else:
            parts = [
                _close(
                    rows[None],
                    *_candidates(rows, None if edges is None else edges[frame], cutoff),
                    frame,
                    edges,
                    cutoff,
                )
                for frame, rows in enumerate(positions)
            ]
        first, second = (
            torch.cat(parts, dim=1) if parts else torch.zeros(2, 0, dtype=torch.long, device=positions.device)
        )
    flat = positions.reshape(-1, 3)
    difference = flat[first] - flat[second]
    if edges is not None:
        of_pair = edges[first // n_beads]
        difference = difference - of_pair * torch.round(difference.detach() / of_pair)
    return Pairs(first, second, difference, difference.square().sum(dim=1).sqrt())
