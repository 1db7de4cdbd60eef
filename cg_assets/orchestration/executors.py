"""One place that turns `CG_EXECUTOR` into an executor, and the tags by which a step asks for a GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from cg_assets.core.errors import CgAssetsError
from cg_assets.orchestration.preload import executor_options, modules_of, start_method
from cg_assets.orchestration.run_locks import holding
from cg_assets.settings import OF_STEPS, installation

GPU_POOL = "gpu"
"""Steps of this pool use a GPU where there is one; its slots are set by `cg-assets`."""

GPUS_TAG = "cg_assets/gpus"
"""Tag of a step: how many GPUs it asks Slurm for."""

_GPU_OP_TAGS: dict[str, Any] = {
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
    "dagster-ray/config": {"num_gpus": 1},
    GPUS_TAG: "1",
}


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
    name, options = own.executor, executor_options(own)
    if name == "in_process":
        executor = holding(dg.in_process_executor)
        return executor.configured(options) if options else executor
    if name == "multiprocess":
        preload = [*modules_of(), "cg_assets.orchestration.definitions"]  # `cg-assets run` needs less
        default = {"max_concurrent": os.cpu_count() or 1, "start_method": start_method(preload)}
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
