"""Distances and torsions of sites with analytic gradients, and forces projected on such coordinates.

Distances and torsions are of arrays, or of torch tensors, which give tensors of float64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def array_library(positions: Any) -> tuple[Any, Any]:
    """NumPy, or torch for a tensor, and the positions as its array of float64."""
    if type(positions).__module__ == "torch":
        return sys.modules["torch"], positions.double()
    return np, np.asarray(positions, dtype=np.float64)


def distance(positions: ArrayLike, pair: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Distance of two sites of a whole molecule.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        pair: the two sites.

    Returns:
        Distances `(n_frames,)` [nm] and their gradients by the two sites `(n_frames, 2, 3)`.
    """
    arrays, points = array_library(positions)
    vector = points[:, pair[1]] - points[:, pair[0]]
    length = arrays.sqrt((vector * vector).sum(1))
    unit = vector / length[:, None]
    return length, arrays.stack([-unit, unit], 1)


def angle(positions: ArrayLike, sites: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Angle at the second of three sites.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        sites: the three sites.

    Returns:
        Angles `(n_frames,)` in [0, π] [rad] and their gradients by the sites `(n_frames, 3, 3)` [rad/nm], singular
        where the three are in line.
    """
    arrays, points = array_library(positions)
    first, corner, last = (points[:, site] for site in sites)
    one, other = first - corner, last - corner
    a, b = (arrays.sqrt((arm * arm).sum(1))[:, None] for arm in (one, other))
    one, other = one / a, other / b
    across = arrays.linalg.cross(one, other)
    sine, cosine = arrays.sqrt((across * across).sum(1)), (one * other).sum(1)
    by_first = (cosine[:, None] * one - other) / (a * sine[:, None])
    by_last = (cosine[:, None] * other - one) / (b * sine[:, None])
    return arrays.arctan2(sine, cosine), arrays.stack([by_first, -by_first - by_last, by_last], 1)


def centre_distance(positions: ArrayLike, first: Sequence[int], second: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Distance of the geometric centres of two groups of sites of a whole molecule.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        first: sites of one group.
        second: sites of the other.

    Returns:
        Distances `(n_frames,)` [nm] and their gradients by the sites of both `(n_frames, n, 3)`.
    """
    arrays, points = array_library(positions)
    vector = points[:, list(second)].mean(1) - points[:, list(first)].mean(1)
    length = arrays.sqrt((vector * vector).sum(1))
    along = vector / length[:, None]
    return length, arrays.stack([-along / len(first)] * len(first) + [along / len(second)] * len(second), 1)


def radius_of_gyration(positions: ArrayLike, sites: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Root mean square distance of sites of equal weight from their centre.

    Args:
        positions: `(n_frames, n_sites, 3)` of whole molecules [nm].
        sites: at least two.

    Returns:
        Radii `(n_frames,)` [nm] and their gradients by the sites `(n_frames, len(sites), 3)`.
    """
    arrays, points = array_library(positions)
    apart = points[:, list(sites)]
    apart = apart - apart.mean(1)[:, None]
    radius = arrays.sqrt((apart * apart).sum(2).mean(1))
    return radius, apart / (len(sites) * radius[:, None, None])


def deviation(positions: ArrayLike, sites: Sequence[int], structure: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Root mean square deviation of sites from a structure after the best rotation.

    W. Kabsch, Acta Cryst. A 32, 922 (1976). Mirror images are not superposed.

    Args:
        positions: `(n_frames, n_sites, 3)` of whole molecules [nm].
        sites: which of them, of equal weight.
        structure: `(len(sites), 3)` [nm].

    Returns:
        Deviations `(n_frames,)` [nm] and their gradients by the sites `(n_frames, len(sites), 3)`, 0 where there is no
        deviation.
    """
    arrays, points = array_library(positions)
    target = np.asarray(structure, dtype=np.float64)
    target = target - target.mean(axis=0)
    if arrays is not np:
        target = points.new_tensor(target)
    apart = points[:, list(sites)]
    apart = apart - apart.mean(1)[:, None]
    left, _, right = arrays.linalg.svd(arrays.einsum("fnd,ne->fde", apart, target))
    hand = arrays.where(arrays.linalg.det(left @ right) < 0, -1.0, 1.0)
    turned = arrays.stack([left[..., 0], left[..., 1], hand[:, None] * left[..., 2]], 2) @ right
    difference = apart - arrays.einsum("ne,fde->fnd", target, turned)
    square = (difference * difference).sum(2).mean(1)
    values = arrays.sqrt(square)
    return values, difference / (len(sites) * arrays.where(square > 0, values, 1.0)[:, None, None])


_CACHED = 4096
"""Frames whose numbers stay in the cache."""


def within_half_turn(difference: FloatArray) -> FloatArray:
    """Differences of angles without whole turns, from -pi to pi."""
    return difference - 2 * np.pi * np.round(difference / (2 * np.pi))


def torsion(positions: ArrayLike, sites: tuple[int, int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Dihedral angle of four sites in the IUPAC sign convention (trans is π).

    Gradients after A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996), which are singular only where three
    consecutive sites are in line.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        sites: the four sites along the chain.

    Returns:
        Angles `(n_frames,)` in (-π, π] [rad] and their gradients by the four sites `(n_frames, 4, 3)` [rad/nm].
    """
    arrays, points = array_library(positions)
    if arrays is not np and points.device.type == "cpu" and not points.requires_grad:
        from cg_assets.core.compiled_rows import torsions

        return cast("tuple[FloatArray, FloatArray]", torsions(points, sites))
    i, j, k, m = (points[:, site] for site in sites)
    f, g, h = i - j, j - k, m - k
    a, b = arrays.linalg.cross(f, g), arrays.linalg.cross(h, g)
    length = arrays.sqrt((g * g).sum(1))
    angle = arrays.arctan2((arrays.linalg.cross(b, a) * g).sum(1) / length, (a * b).sum(1))
    by_a = -length[:, None] * a / (a * a).sum(1)[:, None]
    by_b = length[:, None] * b / (b * b).sum(1)[:, None]
    along_a = ((f * g).sum(1) / length**2)[:, None] * by_a
    along_b = ((h * g).sum(1) / length**2)[:, None] * by_b
    return angle, arrays.stack([by_a, -by_a - along_a - along_b, along_a + along_b - by_b, by_b], 1)


def torsion_angles(positions: FloatArray, sites: Sequence[int]) -> FloatArray:
    """The angles of `torsion`, bit for bit, without their gradients: component by component, ten times as fast.

    Args:
        positions: `(n_frames, n_sites, 3)` [nm].
        sites: the four sites along the chain.

    Returns:
        `(n_frames,)` in (-π, π] [rad].
    """
    angles = np.empty(len(positions), positions.dtype)
    for first in range(0, len(positions), _CACHED):
        part = positions[first : first + _CACHED]
        i, j, k, m = (np.ascontiguousarray(part[:, site].T) for site in sites)
        f, g, h = i - j, j - k, m - k
        a, b = _cross(f, g), _cross(h, g)
        sine = _dot(_cross(b, a), g) / np.sqrt(_dot(g, g))
        np.arctan2(sine, _dot(a, b), out=angles[first : first + _CACHED])
    return angles


def _cross(one: FloatArray, other: FloatArray) -> FloatArray:
    """Vector products `(3, n)` of vectors in columns."""
    product = np.empty_like(one)
    for axis, (second, third) in enumerate(((1, 2), (2, 0), (0, 1))):
        np.multiply(one[second], other[third], out=product[axis])
        product[axis] -= one[third] * other[second]
    return product


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Scalar products `(n,)` of vectors in columns `(3, n)`."""
    x, y, z = one * other
    x += y
    x += z
    return x


def projected_force(forces: ArrayLike, gradient: ArrayLike) -> FloatArray:
    """Generalised force along a collective variable, g = f·∇ξ / |∇ξ|².

    Its conditional mean <g | ξ> is a function of the ensemble alone, which makes it comparable between replicas; it is
    -dA/dξ up to the geometric term kT <∇·(∇ξ/|∇ξ|²) | ξ>, which vanishes for a linear variable.

    Args:
        forces: `(n_frames, n_beads, dimension)`.
        gradient: `(n_frames, n_beads, dimension)` of the collective variable.

    Returns:
        `(n_frames,)` [energy per unit of the variable].
    """
    along = np.asarray(gradient, dtype=np.float64)
    force = np.asarray(forces, dtype=np.float64)
    return np.einsum("fid,fid->f", force, along) / np.einsum("fid,fid->f", along, along)


def bead_pairs(positions: ArrayLike, first: NDArray, second: NDArray) -> tuple[FloatArray, FloatArray]:
    """Distances of pairs of beads and the unit vectors from the second to the first.

    Args:
        positions: `(n_frames, n_beads, 3)`.
        first: `(n_pairs,)` beads.
        second: `(n_pairs,)` beads.

    Returns:
        `(n_frames, n_pairs)` and `(n_frames, n_pairs, 3)`, in double precision.
    """
    places = np.asarray(positions, dtype=np.float64)
    difference = places[:, first] - places[:, second]
    distance = np.sqrt((difference**2).sum(axis=2))
    return distance, difference / distance[:, :, None]
