"""Gather assets, checks, jobs, resources and the executor of systems."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.automation import build_jobs, build_schedules, build_sensors
from cg_assets.orchestration.console import progress_logger
from cg_assets.orchestration.executors import build_executor
from cg_assets.orchestration.resources import build_resources
from cg_assets.systems import SystemSpec, load_all_systems


def build_definitions(
    systems: Mapping[str, SystemSpec] | None = None,
    resources: dict[str, object] | None = None,
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Everything that Dagster loads.

    Args:
        systems: systems by name; all that can be found where None.
        resources: replace the default resources of the same names.
        executor: replaces the one that `CG_EXECUTOR` names.

    Raises:
        SystemSpecError: a system's file is wrong.
    """
    systems = load_all_systems() if systems is None else systems
    return dg.Definitions(
        assets=build_assets(systems),
        jobs=build_jobs(systems),
        schedules=build_schedules(systems),
        sensors=build_sensors(systems),
        resources=build_resources() | (resources or {}),
        executor=executor or build_executor(),
        loggers={"console": progress_logger},
    )
