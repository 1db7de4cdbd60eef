"""The stages of every system: what each reads and makes, and the checks on it. Plain Python, without Dagster.

A module for each stage. `stages_of` is the whole graph of a system.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from cg_assets.assets.report import report_stage
from cg_assets.assets.response_potentials import response_potential_stage
from cg_assets.assets.samples import samples_stage
from cg_assets.assets.simulations import cg_simulation_stage
from cg_assets.assets.stage import Stage
from cg_assets.assets.thermal_response import conditional_samples_stage, targets_stage
from cg_assets.systems import SystemSpec


def stages_of(system: SystemSpec) -> list[Stage]:
    """Every stage that a system's specification asks for."""
    stages = []
    for labels, sampled in system.sampling.by_labels().items():
        stages.append(samples_stage(system, sampled))
        if not system.model.is_liquid:  # whose samples hold beads already
            stages.append(forces_stage(system, labels))
        bias = sampled.plan.bias
        if bias is not None and bias.adaptive is not None:
            stages.append(next_batch_stage(system, sampled, bias.adaptive))
    if system.imported is not None:
        stages.append(imported_stage(system, system.imported))
        if system.imported.labels is not None:
            stages.append(forces_stage(system, system.imported.labels))
    stages += [mean_forces_stage(system, labels) for labels in system.sampling.by_mean_force_labels()]
    if system.sampling.conditional is not None and system.targets is not None:
        stages.append(conditional_samples_stage(system, system.sampling.conditional, system.targets.max_disagreement))
        stages.append(targets_stage(system, system.targets))
    for labels, made in system.by_source_labels().items():
        if (flow := made.source.own_flow()) is not None:
            stages.append(flow_kernel_stage(system, made.name, flow, made.frames))
        stages.append(labels_stage(system, labels))
    if system.reference_stage is not None:
        stages.append(reference_stage(system))
    stages += [stage for name in system.potentials for stage in _potential_stages(system, name)]
    curves = list(system.potentials) if system.learning_curve else []
    return [*stages, comparison_stage(system, curves), report_stage(system)] if system.potentials else stages


def _potential_stages(system: SystemSpec, name: str) -> Iterator[Stage]:
    """Those of one potential, from its training to its evaluation."""
    response = system.potentials[name].response
    if response is not None:
        yield response_potential_stage(system, name, response)
    else:
        if system.network.chain_prior is not None:
            yield prior_stage(system, name)
        yield potential_stage(system, name)
    yield cg_simulation_stage(system, name)
    yield evaluation_stage(system, name)
    if system.learning_curve is not None:
        yield learning_curve_stage(system, name)
