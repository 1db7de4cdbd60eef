"""Carry out stages in this process, without Dagster, and a system of many kinds of stages that takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import toys.exact_wells  # noqa: F401  (a source that is found by being defined)
from small_systems import SMALL_WELLS

from cg_assets.assets import stages_of
from cg_assets.assets.work import Done, Work, carry_out
from cg_assets.orchestration.device import Device
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import AnySystem

MANY_STAGES = (
    SMALL_WELLS.replace("small_wells", "many_stages")
    .replace("replicas: 256", "replicas: 128")
    .replace("epochs: 20", "epochs: 3")
    .replace("replicas: 200", "replicas: 100")
    .replace(
        "potentials:", "labels: {exact: {type: exact_wells, height: 3.0}}\npotentials:\n  exact: {labels: exact_labels}"
    )
    .replace("max_pmf_error: 0.5", "max_pmf_error: 5.0")
)


@contextmanager
def _lease() -> Iterator[Device]:
    yield Device("cpu", "CPU")


def make(home: Path, system: AnySystem, stage: str, batch: str | None = None) -> Done:
    """Carry out a stage as a step of a run does."""
    stages = {item.name: item for item in stages_of(system)}
    chosen = stages[stage]
    return carry_out(
        Work(
            stage=chosen,
            system=system,
            store=ParquetStore(home),
            batch=batch if chosen.batched else None,
            run_id="test",
            log=logging.getLogger("test"),
            progress=lambda *_: None,
            open_tracking=lambda: ModelTracking(None, home),
            lease=_lease,
        )
    )
