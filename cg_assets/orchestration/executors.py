"""One place that turns `CG_EXECUTOR` into an executor, and the tags by which a step asks for a GPU."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from cg_assets.core.errors import CgAssetsError
from cg_assets.orchestration.run_locks import holding
from cg_assets.settings import OF_STEPS, Installation, installation

GPU_POOL = "gpu"
"""Steps of this pool use a GPU where there is one; its slots are set by `cg-assets`."""

GPUS_TAG = "cg_assets/gpus"
"""Tag of a step: how many GPUs it asks Slurm for."""

_GPU_OP_TAGS: dict[str, Any] = {
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
    "dagster-ray/config": {"num_gpus": 1},
    GPUS_TAG: "1",
}
_PRELOAD = [
    "cg_assets.orchestration.step_server",
    "cg_assets.orchestration.definitions",
    "cg_assets.figures.evaluation",
    "cg_assets.figures.labels",
    "cg_assets.figures.samples",
    "cg_assets.figures.simulation",
    "torch._dynamo",
    "cg_assets.registry.mlflow_warm_up",
    "opentelemetry.sdk.trace",
    "git",
    "numba",
    "scipy.interpolate",
    "pyarrow.dataset",
    "duckdb",
    "matplotlib.pyplot",
]


def gpu_op_tags() -> dict[str, object]:
    """Resources that a GPU step requests from Kubernetes, Ray or Slurm; other executors ignore them.

    With `CG_DEVICE=cpu` it asks for nothing: on a cluster without GPUs it would wait without end.
    """
    return {} if installation().device_name == "cpu" else _GPU_OP_TAGS


def build_executor() -> dg.ExecutorDefinition:
    """The executor named by `CG_EXECUTOR` with the options of the YAML file `CG_EXECUTOR_CONFIG`, if any.

    Raises:
        CgAssetsError: an unknown executor, a missing package, or an unreadable options file.
    """
    own = installation()
    name, options = own.executor, _options(own)
    if name == "in_process":
        executor = holding(dg.in_process_executor)
        return executor.configured(options) if options else executor
    if name == "multiprocess":
        # Steps fork from one server that has the heavy imports behind it: 0.3 s a step where a fresh process takes 4 s.
        default = {"max_concurrent": os.cpu_count() or 1, "start_method": {"forkserver": {"preload_modules": _PRELOAD}}}
        return holding(dg.multiprocess_executor).configured(default | options)
    if name == "ray":
        if shown := own.secret_addresses:
            raise CgAssetsError(
                f"CG_EXECUTOR=ray shows the variables of its jobs on Ray's dashboard, and {', '.join(shown)} holds a "
                "password or key; take it out, and give it in ~/.pgpass, ~/.mlflow/credentials or ~/.aws/credentials"
            )
        # Dagster's command is asked for by its name, and found where this Python is, whatever is activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), own.search_path])
        defaults = {"env_vars": [*OF_STEPS, f"PATH={path}"], "num_cpus": 1}
        given = options.get("ray", {})
        if not isinstance(given, dict):
            raise CgAssetsError(f"CG_EXECUTOR_CONFIG: ray is {given!r}; it must hold fields and their values")
        return _configured("dagster_ray", "ray_executor", "ray", options | {"ray": defaults | given})
    if name == "k8s":
        if own.changes != "{}":
            raise CgAssetsError(
                "CG_EXECUTOR=k8s: --set does not reach the pods; write the values into the system's file"
            )
        return _configured("dagster_k8s", "k8s_job_executor", "k8s", options)
    if name == "slurm":
        return _configured("cg_assets.orchestration.slurm", "slurm_executor", "slurm", options)
    raise CgAssetsError(f"CG_EXECUTOR is {name!r}; choose in_process, multiprocess, ray, k8s or slurm")


def start_step_server() -> None:
    """Let the process that steps fork from import its modules while this one prepares a run.

    Its steps see the environment as it is now.
    """
    own = installation()
    if own.executor == "multiprocess" and "start_method" not in _options(own):
        multiprocessing.get_context("forkserver").set_forkserver_preload([*_PRELOAD])
        forkserver.ensure_running()


def _options(own: Installation) -> dict[str, object]:
    path = own.executor_options
    if path is None:
        return {}
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise CgAssetsError(f"CG_EXECUTOR_CONFIG: {path} cannot be read: {error}") from None
    if not isinstance(options, dict):
        raise CgAssetsError(f"CG_EXECUTOR_CONFIG: {path} must hold the executor's options as fields and values")
    return options


def _configured(module: str, attribute: str, extra: str, options: dict[str, object]) -> dg.ExecutorDefinition:
    import importlib

    try:
        executor = holding(getattr(importlib.import_module(module), attribute))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise CgAssetsError(
            f"CG_EXECUTOR={extra} needs the package {module}; install it with: pip install 'cg-assets[{extra}]'"
        ) from None
    return executor.configured(options) if options else executor
