"""`cg-assets ui`: both pages, a materialisation launched from the page, what a browser shows, and the end of it all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request

import matplotlib.image
import numpy as np
import pytest
from conftest import Command, group_members, kill_group, wait_for
from small_systems import SMALL_WELLS

from cg_assets.resources.tracking import ModelTracking

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = bool(os.environ.get("CG_ASSETS_REQUIRE_BROWSER"))

LAUNCH = """
mutation Launch($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
LOCATIONS = """
query { repositoriesOrError { __typename ... on RepositoryConnection { nodes { name location { name } } } } }
"""
RELOAD = (
    "mutation Reload($location: String!) { reloadRepositoryLocation(repositoryLocationName: $location) { __typename } }"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.status, answer.read().decode()


class Pages:
    """A running `cg-assets ui`."""

    def __init__(self, own: Command) -> None:
        self.own = own
        self.ports = free_port(), free_port()
        self.dagster, self.mlflow = (f"http://127.0.0.1:{port}" for port in self.ports)
        ports = ["--port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])]
        self.process = own.start("ui", *ports, DAGSTER_DISABLE_TELEMETRY="yes")
        self.groups: set[int] = {self.process.pid}

    def wait(self) -> None:
        """Wait until the command says that both pages are up."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Dagster"), line + str(self.process.communicate(timeout=60))
        self.groups |= self.servers()

    def servers(self) -> set[int]:
        """Process groups of the two servers: children of the command."""
        found = subprocess.run(["ps", "-e", "-o", "pgid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
        return {group for group, parent in pairs if parent == self.process.pid}

    def graphql(self, query: str, **variables) -> dict:
        """Ask Dagster."""
        request = urllib.request.Request(
            f"{self.dagster}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        assert "errors" not in found, found
        return found["data"]

    def stop(self) -> None:
        """End whatever still runs."""
        for group in self.groups:
            kill_group(group)
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def pages(finished, tmp_path_factory):
    """The pages of a home where `small_wells` was run by the command."""
    own = Command(tmp_path_factory.mktemp("pages") / "home")
    shutil.copytree(finished.home, own.home, symlinks=True)
    opened = Pages(own)
    try:
        opened.wait()
        yield opened
    finally:
        opened.stop()


@pytest.fixture(scope="module")
def launched(pages):
    """The run that materialises one asset for batch 0000, launched as a click on the page would, under the daemon."""
    repositories = pages.graphql(LOCATIONS)["repositoriesOrError"]
    assert repositories["__typename"] == "RepositoryConnection", repositories
    (node,) = repositories["nodes"]
    selector = {
        "repositoryName": node["name"],
        "repositoryLocationName": node["location"]["name"],
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["small_wells", "trajectories"]}],
        "assetCheckSelection": [
            {"assetKey": {"path": ["small_wells", "trajectories"]}, "name": name}
            for name in ("schema", "finite", "kinetic_temperature")
        ],
    }
    tags = [{"key": "dagster/partition", "value": "0000"}]
    parameters = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": tags}}
    answer = pages.graphql(LAUNCH, parameters=parameters)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def test_both_pages_answer(pages):
    assert get(f"{pages.dagster}/server_info")[0] == 200
    status, page = get(pages.mlflow)
    assert status == 200
    assert "MLflow" in page
    own = ModelTracking(pages.mlflow, pages.own.home)
    assert {model["name"] for model in own.models()} == {"small_wells.biased", "small_wells.unbiased"}


def test_an_asset_is_materialised_from_the_page(pages, launched):
    def ended():
        status = pages.graphql(STATUS, run=launched)["runOrError"]["status"]
        return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    assert wait_for(ended, 240.0, "the run that was launched on the page", interval=1.0) == "SUCCESS"


@pytest.mark.skipif(
    not BROWSER and not REQUIRED, reason="no Chromium on this machine; CG_ASSETS_REQUIRE_BROWSER=1 makes this an error"
)
@pytest.mark.parametrize("page", ["asset graph", "asset", "run", "model"])
def test_what_a_browser_shows(pages, launched, page, tmp_path):
    assert BROWSER, "CG_ASSETS_REQUIRE_BROWSER is set, and there is no Chromium"
    run = ModelTracking(None, pages.own.home).lookup("small_wells.biased")["run_id"]
    assert run
    url = {
        "asset graph": f"{pages.dagster}/asset-groups/~group:%22small_wells%22",
        "asset": f"{pages.dagster}/assets/small_wells/comparison?view=overview",
        "run": f"{pages.dagster}/runs/{launched}",
        "model": f"{pages.mlflow}/#/models/small_wells.biased",
    }[page]
    picture = tmp_path / "page.png"
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1500,1100", "--virtual-time-budget=15000"),
        *(f"--screenshot={picture}", url),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, start_new_session=True)
    assert picture.is_file(), done.stderr
    if folder := os.environ.get("CG_ASSETS_SCREENSHOTS"):
        shutil.copyfile(picture, f"{folder}/{page.replace(' ', '_')}.png")
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (1100, 1500)
    colours, counts = np.unique((pixels[:, :, :3] * 255).astype(np.int64) @ [1, 256, 65536], return_counts=True)
    assert len(colours) > 200, "next to nothing is drawn"
    assert counts.max() < 0.97 * counts.sum(), "one colour fills the page"


def test_a_system_that_is_added_appears(pages):
    """A new file is there after "Reload definitions", without a restart."""
    pages.own.add_system(SMALL_WELLS.replace("small_wells", "later_wells"))
    (node,) = pages.graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
    pages.graphql(RELOAD, location=node["location"]["name"])
    nodes = pages.graphql("query { assetNodes { groupName } }")["assetNodes"]
    assert "later_wells" in {node["groupName"] for node in nodes}


def test_ports_that_are_taken_are_refused(pages):
    done = pages.own("ui", "--port", str(pages.ports[0]), "--mlflow-port", str(free_port()))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cg-assets: --port {pages.ports[0]} is taken; choose another\n"


def test_interrupt_stops_both_servers(pages):
    assert len(pages.groups) == 3
    pages.process.send_signal(signal.SIGINT)
    output, errors = pages.process.communicate(timeout=90)
    assert pages.process.returncode == 0, errors
    assert "stopping" in output
    assert [process for group in pages.groups for process in group_members(group)] == []
    for port in pages.ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
