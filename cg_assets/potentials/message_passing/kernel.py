"""A message-passing network at fixed conditions, compiled for sixteen replicas at once (`cg_assets.potentials.lanes`).

The sweeps are those of `MessagePassing`; tests hold both together. What sixteen replicas need stays in the cache from
their distances to their forces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.potentials.base import Kernel
from cg_assets.potentials.lanes import (
    LANES,
    add_product,
    add_transposed_product,
    any_below,
    clear,
    compiled,
    exponential,
    get,
    increase,
    larger,
    nearest,
    put,
    spread,
    square_root,
    whole_tiles,
)

if TYPE_CHECKING:
    from cg_assets.potentials.message_passing.module import MessagePassing

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_f = np.float32
_ZERO, _HALF, _ONE, _LINEAR, _SQUARE, _TWO = _f(0.0), _f(0.5), _f(1.0), _f(0.3), _f(0.1), _f(2.0)
_SIX, _TEN, _FIFTEEN, _THIRTY = _f(6.0), _f(10.0), _f(15.0), _f(30.0)
_PER_SOFT_LIMIT = _f(0.2)


class _Weights(NamedTuple):
    """Matrices `(layers * kinds, outputs, inputs)`, padded to whole tiles, and biases `(layers * kinds, outputs)`."""

    first: FloatArray
    first_bias: FloatArray
    filters: FloatArray
    senders: FloatArray
    receivers: FloatArray
    receiver_biases: FloatArray
    residuals: FloatArray
    residual_biases: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    readout: FloatArray


class _Pairs(NamedTuple):
    """Pairs of beads.

    Attributes:
        beads: `(n_pairs, 2)`.
        rows: `(n_pairs, 2)` first of the rows of inputs to which the features of a pair are added.
        kinds: `(n_pairs,)`.
        bead_kinds: `(n_beads,)`.
        statistics: `(n_pair_kinds, 6)` mean and inverse deviation of the distance, ends and stiffnesses of the walls.
        centers: `(n_pair_kinds, n_basis)` of the Gaussians.
        rates: `(n_pair_kinds, n_basis)` their inverse widths.
        box: `(3,)` edges, 0 where there are none.
        cutoff: 0 for none.
        scale: k_B T, the unit of the energy.
        constant: energy of all beads without interactions.
    """

    beads: IntArray
    rows: IntArray
    kinds: IntArray
    bead_kinds: IntArray
    statistics: FloatArray
    centers: FloatArray
    rates: FloatArray
    box: FloatArray
    cutoff: np.float32
    scale: np.float32
    constant: np.float32


def network_kernel(module: MessagePassing, readout: Tensor, constant: float, box: Any) -> Kernel:
    """The kernel of a network.

    Args:
        module: in single precision.
        readout: `(n_kinds, features)` weights of the energy at the temperature.
        constant: energy without interactions [kJ/mol].
        box: edges `(3,)` of the periodic box [nm], or None.
    """
    kinds, pair_kinds, n_inputs = module.n_kinds, module.n_pair_kinds, module.n_inputs
    features, channels = module.first.shape[1], max(module.first.shape[1] // 2, 1)
    weights = _Weights(
        first=_tiles([module.first], kinds, features, module.slots * n_inputs),
        first_bias=_tiles([module.first_bias], kinds, features),
        filters=_tiles(module.filters, pair_kinds, channels, n_inputs),
        senders=_tiles(module.senders, kinds, channels, features),
        receivers=_tiles(module.receivers, kinds, features, channels),
        receiver_biases=_tiles(module.receiver_biases, kinds, features),
        residuals=_tiles(module.residuals, kinds, features, features),
        residual_biases=_tiles(module.residual_biases, kinds, features),
        hidden=_tiles([module.hidden], kinds, features, features),
        hidden_bias=_tiles([module.hidden_bias], kinds, features),
        readout=_tiles([readout], kinds, features),
    )
    names = ("mean", "deviation", "low", "high", "low_stiffness", "high_stiffness")
    statistics = np.stack([_numbers(getattr(module, name)) for name in names], axis=1)
    statistics[:, 1] = 1.0 / statistics[:, 1]
    beads = np.stack([_numbers(module.first_bead), _numbers(module.second_bead)], axis=1)
    slots = np.stack([_numbers(module.first_slot), _numbers(module.second_slot)], axis=1)
    pairs = _Pairs(
        beads=beads,
        rows=beads * whole_tiles(module.slots * n_inputs) + (slots - beads * module.slots) * n_inputs,
        kinds=_numbers(module.pair_kinds),
        bead_kinds=_numbers(module.kinds),
        statistics=statistics,
        centers=_numbers(module.centers),
        rates=1.0 / _numbers(module.widths),
        box=np.zeros(3, np.float32) if box is None else np.array(box, np.float32),
        cutoff=_f(module.cutoff or 0.0),
        scale=_f(module.thermal_energy),
        constant=_f(constant),
    )
    return Kernel(_add_network, (weights, pairs))


def _numbers(values: Tensor) -> Any:
    return np.ascontiguousarray(values.detach().cpu().numpy())


def _tiles(weights: Iterable[Tensor], *shape: int) -> FloatArray:
    """Weights of layers `(kinds, outputs, inputs)` or biases `(kinds, outputs)`, padded with zeros."""
    whole = tuple(whole_tiles(size) for size in shape[1:])
    layers = [_numbers(one).reshape(shape) for one in weights]
    found = np.zeros((len(layers), shape[0], *whole), np.float32)
    found[(slice(None), *(slice(size) for size in shape))] = np.reshape(layers, (len(layers), *shape))
    return found.reshape(-1, *whole)


class _Memory(NamedTuple):
    """What is kept of sixteen replicas: rows of lanes.

    Attributes:
        gaps: 5 for each pair: difference of the beads, distance, slope of the energy by the distance [k_B T].
        values: features of the pairs, `n_inputs` for each.
        slopes: their derivatives by the distance.
        by_values: derivatives of the energy by them.
        near: `(n_pairs,)` whether a pair is within the cutoff in any lane.
        inputs: sums of features, `n_slots` for each bead, later derivatives by them.
        hidden: features of the beads, later derivatives by them.
        step: what is added to them next, or derivatives by it.
        gains: slopes of the activations: of the residual layers, the receivers, the first and the last layer.
        sent: what the beads send, by layers.
        received: what they receive.
        by_sent: derivatives by what they send.
        net: filters of a pair, and the derivatives by them.
    """

    gaps: FloatArray
    values: FloatArray
    slopes: FloatArray
    by_values: FloatArray
    near: NDArray[np.bool_]
    inputs: FloatArray
    hidden: FloatArray
    step: FloatArray
    gains: FloatArray
    sent: FloatArray
    received: FloatArray
    by_sent: FloatArray
    net: FloatArray


@compiled
def _add_network(positions: Any, energies: Any, forces: Any, data: Any) -> None:
    """See `LaneEngine`."""
    weights, pairs = data
    _, features, slots = weights.first.shape
    channels, n_inputs = weights.filters.shape[1:]
    layers, n_beads, n_pairs = len(weights.residuals) // len(weights.hidden), len(pairs.bead_kinds), len(pairs.beads)
    memory = _Memory(
        gaps=np.empty((n_pairs * 5, LANES), np.float32),
        values=np.zeros((n_pairs * n_inputs, LANES), np.float32),
        slopes=np.zeros((n_pairs * n_inputs, LANES), np.float32),
        by_values=np.empty((n_pairs * n_inputs, LANES), np.float32),
        near=np.empty(n_pairs, np.bool_),
        inputs=np.empty((n_beads * slots, LANES), np.float32),
        hidden=np.empty((n_beads * features, LANES), np.float32),
        step=np.empty((n_beads * features, LANES), np.float32),
        gains=np.empty(((2 * layers + 1) * n_beads * features, LANES), np.float32),
        sent=np.empty((layers * n_beads * channels, LANES), np.float32),
        received=np.empty((n_beads * channels, LANES), np.float32),
        by_sent=np.empty((n_beads * channels, LANES), np.float32),
        net=np.empty((2 * channels, LANES), np.float32),
    )
    for block in range(len(positions)):
        _distances(positions[block], pairs, memory, energies[block])
        _features(pairs, memory, n_inputs)
        _forward(weights, pairs, memory, energies[block])
        _backward(weights, pairs, memory)
        _add_forces(pairs, memory, n_inputs, forces[block])
        increase(energies[block], 0, spread(pairs.constant))


@compiled
def _distances(positions: Any, pairs: Any, memory: Any, energy: Any) -> None:
    """Differences and distances of the pairs, and their walls, whose energy is added."""
    gaps, box, total = memory.gaps, pairs.box, spread(_ZERO)
    for pair in range(len(pairs.beads)):
        first, second = 3 * pairs.beads[pair, 0], 3 * pairs.beads[pair, 1]
        square = spread(_ZERO)
        for axis in range(3):
            gap = get(positions, first + axis) - get(positions, second + axis)
            if box[axis] > _ZERO:
                gap = gap - nearest(gap * (_ONE / box[axis])) * box[axis]
            square = square + gap * gap
            put(gaps, 5 * pair + axis, gap)
        distance, kind = square_root(square), pairs.kinds[pair]
        below = larger(pairs.statistics[kind, 2] - distance, spread(_ZERO))
        above = larger(distance - pairs.statistics[kind, 3], spread(_ZERO))
        fall, rise = below * pairs.statistics[kind, 4], above * pairs.statistics[kind, 5]
        total = total + fall * below + rise * above
        put(gaps, 5 * pair + 3, distance)
        put(gaps, 5 * pair + 4, rise - fall)
        memory.near[pair] = pairs.cutoff == _ZERO or any_below(distance, pairs.cutoff)
    increase(energy, 0, total * (_HALF * pairs.scale))


@compiled
def _features(pairs: Any, memory: Any, n_inputs: Any) -> None:
    """Features of the pairs and their slopes, and for each bead those of its pairs, by slots."""
    clear(memory.inputs, 0, len(memory.inputs))
    count, values, slopes = pairs.centers.shape[1], memory.values, memory.slopes
    for pair in range(len(pairs.beads)):
        if not memory.near[pair]:
            continue
        kind, distance, row = pairs.kinds[pair], get(memory.gaps, 5 * pair + 3), n_inputs * pair
        scale = pairs.statistics[kind, 1]
        standard = (distance - pairs.statistics[kind, 0]) * scale
        part = standard * _PER_SOFT_LIMIT
        soft = _ONE / square_root(_ONE + part * part)
        bounded, rise = standard * soft, soft * soft * soft * scale
        put(values, row, bounded * _LINEAR)
        put(slopes, row, rise * _LINEAR)
        put(values, row + 1, bounded * bounded * _SQUARE - _SQUARE)
        put(slopes, row + 1, bounded * rise * (_TWO * _SQUARE))
        for basis in range(count):
            rate = pairs.rates[kind, basis]
            scaled = (distance - pairs.centers[kind, basis]) * rate
            gaussian = exponential(scaled * scaled * -_HALF)
            put(values, row + 2 + basis, gaussian)
            put(slopes, row + 2 + basis, gaussian * scaled * -rate)
        if pairs.cutoff > _ZERO:
            _fade(distance, pairs.cutoff, values, slopes, row, count + 2)
        first, second = pairs.rows[pair, 0], pairs.rows[pair, 1]
        for k in range(count + 2):
            value = get(values, row + k)
            increase(memory.inputs, first + k, value)
            increase(memory.inputs, second + k, value)


@compiled
def _fade(distance: Any, cutoff: Any, values: Any, slopes: Any, first: Any, count: Any) -> None:
    """Make features decay smoothly to zero at the cutoff."""
    part = _ONE - larger(_ONE - distance * (_ONE / cutoff), spread(_ZERO))
    inside = part * (_ONE - part)
    envelope = _ONE - part * part * part * (_TEN - part * _FIFTEEN + part * part * _SIX)
    fall = inside * inside * (-_THIRTY / cutoff)
    for row in range(first, first + count):
        value = get(values, row)
        put(slopes, row, get(slopes, row) * envelope + value * fall)
        put(values, row, value * envelope)


@compiled
def _dense(weight: Any, bias: Any, layer: Any, kinds: Any, rows: Any, result: Any) -> None:
    """Dense layer of each bead's kind; `layer` is the number of its first matrix."""
    _, outputs, inputs = weight.shape
    for bead in range(len(kinds)):
        number = layer + kinds[bead]
        for row in range(outputs):
            put(result, bead * outputs + row, spread(bias[number, row]))
        add_product(weight, number, rows, bead * inputs, inputs, result, bead * outputs)


@compiled
def _add_dense_back(weight: Any, layer: Any, kinds: Any, gradient: Any, result: Any) -> None:
    """Add the transpose of a dense layer."""
    _, outputs, inputs = weight.shape
    for bead in range(len(kinds)):
        add_transposed_product(weight, layer + kinds[bead], gradient, bead * outputs, result, bead * inputs)


@compiled
def _activate(rows: Any, gains: Any, first: Any, result: Any, added: Any) -> None:
    """SiLU of rows, with their slopes into gains from a row on; written or added to the result."""
    for row in range(len(rows)):
        x = get(rows, row)
        gate = _ONE / (_ONE + exponential(_ZERO - x))
        value = x * gate
        put(gains, first + row, gate * (_ONE + x - value))
        put(result, row, get(result, row) + value if added else value)


@compiled
def _forward(weights: Any, pairs: Any, memory: Any, energy: Any) -> None:
    """The forward sweep; `memory.step` then holds the derivatives of the energy by what the last layer activates."""
    kinds, hidden, step, gains = pairs.bead_kinds, memory.hidden, memory.step, memory.gains
    size, layers, count = len(hidden), len(weights.residuals) // len(weights.hidden), len(weights.hidden)
    _dense(weights.first, weights.first_bias, 0, kinds, memory.inputs, step)
    _activate(step, gains, (2 * layers - 1) * size, hidden, False)
    for layer in range(layers):
        if layer:
            _send(weights, pairs, memory, layer)
            _dense(weights.receivers, weights.receiver_biases, (layer - 1) * count, kinds, memory.received, step)
            _activate(step, gains, (layers + layer - 1) * size, hidden, True)
        _dense(weights.residuals, weights.residual_biases, layer * count, kinds, hidden, step)
        _activate(step, gains, layer * size, hidden, True)
    _dense(weights.hidden, weights.hidden_bias, 0, kinds, hidden, step)
    _activate(step, gains, 2 * layers * size, step, False)
    total, features = spread(_ZERO), weights.hidden.shape[1]
    for bead in range(len(kinds)):
        for row in range(features):
            share, place = weights.readout[kinds[bead], row], bead * features + row
            total = total + get(step, place) * share
            put(step, place, get(gains, 2 * layers * size + place) * share)
    increase(energy, 0, total * pairs.scale)


@compiled
def _send(weights: Any, pairs: Any, memory: Any, layer: Any) -> None:
    """What beads send and receive before a layer."""
    sent, received, net, kinds = memory.sent, memory.received, memory.net, pairs.bead_kinds
    _, channels, features = weights.senders.shape
    start = layer * len(received)
    clear(sent, start, len(received))
    clear(received, 0, len(received))
    for bead in range(len(kinds)):
        number = (layer - 1) * len(weights.hidden) + kinds[bead]
        add_product(weights.senders, number, memory.hidden, bead * features, features, sent, start + bead * channels)
    for pair in range(len(memory.near)):
        if not memory.near[pair]:
            continue
        first, second = pairs.beads[pair, 0] * channels, pairs.beads[pair, 1] * channels
        _filter(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            factor = get(net, channel)
            increase(received, first + channel, factor * get(sent, start + second + channel))
            increase(received, second + channel, factor * get(sent, start + first + channel))


@compiled
def _filter(weights: Any, pairs: Any, memory: Any, layer: Any, pair: Any) -> None:
    """The filters of a pair into `memory.net`."""
    channels, n_inputs = weights.filters.shape[1:]
    clear(memory.net, 0, channels)
    number = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair]
    add_product(weights.filters, number, memory.values, pair * n_inputs, pairs.centers.shape[1] + 2, memory.net, 0)


@compiled
def _backward(weights: Any, pairs: Any, memory: Any) -> None:
    """The backward sweep: derivatives of the energy by the inputs of beads and by the features of pairs [k_B T]."""
    kinds, gradient, step, gains = pairs.bead_kinds, memory.hidden, memory.step, memory.gains
    size, layers, count = len(gradient), len(weights.residuals) // len(weights.hidden), len(weights.hidden)
    clear(memory.by_values, 0, len(memory.by_values))
    clear(gradient, 0, len(gradient))
    _add_dense_back(weights.hidden, 0, kinds, step, gradient)
    for layer in range(layers - 1, -1, -1):
        _gain(gains, layer * size, gradient, step)
        _add_dense_back(weights.residuals, layer * count, kinds, step, gradient)
        if layer:
            _gain(gains, (layers + layer - 1) * size, gradient, step)
            clear(memory.received, 0, len(memory.received))
            _add_dense_back(weights.receivers, (layer - 1) * count, kinds, step, memory.received)
            _send_back(weights, pairs, memory, layer)
            _add_dense_back(weights.senders, (layer - 1) * count, kinds, memory.by_sent, gradient)
    _gain(gains, (2 * layers - 1) * size, gradient, step)
    clear(memory.inputs, 0, len(memory.inputs))
    _add_dense_back(weights.first, 0, kinds, step, memory.inputs)


@compiled
def _gain(gains: Any, first: Any, gradient: Any, result: Any) -> None:
    """The gradient before an activation."""
    for row in range(len(result)):
        put(result, row, get(gains, first + row) * get(gradient, row))


@compiled
def _send_back(weights: Any, pairs: Any, memory: Any, layer: Any) -> None:
    """From derivatives by what beads receive, in `memory.received`, those by what they send and by the features."""
    sent, received, by_sent, net = memory.sent, memory.received, memory.by_sent, memory.net
    channels, n_inputs = weights.filters.shape[1:]
    start = layer * len(received)
    clear(by_sent, 0, len(by_sent))
    for pair in range(len(memory.near)):
        if not memory.near[pair]:
            continue
        first, second = pairs.beads[pair, 0] * channels, pairs.beads[pair, 1] * channels
        _filter(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            factor, one, two = get(net, channel), get(received, first + channel), get(received, second + channel)
            increase(by_sent, first + channel, factor * two)
            increase(by_sent, second + channel, factor * one)
            from_first, from_second = get(sent, start + first + channel), get(sent, start + second + channel)
            put(net, channels + channel, one * from_second + two * from_first)
        number = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair]
        add_transposed_product(weights.filters, number, net, channels, memory.by_values, pair * n_inputs)


@compiled
def _add_forces(pairs: Any, memory: Any, n_inputs: Any, forces: Any) -> None:
    """Add the forces of the pairs."""
    gaps, count = memory.gaps, pairs.centers.shape[1] + 2
    for pair in range(len(pairs.beads)):
        slope = get(gaps, 5 * pair + 4)
        if memory.near[pair]:
            first, second = pairs.rows[pair, 0], pairs.rows[pair, 1]
            for k in range(count):
                row = pair * n_inputs + k
                by_value = get(memory.by_values, row) + get(memory.inputs, first + k) + get(memory.inputs, second + k)
                slope = slope + by_value * get(memory.slopes, row)
        pull = slope * pairs.scale / get(gaps, 5 * pair + 3)
        first, second = 3 * pairs.beads[pair, 0], 3 * pairs.beads[pair, 1]
        for axis in range(3):
            force = pull * get(gaps, 5 * pair + axis)
            increase(forces, first + axis, _ZERO - force)
            increase(forces, second + axis, force)
