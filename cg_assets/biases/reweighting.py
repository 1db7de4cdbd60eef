"""Weights that remove biases from the frames sampled under them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.biases.base import BiasFunction, Variables
from cg_assets.core.frames import Frames

FloatArray = NDArray[np.float64]


def pooled_batches(
    batches: Sequence[Frames], thermal_energy: float, biases: Sequence[BiasFunction | None] = ()
) -> Frames:
    """Frames of several batches, each under its own bias, as one data set in which `bias_weights` are right.

    A frozen bias is known up to a constant. It is chosen so that the weights of each batch have the mean 1: a batch
    counts by its number of frames. Umbrella windows are joined over all batches, and `bias_energy` becomes the energy
    whose weights are theirs. Replicas are renumbered, since those of two batches are independent.

    Args:
        batches: frames of each batch, with the same columns.
        thermal_energy: kT [energy unit].
        biases: the bias of each batch, those with windows of one force constant; may be left out where none has.
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
    weights = umbrella_weights(
        windows[0].joined(windows[1:]), pooled.collective_variables, pooled.window, thermal_energy
    )
    return replace(pooled, bias_energy=thermal_energy * np.log(np.maximum(weights, 1e-300)), window=None)


def bias_weights(bias_energy: ArrayLike, thermal_energy: float) -> FloatArray:
    """Weights exp(+V/kT) that remove the frozen bias V of a run; the largest is 1.

    Args:
        bias_energy: `(n_frames,)` [energy unit].
        thermal_energy: kT [energy unit].
    """
    reduced = np.asarray(bias_energy, dtype=np.float64) / thermal_energy
    return np.exp(reduced - reduced.max())


def umbrella_weights(bias: BiasFunction, variables: Variables, window: ArrayLike, thermal_energy: float) -> FloatArray:
    """Weights that remove umbrella windows from their frames (MBAR: Shirts and Chodera, J. Chem. Phys. 129, 124105).

    Args:
        bias: the windows.
        variables: name to `(n_frames,)` collective variables.
        window: `(n_frames,)` window of each frame.
        thermal_energy: kT [energy unit].

    Returns:
        `(n_frames,)`, the largest being 1.
    """
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it would advertise another package
    from pymbar import MBAR

    numbers = np.asarray(window, dtype=np.int64)
    order = np.argsort(numbers, kind="stable")
    sorted_variables = {name: np.asarray(values, dtype=np.float64)[order] for name, values in variables.items()}
    states = range(bias.n_windows)
    reduced = [bias.energy(sorted_variables, np.full(len(order), state)) / thermal_energy for state in states]
    reduced.append(np.zeros(len(order)))  # the state without a bias, of which there are no frames
    counts = np.bincount(numbers, minlength=len(reduced))
    weights = np.empty(len(order))
    weights[order] = MBAR(np.stack(reduced), counts).W_nk[:, -1]
    return weights / weights.max()
