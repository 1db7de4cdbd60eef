"""Forces of a network and the gradient of a loss of them by its weights, compiled for sixteen frames at once.

The loss of a frame acts through its derivatives v by the forces and c_t by the readouts h_t. With the rate x' of any x
as beads move along -v, and shares s_t of the readouts in the energy, its gradient by the weights is that of

    sum_t c_t h_t + s_t h_t'.

The derivatives of this sum by a rate x' are the derivatives of the energy by x, `pulls`, which the first sweep back has
found for the forces. There remain one sweep of rates forward, one of derivatives by x, `pushes`, back, and for each
matrix the products of both with its inputs and their rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cg_assets.core.compilation import kept as kept_compiled
from cg_assets.potentials.lanes import (
    LANES,
    add_outer_products,
    add_product,
    clear,
    compiled,
    copy,
    exponential,
    get,
    increase,
    put,
    spread,
)
from cg_assets.potentials.message_passing.kernel import (
    FloatArray,
    NetworkWeights,
    activate,
    add_dense_back,
    add_forces,
    find_filters,
    network_memory,
    sum_features,
    sweep_backward,
    sweep_forward,
)

if TYPE_CHECKING:
    from cg_assets.potentials.message_passing.kernel import NetworkPairs

_f = np.float32
_ZERO, _ONE, _TWO = _f(0.0), _f(1.0), _f(2.0)


class Kept(NamedTuple):
    """What the sweeps of sixteen frames leave to their gradient: rows of lanes.

    Activations have numbers: 0 of the first layer, 2 l + 1 of residual layer l, 2 l of its receivers, the last one.

    Attributes:
        before: what they take.
        pulls: derivatives of the energy by the features after each of them but the last [k_B T].
        sent: what the beads send, by layers; 0 is not used.
        received: what they receive.
        by_received: derivatives of the energy by it [k_B T].
    """

    before: FloatArray
    pulls: FloatArray
    sent: FloatArray
    received: FloatArray
    by_received: FloatArray


class _Rates(NamedTuple):
    """Memory for the gradient of sixteen frames, besides that of the sweeps: rows of lanes.

    Attributes:
        states: features of the beads after each activation but the last.
        rates: their rates.
        slopes: of the activations.
        bends: second derivatives of the activations times rates times pulls.
        inputs: rates of the sums of features.
        step: rates before an activation.
        left: pushes and pulls before an activation.
        left_pulls: see above.
        sent: rates of what is sent, by layers.
        received: rates of what is received, by layers.
        by_received: pushes of what is received.
        by_sent: pushes of what is sent.
        net: filters of a pair, their rates, and pushes and pulls of filters.
        net_pulls: see above.
        turned: for outer products.
    """

    states: FloatArray
    rates: FloatArray
    slopes: FloatArray
    bends: FloatArray
    inputs: FloatArray
    step: FloatArray
    left: FloatArray
    left_pulls: FloatArray
    sent: FloatArray
    received: FloatArray
    by_received: FloatArray
    by_sent: FloatArray
    net: FloatArray
    net_pulls: FloatArray
    turned: FloatArray


def kept_shapes(weights: NetworkWeights, pairs: NetworkPairs, blocks: int) -> list[tuple[int, int, int]]:
    """Shapes of what so many blocks of sixteen frames leave."""
    layers, beads = len(weights.residuals) // len(weights.hidden), len(pairs.bead_kinds)
    size, small = beads * weights.hidden.shape[1], layers * beads * weights.senders.shape[1]
    return [(blocks, rows, LANES) for rows in ((2 * layers + 1) * size, 2 * layers * size, small, small, small)]


def no_sums(weights: NetworkWeights) -> NetworkWeights:
    """Gradients of nothing by the weights: rows of `lanes.add_outer_products`, of the readout lanes of frames."""
    rows = [values.size // LANES for values in weights[:-1]]
    return NetworkWeights._make(np.zeros((count, LANES), np.float32) for count in (*rows, weights.readout.size))


def gradients(sums: NetworkWeights, weights: NetworkWeights) -> list[FloatArray]:
    """The gradients by the weights, in their shapes."""
    found = []
    for rows, values in zip(sums[:-1], weights[:-1], strict=True):
        if values.ndim == 2:
            found.append(rows.reshape(values.shape))
        else:
            matrices, outputs, inputs = values.shape
            parts = rows.reshape(matrices, outputs // LANES, inputs, LANES).transpose(0, 1, 3, 2)
            found.append(parts.reshape(values.shape))
    return [*found, sums.readout.sum(axis=1).reshape(weights.readout.shape)]


@kept_compiled(error_model="numpy")
def find_forces(positions: Any, shares: Any, heads: Any, walls: Any, forces: Any, kept: Any, data: Any) -> None:
    """Add readouts, energies of walls [kJ/mol] and forces, and keep what their gradient needs.

    Args:
        positions: `(blocks, 3 n, LANES)` [nm].
        shares: `(blocks, n_terms, LANES)` of the readouts in the energy.
        heads: `(blocks, n_terms, LANES)`, the readouts [k_B T].
        walls: `(blocks, 1, LANES)`.
        forces: `(blocks, 3 n, LANES)` [kJ/mol/nm].
        kept: a `Kept` of all blocks.
        data: `NetworkWeights` and `NetworkPairs`.
    """
    weights, pairs = data
    memory = network_memory(weights, pairs)
    for block in range(len(positions)):
        own = _of_block(kept, block)
        sum_features(positions[block], pairs, memory, walls[block])
        sweep_forward(weights, pairs, memory, own)
        _read_out(weights, pairs, memory, shares[block], heads[block])
        sweep_backward(weights, pairs, memory, own)
        add_forces(pairs, memory, forces[block])


@compiled
def _of_block(kept: Any, block: Any) -> Any:
    return Kept(kept.before[block], kept.pulls[block], kept.sent[block], kept.received[block], kept.by_received[block])


@compiled
def _share(weights: Any, kind: Any, row: Any, shares: Any) -> Any:
    """The weight of a feature in a sum of readouts with shares."""
    total = spread(_ZERO)
    for term in range(len(shares)):
        total = total + get(shares, term) * weights.readout[kind, term, row]
    return total


@compiled
def _read_out(weights: Any, pairs: Any, memory: Any, shares: Any, heads: Any) -> None:
    """Add the readouts; `memory.step` then holds derivatives of the energy by what the last layer activates."""
    kinds, step, gains = pairs.bead_kinds, memory.step, memory.gains
    start, features = len(gains) - len(step), weights.hidden.shape[1]
    activate(step, gains, start, step, False)
    for bead in range(len(kinds)):
        for row in range(features):
            place = bead * features + row
            value = get(step, place)
            for term in range(len(shares)):
                increase(heads, term, value * weights.readout[kinds[bead], term, row])
            put(step, place, get(gains, start + place) * _share(weights, kinds[bead], row, shares))


@kept_compiled(error_model="numpy")
def add_gradient(positions: Any, shares: Any, by_heads: Any, by_forces: Any, kept: Any, sums: Any, data: Any) -> None:
    """Add the gradient by the weights of a loss with these derivatives by what `find_forces` found.

    Args:
        positions: see there.
        shares: see there.
        by_heads: `(blocks, n_terms, LANES)`.
        by_forces: `(blocks, 3 n, LANES)`.
        kept: of `find_forces`.
        sums: of `no_sums`.
        data: see there.
    """
    weights, pairs = data
    memory, rates, walls = network_memory(weights, pairs), _no_rates(weights, pairs), np.zeros((1, LANES), np.float32)
    for block in range(len(positions)):
        own = _of_block(kept, block)
        copy(own.sent, 0, len(own.sent), memory.sent, 0)
        sum_features(positions[block], pairs, memory, walls)
        _move(pairs, memory, by_forces[block], rates)
        _sweep_rates(weights, pairs, memory, own, rates)
        _read_back(weights, pairs, own, rates, shares[block], by_heads[block], sums)
        _sweep_pushes(weights, pairs, memory, own, rates, sums)


@compiled
def _no_rates(weights: Any, pairs: Any) -> Any:
    _, features, slots = weights.first.shape
    channels = weights.filters.shape[1]
    layers, beads = len(weights.residuals) // len(weights.hidden), len(pairs.bead_kinds)
    size, small = beads * features, beads * channels
    return _Rates(
        states=np.empty((2 * layers * size, LANES), np.float32),
        rates=np.empty((2 * layers * size, LANES), np.float32),
        slopes=np.empty(((2 * layers + 1) * size, LANES), np.float32),
        bends=np.empty(((2 * layers + 1) * size, LANES), np.float32),
        inputs=np.empty((beads * slots, LANES), np.float32),
        step=np.empty((size, LANES), np.float32),
        left=np.empty((size, LANES), np.float32),
        left_pulls=np.empty((size, LANES), np.float32),
        sent=np.empty((layers * small, LANES), np.float32),
        received=np.empty((layers * small, LANES), np.float32),
        by_received=np.empty((small, LANES), np.float32),
        by_sent=np.empty((small, LANES), np.float32),
        net=np.empty((3 * channels, LANES), np.float32),
        net_pulls=np.empty((3 * channels, LANES), np.float32),
        turned=np.empty((2 * LANES, LANES), np.float32),
    )


@compiled
def _move(pairs: Any, memory: Any, by_forces: Any, rates: Any) -> None:
    """Rates of the features of pairs, into `memory.by_values`, and of their sums as beads move along -`by_forces`."""
    gaps, count, n_inputs = memory.gaps, pairs.centers.shape[1] + 2, len(memory.values) // len(pairs.beads)
    clear(rates.inputs, 0, len(rates.inputs))
    clear(memory.by_values, 0, len(memory.by_values))
    for pair in range(len(pairs.beads)):
        if not memory.near[pair]:
            continue
        one, two, along = 3 * pairs.beads[pair, 0], 3 * pairs.beads[pair, 1], spread(_ZERO)
        for axis in range(3):
            along = along + get(gaps, 5 * pair + axis) * (get(by_forces, two + axis) - get(by_forces, one + axis))
        along = along * pairs.scale / get(gaps, 5 * pair + 3)
        first, second = pairs.rows[pair, 0], pairs.rows[pair, 1]
        for k in range(count):
            rate = get(memory.slopes, pair * n_inputs + k) * along
            put(memory.by_values, pair * n_inputs + k, rate)
            increase(rates.inputs, first + k, rate)
            increase(rates.inputs, second + k, rate)


@compiled
def _multiply(weight: Any, layer: Any, kinds: Any, rows: Any, first: Any, result: Any, start: Any) -> None:
    """Each bead's matrix times its rows, without a bias."""
    _, outputs, inputs = weight.shape
    clear(result, start, len(kinds) * outputs)
    for bead in range(len(kinds)):
        number, place = layer + kinds[bead], first + bead * inputs
        add_product(weight, number, rows, place, inputs, result, start + bead * outputs)


@compiled
def _sweep_rates(weights: Any, pairs: Any, memory: Any, kept: Any, rates: Any) -> None:
    """The sweep of rates forward, up to `rates.step` before the last activation."""
    kinds, step, size, count = pairs.bead_kinds, rates.step, len(rates.step), len(weights.hidden)
    small, layers = len(rates.by_sent), len(weights.residuals) // len(weights.hidden)
    _multiply(weights.first, 0, kinds, rates.inputs, 0, step, 0)
    _bend(kept, 0, rates)
    for layer in range(layers):
        if layer:
            start = layer * small
            _multiply(
                weights.senders, (layer - 1) * count, kinds, rates.rates, (2 * layer - 1) * size, rates.sent, start
            )
            _send_rates(weights, pairs, memory, rates, layer)
            _multiply(weights.receivers, (layer - 1) * count, kinds, rates.received, start, step, 0)
            _bend(kept, 2 * layer, rates)
        _multiply(weights.residuals, layer * count, kinds, rates.rates, 2 * layer * size, step, 0)
        _bend(kept, 2 * layer + 1, rates)
    _multiply(weights.hidden, 0, kinds, rates.rates, (2 * layers - 1) * size, step, 0)


@compiled
def _curve(x: Any) -> Any:
    """SiLU and its first and second derivative."""
    gate = _ONE / (_ONE + exponential(_ZERO - x))
    value, rest = x * gate, gate - gate * gate
    return value, gate + x * rest, rest * (x - value * _TWO + _TWO)


@compiled
def _bend(kept: Any, number: Any, rates: Any) -> None:
    """Features after an activation with their rates, and what the sweep back needs."""
    size = len(rates.step)
    start, last = number * size, (number - 1) * size
    for row in range(size):
        value, slope, curvature = _curve(get(kept.before, start + row))
        rate = get(rates.step, row)
        put(rates.slopes, start + row, slope)
        put(rates.bends, start + row, curvature * rate * get(kept.pulls, start + row))
        rate = rate * slope
        if number:
            value, rate = value + get(rates.states, last + row), rate + get(rates.rates, last + row)
        put(rates.states, start + row, value)
        put(rates.rates, start + row, rate)


@compiled
def _send_rates(weights: Any, pairs: Any, memory: Any, rates: Any, layer: Any) -> None:
    """Rates of what beads receive before a layer, from those of what they send."""
    channels, net = weights.filters.shape[1], memory.net
    start = layer * len(rates.by_sent)
    clear(rates.received, start, len(rates.by_sent))
    for pair in range(len(memory.near)):
        if not memory.near[pair]:
            continue
        first, second = start + pairs.beads[pair, 0] * channels, start + pairs.beads[pair, 1] * channels
        find_filters(weights, pairs, memory, layer, pair)
        _filter_rates(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            factor, rate = get(net, channel), get(net, channels + channel)
            one = rate * get(memory.sent, second + channel) + factor * get(rates.sent, second + channel)
            two = rate * get(memory.sent, first + channel) + factor * get(rates.sent, first + channel)
            increase(rates.received, first + channel, one)
            increase(rates.received, second + channel, two)


@compiled
def _filter_rates(weights: Any, pairs: Any, memory: Any, layer: Any, pair: Any) -> None:
    """Rates of the filters of a pair into the second half of `memory.net`."""
    channels, n_inputs = weights.filters.shape[1:]
    clear(memory.net, channels, channels)
    number = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair]
    count = pairs.centers.shape[1] + 2
    add_product(weights.filters, number, memory.by_values, pair * n_inputs, count, memory.net, channels)


@compiled
def _read_back(weights: Any, pairs: Any, kept: Any, rates: Any, shares: Any, by_heads: Any, sums: Any) -> None:
    """Gradient by the readout, and pushes and pulls before the last activation."""
    kinds, size, features = pairs.bead_kinds, len(rates.step), weights.hidden.shape[1]
    start = len(kept.before) - size
    for bead in range(len(kinds)):
        for row in range(features):
            place = bead * features + row
            value, slope, curvature = _curve(get(kept.before, start + place))
            rate = get(rates.step, place)
            pull = _share(weights, kinds[bead], row, shares)
            push = _share(weights, kinds[bead], row, by_heads)
            put(rates.left, place, slope * push + curvature * rate * pull)
            put(rates.left_pulls, place, slope * pull)
            rate = rate * slope
            for term in range(len(shares)):
                number = (kinds[bead] * len(shares) + term) * features + row
                increase(sums.readout, number, get(by_heads, term) * value + get(shares, term) * rate)


@compiled
def _add_outer(
    weight: Any, layer: Any, kinds: Any, left: Any, right: Any, first: Any, turned: Any, sums: Any, biases: Any
) -> None:
    """Gradient by the matrices of the beads."""
    _, outputs, inputs = weight.shape
    for bead in range(len(kinds)):
        number, place = layer + kinds[bead], first + bead * inputs
        add_outer_products(left, bead * outputs, right, place, (outputs, inputs), turned, sums, biases, number)


@compiled
def _sweep_pushes(weights: Any, pairs: Any, memory: Any, kept: Any, rates: Any, sums: Any) -> None:
    """The sweep back, which adds the gradient."""
    kinds, size, count, turned = pairs.bead_kinds, len(rates.step), len(weights.hidden), rates.turned
    left, states, push = (rates.left, rates.left_pulls), (rates.states, rates.rates), memory.hidden
    last = len(rates.slopes) // size - 1
    _add_outer(weights.hidden, 0, kinds, left, states, (last - 1) * size, turned, sums.hidden, sums.hidden_bias)
    clear(push, 0, size)
    add_dense_back(weights.hidden, 0, kinds, rates.left, push)
    for number in range(last - 1, 0, -1):
        _before(kept, rates, number, push)
        layer, start = number // 2, (number - 1) * size
        if number % 2:
            of = layer * count
            _add_outer(weights.residuals, of, kinds, left, states, start, turned, sums.residuals, sums.residual_biases)
            add_dense_back(weights.residuals, of, kinds, rates.left, push)
            continue
        of, place, received = (layer - 1) * count, layer * len(rates.by_sent), (kept.received, rates.received)
        _add_outer(weights.receivers, of, kinds, left, received, place, turned, sums.receivers, sums.receiver_biases)
        clear(rates.by_received, 0, len(rates.by_received))
        add_dense_back(weights.receivers, of, kinds, rates.left, rates.by_received)
        _send_pushes(weights, pairs, memory, kept, rates, layer, sums)
        sent = rates.by_sent, memory.by_sent
        _add_outer(weights.senders, of, kinds, sent, states, start, turned, sums.senders, None)
        add_dense_back(weights.senders, of, kinds, rates.by_sent, push)
    _before(kept, rates, 0, push)
    _add_outer(weights.first, 0, kinds, left, (memory.inputs, rates.inputs), 0, turned, sums.first, sums.first_bias)


@compiled
def _before(kept: Any, rates: Any, number: Any, push: Any) -> None:
    """Pushes and pulls before an activation."""
    start = number * len(push)
    for row in range(len(push)):
        slope = get(rates.slopes, start + row)
        put(rates.left, row, slope * get(push, row) + get(rates.bends, start + row))
        put(rates.left_pulls, row, slope * get(kept.pulls, start + row))


@compiled
def _send_pushes(weights: Any, pairs: Any, memory: Any, kept: Any, rates: Any, layer: Any, sums: Any) -> None:
    """Pushes and pulls of what is sent, and the gradient by the filters."""
    channels, n_inputs = weights.filters.shape[1:]
    start = layer * len(rates.by_sent)
    clear(rates.by_sent, 0, len(rates.by_sent))
    clear(memory.by_sent, 0, len(memory.by_sent))
    for pair in range(len(memory.near)):
        if not memory.near[pair]:
            continue
        find_filters(weights, pairs, memory, layer, pair)
        _filter_rates(weights, pairs, memory, layer, pair)
        for channel in range(channels):
            one, two = pairs.beads[pair, 0] * channels + channel, pairs.beads[pair, 1] * channels + channel
            factor, rate = get(memory.net, channel), get(memory.net, channels + channel)
            push_one, push_two = get(rates.by_received, one), get(rates.by_received, two)
            pull_one, pull_two = get(kept.by_received, start + one), get(kept.by_received, start + two)
            increase(rates.by_sent, one, factor * push_two + rate * pull_two)
            increase(rates.by_sent, two, factor * push_one + rate * pull_one)
            increase(memory.by_sent, one, factor * pull_two)
            increase(memory.by_sent, two, factor * pull_one)
            sent_one, sent_two = get(memory.sent, start + one), get(memory.sent, start + two)
            push = push_one * sent_two + push_two * sent_one
            push = push + pull_one * get(rates.sent, start + two) + pull_two * get(rates.sent, start + one)
            put(rates.net, channel, push)
            put(rates.net_pulls, channel, pull_one * sent_two + pull_two * sent_one)
        number, nets = (layer - 1) * len(pairs.statistics) + pairs.kinds[pair], (rates.net, rates.net_pulls)
        features, shape = (memory.values, memory.by_values), (channels, n_inputs)
        add_outer_products(nets, 0, features, pair * n_inputs, shape, rates.turned, sums.filters, None, number)
