"""Umbrella windows placed for each batch where the mean force along the collective variables is least certain.

The error of a free energy is that of the mean force integrated along the way, so frames are best spent where the mean
force has the largest error. In bin b it is v_b / n_b after n_b frames, v_b being the variance of the force times the
length of its correlations; a new window adds frames around its centre. Windows are placed one after the other where
the remaining error is largest. Bins with too few frames have the median variance, and bins never visited
count as one frame; candidates are the bins within `highest` kT of the minimum and their neighbours, or all bins as long
as there are no data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator

from cg_assets.biases.base import Bias, FloatArray, range_faults
from cg_assets.biases.umbrella import UmbrellaBias, Windows
from cg_assets.core.errors import SamplingError
from cg_assets.core.settings import Fault, Name, Scope, Size, distinct
from cg_assets.core.statistics.clusters import Bins

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads

_FEW = 5
"""With fewer frames in a bin the variance of the force there is not determined."""


@dataclass(frozen=True)
class Proposal:
    """Windows of the next batch.

    Attributes:
        names: the collective variables.
        bins: candidates for centres are the middles of these bins.
        centers: `(n_windows, n_variables)` proposed centres [rad, nm or reduced].
        count: `(n_bins,)` frames so far.
        free_energy: `(n_bins,)` free energy above the minimum [kT]; inf where no frame is.
        error: `(n_bins,)` standard error of the mean force so far, root of the sum over the variables, each relative
            to the range of its variable [kT]; nan in bins that are no candidates.
        expected: the same after the proposed batch.
        outside: fraction of the frames so far that lie in no bin.
    """

    names: list[str]
    bins: Bins
    centers: FloatArray
    count: FloatArray
    free_energy: FloatArray
    error: FloatArray
    expected: FloatArray
    outside: float = 0.0

    def points(self) -> list[dict[str, float]]:
        """The centres as they stand in an umbrella bias."""
        return [dict(zip(self.names, map(float, center), strict=True)) for center in self.centers]

    def columns(self) -> dict[str, list[Any]]:
        """The centres as columns of a table."""
        return {f"cv_{name}": self.centers[:, axis].tolist() for axis, name in enumerate(self.names)}


class AdaptiveBias(Bias):
    """Umbrella windows that the asset `next_batch_plan` places for each batch, where data are needed most."""

    windowed: ClassVar[bool] = True

    type: Literal["adaptive"]
    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    """Names of one or two variables that the windows are placed in."""
    windows: Size
    """Number of windows; replicas are dealt out to them in turn."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""
    candidates: int = Field(default=16, ge=3, le=100)
    """Number of places for a window along each collective variable."""
    highest: PositiveFloat = 10.0
    """Free energy [kT] above the minimum up to which data are needed."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of collective variables that are not angles."""

    _distinct = field_validator("collective_variables")(distinct)

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return self.windows

    @property
    def adaptive(self) -> AdaptiveBias:
        """Itself."""
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Unknown variables, and those without limits."""
        return range_faults(scope, self.collective_variables, self.grid_range)

    def function(self, beads: Beads) -> Windows:
        """None yet.

        Raises:
            SamplingError: always; see `placed`.
        """
        raise SamplingError("the windows of an adaptive bias have no centres before they are placed for a batch")

    def placed(self, centers: list[dict[str, float]]) -> UmbrellaBias:
        """The bias with windows at some centres."""
        return UmbrellaBias(type="umbrella", centers=centers, force_constant=self.force_constant)

    def propose(
        self, beads: Beads, bins: Bins, count: FloatArray, error: FloatArray, energy: FloatArray, per_window: float
    ) -> Proposal:
        """Windows of the next batch.

        Args:
            beads: whose collective variables are biased.
            bins: candidates, along these variables.
            count: `(n_bins,)` frames so far.
            error: `(n_bins,)` standard error of the mean force [kT per range]; nan in empty bins.
            energy: `(n_bins,)` free energy above the minimum [kT]; inf in empty bins.
            per_window: frames of a window.
        """
        variance = count * error**2
        measured = (count >= _FEW) & (variance > 0.0)
        worthwhile = np.ones(bins.size, dtype=bool)
        if (count >= 1.0).any():
            worthwhile = energy <= self.highest
            worthwhile |= self._neighbours(beads, bins, worthwhile)
        typical = float(np.median(variance[measured])) if measured.any() else 1.0
        variance = np.where(measured, variance, typical)
        spread = self._spread(beads, bins)
        reached = np.maximum(count, 1.0)
        chosen = []
        for _ in range(self.windows):
            left = np.where(worthwhile, variance / reached, -1.0)
            best = int(np.argmax(left))
            chosen.append(best)
            reached = reached + per_window * spread[best]
        middles = np.stack(np.meshgrid(*bins.centres, indexing="ij"), axis=-1).reshape(-1, len(bins.edges))
        return Proposal(
            names=list(self.collective_variables),
            bins=bins,
            centers=middles[chosen],
            count=count,
            free_energy=energy,
            error=np.where(worthwhile, np.sqrt(variance / np.maximum(count, 1.0)), np.nan),
            expected=np.where(worthwhile, np.sqrt(variance / reached), np.nan),
        )

    def _spread(self, beads: Beads, bins: Bins) -> FloatArray:
        """Share `(n_bins, n_bins)` of a window's frames in each bin: a normal density of variance kT/k."""
        spread = np.ones((1, 1))
        for name, centres in zip(self.collective_variables, bins.centres, strict=True):
            difference = centres[:, None] - centres[None]
            if beads.is_periodic(name):
                difference = difference - 2 * math.pi * np.round(difference / (2 * math.pi))
            share = np.exp(-0.5 * self.force_constant / beads.thermal_energy * difference**2)
            spread = np.kron(spread, share / share.sum(axis=1, keepdims=True))
        return spread

    def _neighbours(self, beads: Beads, bins: Bins, of: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bins next to some bins, along one variable."""
        grid = of.reshape(bins.shape)
        found = np.zeros_like(grid)
        for axis, name in enumerate(self.collective_variables):
            for step in (1, -1):
                moved = np.roll(grid, step, axis=axis)
                if not beads.is_periodic(name):
                    edge = [slice(None)] * grid.ndim
                    edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                    moved[tuple(edge)] = False
                found |= moved
        return found.ravel()
