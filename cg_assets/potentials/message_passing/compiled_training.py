"""A network whose gradient by its weights is compiled (`gradient_kernel`), as a function of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.potentials.lanes import LANES, into_lanes, out_of_lanes
from cg_assets.potentials.message_passing.gradient_kernel import (
    Kept,
    add_gradient,
    find_forces,
    gradients,
    kept_shapes,
    no_sums,
)
from cg_assets.potentials.message_passing.kernel import network_pairs, network_weights

_spare: list[Kept] = []
"""Memory of the step before, which the next one takes: allocating it again costs as much as the forces."""

if TYPE_CHECKING:
    from cg_assets.potentials.message_passing.module import MessagePassing


def readouts_and_forces(
    module: MessagePassing, positions: Tensor, box: Tensor | None, shares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Readouts `(f, n_terms)` [k_B T] and forces `(f, n, 3)` [kJ/mol/nm], which torch differentiates by the weights.

    Args:
        module: in single precision, on the CPU.
        positions: `(f, n, 3)` [nm], by which nothing is differentiated.
        box: edges `(3,)` [nm] or None.
        shares: `(f, n_terms)` of the readouts in the energy that the forces are of.

    Returns:
        Readouts, energies `(f,)` of the walls [kJ/mol], and forces.

    Raises:
        ValueError: positions have the wrong shape, or a box is missing. Compiled code does not look at its bounds.
    """
    module.check(positions, shares, box)
    weights = [one for group in _groups(module) for one in group]
    found: Any = _Compiled.apply(module, positions, box, shares, torch.is_grad_enabled(), *weights)
    return found


def _groups(module: MessagePassing) -> list[list[Tensor]]:
    """The weights that each of `NetworkWeights` has."""
    begins, ends = ([module.first], [module.first_bias]), ([module.hidden], [module.hidden_bias], [module.readout])
    stacks = [module.filters, module.senders, module.receivers, module.receiver_biases]
    stacks += [module.residuals, module.residual_biases]
    return [*begins, *(list(stack) for stack in stacks), *ends]


class _Compiled(torch.autograd.Function):
    """See `readouts_and_forces`."""

    @staticmethod
    def forward(
        ctx: Any,
        module: MessagePassing,
        positions: Tensor,
        box: Tensor | None,
        shares: Tensor,
        differentiates: bool,
        *weights: Tensor,
    ) -> Any:
        frames, beads, _ = positions.shape
        padded, pairs = network_weights(module, module.readout, LANES), network_pairs(module, 0.0, box)
        ctx.lanes, ctx.shares = _into(positions.reshape(frames, -1)), _into(shares)
        ctx.kept = _memory(kept_shapes(padded, pairs, len(ctx.lanes)))
        ctx.data = padded, pairs
        heads, forces = np.zeros_like(ctx.shares), np.zeros_like(ctx.lanes)
        walls = np.zeros((len(forces), 1, LANES), np.float32)
        find_forces(ctx.lanes, ctx.shares, heads, walls, forces, ctx.kept, ctx.data)
        ctx.shapes = [[one.shape for one in group] for group in _groups(module)]
        energy = _out_of(walls, frames)[:, 0]
        ctx.mark_non_differentiable(energy)
        if not differentiates:
            _spare[:] = [ctx.kept]
        return _out_of(heads, frames), energy, _out_of(forces, frames).reshape(frames, beads, 3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_heads: Tensor, by_walls: Tensor, by_forces: Tensor) -> Any:
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("a compiled gradient is found once, since its memory is used again: evaluate again")
        pulled = [_into(values.reshape(len(values), -1), pad=False) for values in (by_heads, by_forces)]
        sums = no_sums(ctx.data[0])
        add_gradient(ctx.lanes, ctx.shares, *pulled, kept, sums, ctx.data)
        _spare[:] = [kept]
        found: list[Tensor] = []
        for padded, shapes in zip(gradients(sums, ctx.data[0]), ctx.shapes, strict=True):
            layers = np.split(padded, len(shapes)) if shapes else []
            found += [_without_padding(one, shape) for one, shape in zip(layers, shapes, strict=True)]
        return None, None, None, None, None, *found


def _without_padding(values: NDArray[np.float32], shape: tuple[int, ...]) -> Tensor:
    values = values if values.ndim == len(shape) else values[..., None]
    return torch.from_numpy(np.ascontiguousarray(values[tuple(slice(size) for size in shape)]))


def _memory(shapes: list[tuple[int, int, int]]) -> Kept:
    """That of the step before, where it has these shapes."""
    while _spare:
        kept = _spare.pop()
        if [array.shape for array in kept] == shapes:
            return kept
    return Kept(*(np.empty(shape, np.float32) for shape in shapes))


def _into(values: Tensor, pad: bool = True) -> NDArray[np.float32]:
    """Rows of lanes `(blocks, n, LANES)` of values `(f, n)`; lanes without a frame repeat the last one, or are zero."""
    rows = np.ascontiguousarray(values.detach().numpy(), np.float32)
    lanes = np.empty((-(-len(rows) // LANES), rows.shape[1], LANES), np.float32)
    into_lanes(rows, lanes)
    if not pad and len(rows) % LANES:
        lanes[-1, :, len(rows) % LANES :] = 0.0
    return lanes


def _out_of(lanes: NDArray[np.float32], frames: int) -> Tensor:
    found = np.empty((frames, lanes.shape[1]), np.float32)
    out_of_lanes(lanes, found)
    return torch.from_numpy(found)
