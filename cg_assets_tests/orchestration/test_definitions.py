"""What Dagster sees: a golden snapshot of the whole graph, the executors, and devices that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from cg_assets.core.errors import CgAssetsError, DeviceError
from cg_assets.orchestration.build import build_definitions
from cg_assets.orchestration.device import count_gpus, lease_device
from cg_assets.orchestration.executors import GPU_POOL, build_executor
from cg_assets.systems import SystemSpec, load_all_systems

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "definitions.json"
REGENERATE = "CG_ASSETS_REGENERATE_SNAPSHOTS"


def described(definitions: dg.Definitions) -> dict:
    """Every asset and job as plain JSON."""
    graph = definitions.resolve_asset_graph()
    assets = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        assets[key.to_user_string()] = {
            "dependencies": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "partitions": node.partitions_def.name if node.partitions_def else None,
            "checks": sorted(check.name for check in node.check_keys),
            "blocking": sorted(check.name for check in node.check_keys if graph.get(check).blocking),
            "code_version": node.code_version,
            "kinds": sorted(node.kinds),
            "op_tags": {name: value for name, value in sorted(node.assets_def.op.tags.items())},
            "pools": sorted(node.pools),
        }
    jobs = sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__"))
    return {"assets": assets, "jobs": jobs}


def test_golden_snapshot(home, monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "auto")
    found = json.loads(json.dumps(described(build_definitions())))
    if os.environ.get(REGENERATE):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    golden = json.loads(SNAPSHOT.read_text())
    remedy = f"run this test with {REGENERATE}=1 where this change is meant"
    assert found["jobs"] == golden["jobs"], remedy
    assert sorted(found["assets"]) == sorted(golden["assets"]), remedy
    for key, facts in found["assets"].items():
        assert facts == golden["assets"][key], f"{key}: {remedy}"


def test_every_shipped_system_is_one_group_with_one_job(home, monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "auto")
    systems = load_all_systems()
    found = described(build_definitions(systems))
    assert {facts["group"] for facts in found["assets"].values()} == set(systems)
    assert found["jobs"] == sorted(f"{name}_job" for name in systems)
    for key, facts in found["assets"].items():
        assert key.startswith(f"{facts['group']}/")
        stage = key.split("/")[1]
        gpu = stage.startswith(("potential_", "cg_simulation_")) or stage.endswith("_kernel")
        assert facts["pools"] == ([GPU_POOL] if gpu else [])
        assert bool(facts["op_tags"].get("dagster-ray/config")) == gpu


def test_on_a_cluster_without_gpus_no_step_asks_for_one(home):
    """There a step that asks for one would wait for ever."""
    found = described(build_definitions())["assets"].values()
    assert not any(facts["op_tags"] for facts in found)
    assert any(facts["pools"] for facts in found)


def test_a_users_system_is_a_group_without_python(home):
    text = (Path(load_all_systems.__code__.co_filename).parent / "muller_brown.yaml").read_text()
    content = yaml.safe_load(text) | {"name": "mine"}
    (home / "systems" / "mine.yaml").write_text(yaml.safe_dump(content))
    assert "mine" in {facts["group"] for facts in described(build_definitions())["assets"].values()}


def test_a_system_without_a_bias_has_no_biased_stages(home):
    system = load_all_systems()["muller_brown"]
    content = system.model_dump(mode="json")
    content["sampling"]["biased"] = None
    del content["potentials"]["biased"]
    found = described(build_definitions({"muller_brown": SystemSpec.model_validate(content)}))
    assert {key.split("/")[1] for key in found["assets"]} == {
        *("trajectories", "mapped_forces", "reference", "potential_unbiased", "cg_simulation_unbiased"),
        *("evaluation_unbiased", "comparison", "report"),
    }


# --------------------------------------------------------------------------------------- executors


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "multiprocess"), ("multiprocess", "multiprocess"), ("in_process", "in_process")]
)
def test_executor_by_name(home, monkeypatch, name, expected):
    if name:
        monkeypatch.setenv("CG_EXECUTOR", name)
    assert build_definitions({}).executor.name == expected


def test_steps_run_where_the_path_of_the_temporary_folder_is_too_long_for_a_socket(tmp_path):
    temporary = tmp_path / ("long" * 20)
    temporary.mkdir()
    line = [sys.executable, "-m", "cg_assets.cli", "--home", str(tmp_path / "home"), "run", "muller_brown"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run([*line, "--select", "reference"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


def test_unknown_executor(home, monkeypatch):
    monkeypatch.setenv("CG_EXECUTOR", "pbs")
    with pytest.raises(CgAssetsError, match="CG_EXECUTOR is 'pbs'; choose in_process, multiprocess, ray, k8s or slurm"):
        build_executor()


@pytest.mark.parametrize(("name", "module"), [("ray", "dagster_ray"), ("k8s", "dagster_k8s")])
def test_executor_whose_package_is_missing(home, monkeypatch, name, module):
    monkeypatch.setenv("CG_EXECUTOR", name)
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say that a module cannot be imported
    with pytest.raises(CgAssetsError, match=rf"needs the package {module}; install it with: pip install"):
        build_executor()


def test_options_of_the_executor(home, monkeypatch, tmp_path):
    options = tmp_path / "executor.yaml"
    options.write_text("max_concurrent: 3\n")
    monkeypatch.setenv("CG_EXECUTOR_CONFIG", str(options))
    build_executor()
    options.write_text("- 3\n")
    with pytest.raises(CgAssetsError, match=r"CG_EXECUTOR_CONFIG: .*executor.yaml must hold"):
        build_executor()
    options.write_text("max_concurrent: [3\n")
    with pytest.raises(CgAssetsError, match=r"CG_EXECUTOR_CONFIG: .* cannot be read"):
        build_executor()
    options.write_text("ray: 4\n")
    with monkeypatch.context() as patch, pytest.raises(CgAssetsError, match=r"ray is 4; it must hold fields"):
        patch.setenv("CG_EXECUTOR", "ray")
        build_executor()
    monkeypatch.setenv("CG_EXECUTOR_CONFIG", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(CgAssetsError, match=r"nowhere.yaml cannot be read"):
        build_executor()


# --------------------------------------------------------------------------------------- devices


def test_cpu_is_leased_where_it_is_asked_for(home, monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "cpu")
    assert count_gpus() == 0
    with lease_device(home) as device:
        assert device.torch_name == "cpu"
        assert device.description.startswith("CPU")


def test_unknown_device(home, monkeypatch):
    monkeypatch.setenv("CG_DEVICE", "tpu")
    with pytest.raises(DeviceError, match="CG_DEVICE is 'tpu'; choose auto, cpu or cuda"), lease_device(home):
        raise AssertionError("leased a device that does not exist")


def test_cuda_without_a_gpu(home, monkeypatch):
    # Hides the GPUs of a machine that has some: torch reads this before it first looks for them.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CG_DEVICE", "cuda")
    with pytest.raises(DeviceError, match="torch sees no GPU; set CG_DEVICE=auto"), lease_device(home):
        raise AssertionError("leased a GPU that does not exist")


def test_gpus_are_leased_by_their_own_names(home, monkeypatch):
    """Two machines with two GPUs each on one home; what torch says of them stands in, as this machine may have none."""
    import torch

    def on(machine: str) -> None:
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"{machine}-{index}")
        )

    monkeypatch.setenv("CG_DEVICE", "auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    with ExitStack() as held:
        for machine in ("one", "two"):
            on(machine)
            found = [held.enter_context(lease_device(home)).description for _ in range(2)]
            assert found == ["GPU 0, A GPU", "GPU 1, A GPU"]
        with pytest.raises(DeviceError, match="all 2 GPUs are leased"), lease_device(home):
            raise AssertionError("leased a GPU twice")
    with lease_device(home) as free:
        assert free.description == "GPU 0, A GPU"
