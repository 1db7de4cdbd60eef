"""A Fourier series in torsions, compiled for sixteen replicas at once (`cg_assets.potentials.lanes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.base import Kernel
from cg_assets.potentials.lanes import LANES, compiled, difference, get, increase, larger, put, spread, square_root

if TYPE_CHECKING:
    from cg_assets.potentials.torsions.series import TorsionSeries

_ZERO, _ONE, _TINY, _LEAST = (np.float32(value) for value in (0.0, 1.0, 1e-30, 1e-12))


class _Waves(NamedTuple):
    """Waves in one or two torsions.

    Attributes:
        torsions: `(k, 4)` beads.
        modes: `(m, 4)` the first torsion of a wave, its wave number, the second one or -1, its wave number.
        coefficients: `(m, 2)` of cosine and sine [kJ/mol].
        order: largest wave number.
    """

    torsions: NDArray[np.int64]
    modes: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    order: int


def series_kernel(series: TorsionSeries) -> Kernel:
    """The kernel of a series in single precision."""
    modes = np.full((len(series.modes), 4), -1)
    for row, numbers in zip(modes, series.modes.cpu().numpy().astype(np.int64), strict=True):
        places = np.flatnonzero(numbers)
        row[: 2 * len(places)] = np.stack([places, numbers[places]], axis=1).ravel()
    coefficients = np.ascontiguousarray(series.thermal_energy * series.series.cpu().numpy().T, np.float32)
    order = int(abs(modes[:, 1::2]).max(initial=1))
    return Kernel(_add_series, _Waves(series.torsions.cpu().numpy(), modes, coefficients, order))


@compiled
def torsion(positions: Any, one: Any, two: Any, three: Any, four: Any, gradients: Any) -> Any:
    """Cosine and sine of a torsion of beads; its gradient by their coordinates goes into twelve rows of lanes.

    Formulas and sign of Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    bx, by, bz = difference(positions, one, two)
    ax, ay, az = difference(positions, two, three)
    cx, cy, cz = difference(positions, four, three)
    lx, ly, lz = by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax
    rx, ry, rz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    length = square_root(ax * ax + ay * ay + az * az)
    cosine = lx * rx + ly * ry + lz * rz
    sine = ((ry * lz - rz * ly) * ax + (rz * lx - rx * lz) * ay + (rx * ly - ry * lx) * az) / length
    size = _ONE / square_root(larger(cosine * cosine + sine * sine, spread(_TINY)))
    left = _ONE / larger(lx * lx + ly * ly + lz * lz, spread(_LEAST))
    right = _ONE / larger(rx * rx + ry * ry + rz * rz, spread(_LEAST))
    before, after = (bx * ax + by * ay + bz * az) / length * left, (cx * ax + cy * ay + cz * az) / length * right
    put(gradients, 0, _ZERO - length * left * lx)
    put(gradients, 1, _ZERO - length * left * ly)
    put(gradients, 2, _ZERO - length * left * lz)
    put(gradients, 9, length * right * rx)
    put(gradients, 10, length * right * ry)
    put(gradients, 11, length * right * rz)
    put(gradients, 3, before * lx - after * rx - get(gradients, 0))
    put(gradients, 4, before * ly - after * ry - get(gradients, 1))
    put(gradients, 5, before * lz - after * rz - get(gradients, 2))
    for axis in range(3):
        others = get(gradients, axis) + get(gradients, 3 + axis) + get(gradients, 9 + axis)
        put(gradients, 6 + axis, _ZERO - others)
    return cosine * size, sine * size


@compiled
def push(forces: Any, beads: Any, gradients: Any, slope: Any) -> None:
    """Add the forces of an energy with a slope along a gradient by the coordinates of beads."""
    for number in range(len(beads)):
        for axis in range(3):
            increase(forces, 3 * beads[number] + axis, _ZERO - slope * get(gradients, 3 * number + axis))


@compiled
def raise_powers(cosine: Any, sine: Any, order: Any, powers: Any, first: Any) -> None:
    """Cosines and sines of the multiples 0 to `order` of an angle, in turn, into rows from `first` on."""
    real, imaginary = spread(_ONE), spread(_ZERO)
    for power in range(order + 1):
        put(powers, first + 2 * power, real)
        put(powers, first + 2 * power + 1, imaginary)
        real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine


@compiled
def _add_series(positions: Any, energies: Any, forces: Any, waves: Any) -> None:
    """See `LaneEngine`."""
    torsions, count, step = waves.torsions, len(waves.torsions), 2 * waves.order + 2
    gradients = np.empty((count, 12, LANES), np.float32)
    powers, slopes = np.empty((count * step, LANES), np.float32), np.empty((count, LANES), np.float32)
    for block in range(len(positions)):
        for k in range(count):
            one, two, three, four = torsions[k, 0], torsions[k, 1], torsions[k, 2], torsions[k, 3]
            cosine, sine = torsion(positions[block], one, two, three, four, gradients[k])
            raise_powers(cosine, sine, waves.order, powers, k * step)
            put(slopes, k, spread(_ZERO))
        total = spread(_ZERO)
        for wave in range(len(waves.modes)):
            first, number, second, other = waves.modes[wave]
            row = first * step + 2 * number
            cosine, sine = get(powers, row), get(powers, row + 1)
            if second >= 0:
                row = second * step + 2 * abs(other)
                sign = _ONE if other > 0 else -_ONE
                real, imaginary = get(powers, row), get(powers, row + 1) * sign
                cosine, sine = cosine * real - sine * imaginary, sine * real + cosine * imaginary
            by_cosine, by_sine = waves.coefficients[wave, 0], waves.coefficients[wave, 1]
            total = total + cosine * by_cosine + sine * by_sine
            slope = cosine * by_sine - sine * by_cosine
            increase(slopes, first, slope * np.float32(number))
            if second >= 0:
                increase(slopes, second, slope * np.float32(other))
        increase(energies[block], 0, total)
        for k in range(count):
            push(forces[block], torsions[k], gradients[k], get(slopes, k))
