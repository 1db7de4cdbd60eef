"""`mapped_forces`, `relabelled_forces`, `<plan>_forces`: beads, and the forces that their potential is trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.assets.data import read_samples, weighted, with_map
from cg_assets.assets.stage import Batches, Figure, FrameContent, Product, Read, Report, Stage, Stored
from cg_assets.assets.work import Work
from cg_assets.core.checks import FINITE_BEADS, Check, Verdict, finite_verdict
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.labels.quality import LabelNoise
    from cg_assets.mapping.beads import Beads
    from cg_assets.mapping.force_maps import ForceMap

FORCE_MAP = Check(
    "force_map",
    "The force map has the mean force as its conditional mean under the constraints.",
    remedy="choose another force map, such as `force_map: optimal`",
)
NOISE_FLOOR = Check(
    "noise_floor",
    "The noise floor of the labels is accurate to 10 % and below their mean square.",
    remedy="sample more frames",
)
FORCE_SCALE = Check(
    "force_scale",
    "Forces times displacements average to what the temperature asks for (Stein's identity), within 5 %: the forces "
    "are in the right unit and belong to these frames.",
    remedy="see docs/own_simulations.md for what imported forces must be",
)
CHECKS = (FINITE_BEADS, FORCE_MAP, NOISE_FLOOR)

_SCALE_ERROR = 0.05
"""Allowed error of the scale of imported forces."""
_BINS = 24
"""Bins along each collective variable in the figure of label errors."""
_UNBIASED = "Beads and bead forces of the unbiased frames."
_IMPORTED = "Beads and bead forces of imported trajectories."
_BIASED = (
    "Beads and bead forces of the biased frames: the forces are those without the bias, so their mean at given beads "
    "is the mean force (arXiv 2510.11148)."
)


def judge_forces(beads: Beads, frames: Frames, force_map: ForceMap, noise: LabelNoise) -> list[Verdict]:
    """Verdicts on one batch of force labels, as stored in its file; noise is that at the temperature of the beads."""
    from cg_assets.mapping.run import force_map_fault

    fault = force_map_fault(beads, force_map)
    floor = noise.floor
    mean_square = float((np.asarray(frames.at_temperature(beads.temperature).forces, dtype=np.float64) ** 2).mean())
    known = math.isfinite(floor.value) and floor.standard_error <= 0.1 * floor.value + 1e-12
    return [
        finite_verdict(FINITE_BEADS, frames),
        FORCE_MAP.verdict(not fault, kind=force_map.kind, hash=force_map.hash, fault=fault or "none"),
        NOISE_FLOOR.verdict(
            known and floor.value <= mean_square,
            noise_floor=floor.value,
            standard_error=floor.standard_error,
            mean_square_force=mean_square,
            unit=floor.unit,
            method=noise.method,
        ),
    ]


def judge_scale(system: SystemSpec, frames: Frames) -> Verdict:
    """Whether force labels have the unit and the temperature of their positions."""
    from cg_assets.biases.reweighting import bias_weights
    from cg_assets.core.statistics.estimates import independent_blocks
    from cg_assets.core.statistics.stein import force_scale

    forces = np.asarray(frames.forces)
    weights = None if frames.bias_energy is None else bias_weights(frames.bias_energy, system.thermal_energy)
    block = independent_blocks(frames.replica, frames.time)
    scale = force_scale(frames.positions, forces, system.thermal_energy, block, weights)
    if frames.n_sites == 1:
        return FORCE_SCALE.verdict(True, reason="one bead has no distances to test by")
    fault = scale_fault(scale, system.temperature)
    return FORCE_SCALE.verdict(not fault, scale=scale.value, standard_error=scale.standard_error, reason=fault or None)


def scale_fault(scale: Estimate, temperature: float) -> str:
    """What a scale of forces that is not 1 means; empty for 1 within its error.

    Args:
        scale: of the labels, 1 for right ones.
        temperature: of the system [K].
    """
    from cg_assets.sampling.imported.formats.units import unit_slip

    value, error = scale.value, 5.0 * scale.standard_error
    if not error <= 0.5:
        return f"the scale of the forces is {scale}: too few frames to test it; give more frames"
    if abs(value - 1.0) <= max(_SCALE_ERROR, error):
        return ""
    found = f"forces are {scale} times those that the positions ask for at {temperature:g} K"
    if abs(value) <= max(error, 1e-4):
        return f"{found}: they are of other frames, or positions were rotated without them (trjconv -fit)"
    if slip := unit_slip(value, max(_SCALE_ERROR, error / abs(value))):
        return f"{found}: {slip}"
    return (
        f"{found}: the run was at about {temperature * value:.0f} K, or the forces are not those of these frames alone "
        "(turned positions, forces of a bias or a thermostat)"
    )


def forces_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of CG frames made from one kind of samples."""
    source = system.samples_of(name)
    dynamics = next(iter(system.sampling.by_section()), None)
    imported = system.imported is not None and name == system.imported.labels
    recomputed = system.imported is not None and system.imported.forces == "recomputed"

    def make(work: Work) -> Product:
        from cg_assets.labels.quality import noise_floors
        from cg_assets.mapping.force_maps import ForceMap
        from cg_assets.mapping.run import fit_force_map, map_frames
        from cg_assets.sampling.imported.recomputed import label_rounding

        samples, whole = read_samples(work.inputs, source, work.batch, every_temperature=True)
        of_source = work.inputs.facts(source, work.batch)
        of_system = system.beads().with_constraints(of_source.get("rigid", []))
        force_map = fit_force_map(system.mapping, of_system, system.at_own_temperature(samples))
        mapped = map_frames(of_system, samples, force_map)
        grid, changes = of_source.get("grid"), None
        if imported and recomputed and grid is not None:
            changes = label_rounding(system.structure(), whole, grid, work.seed)

        of_rungs = partial(_label_noise, work, of_system, force_map, mapped, samples, whole, changes)
        noises = {kelvin: of_rungs(kelvin) for kelvin in np.unique(mapped.temperature).tolist()}
        noise = next(iter(noises.values())) if len(noises) == 1 else noises[system.temperature]
        own = weighted(system.at_own_temperature(mapped), of_source["bias"], system.thermal_energy)
        beads, map_hash, facts = with_map(system)
        facts |= {"bias": of_source["bias"], "grid": grid}
        facts |= {"force_map": force_map.to_json(), "noise_floor": noise.to_json()}
        if len(noises) > 1:
            facts["noise_floors"] = noise_floors(mapped, {kelvin: item.floor for kelvin, item in noises.items()})

        def judge(stored: Stored) -> list[Verdict]:
            kept = ForceMap.from_json(stored.facts()["force_map"])
            frames = stored.frames()
            scale = [judge_scale(system, replace(frames, bias_energy=own.bias_energy))] if imported else []
            return [*judge_forces(of_system, frames, kept, noise), *scale]

        def report(_: object) -> Report:
            shown = _report(system, own, noise)
            if len(noises) > 1:
                shown["noise_floors"] = _noise_rows(mapped, noises)
            return shown | {"force_map": force_map.kind, "noise_floor": f"{noise.floor}: {noise.method}"}

        return Product(FrameContent(mapped), facts, judge, report, work.seed, beads, map_hash)

    return Stage(
        name=name,
        description=_IMPORTED if imported else _UNBIASED if system.plan_of(name).bias is None else _BIASED,
        make=make,
        reads=(Read(source, Batches.SAME),),
        checks=(*CHECKS, FORCE_SCALE) if imported else CHECKS,
        batched=True,
        kinds=frozenset({"parquet", "numpy"}),
        sections=(f"{dynamics}.timestep", f"{dynamics}.friction") if dynamics else ("model",),
    )


def _label_noise(
    work: Work,
    beads: Beads,
    force_map: ForceMap,
    mapped: Frames,
    samples: Frames,
    whole: Frames,
    changes: NDArray[np.float64] | None,
    kelvin: float,
) -> LabelNoise:
    """The noise of the labels at one temperature [K]; changes are those by the rounding of imported coordinates."""
    from cg_assets.labels.quality import measure_label_noise

    frames, some, atoms = (item.select(item.temperature == kelvin) for item in (mapped, samples, whole))
    atoms = atoms if len(atoms) else some  # snapshots with all atoms may be those of the lowest rung alone
    drawn = partial(work.system.repeated_labels, seed=work.seed, progress=work.progress, temperature=kelvin)
    of_frames = partial(drawn, atoms, frames)
    return measure_label_noise(beads, work.system.mapping, atoms, frames, force_map, of_frames, changes)


def _noise_rows(frames: Frames, noises: Mapping[float, LabelNoise]) -> list[dict[str, object]]:
    """The noise of labels at each temperature of a ladder, as rows of a table."""
    rows = []
    for kelvin, noise in noises.items():
        forces = np.asarray(frames.at_temperature(kelvin).forces, dtype=np.float64)
        rows.append(
            {
                "temperature [K]": kelvin,
                "frames": len(forces),
                "noise floor": str(noise.floor),
                "mean square force": f"{(forces**2).mean():.6g} {noise.floor.unit}",
                "method": noise.method,
            }
        )
    return rows


def _report(system: SystemSpec, frames: Frames, noise: LabelNoise) -> Report:
    from cg_assets.evaluation.torque_surface import has_torque_surface, torque_surface
    from cg_assets.figures.labels import label_errors_figure, label_noise_figure, torque_surface_figure
    from cg_assets.labels.label_errors import label_errors, variable_bins

    judged, beads = system.free_energies, system.beads()
    names = judged.collective_variables
    shown: dict[str, Any] = {"figure": Figure(label_noise_figure(beads, noise), "noise of the force labels")}
    if rows := noise.map_rows():
        shown["force_maps"] = rows
    if system.collective_variables:
        errors = label_errors(beads, names, variable_bins(beads, names, _BINS), [frames])
        shown["label_errors"] = Figure(label_errors_figure(beads, errors), "errors of the mean force")
        shown["weight_share"] = f"{errors.weight_share:.3g} of the frames count after reweighting"
    if has_torque_surface(beads, names):
        surface = torque_surface(beads, names, [frames], variable_bins(beads, names, judged.bins))
        shown["free_energy"] = Figure(torque_surface_figure(beads, surface), "free energy from the forces")
        for name, basin in judged.basins.items():
            shown[f"free_energy_{name}"] = str(surface.basin_free_energy(basin.limits))
    return shown
