"""The asset graph, one module per stage: read, call one science function, write, report metadata."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from cg_assets.assets.comparison import build_comparison
from cg_assets.assets.evaluations import build_evaluation, build_reference
from cg_assets.assets.forces import build_forces
from cg_assets.assets.imports import build_imported
from cg_assets.assets.kernels import build_flow_kernel, build_kernel_forces
from cg_assets.assets.learning_curves import build_learning_curve
from cg_assets.assets.liquids import build_liquid_comparison, build_liquid_evaluation, build_liquid_simulation
from cg_assets.assets.mean_forces import build_mean_forces
from cg_assets.assets.next_batch import build_next_batch_plan
from cg_assets.assets.potentials import build_potential
from cg_assets.assets.priors import build_prior
from cg_assets.assets.response_potentials import build_response_potential
from cg_assets.assets.samples import build_samples
from cg_assets.assets.simulations import build_cg_simulation
from cg_assets.assets.water import build_conditional_samples, build_targets, build_water_trajectories
from cg_assets.biases.settings import AdaptiveBias
from cg_assets.labels.settings import FlowKernel
from cg_assets.orchestration.automation import when_data_changed
from cg_assets.systems import AnySystem, ThermalSystem


def build_assets(systems: Mapping[str, AnySystem]) -> list[dg.AssetsDefinition]:
    """The graph of every system, as its specification asks for."""
    assets: list[dg.AssetsDefinition] = []
    for system in systems.values():
        if isinstance(system, ThermalSystem):
            assets += [build_water_trajectories(system), build_conditional_samples(system), build_targets(system)]
            for name in system.potentials:
                assets += [
                    build_response_potential(system, name),
                    build_liquid_simulation(system, name),
                    build_liquid_evaluation(system, name),
                ]
            if system.potentials:
                assets.append(build_liquid_comparison(system))
            continue
        for labels in system.sampling.by_labels():
            assets += [build_samples(system, labels), build_forces(system, labels)]
            if isinstance(system.plan_of(labels).bias, AdaptiveBias):
                assets.append(build_next_batch_plan(system, labels))
        if system.imported is not None:
            assets.append(build_imported(system))
        assets += [build_mean_forces(system, labels) for labels in system.sampling.by_mean_force_labels()]
        for labels, (name, kernel, _) in system.by_kernel_labels().items():
            if isinstance(kernel, FlowKernel) and kernel.flow is None:
                assets.append(build_flow_kernel(system, name))
            assets.append(build_kernel_forces(system, labels))
        assets.append(build_reference(system))
        for potential in system.potentials:
            if system.prior is not None:
                assets.append(build_prior(system, potential))
            assets += [
                build_potential(system, potential),
                build_cg_simulation(system, potential),
                build_evaluation(system, potential),
            ]
            if system.learning_curve is not None:
                assets.append(build_learning_curve(system, potential))
        assets.append(build_comparison(system))
    return [asset.map_asset_specs(_automated) for asset in assets]


def _automated(spec: dg.AssetSpec) -> dg.AssetSpec:
    """What is made of other data can be made anew by itself when they change, where the sensor is switched on."""
    return spec.replace_attributes(automation_condition=when_data_changed()) if spec.deps else spec
