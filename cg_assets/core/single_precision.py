"""Single-precision functions and random numbers that a compiler can run on many walkers at once.

Each function is a straight line of additions, multiplications, bit operations and selects, without calls or branches,
so that LLVM turns a loop over walkers into vector instructions; the C library's functions would keep such a loop
scalar. Polynomials of exp, log and tanh are those of Cephes (S. L. Moshier), good to about one unit in the last place.

Random numbers come from Philox-2x32-10 (Salmon et al., SC'11, doi:10.1145/2063384.2063405): a keyed mixing of
a counter. The counter is (walker, step), so a number depends on nothing but the seed, the walker and the step.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

from cg_assets.core.compilation import kept

FLAGS = {"contract", "nsz"}
"""Fused multiply-add and unsigned zeros; nothing that would hide a NaN or reorder a sum."""

OPTIONS: dict[str, Any] = {"fastmath": FLAGS, "error_model": "numpy"}
"""Of numba, for all functions of walkers."""
compiled: Any = numba.njit(**OPTIONS)
"""Compile a function for the types that it is called with, which annotations as `Any` leave to numba."""

_f = np.float32
_i = np.int32
_u = np.uint32


def _bits_intrinsic(typing_context: Any, x: Any) -> Any:
    """The bits of a float32 as int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.int32))

    return numba.types.int32(numba.types.float32), generate


def _from_bits_intrinsic(typing_context: Any, x: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.float32))

    return numba.types.float32(numba.types.int32), generate


_bits: Any = intrinsic(_bits_intrinsic)
_from_bits: Any = intrinsic(_from_bits_intrinsic)

_HALF, _ONE, _TWO = _f(0.5), _f(1.0), _f(2.0)
_LOG2_E, _LN2_HIGH, _LN2_LOW = _f(1.44269504088896341), _f(0.693359375), _f(-2.12194440e-4)
_EXP_LOW, _EXP_HIGH, _EXP_BIAS, _MANTISSA = _f(-87.3), _f(88.7), _i(127), _i(23)
_E0, _E1, _E2 = _f(1.9875691500e-4), _f(1.3981999507e-3), _f(8.3334519073e-3)
_E3, _E4, _E5 = _f(4.1665795894e-2), _f(1.6666665459e-1), _f(5.0000001201e-1)


@compiled
def exp32(x: Any) -> Any:
    """Exponential function; 0 below -87, 3e38 above 88.7."""
    x = _EXP_LOW if x < _EXP_LOW else x
    x = _EXP_HIGH if x > _EXP_HIGH else x
    k = np.floor(x * _LOG2_E + _HALF)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    y = y * (r * r) + r + _ONE
    # 2**k in two factors, since 2**128 is no float32
    k = k - _ONE
    return (y * _from_bits(_i(_i(k) + _EXP_BIAS) << _MANTISSA)) * _TWO


_SQRT_HALF_BITS, _NAN, _MINUS_INFINITY, _ZERO = _i(0x3F3504F3), _f(np.nan), _f(-np.inf), _f(0.0)
_L0, _L1, _L2 = _f(7.0376836292e-2), _f(-1.1514610310e-1), _f(1.1676998740e-1)
_L3, _L4, _L5 = _f(-1.2420140846e-1), _f(1.4249322787e-1), _f(-1.6668057665e-1)
_L6, _L7, _L8 = _f(2.0000714765e-1), _f(-2.4999993993e-1), _f(3.3333331174e-1)


@compiled
def _log_of_positive(x: Any) -> Any:
    """Natural logarithm of a positive normal number."""
    bits = _bits(x)
    exponent = _i(bits - _SQRT_HALF_BITS) >> _MANTISSA
    z = _from_bits(_i(bits - _i(exponent << _MANTISSA))) - _ONE
    y = (((((((_L0 * z + _L1) * z + _L2) * z + _L3) * z + _L4) * z + _L5) * z + _L6) * z + _L7) * z + _L8
    square, k = z * z, _f(exponent)
    y = y * z * square + k * _LN2_LOW - _HALF * square
    return (z + y) + k * _LN2_HIGH


@compiled
def log32(x: Any) -> Any:
    """Natural logarithm; NaN below zero."""
    outside = _MINUS_INFINITY if x == _ZERO else _NAN
    return _log_of_positive(x) if x > _ZERO else outside


# sin(pi z / 2) / z and cos(pi z / 2) as polynomials of z**2 (Chebyshev interpolation, errors 7e-9 and 2e-10)
_S0, _S1, _S2 = _f(1.570796320e00), _f(-6.459637596e-01), _f(7.968991833e-02)
_S3, _S4 = _f(-4.674143838e-03), _f(1.516717036e-04)
_C0, _C1, _C2 = _f(9.999999998e-01), _f(-1.233700534e00), _f(2.536693222e-01)
_C3, _C4, _C5 = _f(-2.086268671e-02), _f(9.177229238e-04), _f(-2.382415230e-05)
_PER_PI, _PER_HALF_PI = _f(1.0 / np.pi), _f(2.0 / np.pi)
_PI_HIGH, _PI_MIDDLE, _PI_LOW = _f(3.140625), _f(9.67502593994140625e-4), _f(1.509957990978376432e-7)


@compiled
def quarter_sine(z: Any) -> Any:
    """sin(pi z / 2) for z from -1 to 1."""
    w = z * z
    return ((((_S4 * w + _S3) * w + _S2) * w + _S1) * w + _S0) * z


@compiled
def quarter_cosine(z: Any) -> Any:
    """cos(pi z / 2) for z from -1 to 1."""
    w = z * z
    return ((((_C5 * w + _C4) * w + _C3) * w + _C2) * w + _C1) * w + _C0


@compiled
def _sign_and_rest(x: Any) -> Any:
    """For x = k pi + r: (-1)**k, and r in units of pi/2, between -1 and 1."""
    k = np.floor(x * _PER_PI + _HALF)
    r = ((x - k * _PI_HIGH) - k * _PI_MIDDLE) - k * _PI_LOW
    odd = k - _TWO * np.floor(k * _HALF)
    return _ONE - _TWO * odd, r * _PER_HALF_PI


@compiled
def sin32(x: Any) -> Any:
    """Sine; absolute error below 3e-7 for |x| < 1000."""
    sign, z = _sign_and_rest(x)
    return sign * quarter_sine(z)


@compiled
def cos32(x: Any) -> Any:
    """Cosine; absolute error below 3e-7 for |x| < 1000."""
    sign, z = _sign_and_rest(x)
    return sign * quarter_cosine(z)


@compiled
def tan32(x: Any) -> Any:
    """Tangent."""
    _, z = _sign_and_rest(x)
    return quarter_sine(z) / quarter_cosine(z)


_T0, _T1, _T2 = _f(-5.70498872745e-3), _f(2.06390887954e-2), _f(-5.37397155531e-2)
_T3, _T4, _T_SMALL = _f(1.33314422036e-1), _f(-3.33332819422e-1), _f(0.625)


@compiled
def tanh32(x: Any) -> Any:
    """Hyperbolic tangent."""
    w = x * x
    small = ((((_T0 * w + _T1) * w + _T2) * w + _T3) * w + _T4) * w * x + x
    large = _ONE - _TWO / (exp32(_TWO * x) + _ONE)
    return small if abs(x) < _T_SMALL else large


@compiled
def sign32(x: Any) -> Any:
    """Sign: -1, 0 or 1."""
    below = -_ONE if x < _ZERO else _ZERO
    return _ONE if x > _ZERO else below


_MULTIPLIER, _WEYL = np.uint64(0xD256D193), np.uint64(0x9E3779B9)
_LOW_32, _SHIFT_32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@compiled
def philox(walker: Any, step: Any, key: Any) -> Any:
    """Two random words (in the low 32 bits of each uint64) of a counter of two words and a key (uint64 below 2**32).

    Words live in 64-bit lanes whose upper halves are left dirty: each round is then one multiplication, one shift
    and two exclusive ors for four walkers.
    """
    for _ in range(10):
        product = (walker & _LOW_32) * _MULTIPLIER
        walker = (product >> _SHIFT_32) ^ key ^ step
        step = product
        key = (key + _WEYL) & _LOW_32
    return walker, step


_TO_UNIT, _MINUS_TWO, _ONE_BIT, _TOP_BIT = _f(2.0**-31), _f(-2.0), _u(1), _u(0x80000000)


@compiled
def normal_pair(first: Any, second: Any) -> Any:
    """Two independent standard normal numbers of two random words (Box and Muller 1958); none beyond 6.7."""
    uniform = (_f(_i(first >> _ONE_BIT)) + _HALF) * _TO_UNIT
    radius = np.sqrt(_MINUS_TWO * _log_of_positive(uniform))
    # half a turn from the lower 31 bits, the other half from the top bit
    z = _f(_i(_u(second << _ONE_BIT))) * _TO_UNIT
    radius = _from_bits(_bits(radius) ^ _i(second & _TOP_BIT))
    return radius * quarter_cosine(z), radius * quarter_sine(z)


@kept(**OPTIONS)
def add_gaussians(
    values: NDArray[np.float64], places: NDArray[np.float64], heights: NDArray[np.float32], spacing: float, width: float
) -> None:
    """Add Gaussians along one variable, cut where they fall below 1e-8, to values at nodes.

    Args:
        values: `(n_nodes,)` float64, changed in place.
        places: `(n,)` centres in units of the node spacing.
        heights: `(n,)` float32.
        spacing: distance of the nodes.
        width: standard deviation of a Gaussian.
    """
    n_nodes = values.size
    reach = 6.0 * width / spacing
    scale, minus_half = np.float32(spacing / width), np.float32(-0.5)
    added = np.zeros(n_nodes, np.float32)
    for i in range(places.size):
        u = places[i]
        first, last = max(0, math.ceil(u - reach)), min(n_nodes - 1, math.floor(u + reach))
        for node in range(first, last + 1):
            distance = np.float32(node - u) * scale
            added[node] += heights[i] * exp32(minus_half * distance * distance)
    for node in range(n_nodes):
        values[node] += added[node]
