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
    TILE,
    add_product,
    add_transposed_product,
    any_below,
    clear,
    compiled,
    copy,
    exponential,
    get,
    increase,
    larger,
    nearest,
    put,
    spread,
    square_root,
    whole,
)
from cg_assets.potentials.thermal.pairs import NO_BOX

if TYPE_CHECKING:
    from cg_assets.potentials.message_passing.module import MessagePassing

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_f = np.float32
_ZERO, _HALF, _ONE, _LINEAR, _SQUARE, _TWO = _f(0.0), _f(0.5), _f(1.0), _f(0.3), _f(0.1), _f(2.0)
_SIX, _TEN, _FIFTEEN, _THIRTY = _f(6.0), _f(10.0), _f(15.0), _f(30.0)
_PER_SOFT_LIMIT = _f(0.2)


class NetworkWeights(NamedTuple):
    """Matrices `(layers * kinds, outputs, inputs)`, padded to whole tiles, and biases `(layers * kinds, outputs)`.

    The readout is `(kinds, features)`, or `(kinds, n_terms, features)` of several.
    """

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


class NetworkPairs(NamedTuple):
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
    return Kernel(_add_network, (network_weights(module, readout, TILE), network_pairs(module, constant, box)))


def network_weights(module: MessagePassing, readout: Tensor, unit: int) -> NetworkWeights:
    """The weights of a network, their features and channels padded to whole units; see `network_kernel`."""
    kinds, pair_kinds, n_inputs = module.n_kinds, module.n_pair_kinds, module.n_inputs
    features, channels = module.first.shape[1], max(module.first.shape[1] // 2, 1)
    wide, narrow, inputs = whole(features, unit), whole(channels, unit), whole(module.slots * n_inputs)

    def padded(weights: Iterable[Tensor], *shape: int) -> FloatArray:
        """Of layers `(kinds, outputs, inputs)` or biases `(kinds, outputs)`, padded with zeros."""
        layers = [numbers(one) for one in weights]
        found = np.zeros((len(layers), *shape), np.float32)
        for one, values in zip(found, layers, strict=True):
            values = values if len(shape) == values.ndim else values[..., 0]
            one[tuple(slice(size) for size in values.shape)] = values
        return found.reshape(-1, *shape[1:])

    return NetworkWeights(
        first=padded([module.first], kinds, wide, inputs),
        first_bias=padded([module.first_bias], kinds, wide),
        filters=padded(module.filters, pair_kinds, narrow, whole(n_inputs)),
        senders=padded(module.senders, kinds, narrow, wide),
        receivers=padded(module.receivers, kinds, wide, narrow),
        receiver_biases=padded(module.receiver_biases, kinds, wide),
        residuals=padded(module.residuals, kinds, wide, wide),
        residual_biases=padded(module.residual_biases, kinds, wide),
        hidden=padded([module.hidden], kinds, wide, wide),
        hidden_bias=padded([module.hidden_bias], kinds, wide),
        readout=padded([readout], *readout.shape[:-1], wide),
    )


def network_pairs(module: MessagePassing, constant: float, box: Any) -> NetworkPairs:
    """The pairs of a network; see `network_kernel`."""
    n_inputs = module.n_inputs
    names = ("mean", "deviation", "low", "high", "low_stiffness", "high_stiffness")
    statistics = np.stack([numbers(getattr(module, name)) for name in names], axis=1)
    statistics[:, 1] = 1.0 / statistics[:, 1]
    beads = np.stack([numbers(module.first_bead), numbers(module.second_bead)], axis=1)
    slots = np.stack([numbers(module.first_slot), numbers(module.second_slot)], axis=1)
    return NetworkPairs(
        beads=beads,
        rows=beads * whole(module.slots * n_inputs) + (slots - beads * module.slots) * n_inputs,
        kinds=numbers(module.pair_kinds),
        bead_kinds=numbers(module.kinds),
        statistics=statistics,
        centers=numbers(module.centers),
        rates=1.0 / numbers(module.widths),
        box=np.zeros(3, np.float32) if box is None else np.minimum(np.array(box, np.float32), NO_BOX),
        cutoff=_f(module.cutoff or 0.0),
        scale=_f(module.thermal_energy),
        constant=_f(constant),
    )


def numbers(values: Tensor) -> Any:
    """As an array."""
    return np.ascontiguousarray(values.detach().cpu().numpy())


class NetworkMemory(NamedTuple):
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
    memory = network_memory(weights, pairs)
    for block in range(len(positions)):
        sum_features(positions[block], pairs, memory, energies[block])
        sweep_forward(weights, pairs, memory, None)
        _read_out(weights, pairs, memory, energies[block])
        sweep_backward(weights, pairs, memory, None)
        add_forces(pairs, memory, forces[block])
        increase(energies[block], 0, spread(pairs.constant))


@compiled
def network_memory(weights: Any, pairs: Any) -> Any:
    """Memory for sixteen replicas."""
    _, features, slots = weights.first.shape
    channels, n_inputs = weights.filters.shape[1:]
    layers, n_beads, n_pairs = len(weights.residuals) // len(weights.hidden), len(pairs.bead_kinds), len(pairs.beads)
    return NetworkMemory(
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


@compiled
def sum_features(positions: Any, pairs: Any, memory: Any, energy: Any) -> None:
    """Distances and features of the pairs, and the energy of their walls."""
    _distances(positions, pairs, memory, energy)
    _features(pairs, memory, len(memory.values) // len(pairs.beads))


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
def add_dense_back(weight: Any, layer: Any, kinds: Any, gradient: Any, result: Any) -> None:
    """Add the transpose of a dense layer."""
    _, outputs, inputs = weight.shape
    for bead in range(len(kinds)):
        add_transposed_product(weight, layer + kinds[bead], gradient, bead * outputs, result, bead * inputs)


@compiled
def activate(rows: Any, gains: Any, first: Any, result: Any, added: Any) -> None:
    """SiLU of rows, with their slopes into gains from a row on; written or added to the result."""
    for row in range(len(rows)):
        x = get(rows, row)
        gate = _ONE / (_ONE + exponential(_ZERO - x))
        value = x * gate
        put(gains, first + row, gate * (_ONE + x - value))
        put(result, row, get(result, row) + value if added else value)


@compiled
def sweep_forward(weights: Any, pairs: Any, memory: Any, kept: Any) -> None:
    """The forward sweep, up to what the last layer activates, in `memory.step`; see `gradient_kernel` for `kept`."""
    kinds, hidden, step, gains = pairs.bead_kinds, memory.hidden, memory.step, memory.gains
    size, layers, count = len(hidden), len(weights.residuals) // len(weights.hidden), len(weights.hidden)
    _dense(weights.first, weights.first_bias, 0, kinds, memory.inputs, step)
    if kept is not None:
        copy(step, 0, size, kept.before, 0)
    activate(step, gains, (2 * layers - 1) * size, hidden, False)
    for layer in range(layers):
        if layer:
            _send(weights, pairs, memory, layer)
            _dense(weights.receivers, weights.receiver_biases, (layer - 1) * count, kinds, memory.received, step)
            if kept is not None:
                place, small = layer * len(memory.received), len(memory.received)
                copy(memory.sent, place, small, kept.sent, place)
                copy(memory.received, 0, small, kept.received, place)
                copy(step, 0, size, kept.before, 2 * layer * size)
            activate(step, gains, (layers + layer - 1) * size, hidden, True)
        _dense(weights.residuals, weights.residual_biases, layer * count, kinds, hidden, step)
        if kept is not None:
            copy(step, 0, size, kept.before, (2 * layer + 1) * size)
        activate(step, gains, layer * size, hidden, True)
    _dense(weights.hidden, weights.hidden_bias, 0, kinds, hidden, step)
    if kept is not None:
        copy(step, 0, size, kept.before, 2 * layers * size)


@compiled
def _read_out(weights: Any, pairs: Any, memory: Any, energy: Any) -> None:
    """Add the energy; `memory.step` then holds its derivatives by what the last layer activates."""
    kinds, step, gains = pairs.bead_kinds, memory.step, memory.gains
    start = len(gains) - len(step)
    activate(step, gains, start, step, False)
    total, features = spread(_ZERO), weights.hidden.shape[1]
    for bead in range(len(kinds)):
        for row in range(features):
            share, place = weights.readout[kinds[bead], row], bead * features + row
            total = total + get(step, place) * share
            put(step, place, get(gains, start + place) * share)
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
        find_filters(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            factor = get(net, channel)
            increase(received, first + channel, factor * get(sent, start + second + channel))
            increase(received, second + channel, factor * get(sent, start + first + channel))


@compiled
def find_filters(weights: Any, pairs: Any, memory: Any, layer: Any, pair: Any) -> None:
    """The filters of a pair into `memory.net`."""
    channels, n_inputs = weights.filters.shape[1:]
    clear(memory.net, 0, channels)
    number = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair]
    add_product(weights.filters, number, memory.values, pair * n_inputs, pairs.centers.shape[1] + 2, memory.net, 0)


@compiled
def sweep_backward(weights: Any, pairs: Any, memory: Any, kept: Any) -> None:
    """The backward sweep: derivatives of the energy by the inputs of beads and by the features of pairs [k_B T]."""
    kinds, gradient, step, gains = pairs.bead_kinds, memory.hidden, memory.step, memory.gains
    size, layers, count = len(gradient), len(weights.residuals) // len(weights.hidden), len(weights.hidden)
    clear(memory.by_values, 0, len(memory.by_values))
    clear(gradient, 0, len(gradient))
    add_dense_back(weights.hidden, 0, kinds, step, gradient)
    for layer in range(layers - 1, -1, -1):
        if kept is not None:
            copy(gradient, 0, size, kept.pulls, (2 * layer + 1) * size)
        _gain(gains, layer * size, gradient, step)
        add_dense_back(weights.residuals, layer * count, kinds, step, gradient)
        if layer:
            if kept is not None:
                copy(gradient, 0, size, kept.pulls, 2 * layer * size)
            _gain(gains, (layers + layer - 1) * size, gradient, step)
            clear(memory.received, 0, len(memory.received))
            add_dense_back(weights.receivers, (layer - 1) * count, kinds, step, memory.received)
            if kept is not None:
                copy(memory.received, 0, len(memory.received), kept.by_received, layer * len(memory.received))
            _send_back(weights, pairs, memory, layer)
            add_dense_back(weights.senders, (layer - 1) * count, kinds, memory.by_sent, gradient)
    if kept is not None:
        copy(gradient, 0, size, kept.pulls, 0)
    _gain(gains, (2 * layers - 1) * size, gradient, step)
    clear(memory.inputs, 0, len(memory.inputs))
    add_dense_back(weights.first, 0, kinds, step, memory.inputs)


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
        find_filters(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            factor, one, two = get(net, channel), get(received, first + channel), get(received, second + channel)
            increase(by_sent, first + channel, factor * two)
            increase(by_sent, second + channel, factor * one)
            from_first, from_second = get(sent, start + first + channel), get(sent, start + second + channel)
            put(net, channels + channel, one * from_second + two * from_first)
        number = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair]
        add_transposed_product(weights.filters, number, net, channels, memory.by_values, pair * n_inputs)


@compiled
def add_forces(pairs: Any, memory: Any, forces: Any) -> None:
    """Add the forces of the pairs."""
    gaps, count, n_inputs = memory.gaps, pairs.centers.shape[1] + 2, len(memory.values) // len(pairs.beads)
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
