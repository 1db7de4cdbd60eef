"""Covariance labels of F_1 against finite differences of mean forces, on independent runs.

With labels y and differences x of independent runs s and t, the slope of y on x is Σ y_s·x_t / Σ x_s·x_t over s ≠ t:
the noise of x does not lower it, as it would lower a least-squares slope. A label is the mean of F_1 over the range of
the difference, by the parabola through three temperatures, since F_1 is not constant over it.

The slope is tested against 1, so its error is that of Σ (y_s - x_s)·x_t, whose mean is 0 there, over Σ x_s·x_t
(E. C. Fieller, J. R. Stat. Soc. B 16, 175 (1954)): where noise hides the differences, the ratio itself scatters without
a limit. The sum is linear in each run, so leaving out stretches of time of each gives its error, however few runs and
CG frames there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.samples import ConditionalSamples

FloatArray = NDArray[np.float64]

_LEAST_EFFECTIVE = 4.0
"""Runs that are worth less are not corrected for it: their covariances mean little, but stay finite."""
_STRETCHES = 5
"""Of each run, left out in turn for the error."""


@dataclass(frozen=True)
class DifferenceTest:
    """Two measurements of F_1 on the same frames.

    Attributes:
        temperatures: `(n_triples, 3)` lower, middle and upper [K]; differences are between the outer two.
        labels: `(n_frames, n_runs, n_triples, n_beads, 3)` covariance labels of each run [kJ/mol/nm/K].
        differences: finite differences of each run, same shape and unit.
        slope: of labels on differences, 1 where both are right, with the error that it has there.
    """

    temperatures: FloatArray
    labels: FloatArray
    differences: FloatArray
    slope: Estimate


def difference_test(frames: Sequence[ConditionalSamples], temperatures: ArrayLike | None = None) -> DifferenceTest:
    """Compare labels with differences.

    Args:
        frames: samples of each CG frame, with as many runs each, two at least.
        temperatures: `(n_triples, 3)` lower, middle and upper temperatures, which have all been sampled [K]; None for
            each rung between two others.

    Raises:
        ValueError: a temperature was not sampled, or there are fewer than two runs.
    """
    ladder = frames[0].ladder
    given = np.stack([ladder[:-2], ladder[1:-1], ladder[2:]], axis=1) if temperatures is None else temperatures
    triples = np.atleast_2d(np.asarray(given, dtype=np.float64))
    labels, differences, off, size, variance = [], [], 0.0, 0.0, 0.0
    for samples in frames:
        if len(np.unique(samples.run)) < 2:
            raise ValueError("one run has no independent partner; sample at least two")
        y, x = _labels_and_differences(samples, triples)
        deviation, rest = y[:, 0] - x[:, 0], x[:, 0].sum(axis=0) - x[:, 0]
        off, size = off + float((deviation * rest).sum()), size + float((x[:, 0] * rest).sum())
        others = deviation.sum(axis=0) - deviation
        without = np.einsum("rptj,rtj->rp", y[:, 1:] - x[:, 1:], rest) + np.einsum("rptj,rtj->rp", x[:, 1:], others)
        variance += (_STRETCHES - 1) * float(without.var(axis=1).sum())
        shape = (*x[:, 0].shape[:2], *samples.forces.shape[1:])
        labels.append(y[:, 0].reshape(shape))
        differences.append(x[:, 0].reshape(shape))
    slope = Estimate(1.0 + off / size, math.sqrt(variance) / abs(size))
    return DifferenceTest(triples, np.array(labels), np.array(differences), slope)


def difference_test_of_sound(frames: Frames, lowest: Mapping[int, float]) -> DifferenceTest:
    """The test on half of the usable CG frames or more, at rungs where all of these are in equilibrium.

    Args:
        frames: rows of `FixedBeadLadders`.
        lowest: of each CG frame the temperature from which up it may be used [K] (`FrameCheck.sound_from`); all rungs
            of all frames are compared where none may.
    """
    usable = sorted(kelvin for kelvin in lowest.values() if math.isfinite(kelvin))
    bottom = usable[len(usable) // 2] if usable else 0.0
    parts = [ConditionalSamples.of_frame(frames, number) for number in lowest if lowest[number] <= bottom or not usable]
    rungs = [kelvin for kelvin in parts[0].ladder.tolist() if kelvin >= bottom]
    return difference_test(parts, [rungs[first : first + 3] for first in range(len(rungs) - 2)])


def _mean_weights(triples: FloatArray) -> FloatArray:
    """`(3, n_triples)` weights of values at three points in the mean of their parabola (Simpson, uneven spacing)."""
    low, middle, high = triples.T
    left, right = middle - low, high - middle
    width = left + right
    return np.stack([2 - right / left, width**2 / (left * right), 2 - left / right]) / 6.0


def _labels_and_differences(samples: ConditionalSamples, triples: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Labels and differences `(n_runs, 1 + _STRETCHES, n_triples, n_components)`: of runs, and without stretches."""
    wanted, place = np.unique(triples, return_inverse=True)
    low, middle, high = place.reshape(triples.shape).T
    worth = dict(zip(samples.ladder.tolist(), samples.statistical_inefficiency(), strict=True))
    found = [_moments(samples, kelvin, worth.get(kelvin, math.nan)) for kelvin in wanted.tolist()]
    force, first = (np.stack(items, axis=2) for items in zip(*found, strict=True))
    by_place = zip(_mean_weights(triples), (low, middle, high), strict=True)
    label = sum(weight[:, None] * first[:, :, at] for weight, at in by_place)
    return label, (force[:, :, high] - force[:, :, low]) / (triples[:, 2] - triples[:, 0])[:, None]


def _moments(samples: ConditionalSamples, temperature: float, worth: float) -> tuple[FloatArray, FloatArray]:
    """Mean forces and covariance labels at a temperature `(n_runs, 1 + _STRETCHES, n_components)`.

    Args:
        samples: of all temperatures.
        temperature: the one [K].
        worth: samples there that are worth an independent one.
    """
    runs = np.unique(samples.run)
    here = samples.temperature == temperature
    if missing := set(runs.tolist()) - set(samples.run[here].tolist()):
        known = ", ".join(f"{item:g}" for item in samples.ladder)
        raise ValueError(f"run {min(missing)} has no samples at {temperature:g} K; there are those at {known} K")
    stretch = samples.blocks(_STRETCHES * len(runs))[here]
    member = (stretch == np.arange(_STRETCHES * len(runs))[:, None]).astype(np.float64)
    forces = samples.forces[here].reshape(len(stretch), -1)
    centre = forces.mean(axis=0)  # far from zero the moments would lose digits
    forces, energy = forces - centre, samples.energy[here] - samples.energy[here].mean()
    count, heat, force, product = (
        _with_and_without(sums.reshape(len(runs), _STRETCHES, -1))
        for sums in (member.sum(axis=1), member @ energy, member @ forces, (member * energy) @ forces)
    )
    force = force / count
    effective = np.maximum(count / worth, _LEAST_EFFECTIVE)
    covariance = (product / count - heat / count * force) * effective / (effective - 1.0)
    return force + centre, covariance / (BOLTZMANN * temperature**2)


def _with_and_without(parts: FloatArray) -> FloatArray:
    """Sums of parts `(n_runs, _STRETCHES, n)`: of all, and without each in turn."""
    total = parts.sum(axis=1, keepdims=True)
    return np.concatenate([total, total - parts], axis=1)
