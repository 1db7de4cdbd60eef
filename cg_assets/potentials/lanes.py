"""Compiled code for sixteen replicas at once: arithmetic of vectors that hold one number of each.

Numba leaves vectors to LLVM's own search for loops that can use them, which fails on short loops over many arrays. Here
a vector is a type of its own. Arrays of lanes are `(rows, LANES)` in single precision; a row is a vector.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model
from torch import Tensor

from cg_assets.core.compilation import kept
from cg_assets.potentials.base import Kernel

LANES = 16
"""Replicas side by side: one vector of AVX-512, two of AVX."""

TILE = 4
"""Rows of a matrix product that are summed at once; matrices are padded with zeros to whole tiles."""

compiled = kept(error_model="numpy")
"""Compile a function once for all processes."""

_FLOAT, _WORD, _ALIGNMENT = ir.FloatType(), ir.IntType(32), 4
_VECTOR, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)
_FUSED = ("contract", "nsz")


def whole(size: int, unit: int = TILE) -> int:
    """The next multiple of a unit."""
    return -(-size // unit) * unit


# ----------------------------------------------------------------------------------- vectors


class _LanesType(numba.types.Type):
    """A number of each replica."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    """A vector in a register."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _spread_value(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(undefined, value, _WORD(0)), undefined, ir.Constant(_WORDS, [0] * LANES)
    )


def _row(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    """Where a row of lanes is."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, _VECTOR.as_pointer()), [row])


def _instruction(name: str, build: Callable[..., Any], count: int) -> Any:
    """A function of so many vectors whose code `build(builder, *vectors)` writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return build(builder, *arguments)

    signature = _LANES(*[_LANES] * count)
    source = {1: lambda typing_context, x: (signature, generate), 2: lambda typing_context, x, y: (signature, generate)}
    function: Any = source[count]
    function.__name__ = name
    return intrinsic(function)


def _call(name: str) -> Callable[..., Any]:
    def build(builder: Any, x: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(builder.module.declare_intrinsic(f"{name}.v{LANES}f32", (), kind), [x])

    return build


def _exponential(builder: Any, x: Any) -> Any:
    """The polynomial of `core.single_precision.exp32`, in whose range it stays."""

    def fused(a: Any, b: Any, c: Any) -> Any:
        return builder.fadd(builder.fmul(a, b, flags=_FUSED), c, flags=_FUSED)

    for bound, beyond in ((-87.3, "<"), (88.0, ">")):
        x = builder.select(builder.fcmp_ordered(beyond, x, _constant(bound)), _constant(bound), x)
    k = _call("llvm.floor")(builder, fused(x, _constant(1.44269504088896341), _constant(0.5)))
    r = fused(k, _constant(2.12194440e-4), fused(k, _constant(-0.693359375), x))
    y = _constant(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = fused(y, r, _constant(coefficient))
    y = fused(y, builder.fmul(r, r, flags=_FUSED), builder.fadd(r, _constant(1.0), flags=_FUSED))
    bits = builder.add(builder.fptosi(k, _WORDS), ir.Constant(_WORDS, [127] * LANES))
    return builder.fmul(y, builder.bitcast(builder.shl(bits, ir.Constant(_WORDS, [23] * LANES)), _VECTOR))


def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", x, y), y, x)


def _signed(builder: Any, x: Any, y: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR])
    return builder.call(builder.module.declare_intrinsic(f"llvm.copysign.v{LANES}f32", (), kind), [x, y])


square_root: Any = _instruction("square_root", _call("llvm.sqrt"), 1)
nearest: Any = _instruction("nearest", _call("llvm.rint"), 1)
exponential: Any = _instruction("exponential", _exponential, 1)
larger: Any = _instruction("larger", _larger, 2)
"""The larger of two; the first where it is not a number."""
with_sign: Any = _instruction("with_sign", _signed, 2)
"""The size of the first with the sign of the second."""


def _spread_intrinsic(typing_context: Any, value: Any) -> Any:
    """The same number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread_value(builder, arguments[0])

    return _LANES(numba.types.float32), generate


def _get_intrinsic(typing_context: Any, rows: Any, row: Any) -> Any:
    """A row of lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_row(context, builder, signature.args[0], *arguments), align=_ALIGNMENT)

    return _LANES(rows, numba.types.intp), generate


def _put_intrinsic(typing_context: Any, rows: Any, row: Any, value: Any) -> Any:
    """Write a row of lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _row(context, builder, signature.args[0], *arguments[:2]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return numba.types.void(rows, numba.types.intp, _LANES), generate


def _any_below_intrinsic(typing_context: Any, values: Any, bound: Any) -> Any:
    """Whether a lane is below a bound or not a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        below = builder.fcmp_unordered("<", arguments[0], _spread_value(builder, arguments[1]))
        return builder.icmp_unsigned("!=", builder.bitcast(below, ir.IntType(LANES)), ir.IntType(LANES)(0))

    return numba.types.boolean(_LANES, numba.types.float32), generate


spread: Any = intrinsic(_spread_intrinsic)
get: Any = intrinsic(_get_intrinsic)
put: Any = intrinsic(_put_intrinsic)
any_below: Any = intrinsic(_any_below_intrinsic)


def _define(symbol: Any, build: Callable[..., Any]) -> None:
    """An operator of two vectors, or of a vector and a number, which stands in all lanes."""
    both = _instruction(symbol.__name__, build, 2)

    def choose(x: Any, y: Any) -> Any:
        if x is _LANES and y is _LANES:
            return lambda x, y: both(x, y)
        if x is _LANES and isinstance(y, numba.types.Float):
            return lambda x, y: both(x, spread(y))
        if y is _LANES and isinstance(x, numba.types.Float):
            return lambda x, y: both(spread(x), y)
        return None

    overload(symbol, strict=False)(choose)


_define(operator.add, lambda builder, x, y: builder.fadd(x, y, flags=_FUSED))
_define(operator.sub, lambda builder, x, y: builder.fsub(x, y, flags=_FUSED))
_define(operator.mul, lambda builder, x, y: builder.fmul(x, y, flags=_FUSED))
_define(operator.truediv, lambda builder, x, y: builder.fdiv(x, y, flags=_FUSED))


@compiled
def increase(rows: Any, row: Any, value: Any) -> None:
    """Add to a row."""
    put(rows, row, get(rows, row) + value)


# ----------------------------------------------------------------------------------- matrices


def _tile_intrinsic(
    typing_context: Any,
    weight: Any,
    place: Any,
    row_step: Any,
    column_step: Any,
    rows: Any,
    first: Any,
    count: Any,
    result: Any,
    row: Any,
) -> Any:
    """Add products of `TILE` rows of weights, from a place on, with `count` rows of lanes to `TILE` rows of lanes.

    The sums stay in registers: 95 % of the peak of one core with matrices of 32 rows, where a BLAS reaches 60 %.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, place, row_step, column_step, rows, first, count, result, row = arguments
        kinds, word, flags = signature.args, place.type, ("contract",)
        data = builder.gep(context.make_array(kinds[0])(context, builder, weight).data, [place])
        lanes = _row(context, builder, kinds[4], rows, first)
        start = _row(context, builder, kinds[7], result, row)
        places = [builder.gep(start, [word(number)]) for number in range(TILE)]
        weights = [builder.gep(data, [builder.mul(row_step, word(number))]) for number in range(TILE)]
        begin, before = builder.block, [builder.load(one, align=_ALIGNMENT) for one in places]
        body, end = builder.append_basic_block("body"), builder.append_basic_block("end")
        builder.branch(body)
        builder.position_at_end(body)
        column, sums = builder.phi(word), [builder.phi(_VECTOR) for _ in places]
        vector = builder.load(builder.gep(lanes, [column]), align=_ALIGNMENT)
        offset, after = builder.mul(column, column_step), []
        for own, total in zip(weights, sums, strict=True):
            factor = _spread_value(builder, builder.load(builder.gep(own, [offset])))
            after.append(builder.fadd(builder.fmul(factor, vector, flags=flags), total, flags=flags))
        following = builder.add(column, word(1))
        for phi, old, new in zip([column, *sums], [word(0), *before], [following, *after], strict=True):
            phi.add_incoming(old, begin)
            phi.add_incoming(new, body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, end)
        builder.position_at_end(end)
        for one, total in zip(places, after, strict=True):
            builder.store(total, one, align=_ALIGNMENT)
        return context.get_dummy_value()

    integer = numba.types.intp
    return numba.types.void(weight, integer, integer, integer, rows, integer, integer, result, integer), generate


tile: Any = intrinsic(_tile_intrinsic)


@compiled
def add_product(weight: Any, number: Any, rows: Any, first: Any, count: Any, result: Any, row: Any) -> None:
    """Add a matrix times `count` rows of lanes, from `first` on, to rows of a result from `row` on.

    Args:
        weight: `(m, b, a)` matrices, b a multiple of `TILE`.
        number: of the matrix.
        rows: lanes.
        first: see above.
        count: at most a.
        result: lanes.
        row: see above.
    """
    _, b, a = weight.shape
    for part in range(0, b, TILE):
        tile(weight, (number * b + part) * a, a, 1, rows, first, count, result, row + part)


@compiled
def add_transposed_product(weight: Any, number: Any, rows: Any, first: Any, result: Any, row: Any) -> None:
    """Add the transpose of a matrix, a of it a multiple of `TILE`, times b rows of lanes; see `add_product`."""
    _, b, a = weight.shape
    for part in range(0, a, TILE):
        tile(weight, number * b * a + part, 1, a, rows, first, b, result, row + part)


def _turn_intrinsic(typing_context: Any, rows: Any, first: Any, result: Any, start: Any) -> Any:
    """Write so many rows as there are lanes, from `first` on, to rows of a result as the columns of its lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, first, result, start = arguments
        source = _row(context, builder, signature.args[0], rows, first)
        target = _row(context, builder, signature.args[2], result, start)
        word = first.type
        vectors = [builder.load(builder.gep(source, [word(row)]), align=_ALIGNMENT) for row in range(LANES)]
        step = 1
        while step < LANES:  # exchange the blocks next to the diagonal, twice as large each time
            low = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
            high = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
            for row in range(LANES):
                if not row & step:
                    pair = vectors[row], vectors[row + step]
                    for place, order in ((row, low), (row + step, high)):
                        vectors[place] = builder.shuffle_vector(*pair, ir.Constant(_WORDS, order))
            step *= 2
        for row, vector in enumerate(vectors):
            builder.store(vector, builder.gep(target, [word(row)]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return numba.types.void(rows, numba.types.intp, result, numba.types.intp), generate


turn: Any = intrinsic(_turn_intrinsic)


@compiled
def add_outer_products(
    left: Any, place: Any, right: Any, first: Any, shape: Any, turned: Any, sums: Any, biases: Any, number: Any
) -> None:
    """Add to a matrix the products of rows of two pairs of lanes, summed over the lanes and the pairs.

    Args:
        left: two arrays of lanes.
        place: first of `shape[0]` of their rows, a multiple of `LANES`.
        right: two arrays of lanes.
        first: first of `shape[1]` of their rows, a multiple of `TILE`.
        shape: see above.
        turned: `(2 * LANES, LANES)` memory.
        sums: of the matrices `(shape[0], shape[1])`, in rows of `LANES` of a column's numbers: of a matrix all columns,
            for the first rows of it, then for the next.
        biases: sums of the first pair's left rows `(n_matrices * shape[0] / LANES, LANES)`; None for none.
        number: of the matrix.
    """
    parts = shape[0] // LANES
    for part in range(parts):
        turn(left[0], place + part * LANES, turned, 0)
        turn(left[1], place + part * LANES, turned, LANES)
        start = (number * parts + part) * shape[1]
        for row in range(0, shape[1], TILE):
            tile(right[0], (first + row) * LANES, LANES, 1, turned, 0, LANES, sums, start + row)
            tile(right[1], (first + row) * LANES, LANES, 1, turned, LANES, LANES, sums, start + row)
        if biases is not None:
            total = get(turned, 0)
            for lane in range(1, LANES):
                total = total + get(turned, lane)
            increase(biases, number * parts + part, total)


# ----------------------------------------------------------------------------------- beads in lanes


@compiled
def clear(rows: Any, first: Any, count: Any) -> None:
    """Set so many rows to zero, from `first` on."""
    for row in range(first, first + count):
        put(rows, row, spread(np.float32(0.0)))


@compiled
def copy(rows: Any, first: Any, count: Any, result: Any, start: Any) -> None:
    """Write so many rows, from `first` on, to rows of a result from `start` on."""
    for row in range(count):
        put(result, start + row, get(rows, first + row))


@compiled
def difference(positions: Any, one: Any, two: Any) -> Any:
    """The vector from the second bead to the first."""
    return (
        get(positions, 3 * one) - get(positions, 3 * two),
        get(positions, 3 * one + 1) - get(positions, 3 * two + 1),
        get(positions, 3 * one + 2) - get(positions, 3 * two + 2),
    )


@compiled
def pull(forces: Any, one: Any, two: Any, strength: Any, x: Any, y: Any, z: Any) -> None:
    """Add a force along a vector to the second bead, and take it from the first."""
    zero = np.float32(0.0)
    increase(forces, 3 * one, zero - strength * x)
    increase(forces, 3 * one + 1, zero - strength * y)
    increase(forces, 3 * one + 2, zero - strength * z)
    increase(forces, 3 * two, strength * x)
    increase(forces, 3 * two + 1, strength * y)
    increase(forces, 3 * two + 2, strength * z)


# ----------------------------------------------------------------------------------- engine


@compiled
def into_lanes(points: Any, lanes: Any) -> None:
    """Points `(r, n)` into `(blocks, n, LANES)`; lanes without a replica repeat the last one."""
    for block in range(len(lanes)):
        for lane in range(LANES):
            replica = min(block * LANES + lane, len(points) - 1)
            for row in range(points.shape[1]):
                lanes[block, row, lane] = points[replica, row]


@compiled
def out_of_lanes(lanes: Any, points: Any) -> None:
    """Back again."""
    for replica in range(len(points)):
        block, lane = replica // LANES, replica % LANES
        for row in range(points.shape[1]):
            points[replica, row] = lanes[block, row, lane]


class LaneEngine:
    """Energy and forces of a sum of compiled kernels.

    A kernel adds energies `(blocks, 1, LANES)` and forces `(blocks, 3 n, LANES)` of positions `(blocks, 3 n, LANES)`,
    the coordinates of beads in turn: `kernel.add(positions, energies, forces, kernel.data)`.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        """Take the kernels of all members."""
        self.kernels = kernels

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` and forces `(r, n, 3)` of replicas `(r, n, 3)`, in the type of the positions."""
        replicas, beads, dimension = positions.shape
        points = np.ascontiguousarray(positions.detach().numpy(), np.float32).reshape(replicas, beads * dimension)
        lanes = np.empty((-(-len(points) // LANES), points.shape[1], LANES), np.float32)
        into_lanes(points, lanes)
        energies, forces = np.zeros((len(lanes), 1, LANES), np.float32), np.zeros_like(lanes)
        for kernel in self.kernels:
            kernel.add(lanes, energies, forces, kernel.data)
        found = np.empty_like(points)
        out_of_lanes(forces, found)
        energy = torch.from_numpy(energies.reshape(-1)[:replicas])
        return energy.to(positions), torch.from_numpy(found).reshape(positions.shape).to(positions)
