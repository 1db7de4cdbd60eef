"""Distance of the beads from a folded structure: root mean square deviation after superposition."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, independent_blocks, jackknife
from cg_assets.core.statistics.metrics import basin_population
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.free_energies import SurfacesDrawing
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.metrics.slow_coordinates import clipped_surface
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings
from cg_assets.mapping.maps import CGMap
from cg_assets.mapping.pdb import open_pdb

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
        target = native_beads(case.beads.cg_map, case.folder / settings.file)
        values = [rmsd(frames.positions, target) for frames in (truth, case.free)]
        bins = Bins.between([(0.0, 1.05 * float(values[0].max()))], _BINS)
        surfaces, folded, mean = [], [], []
        for deviation, frames in zip(values, (truth, case.free), strict=True):
            surfaces.append(clipped_surface(case.beads, deviation, frames, bins))
            limits = {"rmsd": (0.0, settings.folded_rmsd)}
            folded.append(basin_population({"rmsd": deviation}, limits, frames.replica, frames.time))
            mean.append(_mean(deviation, frames))
        yield Quantity("folded_share", folded[1], folded[0], headline=True)
        yield Quantity("native_rmsd", mean[1], mean[0])
        labelled = dict(zip(("reference", "CG model"), surfaces, strict=True))
        yield SurfacesDrawing(labelled, ("RMSD",), ("nm",), marginals="native structure")


def _mean(values: NDArray[np.float64], frames: Frames) -> Estimate:
    block = independent_blocks(frames.replica, frames.time)
    totals = np.stack([np.bincount(block, values), np.bincount(block)], axis=1)
    value, error = jackknife(lambda total: total[0] / total[1], totals)
    return Estimate(float(value), float(error), "nm")


def native_beads(cg_map: CGMap, path: Path) -> NDArray[np.float64]:
    """Bead positions `(n_beads, 3)` [nm] of the structure in a PDB file.

    Raises:
        SystemSpecError: the file cannot be read, or lacks the atom of a bead.
    """
    topology, places = open_pdb(path, "evaluation.native.file")
    index = {f"{atom.residue.index + 1}:{atom.name}": atom.index for atom in topology.atoms()}
    rows = []
    for name, weights in zip(cg_map.bead_names, cg_map.matrix, strict=True):
        atoms = [cg_map.atom_names[atom] for atom in np.flatnonzero(weights)]
        if len(atoms) != 1 or atoms[0] not in index:
            raise SystemSpecError(
                f"evaluation.native.file: bead {name} sits on {', '.join(atoms)}, of which {path.name} must hold "
                "exactly one atom; name a structure with the atoms of all beads"
            )
        rows.append(index[atoms[0]])
    return places[rows]


def rmsd(positions: ArrayLike, native: ArrayLike) -> NDArray[np.float64]:
    """Root mean square deviation of each frame from a structure after the best rotation (W. Kabsch, 1976).

    Mirror images are not superposed.

    Args:
        positions: `(n_frames, n_beads, 3)` [nm].
        native: `(n_beads, 3)` [nm].

    Returns:
        `(n_frames,)` [nm].
    """
    points, target = np.asarray(positions, dtype=np.float64), np.asarray(native, dtype=np.float64)
    points = points - points.mean(axis=1, keepdims=True)
    target = target - target.mean(axis=0)
    product = np.einsum("fnd,ne->fde", points, target)
    values = np.linalg.svd(product, compute_uv=False)
    values[:, -1] *= np.where(np.linalg.det(product) < 0, -1.0, 1.0)
    square = (points**2).sum(axis=(1, 2)) + (target**2).sum() - 2.0 * values.sum(axis=1)
    return np.sqrt(np.maximum(square, 0.0) / points.shape[1])
