"""The stages of every system: what each reads and makes, and the checks on it. Plain Python, without Dagster.

A module for each stage. `stages_of` is the whole graph of a system.
"""

from __future__ import annotations

from cg_assets.assets.comparison import comparison_stage
from cg_assets.assets.evaluations import evaluation_stage, reference_stage
from cg_assets.assets.forces import forces_stage
from cg_assets.assets.imports import imported_stage
from cg_assets.assets.labels import flow_kernel_stage, labels_stage
from cg_assets.assets.learning_curves import learning_curve_stage
from cg_assets.assets.mean_forces import mean_forces_stage
from cg_assets.assets.next_batch import next_batch_stage
from cg_assets.assets.potentials import potential_stage
from cg_assets.assets.priors import prior_stage
from cg_assets.assets.response_potentials import response_potential_stage
from cg_assets.assets.samples import samples_stage
from cg_assets.assets.simulations import cg_simulation_stage
from cg_assets.assets.stage import Stage
from cg_assets.assets.water import conditional_samples_stage, targets_stage, water_trajectories_stage
from cg_assets.systems import AnySystem, SystemSpec, ThermalSystem


def stages_of(system: AnySystem) -> list[Stage]:
    """Every stage that a system's specification asks for."""
    return _liquid_stages(system) if isinstance(system, ThermalSystem) else _stages(system)


def _liquid_stages(system: ThermalSystem) -> list[Stage]:
    stages = [water_trajectories_stage(system), conditional_samples_stage(system), targets_stage(system)]
    for name in system.potentials:
        stages.append(response_potential_stage(system, name))
        stages.append(cg_simulation_stage(system, name))
        stages.append(evaluation_stage(system, name))
    return [*stages, comparison_stage(system)] if system.potentials else stages


def _stages(system: SystemSpec) -> list[Stage]:
    stages = []
    for labels in system.sampling.by_labels():
        stages += [samples_stage(system, labels), forces_stage(system, labels)]
        bias = system.plan_of(labels).bias
        if bias is not None and bias.adaptive is not None:
            stages.append(next_batch_stage(system, labels, bias.adaptive))
    if system.imported is not None:
        stages.append(imported_stage(system))
    stages += [mean_forces_stage(system, labels) for labels in system.sampling.by_mean_force_labels()]
    for labels, (name, source, frames) in system.by_source_labels().items():
        if (flow := source.own_flow()) is not None:
            stages.append(flow_kernel_stage(system, name, flow, frames))
        stages.append(labels_stage(system, labels))
    stages.append(reference_stage(system))
    for potential in system.potentials:
        if system.network.chain_prior is not None:
            stages.append(prior_stage(system, potential))
        stages.append(potential_stage(system, potential))
        stages.append(cg_simulation_stage(system, potential))
        stages.append(evaluation_stage(system, potential))
        if system.learning_curve is not None:
            stages.append(learning_curve_stage(system, potential))
    return [*stages, comparison_stage(system, list(system.potentials) if system.learning_curve else [])]
