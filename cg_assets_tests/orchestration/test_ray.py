"""A system run by Ray on a local cluster that no network reaches: the same data as by the other executors.

Needs the extra `ray`, which the tests do not install; six minutes on two free cores, as each step is a process that
imports everything again.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from conftest import Command, kill_group
from test_crashes import results

can_isolate = subprocess.run(
    ["unshare", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"], capture_output=True
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("dagster_ray") is None, reason="the extra `ray` is not installed"),
    pytest.mark.skipif(can_isolate.returncode != 0, reason="this machine allows no network namespaces (unshare --net)"),
]

SCRIPT = """
ip link set lo up
trap '{ray} stop --force > /dev/null 2>&1' EXIT
{ray} start --head --num-cpus 2 --num-gpus 1 --disable-usage-stats --temp-dir {scratch} > {log} 2>&1
{command}
{ray} list actors --detail --format json --limit 1000 > {actors}
"""


def run_with_ray(own: Command, scratch: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """A command in a network of its own, in which a Ray cluster of this machine's cores runs."""
    options = scratch / "executor.yaml"
    options.write_text(yaml.safe_dump({"ray": {"address": "http://127.0.0.1:8265"}}))
    environment = own.environment(CG_EXECUTOR="ray", CG_EXECUTOR_CONFIG=str(options), **more)
    environment |= {"RAY_ADDRESS": "", "DAGSTER_DISABLE_TELEMETRY": "yes"}
    script = SCRIPT.format(
        ray=f"{sys.executable} -m ray.scripts.scripts",
        scratch=scratch / "ray",
        log=scratch / "ray.log",
        actors=scratch / "actors.json",
        command=" ".join(own.line(*arguments)),
    )
    # Processes of its own number space, too: whatever Ray leaves behind ends with it.
    command = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "bash", "-euc", script]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=own.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=1700)
        finally:
            kill_group(process.pid)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@pytest.mark.timeout(2700)
def test_the_same_data_as_by_the_other_executors(finished, tmp_path, tmp_path_factory):
    """All files, and the weights of all potentials; `finished` was made by processes of this machine.

    Ray is given a GPU that torch does not find, for steps that ask for one.
    """
    own = Command(tmp_path / "home")
    own.add_system((finished.home / "systems" / "small_wells.yaml").read_text())
    scratch = tmp_path_factory.mktemp("r")
    done = run_with_ray(own, scratch, "run", "small_wells", CG_DEVICE="auto")
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = results(finished, "small_wells")
    assert len(theirs) >= 12
    assert results(own, "small_wells") == {name: theirs[name] for name in theirs}
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        (run,) = instance.get_runs()
        messages = [entry.message or "" for entry in instance.all_logs(run.run_id)]
        steps = instance.get_run_stats(run.run_id).steps_succeeded
    jobs = dict(re.findall(r'step "small_wells__(\w+)" in Ray job ([\w-]+)', "\n".join(messages)))
    assert len(jobs) == steps >= 11, "each step is a job of Ray"
    asked = {actor["name"]: actor["required_resources"] for actor in json.loads((scratch / "actors.json").read_text())}
    gpus = {step: asked[f"_ray_internal_job_actor_{job}"].get("GPU", 0) for step, job in jobs.items()}
    assert {step for step, number in gpus.items() if number == 1} == {
        step for step in jobs if step.startswith(("potential_", "cg_simulation_"))
    }, gpus
