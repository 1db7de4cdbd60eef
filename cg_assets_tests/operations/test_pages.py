"""`cg-assets ui`: both pages, a materialisation launched from the page, what a browser shows, and the end of it all."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import Command, free_port, group_members, kill_group, wait_for
from small_systems import SMALL_WELLS
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cg_assets.registry.tracking import ModelTracking

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

needs_browser = pytest.mark.skipif(
    not BROWSER and not REQUIRED, reason="no Chromium on this machine; CG_ASSETS_REQUIRE_BROWSER=1 makes this an error"
)


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
    assert {model.name for model in own.models()} == {"small_wells.biased", "small_wells.unbiased"}


def test_only_this_machine_reaches_the_pages(pages):
    """Nothing of the two servers listens anywhere but on loopback (Linux' table of TCP sockets, state 0A)."""
    listening = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and int(port, 16) in pages.ports:
                listening.append(address == loopback)
    assert len(listening) >= 2 and all(listening)


QUERY = "{__typename}"
AS_JSON = {"Content_Type": "application/json"}
HARMLESS = json.dumps({"query": QUERY}).encode()


def status_of(url: str, body: bytes | None = None, **headers: str) -> int:
    """The status of an answer to a request with some headers; names with _ for -."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_pages_of_others_can_ask_nothing(pages):
    """Host, Origin and type of content, as a browser sends them for a page of another site; the query is harmless."""
    graphql, own = f"{pages.dagster}/graphql", f"localhost:{pages.ports[0]}"
    assert status_of(graphql, HARMLESS, **AS_JSON) == 200
    assert status_of(graphql, HARMLESS, **AS_JSON, Host=own, Origin=f"http://{own}") == 200
    assert status_of(graphql, HARMLESS, **AS_JSON, Host="elsewhere.example") == 403
    for origin in ("http://elsewhere.example", "null", f"http://127.0.0.1:{pages.ports[1]}", f"http://{own}.example"):
        assert status_of(graphql, HARMLESS, **AS_JSON, Origin=origin) == 403
    asked = f"{graphql}?query={QUERY}"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/graphql"):
        assert status_of(asked, QUERY.encode(), Content_Type=kind) == 403
    assert status_of(asked) == 403
    assert status_of(graphql, Accept="text/html") == 200, "the page for trying queries"
    assert status_of(asked, Accept="text/html", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 403
    assert status_of(pages.dagster, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200, "a link"
    assert status_of(f"{pages.dagster}/server_info", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403


def test_pages_of_others_reach_no_models(pages):
    search = f"{pages.mlflow}/api/2.0/mlflow/experiments/search"
    body = b'{"max_results": 1}'
    assert status_of(search, body, **AS_JSON) == 200
    for host in ("elsewhere.example", "10.elsewhere.example"):
        assert status_of(search, body, **AS_JSON, Host=host) == 403
    assert status_of(search, body, **AS_JSON, Origin="http://elsewhere.example") == 403


def test_the_page_is_told_what_happens(pages):
    """Its WebSocket is open to itself, and closed to pages of others."""
    socket_url, own = f"{pages.dagster.replace('http', 'ws')}/graphql", f"http://127.0.0.1:{pages.ports[0]}"
    for origin in (own, None):
        with connect(socket_url, origin=origin, subprotocols=["graphql-ws"], open_timeout=20) as opened:
            opened.send(json.dumps({"type": "connection_init"}))
            assert json.loads(opened.recv(timeout=20))["type"] == "connection_ack"
    with pytest.raises(InvalidStatus, match="403"):
        connect(socket_url, origin="http://elsewhere.example", subprotocols=["graphql-ws"], open_timeout=20)


def test_an_asset_is_materialised_from_the_page(pages, launched):
    def ended():
        status = pages.graphql(STATUS, run=launched)["runOrError"]["status"]
        return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

    assert wait_for(ended, 240.0, "the run that was launched on the page", interval=1.0) == "SUCCESS"


class Browser:
    """Headless Chromium, driven through its own debugging protocol."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER, "CG_ASSETS_REQUIRE_BROWSER is set, and there is no Chromium"
        command = [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={folder}", "--window-size=1500,1100", "--remote-debugging-port=0", "about:blank"),
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        address = folder / "DevToolsActivePort"
        wait_for(lambda: address.is_file() and "\n" in address.read_text(), 60.0, "the start of Chromium")
        port = address.read_text().splitlines()[0]
        tabs = json.loads(get(f"http://127.0.0.1:{port}/json/list")[1])
        (tab,) = [tab for tab in tabs if tab["type"] == "page"]
        self.opened = ExitStack()
        self.socket = self.opened.enter_context(connect(tab["webSocketDebuggerUrl"], max_size=None, open_timeout=30))
        self.sent = 0

    def call(self, method: str, **parameters) -> dict:
        """One request and its answer; events in between are passed over."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]

    def value_of(self, expression: str):
        """The value of a piece of JavaScript on the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def wait_for_text(self, *texts: str) -> None:
        """Wait until the page shows all of these."""
        wanted = json.dumps(texts)
        shown = f"{wanted}.every(text => document.body && document.body.innerText.includes(text))"
        wait_for(lambda: self.value_of(shown), 60.0, f"{texts} on the page", interval=0.3)

    def screenshot(self, path: Path) -> np.ndarray:
        """The page as pixels, also written to a PNG file."""
        time.sleep(1.0)  # animations
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        if folder := os.environ.get("CG_ASSETS_SCREENSHOTS"):
            shutil.copyfile(path, Path(folder) / path.name)
        return matplotlib.image.imread(path)[:, :, :3]

    def close(self) -> None:
        """End the browser and its helpers."""
        self.opened.close()
        kill_group(self.process.pid)
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def assert_full(pixels: np.ndarray) -> None:
    """A page with something on it."""
    assert min(pixels.shape[:2]) >= 900
    colours, counts = np.unique((pixels * 255).astype(np.int64) @ [1, 256, 65536], return_counts=True)
    assert len(colours) > 200, "next to nothing is drawn"
    assert counts.max() < 0.97 * counts.sum(), "one colour fills the page"


def location_of(pages: Pages) -> str:
    (node,) = pages.graphql(LOCATIONS)["repositoriesOrError"]["nodes"]
    return f"{node['name']}@{node['location']['name']}"


@needs_browser
def test_picture_of_the_asset_graph(pages, browser, tmp_path):
    browser.open(f"{pages.dagster}/locations/{location_of(pages)}/asset-groups/small_wells")
    # longer names are cut at the scale at which the whole graph fits
    browser.wait_for_text("trajectories", "relabelled_forces", "potential_biased", "reference", "comparison")
    assert_full(browser.screenshot(tmp_path / "asset_graph.png"))


@needs_browser
@pytest.mark.parametrize("stage", ["comparison", "biased_samples"])
def test_picture_of_an_asset_with_its_figure(pages, browser, stage, tmp_path):
    """The figure of an asset is shown at once."""
    partition = "&partition=0000" if stage == "biased_samples" else ""
    browser.open(f"{pages.dagster}/assets/small_wells/{stage}?view=events{partition}")
    browser.wait_for_text("figure", "content_hash")
    picture = f"(document.querySelector('img[src^=\"/files/figures/small_wells/{stage}/\"]') || {{}}).naturalWidth"
    assert wait_for(lambda: browser.value_of(picture), 30.0, "the figure", interval=0.3) > 300
    assert_full(browser.screenshot(tmp_path / f"asset_{stage}.png"))


@needs_browser
def test_the_page_of_a_job_links_to_the_report(pages, browser):
    browser.open(f"{pages.dagster}/locations/{location_of(pages)}/jobs/small_wells_job")
    browser.wait_for_text("/files/reports/small_wells.html")
    assert "Two wells, small" in get(browser.value_of("document.querySelector('a[href^=\"/files/\"]').href"))[1]


@needs_browser
def test_picture_of_the_run(pages, browser, launched, tmp_path):
    browser.open(f"{pages.dagster}/runs/{launched}")
    browser.wait_for_text("Success", "small_wells__trajectories", "RUN_SUCCESS")
    assert_full(browser.screenshot(tmp_path / "run.png"))


@needs_browser
def test_picture_of_the_model_with_its_alias(pages, browser, tmp_path):
    browser.open(f"{pages.mlflow}/#/models/small_wells.biased")
    browser.wait_for_text("small_wells.biased", "Version 1", "champion", "candidate")
    assert_full(browser.screenshot(tmp_path / "model.png"))


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


def test_a_home_has_one_daemon(pages):
    """Two would evaluate each tick of a schedule twice."""
    other = ["--port", str(free_port()), "--mlflow-port", str(free_port())]
    done = pages.own("ui", *other)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"its daemon, which is in cg-assets ui, is in use by process {pages.process.pid}" in done.stderr


def test_closing_the_terminal_stops_everything(tmp_path):
    """Nobody reads what the command prints by then. Tests that run under nohup would hand on that SIGHUP is ignored."""
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        own = Pages(Command(tmp_path / "home"))
    finally:
        signal.signal(signal.SIGHUP, inherited)
    try:
        own.wait()
        own.process.stdout.close()
        own.process.stderr.close()
        own.process.send_signal(signal.SIGHUP)
        own.process.wait(timeout=90)
        assert [process for group in own.groups for process in group_members(group)] == []
    finally:
        for group in own.groups:
            kill_group(group)


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
