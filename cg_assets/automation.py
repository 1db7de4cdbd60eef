"""Batches and jobs of a system."""

from __future__ import annotations

import dagster as dg

from cg_assets.systems import SystemSpec

FIRST_BATCH = "0000"


def batches_of(system: str) -> dg.DynamicPartitionsDefinition:
    """The partitions of a system: one batch of sampled frames each."""
    return dg.DynamicPartitionsDefinition(name=f"{system}_batches")


def job_name(system: str) -> str:
    """Name of the job that materialises all assets of a system."""
    return f"{system}_job"


def build_jobs(systems: dict[str, SystemSpec]) -> list[dg.UnresolvedAssetJobDefinition]:
    """One job per system, which materialises its whole graph for one batch."""
    return [
        dg.define_asset_job(
            job_name(name),
            selection=dg.AssetSelection.groups(name),
            description=f"Sample one batch of {system.title} and bring everything that depends on it up to date.",
        )
        for name, system in systems.items()
    ]


def register_first_batches(instance: dg.DagsterInstance, systems: dict[str, SystemSpec]) -> None:
    """Give every system its first batch, so that a newcomer's click on "materialise" has one to work on."""
    for name in systems:
        partitions = batches_of(name).name
        if partitions and not instance.get_dynamic_partitions(partitions):
            instance.add_dynamic_partitions(partitions, [FIRST_BATCH])
