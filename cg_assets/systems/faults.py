"""Faults between the sections of a system's file; those of each section stand with its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cg_assets.core.settings import KELVIN, Fault, Scope
from cg_assets.systems.base import within
from cg_assets.systems.default_variables import NO_SHAPE
from cg_assets.training.settings import TARGETS, LearntPotential

if TYPE_CHECKING:
    from cg_assets.labels.source import LabelSource
    from cg_assets.systems.spec import SystemSpec


def faults_of(system: SystemSpec, scope: Scope) -> Iterator[Fault]:
    """Faults between sections."""
    yield from scope.unlikely("temperature", system.temperature, 100, 2000, KELVIN)
    yield from _liquid_faults(system) if system.model.is_liquid else _variable_faults(system)
    yield from _source_faults(system)
    yield from _simulation_faults(system)
    yield from _target_faults(system)
    for section, plan in system.plans().items():
        if plan.bias is not None and plan.bias.adaptive and not section.startswith("sampling.further."):
            yield Fault(f"{section}.bias", "is adaptive; only a plan under sampling.further can be")
    for name, source in system.labels.items():
        yield from within(f"labels.{name}", source.source_faults(system.sampling.by_name(), system.imported))
        yield from within(f"labels.{name}", source.other_faults(name, system.labels))
    judged = system.evaluation.free_energies
    if judged is not None and (settings := judged.slow_coordinates):
        yield from within("evaluation.slow_coordinates", settings.time_faults(*_times(system)))
        if settings.dynamics is not None:
            yield from within("evaluation.slow_coordinates", _dynamics_faults(system, settings.dynamics))


def _target_faults(system: SystemSpec) -> Iterator[Fault]:
    """Targets without the ladder at fixed beads that they come from, or the ladder without targets."""
    conditional = system.sampling.conditional
    if system.targets is not None:
        ladder = conditional.temperatures if conditional else []
        yield from within("targets", system.targets.ladder_faults(ladder))
    elif conditional is not None and not system.model.is_liquid:
        yield Fault("targets", "is missing, but sampling.conditional is there for them; give their temperatures")


def _liquid_faults(system: SystemSpec) -> Iterator[Fault]:
    """Samples, targets, potentials and times of a liquid that do not fit each other."""
    run = system.cg_simulation
    if len(system.temperatures) < 2:
        yield Fault("temperatures", "lists fewer than two; a liquid is sampled at several, from the lowest up")
    elif system.temperature != system.temperatures[0]:
        lowest = system.temperatures[0]
        yield Fault("temperature", f"is {system.temperature}, but temperatures begins with {lowest}; leave it out")
    for name, potential in system.potentials.items():
        targets = [] if system.targets is None else system.targets.temperatures
        if potential.labels == TARGETS and not targets:
            yield Fault("targets", f"is missing, but potentials.{name} learns from them")
        elif potential.response is not None:
            faults = potential.response.data_faults(targets, system.temperatures)
            yield from within(f"potentials.{name}", faults)
    for name in ("enhanced_duration", "displacement"):
        if getattr(run, name):
            yield Fault(f"cg_simulation.{name}", "is for molecules, not for liquids; remove it")
    for section, timed in {"cg_simulation": run, "sampling.unbiased": system.sampling.unbiased}.items():
        if system.evaluation.liquid is not None and timed is not None:
            faults = system.evaluation.liquid.time_faults(section, timed.duration, timed.frame_interval)
            yield from within("evaluation", faults)


def _variable_faults(system: SystemSpec) -> Iterator[Fault]:
    """No variables, training or potentials, several temperatures, variables that beads do not determine."""
    if system.temperatures:
        yield Fault("temperatures", "is for liquids; give one temperature")
    if system.training is None:
        yield Fault("training", "is missing; give its epochs, batch_size and learning_rate")
    if not system.potentials:
        yield Fault("potentials", "is empty; name at least one potential and its labels")
    if not system.variable_names:
        yield Fault(
            "collective_variables",
            f"is empty; name at least one to judge by, of two beads or more: a single bead {NO_SHAPE}",
        )
    outside = {
        name: [atom for atom in variable.atoms if not system.mapping.holds_atom(atom)]
        for name, variable in system.collective_variables.items()
    }
    if used := [f"{name} uses {', '.join(atoms)}" for name, atoms in outside.items() if atoms]:
        yield Fault(
            "collective_variables",
            f"{'; '.join(used)}: no bead sits there, so it is not a function of the CG coordinates, and biasing it "
            "would change the mean force; choose atoms that are beads, or name none: beads are then judged by their "
            "distance or size",
        )


def _source_faults(system: SystemSpec) -> Iterator[Fault]:
    """Plans, imported data, labels and a reference that are named and missing."""
    if system.imported is None and not system.sampling.by_section():
        yield Fault("sampling", "names no plan and nothing is imported; give sampling.unbiased or imported")
    if not system.model.is_simulated and (simulated := list(system.plans())):
        yield Fault("model.force_fields", f"is empty, but {simulated[0]} simulates the molecule; name its force field")
    judged = system.evaluation.free_energies
    if judged is not None and judged.reference.is_data and system.reference_data is None:
        yield Fault(
            "evaluation.reference.type",
            "is data, but there are neither imported trajectories nor sampling.unbiased",
        )
    if judged is not None and judged.reference.largest_difference is not None and not system.rungs:
        yield Fault(
            "evaluation.reference.max_difference",
            "compares the halves of a ladder, of which sampling.unbiased keeps no frames of all rungs; leave it out, "
            "or set tempering.kept_rungs to all",
        )
    for name, source in system.labels.items():
        if source.stage(name) in {*system.sampling.by_labels(), *system.sampling.by_mean_force_labels()}:
            yield Fault(f"labels.{name}", "has the name of a plan of sampling; choose another name")
    known = [*system.sampling.by_labels(), *system.sampling.by_mean_force_labels()]
    known += [source.stage(name) for name, source in system.labels.items()]
    known += [TARGETS] if system.targets is not None and system.model.is_liquid else []
    known += [system.imported.labels] if system.imported and system.imported.labels else []
    fixed = [TARGETS] if system.targets is not None and system.network.needs_temperature else []
    for name, potential in system.potentials.items():
        missing = {"labels": {potential.labels} - {*known}, "also": {*(potential.also or ())} - {*known, *fixed}}
        if potential.response is None and any(missing.values()):
            field, stage = next((field, min(stages)) for field, stages in missing.items() if stages)
            yield Fault(
                f"potentials.{name}.{field}",
                f"is {stage}, but sampling, imported and labels give only {', '.join(known)}; choose one of "
                "these or add what is missing",
            )
        elif (potential.temperatures or potential.learns) and not system.network.needs_temperature:
            yield Fault(
                f"potentials.{name}.{'temperatures' if potential.temperatures else 'learns'}",
                "is for a network with a temperature_dependence; leave it out",
            )
        elif potential.also and system.network.needs_responses:
            yield Fault(f"potentials.{name}.also", f"is not for network.type {system.network.type}; leave it out")
        elif system.network.needs_temperature and potential.response is None:
            yield from within(f"potentials.{name}", _temperature_faults(system, potential))


def _labelled_temperatures(system: SystemSpec, stage: str) -> tuple[LabelSource | None, list[float]]:
    """What makes a stage of labels, None for those of the atoms, and the temperatures of its frames [K]."""
    if stage == TARGETS and system.targets is not None:
        return None, list(system.targets.temperatures)
    source = next((item for name, item in system.labels.items() if item.stage(name) == stage), None)
    if source is None:
        sampled = system.sampling.by_labels().get(stage)
        plan = sampled.plan if sampled else None
    else:
        plan = system.sampling.by_name().get(source.of) if source.every_temperature else None
    ladder = plan.tempering if plan else None
    return source, list(ladder.temperatures[: plan.kept_rungs]) if plan and ladder else [system.temperature]


def _temperature_faults(system: SystemSpec, potential: LearntPotential) -> Iterator[Fault]:
    """What a potential at all temperatures cannot learn from its labels: temperatures, energies, terms of its form."""
    found = {stage: _labelled_temperatures(system, stage) for stage in potential.stages}
    sources = [source for source, _ in found.values()]
    known = sorted({kelvin for stage, (_, at) in found.items() if stage != TARGETS for kelvin in at})
    kelvins = potential.temperatures or known
    if missing := sorted(set(kelvins) - set(known)):
        shown = ", ".join(f"{kelvin:g}" for kelvin in known)
        gap = f"holds {missing[0]:g}, at which {potential.labels} has no frames; choose from {shown}"
        yield Fault("temperatures", gap)
        return
    if potential.learns and not any(source is None or source.has_energies for source in sources):
        yield Fault("learns", f"is {potential.learns}, but frames of {potential.labels} have no energies; leave it out")
    form, slopes = system.network.thermal_form, bool(potential.learns)
    if TARGETS in found:
        kelvins, slopes = sorted({*kelvins, *found[TARGETS][1]}), True
    if form is None or len(kelvins) == 1:
        constant = not slopes and not any(source is not None and source.responds for source in sources)
        if constant and not system.simulated_temperatures and kelvins != [system.temperature]:
            yield Fault(
                "temperatures",
                f"is {kelvins[0]:g} alone, so that W does not depend on T, and it is simulated and judged at "
                f"{system.temperature:g}; add that, or list cg_simulation.temperatures",
            )
        return
    if outside := [kelvin for kelvin in form.anchors if not min(kelvins) <= kelvin <= max(kelvins)]:
        yield Fault(
            "temperatures",
            f"are {min(kelvins):g} to {max(kelvins):g}, and network.temperature_dependence has an anchor outside, "
            f"{outside[0]:g}; choose anchors among them",
        )
    elif (determined := len(kelvins) * (2 if slopes else 1)) < form.n_terms:
        yield Fault(
            "temperatures",
            f"are {len(kelvins)}, which determine {determined} of the {form.n_terms} terms of "
            "network.temperature_dependence; lower its order, take fewer anchors, or learn from more temperatures",
        )


def _dynamics_faults(system: SystemSpec, name: str) -> Iterator[Fault]:
    """A plan whose frames do not move as the atoms do, or that lacks a temperature."""
    plan = system.sampling.further.get(name)
    if plan is None:
        known = ", ".join(system.sampling.further) or "none"
        yield Fault("dynamics", f"is {name}, which sampling.further does not name; it names {known}")
        return
    ladder = plan.tempering
    if plan.bias is not None or (ladder is not None and ladder.pace < plan.duration):
        yield Fault(
            "dynamics",
            f"is {name}, whose frames are those of a bias or of replica exchange; set its tempering.pace to its "
            "duration and its burn_in to a multiple of that, so that it exchanges only before",
        )
    held = list(ladder.temperatures[: plan.kept_rungs]) if ladder else [system.temperature]
    if missing := set(system.simulated_temperatures or [system.temperature]) - set(held):
        yield Fault("dynamics", f"is {name}, which keeps no frames at {min(missing):g} K; give it the same ladder")


def _simulation_faults(system: SystemSpec) -> Iterator[Fault]:
    """CG simulations without the replicas or the bias that they need."""
    run = system.cg_simulation
    if system.imported is not None and system.learning_curve is not None:
        yield Fault("learning_curve", "needs simulated times, which imported trajectories lack; leave it out")
    yield from _curve_faults(system)
    if run.kept_replicas < 2 and not system.model.is_liquid:
        yield Fault(
            "cg_simulation.replicas",
            f"is {run.replicas}, so frames of {run.kept_replicas} are kept; give at least 2: their scatter is "
            "the error of the results",
        )
    if missing := sorted(set(run.temperatures or ()) - set(system.rungs)):
        known = ", ".join(f"{kelvin:g}" for kelvin in system.rungs)
        yield Fault(
            "cg_simulation.temperatures",
            f"holds {missing[0]:g}, at which there are no frames to start from and to compare with; "
            + (
                f"choose from {known}"
                if known
                else "set evaluation.reference.type to data and sampling.unbiased.tempering.kept_rungs to all"
            ),
        )
    curve = system.learning_curve.cg_simulation if system.learning_curve else None
    if not run.enhanced_duration and (curve is None or not curve.enhanced_duration):
        return
    if system.biased_labels is None:
        yield Fault(
            "cg_simulation.enhanced_duration", "needs the bias of sampling.biased, or imported.bias as hills or a grid"
        )
    elif (biased := system.sampling.biased) is not None and biased.bias is not None and biased.bias.windowed:
        yield Fault(
            "cg_simulation.enhanced_duration",
            "runs under one frozen bias, not under umbrella windows; set it to 0 or sample with metadynamics or "
            "a static bias",
        )


def _curve_faults(system: SystemSpec) -> Iterator[Fault]:
    """A learning curve, whose parts are trained and judged at the system's temperature, next to what needs more."""
    curve = system.learning_curve
    if curve is None:
        return
    alone = "is of forces at one temperature, but {} is set; leave one of the two out"
    if system.cg_simulation.temperatures:
        yield Fault("learning_curve", alone.format("cg_simulation.temperatures"))
    if curve.cg_simulation is not None and curve.cg_simulation.temperatures:
        yield Fault("learning_curve.cg_simulation.temperatures", "is not for learning curves; leave it out")
    for name, potential in system.potentials.items():
        for field in ("temperatures", "learns"):
            if getattr(potential, field):
                yield Fault("learning_curve", alone.format(f"potentials.{name}.{field}"))


def _times(system: SystemSpec) -> tuple[dict[str, float], dict[str, float]]:
    """Times between frames, and durations, of the CG simulation and the reference data [ps]."""
    intervals = {"cg_simulation.frame_interval": system.cg_simulation.frame_interval}
    durations = {"cg_simulation.duration": system.cg_simulation.duration}
    if system.imported is not None and system.imported.frame_interval is not None:
        intervals["imported.frame_interval"] = system.imported.frame_interval * system.imported.stride
    elif system.sampling.unbiased is not None:
        intervals["sampling.unbiased.frame_interval"] = system.sampling.unbiased.frame_interval
        durations["sampling.unbiased.duration"] = system.sampling.unbiased.duration
    return intervals, durations
