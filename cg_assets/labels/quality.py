"""Quality of samples and force labels: conditional equilibration, and the noise that training cannot beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.equilibration import (
    FEWEST_REPLICAS,
    ConditionalEquilibration,
    conditional_equilibration,
    halves_in_time,
)
from cg_assets.core.statistics.estimates import Estimate, EstimateJson
from cg_assets.core.statistics.noise import BinnedLabels, ConditionalNoise, bin_labels, conditional_noise
from cg_assets.core.units import UnitSystem, unit
from cg_assets.labels.force_matching import unexplained_noise
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.maps import Mapping
from cg_assets.mapping.run import force_map_fault, map_coordinates, map_frames
from cg_assets.sampling.conditional import ConditionalForces
from cg_assets.sampling.settings import SamplingPlan

LABEL_BINS = 200
"""Bins of a one-dimensional CG coordinate over the range of the data, at most."""
FRAMES_PER_BIN = 200
"""Frames that a bin should hold on the average: with fewer, the bins at the ends of the range are empty."""

Repeat = Callable[[Sequence[ForceMap]], ConditionalForces | None]
"""Gives repeated labels of some force maps (`Model.repeated_labels`)."""


@dataclass(frozen=True)
class LabelNoise:
    """The noise of a batch of force labels.

    Attributes:
        floor: mean squared deviation of a force component from its conditional mean [force unit squared].
        method: how it was measured.
        bins: noise per bin of a one-dimensional CG coordinate; None for molecules.
        beads: noise per bead of a molecule, or of each of two CG coordinates; None for one CG coordinate.
        bead_names: names of the beads.
        map_kind: kind of the force map of a molecule.
        other_maps: kind of each other force map to its noise, at the same forces, and why it is not valid (empty where
            it is).
    """

    floor: Estimate
    method: str
    bins: BinnedLabels | None = None
    beads: ConditionalNoise | None = None
    bead_names: tuple[str, ...] = ()
    map_kind: str = ""
    other_maps: dict[str, tuple[ConditionalNoise, str]] = field(default_factory=dict)

    def map_rows(self) -> list[dict[str, str]]:
        """The noise of the labels of each force map, as rows of a table; of exact labels there is no ratio."""
        if self.beads is None:
            return []
        maps = {self.map_kind: (self.beads, "")} | self.other_maps
        least = self.beads.noise_floor.value
        return [
            {
                "force map": kind + (" (used)" if kind == self.map_kind else ""),
                "noise floor": str(noise.noise_floor),
                "to the one used": f"{noise.noise_floor.value / least:.3f}" if least else "",
                "valid": fault or "yes",
            }
            for kind, (noise, fault) in maps.items()
        ]

    def to_json(self) -> dict[str, object]:
        """The floor and the method in plain JSON types."""
        return self.floor.to_json() | {"method": self.method}


def squared_force_unit(units: UnitSystem) -> str:
    """Unit of a squared force component."""
    return f"({unit('force', units)})²"


def label_bins(beads: Beads, frames: Frames) -> Bins:
    """Equal bins of the one CG coordinate over the range of the data."""
    (name,) = beads.variable_names
    values = frames.collective_variables[name]
    n_bins = min(LABEL_BINS, max(20, len(values) // FRAMES_PER_BIN))
    return Bins.between([[float(values.min()), float(values.max()) + 1e-6]], n_bins)


def bin_model_labels(beads: Beads, frames: Frames) -> BinnedLabels:
    """Mean force and noise per bin of a model potential's CG frames."""
    (name,) = beads.variable_names
    forces = np.asarray(frames.forces, dtype=np.float64)[:, 0, 0]
    values = frames.collective_variables[name].astype(np.float64)
    return bin_labels(
        values,
        forces,
        frames.replica,
        frames.time,
        bins=label_bins(beads, frames),
        unit=squared_force_unit(beads.units),
    )


def measure_label_noise(
    beads: Beads,
    mapping: Mapping,
    samples: Frames,
    frames: Frames,
    force_map: ForceMap,
    repeat: Repeat,
    changes: NDArray[np.float64] | None = None,
) -> LabelNoise:
    """Measure the noise floor of force labels.

    Labels are repeated at the same bead positions; those along one CG coordinate are binned in it instead.

    Args:
        beads: the beads.
        mapping: their settings, which name further force maps to compare with.
        samples: atomistic frames with all atoms: those of the labels, or snapshots of the same run.
        frames: CG frames with force labels.
        force_map: the map that made the labels.
        repeat: gives repeated labels of some force maps; None where there is one CG coordinate, or no force field.
        changes: `(n, n_atoms, 3)` errors of the forces on the atoms of the labels in some frames, which repeated labels
            do not have: those of rounded positions [kJ/mol/nm].
    """
    others = mapping.further_force_maps(beads.cg_map, beads.constraints, samples.forces)
    repeated = repeat([force_map, *others.values()])
    if repeated is None and frames.dimension > 1:
        return _unexplained(beads, samples, force_map.kind, {force_map.kind: force_map} | others)
    if repeated is None:
        bins = bin_model_labels(beads, frames)
        method = f"variance in {len(bins.centres)} bins of the CG coordinate"
        return LabelNoise(bins.noise_floor, method, bins=bins)
    noises = [conditional_noise(forces, squared_force_unit(beads.units)) for forces in repeated.forces]
    n_configurations, n_samples = repeated.forces.shape[1:3]
    method = f"{n_samples} {repeated.how} in each of {n_configurations} frames"
    if changes is not None:
        exact = noises[0].noise_floor.value
        maps = [force_map, *others.values()]
        noises = [noise.with_changes(one.apply(changes)) for noise, one in zip(noises, maps, strict=True)]
        method += f", plus {noises[0].noise_floor.value - exact:.4g} by positions that are rounded"
    own, *noises = noises
    return LabelNoise(
        own.noise_floor,
        method,
        beads=own,
        bead_names=tuple(beads.cg_map.bead_names),
        map_kind=force_map.kind,
        other_maps={
            kind: (noise, force_map_fault(beads, other))
            for (kind, other), noise in zip(others.items(), noises, strict=True)
        },
    )


def _unexplained(beads: Beads, samples: Frames, own_kind: str, maps: dict[str, ForceMap]) -> LabelNoise:
    """An upper bound where labels cannot be repeated, for want of a force field."""
    left = {
        kind: unexplained_noise(beads, map_frames(beads, samples, item), squared_force_unit(beads.units))
        for kind, item in maps.items()
        if not force_map_fault(beads, item)
    }
    own = left.pop(own_kind)
    return LabelNoise(
        own.noise_floor,
        "at most: what a linear force field of distances and torsions leaves, cross-validated",
        beads=own,
        bead_names=tuple(beads.cg_map.bead_names),
        map_kind=own_kind,
        other_maps={kind: (noise, "") for kind, noise in left.items()},
    )


def noise_floors(frames: Frames, floors: Dictionary[float, Estimate]) -> list[dict[str, object]]:
    """Noise floor and number of frames of each temperature in plain JSON types, as `combined_noise_floor` takes them.

    Args:
        frames: with labels.
        floors: of the labels at each temperature.
    """
    return [
        floor.to_json() | {"temperature": kelvin, "rows": int((frames.temperature == kelvin).sum())}
        for kelvin, floor in floors.items()
    ]


def combined_noise_floor(noise_floors: Sequence[EstimateJson], rows: Sequence[float]) -> Estimate:
    """Noise floor of several batches together, each weighted by its number of frames.

    Args:
        noise_floors: what `LabelNoise.to_json` gave for each batch.
        rows: frames of each batch, or what they count.
    """
    estimates = [Estimate.from_json(item) for item in noise_floors]
    share = np.array(rows) / np.sum(rows)
    value = sum(part * item.value for part, item in zip(share, estimates, strict=True))
    variance = sum((part * item.standard_error) ** 2 for part, item in zip(share, estimates, strict=True))
    return Estimate(float(value), float(np.sqrt(variance)), estimates[0].unit)


@dataclass(frozen=True)
class ImportedReplicas:
    """How imported replicas are compared, in the place of a plan.

    Attributes:
        halves: whether halves in time are compared: a replica that is alone in its window has no other.
        windows: number of umbrella windows; 1 without any.
    """

    halves: bool
    windows: int
    starts: ClassVar[str] = "files"

    @classmethod
    def of(cls, frames: Frames) -> ImportedReplicas:
        """Those of a batch."""
        _, counts = _number_in_window(frames)
        return cls(halves=bool(counts.min() == 1), windows=len(counts))


def _number_in_window(frames: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number `(n_frames,)` of each replica among those of its window, and how many each window has."""
    window = np.zeros(len(frames), dtype=np.int32) if frames.window is None else frames.window
    runs, run = np.unique(np.stack([window, frames.replica], axis=1), axis=0, return_inverse=True)
    _, first, counts = np.unique(runs[:, 0], return_index=True, return_counts=True)
    return (np.arange(len(runs)) - np.repeat(first, counts))[run.ravel()], counts


def check_equilibration(
    beads: Beads, mapping: Mapping, plan: SamplingPlan | ImportedReplicas, frames: Frames
) -> ConditionalEquilibration:
    """Do replicas from different starts agree on the mean forces?

    Replicas drawn from the exact density of a static bias need not forget where they started, for together they are in
    equilibrium from the first frame on; of them the first and the second half in time are compared. Replicas in
    umbrella windows are compared in bins of the collective variables within each window, numbered in one row, for bins
    that windows fill from different sides would differ; others in the bins alone.

    Args:
        beads: the beads.
        mapping: their settings.
        plan: the plan that was sampled, or imported replicas.
        frames: atomistic frames of a biased batch, probe replicas included.
    """
    names = beads.variable_names
    variables = np.stack([frames.collective_variables[name].astype(np.float64) for name in names], axis=1)
    positions, labels = map_coordinates(beads, frames, mapping.plainest_force_map(beads.cg_map))
    forces = beads.projected_forces(positions, labels)
    bins = Bins.between([_limits(beads, name) for name in names], 12) if len(names) == 2 else None
    if compares_windows(plan) and frames.window is not None:
        fine = Bins.between([_extent(beads, name, frames) for name in names[:2]], 12)
        inside, _ = fine.locate(variables[:, :2])
        _, cell = np.unique(frames.window.astype(np.int64) * fine.size + inside, return_inverse=True)
        number = int(cell.max()) + 1
        variables, bins = cell[:, None].astype(np.float64), Bins.between([(-0.5, number - 0.5)], number)
        names = []
    return conditional_equilibration(
        variables[:, :2],
        forces,
        _groups(plan, frames),
        frames.replica,
        frames.time,
        bins=bins,
        labelled=~frames.probe,
        names=names[:2],
        groups_are="half" if plan.halves else "start",
        few_replicas=FEWEST_REPLICAS * (plan.windows if compares_windows(plan) else 1),
    )


def _groups(plan: SamplingPlan | ImportedReplicas, frames: Frames) -> NDArray[np.integer]:
    if plan.halves:
        return halves_in_time(frames.replica, frames.time)
    return frames.start if plan.starts != "files" else _number_in_window(frames)[0]


def compares_windows(plan: SamplingPlan | ImportedReplicas) -> bool:
    """Whether the check compares replicas within umbrella windows."""
    return plan.windows > 1 and plan.starts != "equilibrium"


def _extent(beads: Beads, name: str, frames: Frames) -> tuple[float, float]:
    """Range of a collective variable, or of the frames along the coordinate of a model potential."""
    if name in beads.collective_variables:
        return _limits(beads, name)
    values = frames.collective_variables[name]
    return float(values.min()), float(values.max()) + 1e-6


def _limits(beads: Beads, name: str) -> tuple[float, float]:
    variable = beads.collective_variables[name]
    return (-np.pi, np.pi + 1e-6) if variable.periodic else variable.limits
