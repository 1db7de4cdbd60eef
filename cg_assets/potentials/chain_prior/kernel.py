"""A classical force field of a chain of beads, compiled for sixteen replicas at once (`cg_assets.potentials.lanes`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.base import Kernel
from cg_assets.potentials.chain_prior.module import KINDS, ChainPrior
from cg_assets.potentials.lanes import LANES, compiled, difference, get, increase, pull, put, spread, square_root
from cg_assets.potentials.torsions.kernel import push, raise_powers, torsion

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_ZERO, _HALF, _ONE, _SIX = (np.float32(value) for value in (0.0, 0.5, 1.0, 6.0))


class _Terms(NamedTuple):
    """Beads of the terms of each kind, and their numbers [k_B T]; of repulsions σ⁶."""

    bond_beads: IntArray
    bonds: FloatArray
    angle_beads: IntArray
    angles: FloatArray
    dihedral_beads: IntArray
    dihedrals: FloatArray
    repulsion_beads: IntArray
    repulsions: FloatArray
    scale: np.float32


def prior_kernel(prior: ChainPrior) -> Kernel:
    """The kernel of a prior in single precision."""
    numbers = {name: getattr(prior, name).cpu().numpy() for name in KINDS}
    beads = {name: getattr(prior, f"{name}_beads").cpu().numpy() for name in KINDS}
    repulsions = (numbers["repulsion"].astype(np.float64) ** 6).astype(np.float32)
    terms = _Terms(
        *(beads["bonds"], numbers["bonds"], beads["angles"], numbers["angles"]),
        *(beads["dihedrals"], numbers["dihedrals"], beads["repulsion"], repulsions),
        np.float32(prior.thermal_energy),
    )
    return Kernel(_add_prior, terms)


@compiled
def _add_prior(positions: Any, energies: Any, forces: Any, terms: Any) -> None:
    """See `LaneEngine`."""
    order = terms.dihedrals.shape[1] // 2
    gradients = np.empty((12, LANES), np.float32)
    powers = np.empty((2 * order + 2, LANES), np.float32)
    for block in range(len(positions)):
        points, pulls, total = positions[block], forces[block], spread(_ZERO)
        for term in range(len(terms.bonds)):
            total = total + _bond(points, pulls, terms, term)
        for term in range(len(terms.angles)):
            total = total + _angle(points, pulls, terms, term, gradients)
        for term in range(len(terms.dihedrals)):
            total = total + _dihedral(points, pulls, terms, term, gradients, powers)
        for term in range(len(terms.repulsions)):
            total = total + _repulsion(points, pulls, terms, term)
        increase(energies[block], 0, total * terms.scale)


@compiled
def _bond(positions: Any, forces: Any, terms: Any, term: Any) -> Any:
    one, two = terms.bond_beads[term, 0], terms.bond_beads[term, 1]
    x, y, z = difference(positions, one, two)
    distance = square_root(x * x + y * y + z * z)
    excess = distance - terms.bonds[term, 0]
    slope = excess * terms.bonds[term, 1]
    pull(forces, one, two, slope * terms.scale / distance, x, y, z)
    return slope * excess * _HALF


@compiled
def _angle(positions: Any, forces: Any, terms: Any, term: Any, gradients: Any) -> Any:
    beads, numbers = terms.angle_beads[term], terms.angles[term]
    ax, ay, az = difference(positions, beads[0], beads[1])
    bx, by, bz = difference(positions, beads[2], beads[1])
    a, b = _ONE / square_root(ax * ax + ay * ay + az * az), _ONE / square_root(bx * bx + by * by + bz * bz)
    ax, ay, az, bx, by, bz = ax * a, ay * a, az * a, bx * b, by * b, bz * b
    cosine = ax * bx + ay * by + az * bz
    energy, slope = spread(_ZERO), spread(_ZERO)
    for power in range(len(numbers) - 1, -1, -1):  # Horner's scheme
        slope = energy + slope * cosine
        energy = energy * cosine + numbers[power]
    energy, slope = energy * cosine, energy + slope * cosine
    put(gradients, 0, (bx - cosine * ax) * a)
    put(gradients, 1, (by - cosine * ay) * a)
    put(gradients, 2, (bz - cosine * az) * a)
    put(gradients, 6, (ax - cosine * bx) * b)
    put(gradients, 7, (ay - cosine * by) * b)
    put(gradients, 8, (az - cosine * bz) * b)
    for axis in range(3):
        put(gradients, 3 + axis, _ZERO - get(gradients, axis) - get(gradients, 6 + axis))
    push(forces, beads, gradients, slope * terms.scale)
    return energy


@compiled
def _dihedral(positions: Any, forces: Any, terms: Any, term: Any, gradients: Any, powers: Any) -> Any:
    beads, numbers = terms.dihedral_beads[term], terms.dihedrals[term]
    cosine, sine = torsion(positions, beads[0], beads[1], beads[2], beads[3], gradients)
    order = len(numbers) // 2
    raise_powers(cosine, sine, order, powers, 0)
    energy, slope = spread(_ZERO), spread(_ZERO)
    for number in range(1, order + 1):
        real, imaginary = get(powers, 2 * number), get(powers, 2 * number + 1)
        by_cosine, by_sine = numbers[2 * number - 2], numbers[2 * number - 1]
        energy = energy + real * by_cosine + imaginary * by_sine
        slope = slope + (real * by_sine - imaginary * by_cosine) * np.float32(number)
    push(forces, beads, gradients, slope * terms.scale)
    return energy


@compiled
def _repulsion(positions: Any, forces: Any, terms: Any, term: Any) -> Any:
    one, two = terms.repulsion_beads[term, 0], terms.repulsion_beads[term, 1]
    x, y, z = difference(positions, one, two)
    inverse = _ONE / (x * x + y * y + z * z)
    energy = inverse * inverse * inverse * terms.repulsions[term, 0]
    pull(forces, one, two, _ZERO - energy * inverse * (_SIX * terms.scale), x, y, z)
    return energy
