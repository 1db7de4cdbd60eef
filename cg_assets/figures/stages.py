"""The figure of each stage: what a system's results are called and in which units, drawn by `plots`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.equilibration import ConditionalEquilibration
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import unit
from cg_assets.evaluation.reference import Reference
from cg_assets.evaluation.torque_surface import TorqueSurface
from cg_assets.figures import plots
from cg_assets.figures.plots_samples import label_errors_plot, next_batch_plot, surface_plot
from cg_assets.labels.label_errors import LabelErrors
from cg_assets.labels.next_batch import Proposal
from cg_assets.labels.quality import LabelNoise, compares_windows
from cg_assets.mapping.collective_variables import Torsion
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.simulation.run import CGSimulationResult
from cg_assets.simulation.settings import UNBIASED
from cg_assets.systems.spec import SystemSpec

_HIGHEST = 12.0
"""Free energy [kT] up to which a surface from forces is shown."""


def _variable_unit(system: SystemSpec, name: str) -> str:
    angular = isinstance(system.collective_variables.get(name), Torsion)
    return unit("angle" if angular else "length", system.units)


def _variable_units(system: SystemSpec, names: list[str] | tuple[str, ...]) -> list[str]:
    return [_variable_unit(system, name) for name in names]


def sampling_figure(system: SystemSpec, frames: Frames) -> bytes:
    """Where a batch of samples went."""
    names = system.variable_names
    limits = {name: (-np.pi, np.pi) for name in names if _variable_unit(system, name) == "rad"}
    return plots.sampling_plot(
        frames.time,
        frames.replica,
        {name: frames.collective_variables[name] for name in names},
        variable_units=dict(zip(names, _variable_units(system, names), strict=True)),
        time_unit=unit("time", system.units),
        start=frames.start,
        limits=limits,
        title=system.title,
    )


def equilibration_figure(system: SystemSpec, plan: SamplingPlan, result: ConditionalEquilibration) -> bytes:
    """The conditional-equilibration check of a biased batch."""
    names, units = system.variable_names[:2], _variable_units(system, system.variable_names[:2])
    if compares_windows(plan):
        names, units = ["bin of a window"], [""]
    force = unit("force", system.units) if system.units == "reduced" else "kJ/mol per unit of the variable"
    return plots.equilibration_plot(
        result,
        variables=names,
        variable_units=units,
        force_unit=force,
        title=f"{system.title}: conditional equilibration",
    )


def next_batch_figure(system: SystemSpec, proposal: Proposal) -> bytes:
    """Where the next batch is to be sampled, and what it should bring."""
    shape = proposal.bins.shape
    return next_batch_plot(
        proposal.bins.edges,
        proposal.error.reshape(shape),
        proposal.expected.reshape(shape),
        proposal.centers,
        variables=proposal.names,
        variable_units=_variable_units(system, proposal.names),
        title=f"{system.title}: next batch",
    )


def label_errors_figure(system: SystemSpec, errors: LabelErrors) -> bytes:
    """What a batch of labels knows of the mean force along the collective variables."""
    shape = errors.bins.shape
    return label_errors_plot(
        errors.bins.edges,
        {
            "independent labels in a bin": errors.independent.reshape(shape),
            "standard deviation of a label [kT]": errors.noise.reshape(shape),
            "standard error of the mean force [kT]": errors.error.reshape(shape),
        },
        variables=errors.names,
        variable_units=_variable_units(system, errors.names),
        title=f"{system.title}: what the labels know (forces times the range of the variable)",
    )


def torque_surface_figure(system: SystemSpec, surface: TorqueSurface) -> bytes:
    """The free energy of the torsions from a batch of labels alone."""
    energy = unit("energy", system.units)
    free_energy, error = surface.free_energy, surface.standard_error
    shown = free_energy <= _HIGHEST * system.thermal_energy
    return surface_plot(
        surface.bins.edges,
        {f"free energy [{energy}]": free_energy, f"standard error [{energy}]": error},
        shown,
        variables=surface.names,
        variable_units=_variable_units(system, surface.names),
        title=f"{system.title}: free energy from the forces alone",
    )


def label_noise_figure(system: SystemSpec, noise: LabelNoise) -> bytes:
    """The noise of a batch of force labels."""
    force = unit("force", system.units)
    title = f"{system.title}: noise of the force labels"
    if noise.bins is not None:
        (name,) = system.variable_names
        return plots.label_noise_plot(
            noise.bins,
            noise.floor,
            variable=name,
            variable_unit=_variable_unit(system, name),
            force_unit=force,
            title=title,
        )
    if noise.beads is None:
        raise ValueError("this noise has neither bins nor beads")
    maps = {f"{noise.map_kind} (used)": noise.beads}
    maps |= {f"{kind}{' (not valid)' if fault else ''}": other for kind, (other, fault) in noise.other_maps.items()}
    beads = {
        label: {
            name: Estimate(float(value), float(error), noise.floor.unit)
            for name, value, error in zip(noise.bead_names, one.bead_noise_floor, one.bead_standard_error, strict=True)
        }
        for label, one in maps.items()
    }
    return plots.label_noise_plot(beads, noise.floor, force_unit=force, title=title)


def training_figure(system: SystemSpec, name: str, history: list[dict[str, Any]], floor: Estimate) -> bytes:
    """Loss and noise floor of a training."""
    return plots.training_plot(history, floor, title=f"{system.title}: potential {name}")


def cg_simulation_figure(system: SystemSpec, result: CGSimulationResult) -> bytes:
    """Temperature and energies of a CG simulation."""
    run, free = result.runs[0], result.frames.of_window(UNBIASED)
    replicas, member = np.unique(free.replica, return_inverse=True)
    times, moment = np.unique(np.round(free.time, 9), return_inverse=True)
    energies = np.full((len(replicas), len(times)), np.nan)
    if free.potential_energy is not None:
        energies[member, moment] = free.potential_energy
    energies -= np.nanmedian(energies)
    return plots.cg_simulation_plot(
        result.replica_temperatures,
        run.temperature,
        run.kinetic_temperature.unit,
        mean=run.kinetic_temperature,
        time=times,
        energies=energies,
        time_unit=unit("time", system.units),
        energy_unit=unit("energy", system.units),
        title=f"{system.title}: {result.stability}",
    )


def reference_figure(system: SystemSpec, reference: Reference) -> bytes:
    """The reference free energy."""
    title = f"{system.title}: reference"
    surfaces = {f"run {number + 1}": run for number, run in enumerate(reference.runs)}
    if reference.exact:
        surfaces = {"exact": reference.surface}
    if len(reference.names) == 1:
        return plots.marginals_plot(
            surfaces,
            variables=reference.names,
            variable_units=_variable_units(system, reference.names),
            reference="exact" if reference.exact else None,
            title=title,
            highest=12.0,
        )
    first, second = reference.names
    return plots.free_energy_maps(
        surfaces,
        variables=(first, second),
        variable_units=(_variable_unit(system, first), _variable_unit(system, second)),
        reference=None if reference.exact else "run 1",
        title=title,
    )
