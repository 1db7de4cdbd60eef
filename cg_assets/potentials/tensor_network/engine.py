"""HIP-NN-TS at one temperature with neighbour lists, single precision: the fast way to simulate a liquid on a CPU.

The same energy and forces as `TensorNetwork` gives (tests hold both together), of sixteen beads side by side
(`cg_assets.potentials.lanes`). With G = dE/dS, the derivative by the surroundings S_i = sum_j T(u_ij) s(r_ij) of a
bead, its neighbour j is pulled with the gradient of G_i T(u_ij) s(r_ij).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cg_assets.core.single_precision import quarter_cosine, quarter_sine
from cg_assets.potentials.lanes import (
    LANES,
    TILE,
    add_product,
    add_transposed_product,
    clear,
    compiled,
    copy,
    exponential,
    get,
    increase,
    larger,
    put,
    spread,
    square_root,
    whole,
    with_sign,
)
from cg_assets.potentials.tensor_network.module import CUSP, TensorNetwork
from cg_assets.potentials.thermal.engine import ListEngine, moved, pushed
from cg_assets.potentials.thermal.near import ROWS, gather, give, room, take
from cg_assets.potentials.thermal.pairs_alone import pair_energy, pull_pairs

FloatArray = NDArray[np.float32]

_f = np.float32
_ZERO, _HALF, _ONE, _TWO, _THIRD, _CUSP = _f(0.0), _f(0.5), _f(1.0), _f(2.0), _f(1.0 / 3.0), _f(CUSP)
_FIFTH, _SEVENTH, _NINTH, _ELEVENTH, _LAST = _f(1.0 / 5.0), _f(1.0 / 7.0), _f(1.0 / 9.0), _f(1.0 / 11.0), _f(1.0 / 13.0)


class _Weights(NamedTuple):
    """Matrices `(m, outputs, inputs)`, padded to whole tiles; what depends on the kind of a bead in lanes of beads.

    Attributes:
        inverse: `(v,)` 1/mu of the sensitivities [1/nm].
        widths: `(v,)` sigma.
        interaction: of each kind of neighbour.
        own: `(blocks, f, LANES)` own features with their bias.
        scales: `(order, f)` of the lengths of tensors.
        first: of the first layer.
        first_bias: `(blocks, f, LANES)` with the kind's adjustment.
        inner: of residual layers, like the next three.
        inner_biases: `(layers, f)`.
        outer: see above.
        outer_biases: see above.
        readout: of energies; the first row is the linear energy, the second that whose softplus counts.
        alone: `(blocks, TILE, LANES)` energies of the kinds of beads.
        bend: weight of the softplus.
        scale: of all energies.
    """

    inverse: FloatArray
    widths: FloatArray
    interaction: FloatArray
    own: FloatArray
    scales: FloatArray
    first: FloatArray
    first_bias: FloatArray
    inner: FloatArray
    inner_biases: FloatArray
    outer: FloatArray
    outer_biases: FloatArray
    readout: FloatArray
    alone: FloatArray
    bend: np.float32
    scale: np.float32


class TensorEngine(ListEngine):
    """Energy and forces of `TensorNetwork` at one temperature."""

    def __init__(self, module: TensorNetwork, temperature: float, box: ArrayLike | None) -> None:
        """Read the weights.

        Args:
            module: the potential, in single precision.
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm], or None.

        Raises:
            ValueError: the temperature is not positive or the cutoff beyond half the box.
        """
        super().__init__(module, temperature, box)
        coefficients = module.dependence.coefficients(torch.tensor([temperature]))[0, 0].double()
        self.constant = module.n_beads * float(coefficients @ module.constant.double())
        self._surround(module.kinds.numpy(), module.cutoff, pair_energy(self.prior, module.cutoff))
        self.data, self.evaluate, self.loop = _weights(module, coefficients), _evaluate, _loop


def _weights(module: TensorNetwork, coefficients: Tensor) -> _Weights:
    """The weights at a temperature, at which heads that are linear are one."""
    features, count = whole(len(module.bias)), whole(len(module.centers))
    blocks = -(-module.n_beads // LANES)
    kinds = torch.nn.functional.pad(module.kinds, (0, blocks * LANES - module.n_beads))

    def padded(values: Any, *shape: int) -> FloatArray:
        """Padded with zeros."""
        found = np.zeros(shape, np.float32)
        given = values.detach().numpy() if len(values) else np.zeros(0)
        found[tuple(slice(size) for size in given.shape)] = given if given.ndim == len(shape) else 0.0
        return found

    def stacked(values: Any, *shape: int) -> FloatArray:
        """Of several."""
        return np.array([padded(one, *shape) for one in values], np.float32).reshape(-1, *shape)

    def in_lanes(values: Tensor, rows: int) -> FloatArray:
        """Of the kind of each bead, from `(rows, kinds)`."""
        return padded(values[:, kinds], rows, len(kinds)).reshape(rows, blocks, LANES).swapaxes(0, 1).copy()

    bent = module.dependence.form == "constant_heat_capacity" and module.n_terms == 3
    mix = torch.zeros(2, module.n_terms, dtype=torch.float64)
    mix[0] = coefficients
    if bent:
        mix[0, 2], mix[1, 2] = 0.0, 1.0
    mix = mix.float()
    return _Weights(
        inverse=padded(1.0 / module.centers, count),
        widths=padded(module.widths, count),
        interaction=stacked(
            module.interaction.reshape(-1, len(module.centers), module.n_kinds).permute(2, 0, 1), features, count
        ),
        own=in_lanes(module.own + module.bias[:, None], features),
        scales=stacked(module.tensor_scales, features),
        first=stacked([module.first], features, features),
        first_bias=in_lanes(module.adjust + module.first_bias[:, None], features),
        inner=stacked(module.inner, features, features),
        inner_biases=stacked(module.inner_biases, features),
        outer=stacked(module.outer, features, features),
        outer_biases=stacked(module.outer_biases, features),
        readout=stacked([mix @ module.readout], TILE, features),
        alone=in_lanes(mix @ module.type_energies, TILE),
        bend=_f(coefficients[2]) if bent else _ZERO,
        scale=_f(module.energy_scale),
    )


@compiled
def _loop(motion: Any, noise: Any, lists: Any, around: Any, weights: Any) -> Any:
    """See `ListEngine.advance`."""
    pull, energy = np.empty(lists.place.shape), 0.0
    for step in range(len(noise)):
        lists = moved(motion, noise[step], lists, around.box)
        pull[:] = 0.0
        energy = _evaluate(lists, around, weights, pull)
        energy = pushed(motion, lists.place, energy, pull)
    return energy, lists


@compiled
def _evaluate(lists: Any, around: Any, weights: Any, forces: Any) -> Any:
    """Energy without the constant; forces are added."""
    layers, (_, features, count) = len(weights.inner), weights.interaction.shape
    components = 1 if len(weights.scales) == 0 else 4 if len(weights.scales) == 1 else 9
    near = room(lists.starts, around.n_kinds)
    sums = np.empty((around.n_kinds * components * count, LANES), np.float32)
    hidden = np.empty((components * features, LANES), np.float32)
    lengths = np.empty((len(weights.scales) * features, LANES), np.float32)
    slopes = np.empty(((1 + layers) * features, LANES), np.float32)
    rows, inside = np.empty((features, LANES), np.float32), np.empty((features, LANES), np.float32)
    outputs, pulls = np.empty((TILE, LANES), np.float32), np.empty((3, LANES), np.float32)
    energy = pull_pairs(lists.place, lists.pairs, around.box, around.alone, forces)
    for block in range(len(weights.own)):
        gather(lists, around, block, near)
        _sum(weights, around, near, components, sums)
        _interact(weights, sums, components, hidden)
        copy(weights.own[block], 0, features, inside, 0)
        _add_invariants(hidden, weights.scales, inside, lengths)
        _activate(inside, slopes, 0)
        copy(weights.first_bias[block], 0, features, rows, 0)
        add_product(weights.first, 0, inside, 0, features, rows, 0)
        for layer in range(layers):
            for f in range(features):
                put(inside, f, spread(weights.inner_biases[layer, f]))
            add_product(weights.inner, layer, rows, 0, features, inside, 0)
            _activate(inside, slopes, (1 + layer) * features)
            for f in range(features):
                put(rows, f, get(rows, f) + weights.outer_biases[layer, f])
            add_product(weights.outer, layer, inside, 0, features, rows, 0)
        copy(weights.alone[block], 0, TILE, outputs, 0)
        add_product(weights.readout, 0, rows, 0, features, outputs, 0)
        energy += _read_out(weights, outputs, min(LANES, len(forces) - block * LANES))
        clear(rows, 0, features)
        add_transposed_product(weights.readout, 0, outputs, 0, rows, 0)
        for back in range(layers):
            layer = layers - 1 - back
            clear(inside, 0, features)
            add_transposed_product(weights.outer, layer, rows, 0, inside, 0)
            _multiply(inside, slopes, (1 + layer) * features)
            add_transposed_product(weights.inner, layer, inside, 0, rows, 0)
        clear(inside, 0, features)
        add_transposed_product(weights.first, 0, rows, 0, inside, 0)
        _multiply(inside, slopes, 0)
        _turn_back(hidden, weights.scales, inside, lengths)
        clear(sums, 0, len(sums))
        for part in range(around.n_kinds * components):
            kind, component = part // components, part % components
            add_transposed_product(weights.interaction, kind, hidden, component * features, sums, part * count)
        _pull(weights, around, near, components, sums, pulls, forces)
        take(block, pulls, forces)
    return energy


@compiled
def _interact(weights: Any, sums: Any, components: Any, hidden: Any) -> None:
    """Hidden tensors of the sums of sensitivities."""
    kinds, features, count = weights.interaction.shape
    clear(hidden, 0, len(hidden))
    for part in range(kinds * components):
        kind, component = part // components, part % components
        add_product(weights.interaction, kind, sums, part * count, count, hidden, component * features)


@compiled
def _fade(length: Any, cutoff: Any) -> Any:
    """cos²(pi r/2R) and its slope."""
    part = length * (_ONE / cutoff)
    cosine, sine = quarter_cosine(part), quarter_sine(part)
    return cosine * cosine, cosine * sine * (_f(-math.pi) / cutoff)


@compiled
def _sum(weights: Any, around: Any, near: Any, components: Any, sums: Any) -> None:
    """Sums over neighbours of sensitivities and tensors; differences become unit vectors, with distances."""
    rows, firsts, cutoff = near.rows, near.firsts, _f(around.cutoff)
    count = len(weights.inverse)
    clear(sums, 0, len(sums))
    for kind in range(around.n_kinds):
        start = kind * components * count
        for step in range(firsts[kind], firsts[kind + 1]):
            row = ROWS * step
            x, y, z = get(rows, row), get(rows, row + 1), get(rows, row + 2)
            length = square_root(x * x + y * y + z * z)
            near_by = _ONE / length
            x, y, z = x * near_by, y * near_by, z * near_by
            put(rows, row, x)
            put(rows, row + 1, y)
            put(rows, row + 2, z)
            put(rows, row + 3, near_by)
            end, _ = _fade(length, cutoff)
            xx, yy, xy, xz, yz = x * x - _THIRD, y * y - _THIRD, x * y, x * z, y * z
            for v in range(count):
                away = (near_by - weights.inverse[v]) * weights.widths[v]
                value = exponential(away * away * -_HALF) * end
                increase(sums, start + v, value)
                if components > 1:
                    increase(sums, start + count + v, value * x)
                    increase(sums, start + 2 * count + v, value * y)
                    increase(sums, start + 3 * count + v, value * z)
                if components > 4:
                    increase(sums, start + 4 * count + v, value * xx)
                    increase(sums, start + 5 * count + v, value * xy)
                    increase(sums, start + 6 * count + v, value * xz)
                    increase(sums, start + 7 * count + v, value * yy)
                    increase(sums, start + 8 * count + v, value * yz)


@compiled
def _pull(weights: Any, around: Any, near: Any, components: Any, sums: Any, pulls: Any, forces: Any) -> None:
    """Forces on neighbours, added, and their opposite of the beads, into `pulls`, of derivatives by sums."""
    rows, firsts, cutoff = near.rows, near.firsts, _f(around.cutoff)
    count, zero = len(weights.inverse), spread(_ZERO)
    total_x = total_y = total_z = zero
    for kind in range(around.n_kinds):
        start = kind * components * count
        for step in range(firsts[kind], firsts[kind + 1]):
            row = ROWS * step
            x, y, z, near_by = get(rows, row), get(rows, row + 1), get(rows, row + 2), get(rows, row + 3)
            end, fall = _fade(_ONE / near_by, cutoff)
            xx, yy, xy, xz, yz = x * x - _THIRD, y * y - _THIRD, x * y, x * z, y * z
            along = by_x = by_y = by_z = by_xx = by_xy = by_xz = by_yy = by_yz = zero
            for v in range(count):
                width = weights.widths[v]
                away = (near_by - weights.inverse[v]) * width
                bell = exponential(away * away * -_HALF)
                value, slope = bell * end, bell * (fall + end * (away * width) * (near_by * near_by))
                rise = get(sums, start + v)
                if components > 1:
                    one, two, three = (
                        get(sums, start + count + v),
                        get(sums, start + 2 * count + v),
                        get(sums, start + 3 * count + v),
                    )
                    rise = rise + one * x + two * y + three * z
                    by_x, by_y, by_z = by_x + one * value, by_y + two * value, by_z + three * value
                if components > 4:
                    one, two, three, four, five = (
                        get(sums, start + 4 * count + v),
                        get(sums, start + 5 * count + v),
                        get(sums, start + 6 * count + v),
                        get(sums, start + 7 * count + v),
                        get(sums, start + 8 * count + v),
                    )
                    rise = rise + one * xx + two * xy + three * xz + four * yy + five * yz
                    by_xx, by_xy, by_xz = by_xx + one * value, by_xy + two * value, by_xz + three * value
                    by_yy, by_yz = by_yy + four * value, by_yz + five * value
                along = along + rise * slope
            turn_x = by_x + by_xx * x * _TWO + by_xy * y + by_xz * z
            turn_y = by_y + by_yy * y * _TWO + by_xy * x + by_yz * z
            turn_z = by_z + by_xz * x + by_yz * y
            radial = along - (turn_x * x + turn_y * y + turn_z * z) * near_by
            pull_x, pull_y, pull_z = (
                radial * x + turn_x * near_by,
                radial * y + turn_y * near_by,
                radial * z + turn_z * near_by,
            )
            total_x, total_y, total_z = total_x + pull_x, total_y + pull_y, total_z + pull_z
            put(pulls, 0, pull_x)
            put(pulls, 1, pull_y)
            put(pulls, 2, pull_z)
            give(near, step, pulls, forces)
    put(pulls, 0, total_x)
    put(pulls, 1, total_y)
    put(pulls, 2, total_z)


@compiled
def _softplus(x: Any) -> Any:
    """log(1 + exp x) and its slope, by m = exp(-|x|) and log(1 + m) = 2 artanh(m / (2 + m))."""
    positive = larger(x, spread(_ZERO))
    m = exponential(_ZERO - larger(x, _ZERO - x))
    once, twice = m + _ONE, m + _TWO
    share = _ONE / (once * twice)
    z = m * once * share
    w = z * z
    series = ((((w * _LAST + _ELEVENTH) * w + _NINTH) * w + _SEVENTH) * w + _FIFTH) * w + _THIRD
    half = with_sign((_ONE - m) * twice * share * _HALF, x)
    return positive + (z + z * w * series) * _TWO, half + _HALF


@compiled
def _activate(rows: Any, slopes: Any, first: Any) -> None:
    """Softplus of rows, in place, with slopes into others from a row on."""
    for row in range(len(rows)):
        value, slope = _softplus(get(rows, row))
        put(rows, row, value)
        put(slopes, first + row, slope)


@compiled
def _multiply(rows: Any, slopes: Any, first: Any) -> None:
    """Multiply rows by slopes."""
    for row in range(len(rows)):
        put(rows, row, get(rows, row) * get(slopes, first + row))


@compiled
def _read_out(weights: Any, outputs: Any, beads: Any) -> Any:
    """Energy of the first so many lanes; derivatives by the outputs replace them."""
    soft, slope = _softplus(get(outputs, 1))
    put(outputs, 2, get(outputs, 0) - soft * weights.bend)
    energy = 0.0
    for lane in range(beads):
        energy += outputs[2, lane]
    put(outputs, 0, spread(weights.scale))
    put(outputs, 1, slope * (_ZERO - weights.bend * weights.scale))
    clear(outputs, 2, TILE - 2)
    return energy * weights.scale


@compiled
def _add_invariants(hidden: Any, scales: Any, result: Any, lengths: Any) -> None:
    """Add invariants of hidden tensors, in turn for each component, to features; keep the lengths of tensors."""
    count = len(result)
    for f in range(count):
        total = get(result, f) + get(hidden, f)
        if len(scales) > 0:
            x, y, z = get(hidden, count + f), get(hidden, 2 * count + f), get(hidden, 3 * count + f)
            length = square_root(x * x + y * y + z * z + _CUSP)
            put(lengths, f, length)
            total = total + length * scales[0, f]
        if len(scales) > 1:
            xx, xy, xz = get(hidden, 4 * count + f), get(hidden, 5 * count + f), get(hidden, 6 * count + f)
            yy, yz = get(hidden, 7 * count + f), get(hidden, 8 * count + f)
            square = xx * xx + yy * yy + xx * yy + xy * xy + xz * xz + yz * yz
            length = square_root(square * _TWO + _CUSP)
            put(lengths, count + f, length)
            total = total + length * scales[1, f]
        put(result, f, total)


@compiled
def _turn_back(hidden: Any, scales: Any, gradient: Any, lengths: Any) -> None:
    """Replace hidden tensors by derivatives by them, given those by the features."""
    count = len(gradient)
    for f in range(count):
        uphill = get(gradient, f)
        put(hidden, f, uphill)
        if len(scales) > 0:
            part = uphill * scales[0, f] / get(lengths, f)
            for component in range(1, 4):
                put(hidden, component * count + f, get(hidden, component * count + f) * part)
        if len(scales) > 1:
            part = uphill * (_TWO * scales[1, f]) / get(lengths, count + f)
            xx, yy = get(hidden, 4 * count + f), get(hidden, 7 * count + f)
            put(hidden, 4 * count + f, (xx + yy * _HALF) * part)
            put(hidden, 7 * count + f, (yy + xx * _HALF) * part)
            for component in (5, 6, 8):
                put(hidden, component * count + f, get(hidden, component * count + f) * part)
