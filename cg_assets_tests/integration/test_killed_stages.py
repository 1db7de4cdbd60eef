"""Every stage is killed before and after each of its commit steps: nothing partial is read, and nothing is lost.

A commit step is what others can see: a file that takes its name or goes, and what MLflow is told. The process ends
there at once (`os._exit`: no cleaning up), in a home where everything else is finished. Then a refresh plans and what
it asks for is made; the home must be as if nothing had happened.
"""

from __future__ import annotations

import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from plain_runs import make, stage_of, system_of
from small_systems import SMALL_WELLS

from cg_assets.assets import stages_of
from cg_assets.orchestration.refresh import Part, plan_refresh
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.atomic import leftovers
from cg_assets.storage.catalogue import differences, fetched, rebuild
from cg_assets.storage.parquet import verify
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SYSTEM = system_of(SMALL_WELLS)
STAGES = [stage.name for stage in stages_of(SYSTEM)]
QUICK = {"relabelled_forces", "reference"}
OF_MLFLOW = (
    *("create_registered_model", "create_model_version", "set_registered_model_alias", "set_model_version_tag"),
    *("update_model_version", "log_batch", "set_terminated"),
)
KILLED = 9


def watch(home: Path, seen: Callable[[str, bool], None]) -> None:
    """Have a function called before (False) and after (True) each commit step of this process, by the step's name."""
    import mlflow

    def wrapped(function, name_of):
        def step(*arguments, **named):
            name = name_of(*arguments)
            if name:
                seen(name, False)
            result = function(*arguments, **named)
            if name:
                seen(name, True)
            return result

        return step

    def place(path, number=0):
        inside = Path(str(path)).is_absolute() and Path(str(path)).is_relative_to(home)
        return Path(str(path)).name.partition(".writing-")[0] if inside else ""

    os.replace = wrapped(os.replace, lambda old, new, **_: place(new) and f"name {place(new)}")
    os.unlink = wrapped(os.unlink, lambda path, **_: place(path) and f"remove {place(path)}")
    shutil.rmtree = wrapped(shutil.rmtree, lambda path, *_, **__: place(path) and f"remove {place(path)}")
    for method in OF_MLFLOW:
        original = getattr(mlflow.MlflowClient, method)
        setattr(mlflow.MlflowClient, method, wrapped(original, lambda *_, told=method: told))


def forked(work: Callable[[], None], log: Path) -> int:
    """Exit status of a process that does some work."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        log.write_text(traceback.format_exc())
    finally:
        os._exit(status)


class Prepared:
    """The finished home without the file of one stage, to be copied for each kill."""

    def __init__(self, finished: Path, folder: Path, stage: str) -> None:
        self.folder, self.stage = folder, stage
        self.batch = "0000" if stage_of(SYSTEM, stage).batched else None
        self.version = ParquetStore(finished).data_version("small_wells", stage, self.batch)
        self.template = folder / "template"
        for part in ("data", "systems", "mlflow"):
            shutil.copytree(finished / part, self.template / part)
        ParquetStore(self.template).path("small_wells", stage, self.batch).unlink()
        _, client = ModelTracking(None, self.template)._connection.open()
        if stage.startswith("evaluation_"):
            client.delete_registered_model_alias(f"small_wells.{stage.removeprefix('evaluation_')}", "champion")
        self.number = 0

    def copy(self) -> Path:
        self.number += 1
        home = self.folder / f"home{self.number}"
        shutil.copytree(self.template, home)
        os.environ["CG_ASSETS_HOME"] = str(home)
        rebuild(home)
        return home

    def run(self, home: Path, seen: Callable[[str, bool], None]) -> int:
        """Carry the stage out in a process of its own."""

        def work():
            watch(home, seen)
            make(home, load_system("small_wells"), self.stage)

        return forked(work, self.folder / "error.txt")

    def moments(self) -> list[tuple[str, bool, int]]:
        """Before and after the first and the last of the steps of each name."""
        home, told = self.copy(), self.folder / "steps.txt"

        def seen(name, done):
            with told.open("a") as stream:
                stream.write(f"{int(done)} {name}\n")

        status = self.run(home, seen)
        assert status == 0, (self.folder / "error.txt").read_text()
        lines = [line.split(" ", 1) for line in told.read_text().splitlines()]
        times: Counter[tuple[str, bool]] = Counter((name, done == "1") for done, name in lines)
        return sorted({(*step, count) for step, last in times.items() for count in (1, last)})

    def kill(self, name: str, done: bool, count: int) -> Path:
        """A home in which the stage was killed before or after the step of a name was done so many times."""
        home, times = self.copy(), iter(range(1, 10**6))

        def seen(step, after):
            if (step, after) == (name, done) and next(times) == count:
                os._exit(KILLED)

        assert self.run(home, seen) == KILLED, (name, done, count)
        return home


@pytest.fixture
def prepared(request, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("CG_DEVICE", "cpu")
    return Prepared(finished.home, tmp_path, request.param)


def assert_nothing_is_lost(own: Prepared, home: Path) -> None:
    """A refresh makes what is missing and nothing else; then everything is as it was."""
    system, part = load_system("small_wells"), Part(own.stage, own.batch)
    plan = plan_refresh(fetched(home), system, ["0000"])
    if part in plan.reasons:
        ParquetStore(home).remove_leftovers()
        assert own.run(home, lambda name, done: None) == 0, (own.folder / "error.txt").read_text()
    store, tracking = ParquetStore(home), ModelTracking(None, home)
    assert store.data_version("small_wells", own.stage, own.batch) == own.version
    assert plan_refresh(store, system, ["0000"]).added == "0001", "everything is up to date"
    assert differences(home) == []
    kind, _, potential = own.stage.partition("_")
    if kind not in ("potential", "evaluation"):
        return
    facts = store.describe("small_wells", own.stage).metadata.extra
    found = tracking.lookup(f"{facts['registered_model']}/{facts['version']}")
    assert {item.status for item in found.lineage} == {"same"}
    if kind == "potential":
        assert "candidate" in found.aliases
        assert store.file("small_wells", "registered_models", f"{potential}-{facts['version']}").is_file()
    else:
        assert "champion" in found.aliases and "champion_decision" in found.tags


@pytest.mark.parametrize(
    "prepared",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in STAGES],
    indirect=True,
)
def test_killed_at_each_step(prepared):
    moments = prepared.moments()
    assert len(moments) >= 4, "at least its file and the catalogue"
    for moment in moments:
        home = prepared.kill(*moment)
        for path in (home / "data").rglob("part-0.parquet"):
            verify(path)
        assert_nothing_is_lost(prepared, home)
        assert list(leftovers(home / "data")) == []
        shutil.rmtree(home)
    print(f"{prepared.stage}: killed at {len(moments)} moments")
