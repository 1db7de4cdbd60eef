"""The page of an asset with 1,000 batches: it opens in seconds, shows them, and takes one more."""

from __future__ import annotations

import os
import time

import dagster as dg
import numpy as np
import pytest
from conftest import Command
from small_systems import SMALL_WELLS
from test_pages import Browser, Pages, assert_full, needs_browser

from cg_assets.core.frames import Frames
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

BATCHES = 1000
PATIENCE = 10.0
"""Longest that a page may take to show what it is for, on a machine that does nothing else [s]."""

pytestmark = [pytest.mark.slow, needs_browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A home with 1,000 batches of trajectories: files and Dagster's records of them, the first of a real run."""
    own = Command(tmp_path_factory.mktemp("many") / "home")
    own.add_system(SMALL_WELLS)
    done = own("run", "small_wells", "--select", "trajectories")
    assert done.returncode == 0, done.stderr
    store, rng = ParquetStore(own.home), np.random.default_rng(0)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    names = [f"{number:04}" for number in range(1, BATCHES)]
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        instance.add_dynamic_partitions("small_wells_batches", names)
        for number, batch in enumerate(names):
            frames = Frames(
                positions=rng.normal(size=(50, 1, 2)).astype(np.float32),
                forces=rng.normal(size=(50, 1, 2)).astype(np.float32),
                time=np.arange(50.0),
                replica=np.zeros(50, np.int32),
                temperature=np.ones(50),
                start=np.zeros(50, np.int32),
                probe=np.zeros(50, bool),
            )
            file = store.write_frames(
                frames, FileMetadata("small_wells", "trajectories", "reduced", seed=number), batch
            )
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    ["small_wells", "trajectories"],
                    partition=batch,
                    metadata={"frames": len(frames), "content_hash": file.content_hash},
                    tags={"dagster/data_version": file.content_hash},
                )
            )
    return own


@pytest.fixture(scope="module")
def pages(many):
    opened = Pages(many)
    try:
        opened.wait()
        yield opened
    finally:
        opened.stop()


def seconds_until(browser: Browser, url: str, *texts: str) -> float:
    """Open a page and wait until it shows all of these."""
    started = time.monotonic()
    browser.open(url)
    browser.wait_for_text(*texts)
    return time.monotonic() - started


def test_pages_of_an_asset_with_a_thousand_batches(pages, tmp_path_factory, tmp_path):
    """Each page that a person looks at, and a run of one batch more while they are open."""
    browser = Browser(tmp_path_factory.mktemp("browser"))
    try:
        asset = f"{pages.dagster}/assets/small_wells/trajectories"
        seconds_until(browser, f"{pages.dagster}/overview", "Overview")  # the browser's own start
        taken = {
            "partitions": seconds_until(browser, f"{asset}?view=partitions", "0000", "Materialized (1000)"),
            "one batch": seconds_until(browser, f"{asset}?view=partitions&partition=0500", "0500", "content_hash"),
            "events": seconds_until(browser, f"{asset}?view=events", "Partition 0999 materialized", "content_hash"),
            "overview": seconds_until(browser, f"{asset}?view=overview", "content_hash"),
        }
        browser.open(f"{asset}?view=partitions")
        browser.wait_for_text("Materialized (1000)")
        assert_full(browser.screenshot(tmp_path / "many_batches.png"))
        done = pages.own("run", "small_wells", "--batch", "1000", "--select", "trajectories")
        assert done.returncode == 0, done.stderr
        seconds_until(browser, f"{asset}?view=partitions&partition=1000", "Materialized (1001)", "content_hash")
    finally:
        browser.close()
    print("\n" + "\n".join(f"{page}: {seconds:.1f} s" for page, seconds in taken.items()))
    assert max(taken.values()) < PATIENCE, taken
