"""A system run by a real Slurm cluster on this machine: the same data, GPU steps where GPUs are, cancelled jobs.

Needs root and Debian's packages slurmctld, slurmd and slurm-client, which the tests do not install; five minutes on two
free cores, as each step is a process that imports everything again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time

import dagster as dg
import pytest
import yaml
from conftest import Command, free_port
from test_crashes import results

from cg_assets.core.errors import CgAssetsError
from cg_assets.orchestration.executors import build_executor

needs_slurm = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "sbatch")),
    reason="needs root, slurmctld, slurmd and slurm-client",
)
CONFIGURATION = """
ClusterName=alone
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of the commands of a cluster of this machine's cores, with a GPU by name only."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = free_port(), free_port()
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, ports=ports, folder=folder, cores=os.cpu_count() or 1)
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    daemons = [
        subprocess.Popen([name, "-D", *more], env=os.environ | environment, stdout=log, stderr=log)
        for name, more in (("slurmctld", ["-c"]), ("slurmd", ["-c"]))
        for log in [(folder / f"{name}.out").open("w")]
    ]
    try:
        for _ in range(60):
            told = subprocess.run(["sinfo", "-h", "-o", "%t"], env=os.environ | environment, capture_output=True)
            if told.stdout.strip() == b"idle":
                break
            time.sleep(1)
        else:
            pytest.fail("\n".join(path.read_text() for path in folder.glob("*.log")))
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=os.environ | environment, check=False)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)


def jobs(cluster: dict[str, str]) -> list[list[str]]:
    """Name, state and GPUs of all of Slurm's jobs."""
    command = ["squeue", "--noheader", "--states=all", "--format=%j|%T|%b"]
    told = subprocess.run(command, env=os.environ | cluster, capture_output=True, text=True, check=True).stdout
    return [line.split("|") for line in told.splitlines()]


def small_wells(finished: Command, home) -> Command:
    own = Command(home)
    own.add_system((finished.home / "systems" / "small_wells.yaml").read_text())
    return own


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_same_data_as_by_the_other_executors(finished, cluster, tmp_path):
    """All files, and the weights of all potentials; steps that use a GPU have asked for it."""
    own = small_wells(finished, tmp_path / "home")
    options = tmp_path / "executor.yaml"
    options.write_text(yaml.safe_dump({"sbatch": ["--mem=400", "--time=30"]}))
    more = {"CG_EXECUTOR": "slurm", "CG_EXECUTOR_CONFIG": str(options), "CG_DEVICE": "auto"}
    done = own("run", "small_wells", timeout=1400, **cluster, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = results(finished, "small_wells")
    assert len(theirs) >= 12
    assert results(own, "small_wells") == {name: theirs[name] for name in theirs}
    found = {name.split(".")[0]: (state, gpus) for name, state, gpus in jobs(cluster)}
    assert len(found) >= 12
    assert {state for state, _ in found.values()} == {"COMPLETED"}
    for step, (_, gpus) in found.items():
        assert ("gpu" in gpus) == step.startswith(("small_wells__potential", "small_wells__cg_simulation")), step
    with dg.DagsterInstance.from_config(str(own.home / "dagster")) as instance:
        (run,) = instance.get_runs()
        told = [entry.message for entry in instance.all_logs(run.run_id) if "of Slurm" in (entry.message or "")]
    assert len(told) == len(found)
    assert all((own.home / "slurm" / line.split("/")[-1].rstrip(".")).is_file() for line in told)


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cancelled_job_fails_its_step_and_an_interrupted_run_cancels_its_jobs(finished, cluster, tmp_path):
    own = small_wells(finished, tmp_path / "home")
    arguments = ("run", "small_wells", "--select", "trajectories")
    more = cluster | {"CG_EXECUTOR": "slurm"}

    def waiting() -> list[str]:
        return [name for name, state, _ in jobs(cluster) if state in {"PENDING", "RUNNING"}]

    for cancelled_by_slurm in (True, False):
        with own.start(*arguments, **more) as process:
            deadline = time.monotonic() + 120
            while not waiting() and time.monotonic() < deadline:
                time.sleep(0.5)
            (name,) = waiting()
            assert name.startswith("small_wells__trajectories.")
            if cancelled_by_slurm:
                subprocess.run(["scancel", f"--name={name}"], env=os.environ | cluster, check=True)
            else:
                process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=180)
        assert process.returncode != 0
        if cancelled_by_slurm:
            assert "of Slurm ended as CANCELLED" in output + errors
        deadline = time.monotonic() + 60
        while waiting() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not waiting()
    assert not list((own.home / "data").rglob("part-0.parquet"))


def test_without_slurm_it_is_said_before_anything_starts(home, monkeypatch, tmp_path):
    monkeypatch.setenv("CG_EXECUTOR", "slurm")
    assert build_executor().name == "slurm"
    monkeypatch.setenv("PATH", str(tmp_path))
    from cg_assets.orchestration.slurm import SlurmStepHandler

    with pytest.raises(CgAssetsError, match="needs Slurm's commands, and sbatch, squeue, scancel cannot be found"):
        SlurmStepHandler([], [])
