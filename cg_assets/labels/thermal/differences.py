"""Covariance labels of F_1 against finite differences of mean forces, on independent runs.

With labels y and differences x of independent runs s and t, the slope of y on x is Σ y_s·x_t / Σ x_s·x_t over s ≠ t:
the noise of x does not lower it, as it would lower a least-squares slope. A label is the mean of F_1 over the range of
the difference, by the parabola through three temperatures, since F_1 is not constant over it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.labels.thermal.response import ThermalResponse, response_of_weights
from cg_assets.labels.thermal.samples import ConditionalSamples

FloatArray = NDArray[np.float64]

_LEAST_EFFECTIVE = 4.0
"""Runs that are worth less are not corrected for it: their covariances mean little, but stay finite."""
_FEW_FRAMES = 8
"""With fewer frames than this the error comes from leaving out runs, or beads where there are only two runs."""


@dataclass(frozen=True)
class DifferenceTest:
    """Two measurements of F_1 on the same frames.

    Attributes:
        temperatures: `(n_triples, 3)` lower, middle and upper [K]; differences are between the outer two.
        labels: `(n_frames, n_runs, n_triples, n_beads, 3)` covariance labels of each run [kJ/mol/nm/K].
        differences: finite differences of each run, same shape and unit.
        slope: of labels on differences, 1 where both are right.
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
    wanted, place = np.unique(triples, return_inverse=True)
    place = place.reshape(triples.shape).T
    low, _, high = place
    weights = _mean_weights(triples)
    width = (triples[:, 2] - triples[:, 0])[:, None, None]
    labels, differences = [], []
    for samples in frames:
        runs = np.unique(samples.run)
        if len(runs) < 2:
            raise ValueError("one run has no independent partner; sample at least two")
        worth = dict(zip(samples.ladder.tolist(), samples.statistical_inefficiency(), strict=True))
        responses = [[_run_response(samples, run, at, worth) for at in wanted.tolist()] for run in runs]
        first = np.array([[item.first_order[0] for item in row] for row in responses])
        force = np.array([[item.forces[0] for item in row] for row in responses])
        labels.append(np.einsum("kt,rktij->rtij", weights, first[:, place]))
        differences.append((force[:, high] - force[:, low]) / width)
    y, x = np.array(labels), np.array(differences)
    return DifferenceTest(triples, y, x, _slope(y, x))


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


def _run_response(
    samples: ConditionalSamples, run: int, temperature: float, worth: Mapping[float, float]
) -> ThermalResponse:
    """Response at one temperature from the samples of one run there; `worth` of a sample comes from all runs."""
    chosen = samples.select((samples.run == run) & (samples.temperature == temperature))
    if not len(chosen):
        known = ", ".join(f"{item:g}" for item in samples.ladder)
        raise ValueError(f"run {run} has no samples at {temperature:g} K; there are those at {known} K")
    effective = np.array([max(len(chosen) / worth[temperature], _LEAST_EFFECTIVE)])
    weights = np.full((1, len(chosen)), 1.0 / len(chosen))
    return response_of_weights(chosen, weights, np.array([temperature]), effective)


def _slope(labels: FloatArray, differences: FloatArray) -> Estimate:
    axis = 0 if len(labels) >= _FEW_FRAMES else 1 if labels.shape[1] > 2 else 3
    parts = [
        _ratio(np.delete(labels, item, axis), np.delete(differences, item, axis)) for item in range(labels.shape[axis])
    ]
    error = float(np.sqrt((len(parts) - 1) * np.var(parts))) if len(parts) > 1 else float("nan")
    return Estimate(_ratio(labels, differences), error)


def _ratio(labels: FloatArray, differences: FloatArray) -> float:
    return _pairs(labels, differences) / _pairs(differences, differences)


def _pairs(one: FloatArray, two: FloatArray) -> float:
    """Σ over frames and pairs of different runs of the scalar product."""
    return float((one.sum(axis=1) * two.sum(axis=1)).sum() - (one * two).sum())
