"""The noise of force labels where nothing can be simulated: what a linear force field leaves of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.geometry import bead_pairs
from cg_assets.core.statistics.estimates import independent_blocks
from cg_assets.core.statistics.noise import ConditionalNoise, noise_of_labels
from cg_assets.mapping.beads import Beads

_PAIRS, _JOINED, _FRAMES = 300, 45, 6_000
"""Bead pairs, pairs in products and frames at most; of pairs, those whose distances vary least."""
_NUMBERS = 4_000_000
"""Numbers in a block of the design matrix."""
_FOURIER = (1, 2, 3)
"""Multiples of a torsion."""


def unexplained_noise(beads: Beads, frames: Frames, unit: str) -> ConditionalNoise:
    """An upper bound of the noise of force labels: the residual of a linear force field, cross-validated.

    Each half of the independent stretches is fitted by gradients of powers and products of bead distances and of
    Fourier terms of the torsions (Izvekov and Voth, J. Phys. Chem. B 109, 2469 (2005)) and judged by the fit of the
    other half. What is left is the noise plus the error of the force field.

    Args:
        beads: the beads.
        frames: CG frames `(n_frames, n_beads, 3)` with force labels [kJ/mol/nm].
        unit: of the squared force.
    """
    frames = frames.select(np.arange(0, len(frames), -(-len(frames) // _FRAMES)))
    block = independent_blocks(frames.replica, frames.time, 20)
    pairs, mean, deviation = _stiffest(frames.positions)
    forces = np.asarray(frames.forces, dtype=np.float64)
    size = _gradients(beads, frames.positions[:1], pairs, mean, deviation).shape[-1]
    step = max(1, _NUMBERS // (3 * frames.n_sites * size))
    parts = [slice(start, start + step) for start in range(0, len(frames), step)]
    normal, right = np.zeros((2, size, size)), np.zeros((2, size))
    for part in parts:
        design = _gradients(beads, frames.positions[part], pairs, mean, deviation)
        for half in (0, 1):
            chosen = block[part] % 2 == half
            flat = design[chosen].reshape(-1, size)
            normal[half] += flat.T @ flat
            right[half] += flat.T @ forces[part][chosen].ravel()
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / size * np.eye(size)
    fitted = np.linalg.solve(normal + ridge, right[..., None])[..., 0]
    left = np.empty_like(forces)
    for part in parts:
        design = _gradients(beads, frames.positions[part], pairs, mean, deviation)
        left[part] = forces[part] - np.einsum("fbdk,fk->fbd", design, fitted[1 - block[part] % 2])
    numbers = np.unique(block)
    per_bead = np.stack([(left[block == number] ** 2).mean(axis=(0, 2)) for number in numbers])
    means = np.stack([left[block == number].mean(axis=0) for number in numbers])
    count = len(frames) / len(numbers)
    return noise_of_labels(per_bead, means, per_bead / count, count, unit)


def _stiffest(positions: NDArray) -> tuple[tuple[NDArray, NDArray], NDArray, NDArray]:
    """Bead pairs whose distances vary least, with the mean and the standard deviation of each [nm]."""
    first, second = np.triu_indices(positions.shape[1], 1)
    distance = bead_pairs(positions, first, second)[0]
    chosen = np.argsort(distance.std(axis=0))[:_PAIRS]
    return (first[chosen], second[chosen]), distance.mean(axis=0)[chosen], distance.std(axis=0)[chosen] + 1e-6


def _gradients(
    beads: Beads, positions: NDArray, pairs: tuple[NDArray, NDArray], mean: NDArray, deviation: NDArray
) -> NDArray[np.float64]:
    """Forces `(n_frames, n_beads, 3, n_functions)` of each basis function."""
    first, second = pairs
    count, n_beads, _ = positions.shape
    distance, unit = bead_pairs(positions, first, second)
    standard = (distance - mean) / deviation
    design = np.zeros((count, n_beads, 3, 3 * len(first)))
    for power in range(3):
        push = (standard**power)[..., None] * unit
        columns = 3 * np.arange(len(first)) + power
        design[:, first, :, columns] += push.transpose(1, 0, 2)
        design[:, second, :, columns] -= push.transpose(1, 0, 2)
    joined = min(len(first), _JOINED)
    one, other = np.triu_indices(joined, 1)
    along = np.zeros((count, n_beads, 3, joined))
    pair = np.arange(joined)
    along[:, first[:joined], :, pair] += unit[:, :joined].transpose(1, 0, 2) / deviation[:joined, None, None]
    along[:, second[:joined], :, pair] -= unit[:, :joined].transpose(1, 0, 2) / deviation[:joined, None, None]
    products = standard[:, None, None, one] * along[..., other] + standard[:, None, None, other] * along[..., one]
    torsions = [name for name, variable in beads.collective_variables.items() if variable.periodic]
    values, slopes = beads.variable_gradients(positions.astype(np.float64), torsions)
    further = [
        (wave(multiple * values[name]))[:, None, None] * slopes[name]
        for name in torsions
        for multiple in _FOURIER
        for wave in (np.sin, np.cos)
    ]
    parts = [design, products, *([np.stack(further, axis=-1)] if further else [])]
    return np.concatenate(parts, axis=-1)
