"""Carry out stages in this process, without Dagster: what nothing but the stages themselves can keep right."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cg_assets.assets import stages_of
from cg_assets.assets.stage import Stage
from cg_assets.assets.work import Done, Work, carry_out
from cg_assets.orchestration.device import Device
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, load_system


def system_of(text: str) -> SystemSpec:
    """The system of a text, for parameters of tests."""
    with tempfile.TemporaryDirectory() as folder:
        (name,) = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("name:")]
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return load_system(path)


def stage_of(system: SystemSpec, name: str) -> Stage:
    """A stage of a system."""
    return {stage.name: stage for stage in stages_of(system)}[name]


def made_of(system: SystemSpec, name: str) -> list[str]:
    """The stages that are made of a stage, however many steps lie between, parents first."""
    found = [name]
    for stage in stages_of(system):
        if any(read.stage in found for read in stage.reads):
            found.append(stage.name)
    return found[1:]


@contextmanager
def _lease() -> Iterator[Device]:
    yield Device("cpu", "CPU")


def make(home: Path, system: SystemSpec, name: str, batch: str = "0000") -> Done:
    """Carry out a stage as a step of a run does."""
    stage = stage_of(system, name)
    return carry_out(
        Work(
            stage=stage,
            system=system,
            store=ParquetStore(home),
            batch=batch if stage.batched else None,
            run_id="test",
            log=logging.getLogger("test"),
            progress=lambda *_: None,
            open_tracking=lambda: ModelTracking(None, home),
            lease=_lease,
        )
    )
