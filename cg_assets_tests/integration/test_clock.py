"""A clock that was more than a year ahead for one refresh: the next ones, and the doctor, work as ever."""

from __future__ import annotations

import shutil

import dagster as dg
import pytest
from conftest import Command
from test_refresh import TINY

from cg_assets.storage.catalogue import query
from cg_assets.storage.store import ParquetStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("faketime") is None, reason="`faketime` is not installed (Debian: faketime)"),
]


class AheadOfTime(Command):
    """The command, for which it is 400 days later."""

    def line(self, *arguments):
        return ["faketime", "-f", "+400d", *super().line(*arguments)]


def test_a_clock_that_was_ahead(home):
    own, ahead = Command(home), AheadOfTime(home)
    own.add_system(TINY)
    for number, command in enumerate((own, ahead, own)):
        done = command("refresh", "tiny_wells", CG_EXECUTOR="in_process", timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"tiny_wells.unbiased version {number + 1} is" in done.stdout
    store = ParquetStore(home)
    assert store.batches("tiny_wells", "trajectories") == ["0000", "0001", "0002"]
    written = [store.describe("tiny_wells", "trajectories", batch).written_at for batch in ("0000", "0001", "0002")]
    assert sorted(written)[-1] == written[1], "the second was written in the future"
    learned = store.describe("tiny_wells", "potential_unbiased").metadata.upstream_data_versions
    assert len(learned) == 3
    rows = query(home, "select batch from lineage where stage = 'trajectories' order by written_at").to_pylist()
    assert [row["batch"] for row in rows] == ["0000", "0002", "0001"]
    done = own("doctor", timeout=600)
    assert done.returncode == 0, done.stdout
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
