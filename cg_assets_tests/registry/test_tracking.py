"""MLflow: runs, registered models that need no cg_assets, champions, lineage, and stores that do not answer."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
import torch
import toys.springs  # noqa: F401  (a potential that is found by being defined)
from conftest import free_port

import cg_assets
from cg_assets.core.errors import TrackingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.registry.champions import Judgement
from cg_assets.registry.model_lineage import file_key, trace
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.parquet import describe
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore

PNG = b"\x89PNG\r\n\x1a\n"
REPOSITORY = str(Path(cg_assets.__file__).parents[1])


def environment(**more) -> dict[str, str]:
    """An environment in which cg_assets cannot be imported."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR", "LANG")}
    return kept | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | more


def save_model(folder: Path, constant: float = 2.0, n_beads: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"type": "toy_springs", "bead_types": [0] * n_beads}))
    torch.save({"constant": torch.tensor(constant)}, folder / "weights.pt")
    return folder


def make_data(home: Path) -> list[Path]:
    """Two batches of mapped forces, each from a batch of trajectories."""
    store = ParquetStore(home)
    frames = Frames(
        positions=np.zeros((4, 3, 3), np.float32),
        time=np.arange(4.0),
        replica=np.zeros(4, np.int32),
        temperature=np.ones(4),
        start=np.zeros(4, np.int32),
        probe=np.zeros(4, bool),
    )
    paths = []
    for batch in ("0000", "0001"):
        store.write_frames(frames, FileMetadata("toy", "trajectories", "reduced", seed=1), batch)
        upstream = store.upstream(f"toy/trajectories/{batch}")
        metadata = FileMetadata("toy", "mapped_forces", "reduced", upstream_data_versions=upstream)
        paths.append(store.write_frames(frames, metadata, batch).path)
    return paths


def train(tracking: ModelTracking, folder: Path, name="toy.pair", constant=2.0, datasets=(), n_beads=3, after=0) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    tags = {"dagster_run_id": "run-1", "asset_key": "toy/potential_pair", "batches": ["0000", "0001"]}
    params = {"epochs": 2, "network": {"features": 8}, "nothing": None}
    with tracking.start_training_run("toy", "pair", tags, params, list(map(describe, datasets))):
        for epoch in range(2):
            tracking.log_epoch({"training_loss": 1.0 / (epoch + 1), "noise_floor": np.float32(0.25)}, epoch)
        tracking.log_figure(PNG, "loss curve")
        tracking.log_spec("name: toy\n")
        return tracking.register(
            save_model(folder / "model", constant, n_beads),
            name,
            np.zeros((1, n_beads, 3), np.float32),
            {**tags, "code_version": "1"},
            {"units": "reduced"},
            after=after,
        )


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A home with the default store, data and one registered version; made in an empty working directory."""
    home = tmp_path_factory.mktemp("home")
    before = os.getcwd()
    empty = tmp_path_factory.mktemp("empty")
    os.chdir(empty)
    try:
        tracking = ModelTracking(None, home)
        version = train(tracking, tmp_path_factory.mktemp("trained"), datasets=make_data(home))
        assert list(empty.iterdir()) == []
    finally:
        os.chdir(before)
    assert version == "1"
    return tracking


PREDICT = """
import sys
sys.modules["cg_assets"] = None  # where it is installed, it cannot be imported either
try:
    import cg_assets
except ModuleNotFoundError:
    print("cg_assets is not here")
import mlflow, numpy as np
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model({model!r})
for dtype in (np.float32, np.float64):
    positions = np.arange(5 * 9, dtype=dtype).reshape(5, 3, 3) / 10
    answer = model.predict({{"positions": positions}})
    np.testing.assert_allclose(answer["energy"], {constant} * 0.5 * (positions**2).sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(answer["forces"], -{constant} * positions, rtol=1e-5)
    assert answer["forces"].shape == (5, 3, 3) and answer["energy"].dtype == np.float32
hot = model.predict({{"positions": positions, "temperature": np.full(5, 2.0), "box": np.ones((5, 3))}})
np.testing.assert_allclose(hot["energy"], 2 * answer["energy"] + 3, rtol=1e-5)
single = model.predict({{"positions": positions[:1].tolist(), "temperature": 2.0}})
np.testing.assert_allclose(single["energy"], 2 * answer["energy"][:1], rtol=1e-5)
assert model.predict({{"positions": positions[:0]}})["forces"].shape == (0, 3, 3)
for wrong in ({{"positions": np.zeros((5, 4, 3))}}, {{"positions": np.zeros((5, 9))}}, {{}}, {{"position": positions}},
              {{"positions": positions, "box": np.ones(2)}}, {{"positions": positions * np.nan}}):
    try:
        model.predict(wrong)
    except Exception as error:
        print(type(error).__name__, str(error)[:150])
    else:
        raise SystemExit(f"accepted {{wrong}}")
assert not any(name.startswith("cg_assets.") for name in sys.modules)
print("done")
"""


def predict_elsewhere(folder: Path, uri: str, model: str, constant: float = 2.0) -> str:
    code = PREDICT.format(uri=uri, model=model, constant=constant)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=folder,
        env=environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cg_assets is not here\n"), done.stdout
    assert done.stdout.endswith("done\n")
    return done.stdout


def test_model_runs_without_cg_assets(local, tmp_path):
    output = predict_elsewhere(tmp_path, local.uri, "models:/toy.pair@candidate")
    assert "(5, 4, 3); this model has 3 beads in 3 dimension(s), so they must be (n_frames, 3, 3)" in output
    assert "box has shape (2,)" in output
    assert list(tmp_path.iterdir()) == []


SAVE_PREDICTION = """
import sys, warnings
import mlflow.pyfunc, numpy as np
warnings.simplefilter("error", UserWarning)
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/toy.network/1")
answer = model.predict({{"positions": np.load({given!r})}})
np.savez({found!r}, **answer)
assert not any(name.startswith("cg_assets.") for name in sys.modules)
"""


def test_the_projects_own_networks(local, tmp_path):
    """The networks of this project, shipped with the model, give elsewhere what they give here."""
    from cg_assets.potentials.settings import build_potential

    config = {"type": "message_passing", "bead_types": [0, 1, 0, 2], "features": 8, "interactions": 1}
    config |= {"basis_functions": 6, "cutoff": None, "thermal_energy": 2.5}
    module = build_potential(config)
    positions = np.random.default_rng(0).normal(size=(7, 4, 3)).astype(np.float32)
    energy, forces = module.energy_and_forces(torch.as_tensor(positions))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    torch.save(module.state_dict(), tmp_path / "model" / "weights.pt")
    with local.start_training_run("toy", "network", {}, {}, []):
        local.register(tmp_path / "model", "toy.network", positions, {})
    np.save(tmp_path / "given.npy", positions)
    code = SAVE_PREDICTION.format(uri=local.uri, given=str(tmp_path / "given.npy"), found=str(tmp_path / "found.npz"))
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, env=environment(), check=True)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["energy"], energy.detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["forces"], forces.detach(), rtol=1e-4, atol=1e-5)


def test_no_pickle_and_few_requirements(local):
    artifacts = local.home / "mlflow" / "artifacts"
    names = [path.name for path in artifacts.rglob("*") if path.is_file()]
    assert "weights.pt" in names
    assert not [name for name in names if name.endswith(".pkl")]
    requirements = next(artifacts.rglob("requirements.txt"))
    packages = {line.split(">")[0].split("=")[0].split("<")[0] for line in requirements.read_text().split()}
    assert packages == {"mlflow", "torch", "numpy"}
    assert list(artifacts.rglob("code/cg_networks_*/potentials/base.py"))


@pytest.mark.slow
def test_more_batches_than_mlflow_takes_at_once(tmp_path):
    """It takes 1,000 data sets in a request and 8,000 characters in a tag."""
    first, _ = make_data(tmp_path)
    for number in range(2, 1100):
        path = first.parents[1] / f"{number:04}" / first.name
        path.parent.mkdir()
        os.link(first, path)
    store, tracking = ParquetStore(tmp_path), ModelTracking(None, tmp_path)
    files = store.files("toy", "mapped_forces")
    versions = {f"toy/mapped_forces/{number:04}": "0" * 32 for number in range(1100)}
    tags = {"batches": store.batches("toy", "mapped_forces"), "upstream_data_versions": versions}
    infos = [replace(describe(first), path=path) for path in files]
    with tracking.start_training_run("toy", "pair", tags, {}, infos) as run_id:
        pass
    _, client = tracking._connection.open()
    run = client.get_run(run_id)
    assert len(run.inputs.dataset_inputs) == 1100
    for name, value in tags.items():
        told = json.loads(run.data.tags[name])
        assert told == {"entries": 1100, "sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest()}


def test_a_driver_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)  # as if the extra were not installed
    with pytest.raises(TrackingError, match=r"u:\*\*\*@.*driver psycopg2 .*is missing; pip install .*postgres"):
        ModelTracking("postgresql://u:hidden@127.0.0.1:9/models", tmp_path).models()


def test_models_of_the_default_database_are_those_that_mlflow_finds(local, tmp_path):
    """They are read without MLflow: deleted versions and models are gone, and aliases of them stay."""
    shutil.copytree(local.home / "mlflow", tmp_path / "mlflow")
    own = ModelTracking(None, tmp_path)
    asked = ModelTracking(f"sqlite:///{tmp_path}/mlflow/mlflow.db", tmp_path)
    _, client = own._connection.open()
    for number in range(1, 12):
        client.create_registered_model("toy.other") if number == 1 else None
        client.create_model_version("toy.other", tmp_path.as_uri(), tags={"number": f"{number}", "empty": ""})
    client.set_registered_model_alias("toy.other", "champion", "11")
    client.set_registered_model_alias("toy.other", "candidate", "3")
    client.delete_model_version("toy.other", "3")
    client.create_registered_model("toy.without_versions")
    client.create_registered_model("toy.deleted")
    client.delete_registered_model("toy.deleted")
    models = own.models()
    assert models == asked.models()
    found = {model.name: model for model in models}
    assert {"toy.other", "toy.pair", "toy.without_versions"} <= set(found)
    assert "toy.deleted" not in found
    other = found["toy.other"]
    assert other.latest_version == "11" and "3" not in other.versions
    assert other.versions["11"] == {"number": "11", "empty": ""}
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db: cannot be read: .*; copy the database back from a backup"):
        own.models()


def test_a_locked_database_is_waited_for_not_restored(tmp_path):
    """The remedy of a lock, of MLflow and of our own reading, is no backup and no permission."""
    tracking = ModelTracking(None, tmp_path)
    tracking._connection.open()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/mlflow/mlflow.db?timeout=0.01")
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as writer:
        writer.execute("begin exclusive")
        refused = pytest.raises(TrackingError, match=r"database is locked.*; wait for the other process")
        with refused, tracking._connection.explained(), engine.connect() as connection:
            connection.exec_driver_sql("select * from experiments")
    engine.dispose()


def test_lookup_leads_back_to_every_file(local):
    model = next(item for item in local.models() if item.name == "toy.pair")
    assert (model.latest_version, model.aliases) == ("1", {"candidate": "1"})
    found = local.lookup("toy.pair@candidate", check_content=True)
    assert found.uri == "models:/toy.pair/1"
    assert found.metrics == {"training_loss": 0.5, "noise_floor": 0.25}
    assert found.params.items() >= {"epochs": "2", "network.features": "8"}.items()
    assert "nothing" not in found.params
    assert found.tags["dagster_run_id"] == "run-1"
    assert json.loads(found.tags["batches"]) == ["0000", "0001"]
    assert found.run_tags["asset_key"] == "toy/potential_pair"
    store = ParquetStore(local.home)
    expected = [
        (f"toy/{stage}/{batch}", child, store.data_version("toy", stage, batch), "same")
        for stage, child in (("mapped_forces", "toy.pair"), ("trajectories", None))
        for batch, child in (("0000", child or "toy/mapped_forces/0000"), ("0001", child or "toy/mapped_forces/0001"))
    ]
    got = [(item.data, item.child, item.content_hash, item.status) for item in found.lineage]
    assert sorted(got) == sorted(expected)
    assert found.lineage[0].file == "data/toy/mapped_forces/0000/part-0.parquet"


def test_lookup_notices_changed_missing_and_damaged_files(local):
    store = ParquetStore(local.home)
    paths = [store.path("toy", stage, "0000") for stage in ("mapped_forces", "trajectories")]
    contents = [path.read_bytes() for path in paths]

    def statuses():
        lineage = local.lookup("toy.pair/1", check_content=True).lineage
        return {item.data: item.status for item in lineage}

    try:
        paths[1].unlink()
        assert statuses()["toy/trajectories/0000"] == "missing"
        store.write_table({"number": [1.0]}, FileMetadata("toy", "trajectories", "reduced"), "0000")
        assert statuses()["toy/trajectories/0000"] == "changed"
        paths[1].write_bytes(contents[0])
        assert statuses()["toy/trajectories/0000"] == "damaged", "another file lies at its place"
        paths[0].write_bytes(contents[0][:-5])
        assert statuses()["toy/mapped_forces/0000"] == "damaged"
        assert statuses()["toy/trajectories/0001"] == "same"
    finally:
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)


def test_lookup_finds_files_whose_folders_were_renamed(tmp_path):
    home = tmp_path / "home"
    paths = make_data(home)
    datasets = []
    for path in paths:
        older = path.parent.rename(path.parent.with_name(f"batch={path.parent.name}"))
        info = describe(older / path.name)
        datasets.append((*file_key(home, info), info.content_hash))
    assert datasets[0][1] == "data/toy/mapped_forces/batch=0000/part-0.parquet"
    before = trace(home, "toy.pair", datasets)
    assert ParquetStore(home).rename_older_folders() == (
        [path.parent.with_name(f"batch={path.parent.name}") for path in paths],
        [],
    )
    after = trace(home, "toy.pair", datasets, check_content=True)
    assert [(item.data, item.content_hash, item.status) for item in after] == [
        (item.data, item.content_hash, "same") for item in before
    ]
    assert [item.file for item in after][:2] == [str(path.relative_to(home)) for path in paths]
    paths[0].unlink()
    assert trace(home, "toy.pair", datasets)[0].status == "missing"
    elsewhere = [("toy/mapped_forces/0001", str(tmp_path / "other" / "part-0.parquet"), datasets[1][2])]
    assert trace(home, "toy.pair", elsewhere)[0].status == "missing", "a file of another home is that one alone"


def test_lookup_says_what_there_is(local):
    for reference, message in {
        "toy.none": "no model 'toy.none'.*toy.pair",
        "toy.pair@best": "no alias best; its aliases are: candidate",
        "toy.pair/77": "no version 77",
        "a/b/c": "write <name>, <name>@<alias>",
    }.items():
        with pytest.raises(TrackingError, match=message):
            local.lookup(reference)


def test_a_failed_training_is_marked_failed(local, tmp_path):
    import mlflow

    with pytest.raises(KeyError, match="oh"), local.start_training_run("toy", "pair", {}, {}, []) as run_id:
        raise KeyError("oh")
    assert mlflow.get_run(run_id).info.status == "FAILED"
    with pytest.raises(TrackingError, match="no training run is open"):
        local.log_epoch({}, 0)
    with (
        pytest.raises(TrackingError, match=r"no file .*config\.json"),
        local.start_training_run("toy", "pair", {}, {}, []),
    ):
        local.register(tmp_path, "toy.pair", np.zeros((1, 3, 3)), {})


def judged(error, noise=0.0, reference="ref", fault=""):
    """A version whose PMF error is this."""
    return Judgement({"pmf_error": error, "jsd": 0.1}, {"pmf_error": Estimate(error, noise)}, reference, fault)


def test_champion_moves_only_for_the_better(local, tmp_path):
    name = "toy.champion"
    versions = [train(local, tmp_path / str(number), name) for number in range(4)]
    assert versions == ["1", "2", "3", "4"]
    assert local.lookup(name).version == "4"  # the newest candidate while there is no champion

    def decide(version, error, fault="", reference="ref", noise=0.0, **more):
        return local.decide_champion(name, version, judged(error, noise, reference, fault), **more)

    first = decide("1", 0.5, fault="its evaluation failed native")
    assert (first.promoted, first.champion, first.reason) == (False, None, "its evaluation failed native")
    assert decide("1", 0.5, noise=0.1).promoted
    worse = decide("2", 0.7, noise=0.1)
    assert (worse.promoted, worse.champion) == (False, "1")
    assert worse.reason.startswith("worse or too uncertain: pmf_error 0.70 ± 0.10 against 0.50 ± 0.10 of version 1: ")
    assert decide("2", 0.6, noise=0.1).promoted
    assert not decide("3", 0.1, fault="its evaluation failed native").promoted
    assert not decide("3", float("nan")).promoted
    other = decide("3", 0.1, reference="other")
    assert (other.promoted, other.rejudge) == (False, ("2", "1"))
    assert "judge it there" in other.reason
    assert not decide("3", 0.1, reference="other", earlier=dict.fromkeys("12", judged(0.05, 0.0, "other"))).promoted
    lost = judged(math.inf, math.nan, "other")
    assert decide("3", 0.1, reference="other", earlier={"1": lost, "2": judged(0.3, 0.0, "other")}).promoted
    assert decide("3", 0.1, reference="other").reason == "it is already the champion"
    champion = local.lookup(f"{name}@champion")
    assert champion.version == "3"
    assert champion.tags["evaluation.reference_hash"] == "other"
    reason = json.loads(champion.tags["champion_decision"])["reason"]
    assert reason == "not worse: pmf_error 0.1 against 0.3 of version 2"
    _, client = local._connection.open()
    told = [client.get_model_version(name, version).description for version in ("1", "2", "3")]
    assert told[0] == "became champion: it passed its checks and there was no champion"
    assert told[2] == f"became champion: {reason}"
    beaten = local.lookup(f"{name}/2")
    challenge = json.loads(beaten.tags["challenge"])
    assert (challenge["challenger"], challenge["promoted"]) == ("3", True)
    assert json.loads(local.lookup(f"{name}/1").tags["challenge"])["challenger"] == "2"
    local.log_evaluation(name, "3", {"jsd": Estimate(0.01, 0.002, "nats")}, {"surface": PNG}, "other")
    found = local.lookup(f"{name}/3")
    assert found.metrics["evaluation/jsd"] == 0.01
    assert found.evaluation["jsd"] == Estimate(0.01, 0.002, "nats")
    assert found.tags["evaluation.jsd"] == "0.01"
    assert list((local.home / "mlflow").rglob("evaluation/version_3/surface.png"))


def test_a_new_evaluation_keeps_nothing_of_the_last_one(local, tmp_path):
    """Neither its errors nor quantities that it no longer has; MLflow keeps the newest value of each metric."""
    version = train(local, tmp_path, "toy.evaluated_again")
    first = {"jsd": Estimate(0.1, 0.01, "nats"), "pmf.a": Estimate(1.0, 0.1, "kT"), "pmf.b": Estimate(2.0, 0.1, "kT")}
    second = {"jsd": Estimate(0.3, math.nan, "nats"), "pmf.b": Estimate(math.nan, math.nan, "kT")}
    for metrics in (first, second, first):
        local.log_evaluation("toy.evaluated_again", version, metrics, {}, "reference")
        found = local.lookup("toy.evaluated_again").evaluation
        assert repr(sorted(found.items())) == repr(sorted(metrics.items()))


START = """
import sys
from pathlib import Path
from cg_assets.registry.tracking import ModelTracking
tracking = ModelTracking(None, Path({home!r}))
with tracking.start_training_run("toy", "pair", {{}}, {{"a": 1}}, []):
    tracking.log_epoch({{"loss": 1.0}}, 0)
"""


def test_three_processes_make_the_database_once(tmp_path):
    home = tmp_path / "a home"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START.format(home=str(home))],
            cwd=tmp_path,
            env=environment(PYTHONPATH=REPOSITORY),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    _, client = ModelTracking(None, home)._connection.open()
    (experiment,) = client.search_experiments(filter_string="name = 'toy'")
    assert len(client.search_runs([experiment.experiment_id])) == 3
    assert [item.name for item in tmp_path.iterdir()] == ["a home"]


def test_a_server_that_does_not_answer(tmp_path):
    port = free_port()
    begin = time.monotonic()
    tracking = ModelTracking(f"http://127.0.0.1:{port}", tmp_path)
    with pytest.raises(TrackingError, match=rf"http://127.0.0.1:{port} cannot be reached .*start the server"):
        tracking.check()
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", port))
        silent.listen()
        with pytest.raises(TrackingError, match="cannot be reached"):
            tracking.check()
    assert time.monotonic() - begin < 10


@pytest.fixture
def server(tmp_path):
    """A real `mlflow server` in its own process group, stopped as a user would."""
    port = free_port()
    folder = tmp_path / "server"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError((tmp_path / "server.log").read_text()) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_with_a_real_server(server, tmp_path):
    home = tmp_path / "home"
    tracking = ModelTracking(server, home)
    tracking.check()
    assert train(tracking, tmp_path / "trained", constant=3.0, datasets=make_data(home)) == "1"
    tracking.log_evaluation("toy.pair", "1", {"pmf_error": Estimate(0.2, math.nan)}, {"pmf": PNG}, "ref")
    assert tracking.decide_champion("toy.pair", "1", judged(0.2)).promoted
    found = tracking.lookup("toy.pair")
    assert found.aliases == ["candidate", "champion"]
    assert len(found.lineage) == 4
    assert {item.status for item in found.lineage} == {"same"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    predict_elsewhere(elsewhere, server, "models:/toy.pair@champion", 3.0)
    assert not (home / "mlflow" / "artifacts").exists()


def test_trainings_that_log_the_same_data_at_once_do_not_fail(tmp_path):
    import mlflow

    from cg_assets.registry.mlflow_records import log_datasets

    tracking, rounds = ModelTracking(None, tmp_path), 8
    tracking.check()
    mlflow.set_tracking_uri(tracking.uri)
    experiment, barrier = mlflow.create_experiment("at once"), threading.Barrier(3)

    def train():
        for number in range(rounds):
            with mlflow.start_run(experiment_id=experiment) as run:
                barrier.wait(timeout=60)
                log_datasets(mlflow, [(tmp_path, f"toy/forces/{number:04d}", "file", f"hash {number}")])
                logged = mlflow.MlflowClient().get_run(run.info.run_id).inputs.dataset_inputs
                yield len(logged)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [future.result(timeout=300) for future in [pool.submit(list, train()) for _ in range(3)]]
    assert results == [[1] * rounds] * 3
