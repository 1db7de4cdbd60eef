"""The installation: its variables, what is refused, and that nothing else reads the environment."""

import ast
from pathlib import Path

import pytest

import cg_assets
from cg_assets import settings
from cg_assets.core.errors import CgAssetsError, DeviceError, StorageError
from cg_assets.orchestration.executors import build_executor
from cg_assets.orchestration.resources import build_resources
from cg_assets.registry.mlflow_connection import MlflowConnection
from cg_assets.settings import Installation, child_environment, installation, masked, set_variables
from cg_assets.storage.object_store import ObjectStore

PACKAGE = Path(cg_assets.__file__).parent
READERS = {"settings.py", "potentials/served.py"}
"""Modules that read the environment; a registered model runs where this package is not installed."""
SECRET = "postgresql://somebody:se@cret@host/mlflow"


def reads_the_environment(path):
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in names:
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}:
            return True
    return False


def test_one_module_reads_the_environment():
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if reads_the_environment(path)}
    assert found == READERS


def test_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Installation.from_environment({})
    assert own.home == tmp_path / "cg_assets_home"
    assert (own.device, own.executor) == ("auto", "multiprocess")
    assert own.threads >= 1
    assert (own.dagster_home, own.tracking_uri, own.database, own.object_store) == (None, None, None, None)
    assert not own.has_models
    assert not own.has_tracking_server


def test_everything_that_is_set(tmp_path):
    own = Installation.from_environment(
        {
            **{"CG_ASSETS_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "dagster"), "PATH": "/somewhere"},
            **{"CG_DEVICE": "cpu", "CG_ASSETS_THREADS": "3", "CG_EXECUTOR": "ray", "CG_EXECUTOR_CONFIG": "ray.yaml"},
            **{"MLFLOW_TRACKING_URI": "http://host:5000", "CG_ASSETS_DATABASE": SECRET},
            **{"CG_ASSETS_OBJECT_STORE": "s3://bucket/data"},
        }
    )
    assert own == Installation(
        home=tmp_path,
        dagster_home=tmp_path / "dagster",
        device_name="cpu",
        thread_count="3",
        executor="ray",
        executor_options=Path("ray.yaml"),
        tracking_uri="http://host:5000",
        database=SECRET,
        object_store="s3://bucket/data",
        search_path="/somewhere",
    )
    assert (own.device, own.threads) == ("cpu", 3)
    assert own.has_models
    assert own.has_tracking_server
    own.check()


def test_models_are_there_once_the_home_has_a_database(tmp_path):
    own = Installation(home=tmp_path)
    assert not own.has_models
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").touch()
    assert own.has_models


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CG_DEVICE", "tpu", "CG_DEVICE is 'tpu'; choose auto, cpu or cuda"),
        ("CG_ASSETS_THREADS", "0", "CG_ASSETS_THREADS is '0'; set it to a number of at least 1"),
        ("CG_ASSETS_THREADS", "many", "CG_ASSETS_THREADS is 'many'; set it to a number of at least 1"),
    ],
)
def test_wrong_values_are_named_where_they_are_used(name, value, words):
    own = Installation.from_environment({name: value})
    with pytest.raises(DeviceError, match=words):
        own.check()


def test_variables_reach_this_process_and_its_children(monkeypatch, tmp_path):
    monkeypatch.setenv("CG_ASSETS_HOME", "nowhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("DAGSTER_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr(settings.os, "environ", dict(settings.os.environ))
    set_variables({"CG_ASSETS_HOME": str(tmp_path)}, {"OMP_NUM_THREADS": "1", "DAGSTER_DISABLE_TELEMETRY": "yes"})
    assert installation().home == tmp_path
    children = child_environment(MORE="1")
    assert (children["CG_ASSETS_HOME"], children["MORE"]) == (str(tmp_path), "1")
    assert (children["OMP_NUM_THREADS"], children["DAGSTER_DISABLE_TELEMETRY"]) == ("7", "yes")
    assert "MORE" not in settings.os.environ


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SECRET, "postgresql://somebody:***@host/mlflow"),
        ("http://host:5000/path@here", "http://host:5000/path@here"),
        ("sqlite:////home/mlflow.db", "sqlite:////home/mlflow.db"),
        ("postgresql://postgres@host/dagster", "postgresql://postgres@host/dagster"),
        ("could not reach https://a:b@host.", "could not reach https://a:***@host."),
        ("Cannot parse URI: 's3://AKIA:k/e+y@bucket/data'", "Cannot parse URI: 's3://***@bucket/data'"),
        ("https://token@host/mlflow", "https://***@host/mlflow"),
        (
            "postgresql://host/db?user=me&password=p&sslmode=require",
            "postgresql://host/db?user=me&password=***&sslmode=require",
        ),
        ("s3://b/d?secret_key=k%2Fy&scheme=http", "s3://b/d?secret_key=***&scheme=http"),
    ],
)
def test_passwords_are_left_out(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("MLFLOW_TRACKING_URI", "http://me:se%40cret@host", 'no host "cret"; password is "se@cret"'),
        ("CG_ASSETS_DATABASE", "postgresql://me:open/sesame@host/db", 'invalid port number: "open", path sesame@host'),
        ("CG_ASSETS_OBJECT_STORE", "s3://AKIAKEY:sesame@bucket", "The key AKIAKEY is unknown, sesame does not match"),
        ("AWS_SECRET_ACCESS_KEY", "open/sesame", "signature of open/sesame"),
    ],
)
def test_what_the_variables_hold_is_left_out_wherever_it_stands(monkeypatch, name, value, text):
    monkeypatch.setenv(name, value)
    shown = masked(text)
    assert "***" in shown
    for part in ("cret", "sesame", "open", "AKIAKEY"):
        assert part not in shown


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "CG_ASSETS_DATABASE", "CG_ASSETS_OBJECT_STORE"])
def test_no_password_goes_to_a_dashboard(monkeypatch, name):
    monkeypatch.setenv("CG_EXECUTOR", "ray")
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(CgAssetsError, match=rf"on Ray's dashboard, and {name} holds a password or key; take it out"):
        build_executor()


def test_no_address_with_a_password_is_printed(home, monkeypatch):
    own = Installation(home=home, tracking_uri=SECRET, database=SECRET, object_store=SECRET)
    assert "cret" not in repr(own)
    assert "cret" not in MlflowConnection(SECRET, home).shown
    with pytest.raises(StorageError) as caught:
        ObjectStore(SECRET, home)
    assert "cret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    assert "cret" not in repr(build_resources()["tracking"])
