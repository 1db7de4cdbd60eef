"""Distance of the beads from a folded structure: root mean square deviation after superposition."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.geometry import deviation
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.statistics.metrics import basin_population
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.free_energies import SurfacesDrawing
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.metrics.slow_coordinates import clipped_surface
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

_BINS = 40


class Native(Metric[FreeEnergySettings]):
    """Folded share of the CG simulation, compared with the data."""

    reads = FreeEnergySettings
    measures = (
        Measure("folded_share", "share of the frames whose deviation from the folded structure is small"),
        Measure("native_rmsd", "mean root mean square deviation from the folded structure", "nm"),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where the settings name a folded structure."""
        return settings.native is not None

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation without a bias and of the data."""
        settings, truth = given(case.settings.native, "a native structure"), case.truth
        if truth is None:
            return
        target = given(case.native, "the beads of the native structure")
        values = [rmsd_from(frames, target) for frames in (truth, case.free)]
        bins = Bins.between([(0.0, 1.05 * float(values[0].max()))], _BINS)
        surfaces, folded, mean = [], [], []
        for apart, frames in zip(values, (truth, case.free), strict=True):
            weights = case.weights(frames)
            surfaces.append(clipped_surface(case.beads, apart, frames, bins, weights))
            limits = {"rmsd": (0.0, settings.folded_rmsd)}
            folded.append(basin_population({"rmsd": apart}, limits, frames.replica, frames.time, weights=weights))
            mean.append(_mean(apart, frames, weights))
        known = None if case.reference is None else case.reference.number("folded_share")
        yield Quantity("folded_share", folded[1], known or folded[0], headline=True)
        yield Quantity("native_rmsd", mean[1], mean[0])
        labelled = dict(zip(("reference", "CG model"), surfaces, strict=True))
        yield SurfacesDrawing(labelled, ("RMSD",), ("nm",), marginals="native structure")


def rmsd_from(frames: Frames, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviation `(n_frames,)` of all beads from those of a structure `(n_beads, 3)` [nm]."""
    return deviation(frames.positions, range(len(target)), target)[0]


def _mean(values: NDArray[np.float64], frames: Frames, weights: NDArray[np.float64] | None) -> Estimate:
    block = independent_blocks(frames.replica, frames.time)
    own = np.ones(len(values)) if weights is None else weights
    totals = np.stack([np.bincount(block, own * values), np.bincount(block, own)], axis=1)
    value, error = jackknife(lambda total: total[0] / total[1], totals)
    return Estimate(float(value), float(error), "nm")
