"""Numbers with error bars: the `Estimate`, independent blocks of frames, the jackknife and autocorrelation times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEW_REPLICAS = 8
"""With fewer replicas than this, blocks of time take the place of replicas as independent pieces."""
_ROUNDING = 1e-12
"""Part of a number that its last digits may err by after some arithmetic."""


class EstimateJson(TypedDict):
    """An `Estimate` in the metadata of a file."""

    value: float | None
    standard_error: float | None
    unit: NotRequired[str]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: the number; inf or nan where the data do not determine it.
        standard_error: one standard deviation of `value`; nan where it is not known, 0 for exact numbers.
        unit: unit of both; empty for pure numbers.
    """

    value: float
    standard_error: float
    unit: str = ""

    def __str__(self) -> str:
        """Value and error with two digits of the error, for example `0.0212 ± 0.0004 kJ/mol`.

        An infinite number, as the free energy of a state that was never seen, has neither error nor unit: `∞`.
        """
        return self.text(self.unit)

    def text(self, unit: str = "") -> str:
        """As `str`, with another unit; none for tables whose header has it."""
        after = f" {unit}" if unit else ""
        if math.isnan(self.value):
            return "unknown"
        if math.isinf(self.value):
            return "∞" if self.value > 0 else "-∞"
        if not (math.isfinite(self.standard_error) and self.standard_error > 0):
            return (
                f"{self.value + 0.0:.4g}{after}" if self.standard_error == 0 else f"{self.value + 0.0:.4g} ± ?{after}"
            )
        digits = max(0, 1 - math.floor(math.log10(self.standard_error)))
        if digits > 6 or abs(self.value) >= 1e6:
            return f"{self.value + 0.0:.6g} ± {self.standard_error:.2g}{after}"
        value = round(self.value, digits) + 0.0  # no minus before a zero
        return f"{value:.{digits}f} ± {self.standard_error:.{digits}f}{after}"

    def concise(self) -> str:
        """Value and error in its last digits, without a unit: `8.83(54)`, `16.2(1.6)`; `0.3(?)` without an error.

        Numbers so large or small that an exponent stands in them are given as `text` has them: `3e+06 ± 1.2e+04`.
        """
        text = self.text()
        value, plus, error = text.partition(" ± ")
        if not plus or "e" in text:
            return text
        digits = error if "." in error and float(error) >= 1 else error.lstrip("0.")
        return f"{value}({digits})"

    def z(self, reference: float | Estimate) -> float:
        """Difference to a reference in units of the combined standard error."""
        other = reference if isinstance(reference, Estimate) else Estimate(float(reference), 0.0)
        return (self.value - other.value) / math.hypot(self.standard_error, other.standard_error)

    def to_json(self) -> EstimateJson:
        """Plain JSON types; numbers that are not finite become null."""
        value, error = (number if math.isfinite(number) else None for number in (self.value, self.standard_error))
        return {"value": value, "standard_error": error, "unit": self.unit}

    @classmethod
    def from_json(cls, content: EstimateJson) -> Estimate:
        """The estimate that `to_json` described; null is read as nan."""
        value, error = (math.nan if item is None else item for item in (content["value"], content["standard_error"]))
        return cls(float(value), float(error), content.get("unit", ""))


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """Ratio of two independent numbers."""
    value = one.value / other.value
    relative = math.hypot(one.standard_error / one.value, other.standard_error / other.value)
    return Estimate(value, abs(value * relative))


def independent_blocks(
    replica: ArrayLike, time: ArrayLike | None = None, n_blocks: int = 50, few_replicas: int = FEW_REPLICAS
) -> NDArray[np.int64]:
    """Number the nearly independent pieces of the data: replicas, or stretches of time where replicas are few.

    Args:
        replica: `(n_frames,)` replica of each frame.
        time: `(n_frames,)` time of each frame; without it frames of a replica are taken to be in order.
        n_blocks: largest number of blocks (replicas are joined), or the number of blocks aimed at (time is cut).
        few_replicas: with fewer replicas than this each is cut into stretches of time.

    Returns:
        `(n_frames,)` block numbers 0, 1, ...
    """
    _, member = np.unique(np.asarray(replica), return_inverse=True)
    n_replicas = int(member.max()) + 1 if len(member) else 0
    if n_replicas >= few_replicas:
        return member * min(n_blocks, n_replicas) // n_replicas
    pieces = max(1, n_blocks // max(n_replicas, 1))
    return member * pieces + time_blocks(member, time, pieces)


def time_blocks(replica: ArrayLike, time: ArrayLike | None, n_pieces: int) -> NDArray[np.int64]:
    """Index 0 .. n_pieces - 1 of the stretch of each replica that a frame is in, stretches of equal frame number."""
    member = np.unique(np.asarray(replica), return_inverse=True)[1]
    moment = np.arange(len(member)) if time is None else np.asarray(time)
    order = np.lexsort((moment, member))
    counts = np.bincount(member)
    rank = np.empty(len(member), dtype=np.int64)
    rank[order] = np.arange(len(member)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank * n_pieces // counts[member]


def jackknife(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64] | float], blocks: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Value and delete-one standard error of a statistic of summed block totals.

    Args:
        statistic: function of the sum over blocks, for example of a histogram.
        blocks: `(n_blocks, ...)` total of each independent block.

    Returns:
        The statistic of all blocks and its standard error (nan for fewer than two blocks), same shape.
    """
    parts = np.asarray(blocks, dtype=np.float64)
    total = parts.sum(axis=0)
    value = np.asarray(statistic(total), dtype=np.float64)
    n_blocks = len(parts)
    if n_blocks < 2:
        return value, np.full_like(value, np.nan)
    left_out = np.stack([np.asarray(statistic(total - part), dtype=np.float64) for part in parts])
    with np.errstate(invalid="ignore"):
        deviation = left_out - left_out.mean(axis=0)
        return value, np.sqrt((n_blocks - 1) / n_blocks * (deviation**2).sum(axis=0))


def autocorrelation_time(series: Sequence[ArrayLike] | NDArray[np.float64], window: float = 5.0) -> float:
    """Integrated autocorrelation time τ = 1/2 + Σ ρ(k) [frames], pooled over several series; white noise has 1/2.

    The sum stops at the first k beyond `window` τ (A. Sokal, Monte Carlo Methods in Statistical Mechanics, 1997).
    Taking each series relative to its own mean lowers all correlations by 2τ/n of the variance; that is put back, so
    that many short series give the right τ, however long each is.

    Args:
        series: `(n_series, n_times)`, `(n_times,)`, or a list of `(n_times,)` of different lengths.
        window: length of the sum in units of τ.

    Returns:
        τ; n_times/2, worth one sample, where the correlation does not end within a third of the longest series.
    """
    runs = [np.asarray(run, dtype=np.float64) for run in (series if np.ndim(series[0]) else [series])]
    n_times = max(map(len, runs))
    products, pairs, lowered = np.zeros((3, n_times))
    for length in np.unique([len(run) for run in runs]):
        values = np.stack([run for run in runs if len(run) == length])
        values = values - values.mean(axis=1, keepdims=True)
        for rows in np.array_split(values, max(1, values.size // 4_000_000)):
            spectrum = np.abs(np.fft.rfft(rows, 2 * length, axis=1)) ** 2
            products[:length] += np.fft.irfft(spectrum, axis=1)[:, :length].sum(axis=0)
        pairs[:length] += len(values) * np.arange(length, 0, -1)
        lowered[:length] += len(values) * np.arange(length, 0, -1) / length
    largest = max(float(np.abs(run).max(initial=0.0)) for run in runs)
    if n_times < 4 or not products[0] > pairs[0] * (_ROUNDING * largest) ** 2:
        return 0.5  # a constant, as far as its digits go
    correlation, lowered = products / pairs, lowered / pairs
    correlation /= correlation[0]
    lags = np.arange(1, max(2, n_times // 3) + 1)
    running = np.cumsum(correlation[lags])
    tau = (0.5 + running) / np.maximum(1.0 - 2.0 * (np.cumsum(lowered[lags]) - lowered[0] * running), 1e-3)
    ended = np.flatnonzero(lags >= np.minimum(window * tau, np.where(tau < 0.75, 2, np.inf)))
    return float(max(0.5, tau[ended[0]])) if len(ended) else 0.5 * n_times


def effective_samples(weights: ArrayLike) -> float:
    """Kish's effective number of samples (Σw)² / Σw²."""
    values = np.asarray(weights, dtype=np.float64)
    total = float((values**2).sum())
    return float(values.sum() ** 2 / total) if total > 0 else 0.0
