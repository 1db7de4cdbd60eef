"""Weights that remove biases from the frames sampled under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.biases.base import BiasFunction
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.mbar import StateMixture, gap_fault

FloatArray = NDArray[np.float64]


def pooled_batches(
    batches: Sequence[Frames],
    thermal_energy: float,
    biases: Sequence[BiasFunction | None] = (),
    apart: bool = False,
) -> Frames:
    """Frames of several batches, each under its own bias, as one data set in which `bias_weights` are right.

    A frozen bias is known up to a constant. It is chosen so that the weights of each batch have the mean 1: a batch
    counts by its number of frames. Umbrella windows are joined over all batches, and `bias_energy` becomes the energy
    whose weights are theirs. Replicas are renumbered, since those of two batches are independent.

    Args:
        batches: frames of each batch, with the same columns.
        thermal_energy: kT [energy unit].
        biases: the bias of each batch, those with windows of one force constant; may be left out where none has.
        apart: see `umbrella_weights`.

    Raises:
        SamplingError: windows do not touch, so that their frames have no weights.
    """
    from scipy.special import logsumexp

    windows = [bias for bias in biases if bias is not None and bias.windowed]
    parts, offset, first_window = [], 0, 0
    for number, frames in enumerate(batches):
        part = replace(frames, replica=frames.replica + np.int32(offset))
        if windows and frames.window is not None:
            part = replace(part, window=frames.window + np.int32(first_window))
            first_window += windows[number].n_windows
        elif frames.bias_energy is not None:
            reduced = frames.bias_energy / thermal_energy
            shift = float(logsumexp(reduced)) - math.log(len(reduced))
            part = replace(part, bias_energy=frames.bias_energy - thermal_energy * shift)
        parts.append(part)
        offset += int(frames.replica.max(initial=-1)) + 1
    pooled = Frames.concatenate(parts)
    if not windows or pooled.window is None:
        return pooled
    weights = umbrella_weights(windows[0].joined(windows[1:]), pooled, thermal_energy, apart)
    return replace(pooled, bias_energy=thermal_energy * np.log(np.maximum(weights, 1e-300)))


def bias_weights(bias_energy: ArrayLike, thermal_energy: float) -> FloatArray:
    """Weights exp(+V/kT) that remove the frozen bias V of a run; the largest is 1.

    Args:
        bias_energy: `(n_frames,)` [energy unit].
        thermal_energy: kT [energy unit].
    """
    reduced = np.asarray(bias_energy, dtype=np.float64) / thermal_energy
    return np.exp(reduced - reduced.max())


def weights_of(frames: Frames, thermal_energy: float) -> FloatArray | None:
    """Weights that remove the bias of frames; None where there was none."""
    if frames.bias_energy is None or not np.any(frames.bias_energy):
        return None
    return bias_weights(frames.bias_energy, thermal_energy)


def umbrella_weights(bias: BiasFunction, frames: Frames, thermal_energy: float, apart: bool = False) -> FloatArray:
    """Weights that remove umbrella windows from their frames (MBAR: Shirts and Chodera, J. Chem. Phys. 129, 124105).

    Args:
        bias: the windows.
        frames: with the window of each.
        thermal_energy: kT [energy unit].
        apart: gives groups of windows that do not touch weights of their own, with the same mean, instead of an error.

    Returns:
        `(n_frames,)`, the largest being 1.

    Raises:
        SamplingError: windows do not touch, so that nothing determines their weights; see `window_fault`.
    """
    from scipy.special import logsumexp

    window, mixture = _windows_of(frames), _mixture(bias, frames, thermal_energy)
    common = mixture.common(frames.replica, frames.time)
    if not apart and (fault := _fault(bias, mixture, common)):
        raise SamplingError(fault)
    logarithm = -mixture.log_density
    for group in mixture.groups(common):
        rows = np.isin(window, group)
        logarithm[rows] -= float(logsumexp(logarithm[rows])) - math.log(rows.sum())
    return np.exp(logarithm - logarithm.max())


def window_fault(bias: BiasFunction, frames: Frames, thermal_energy: float) -> str:
    """Which umbrella windows do not touch, and the remedy; empty where frames determine the weights of all."""
    mixture = _mixture(bias, frames, thermal_energy)
    return _fault(bias, mixture, mixture.common(frames.replica, frames.time))


def _mixture(bias: BiasFunction, frames: Frames, thermal_energy: float) -> StateMixture:
    window = _windows_of(frames)
    states = [bias.energy(frames.collective_variables, np.full(len(window), state)) for state in range(bias.n_windows)]
    return StateMixture.of(np.stack(states) / thermal_energy, window)


def _fault(bias: BiasFunction, mixture: StateMixture, common: FloatArray) -> str:
    centers = [
        ", ".join(f"{name} {value:.4g}" for name, value in bias.center(i).items()) or "free"
        for i in range(bias.n_windows)
    ]
    names = [f"window {number} ({center})" for number, center in enumerate(centers)]
    if fault := gap_fault(mixture.gaps(common), names):
        return (
            f"umbrella windows do not touch, so that the free energies between them are not known: {fault}; put "
            "windows between them, lower force_constant, or sample longer"
        )
    return "" if mixture.converged else "the free energies of the umbrella windows did not converge; sample longer"


def _windows_of(frames: Frames) -> NDArray[np.int64]:
    if frames.window is None:
        raise SamplingError("frames without their windows have no umbrella weights; sample the batch again")
    return frames.window.astype(np.int64)
