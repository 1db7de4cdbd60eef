"""The one door for Dagster: all systems that are found. To import it takes time; a run builds its own system only."""

from __future__ import annotations

import dagster as dg

from cg_assets.orchestration.automation import register_first_batches
from cg_assets.orchestration.build import build_definitions
from cg_assets.settings import installation
from cg_assets.systems import load_all_systems


def _load() -> dg.Definitions:
    systems = load_all_systems()
    if installation().dagster_home:
        with dg.DagsterInstance.get() as instance:
            register_first_batches(instance, systems)
    return build_definitions(systems)


defs = _load()
