"""What the process that steps fork from imports beforehand: 0.3 s a step where a fresh process takes 4 s."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Sequence
from multiprocessing import forkserver

import yaml

from cg_assets.core.errors import CgAssetsError
from cg_assets.settings import AHEAD, Installation, installation, set_variables

_OF_EVERY_STEP = [
    "cg_assets.orchestration.step_server",
    "cg_assets.operations.runs",
    "cg_assets.orchestration.step_logs",
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "upath.implementations.local",
    "cg_assets.figures.evaluation",
    "cg_assets.figures.labels",
    "cg_assets.figures.samples",
    "scipy.interpolate",
    "pyarrow.dataset",
    "duckdb",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "PIL.JpegImagePlugin",
]
_OF_KIND = {
    "numba": [
        "cg_assets.core.single_precision",
        "cg_assets.sampling.model_potential.basins",
        "cg_assets.sampling.model_potential.sampler",
        "cg_assets.orchestration.numba_warm_up",
    ],
    "pytorch": ["cg_assets.figures.simulation", "torch._dynamo"],
    "mlflow": [
        "cg_assets.registry.mlflow_warm_up",
        "mlflow.tracing.processor.base_mlflow",
        "opentelemetry.sdk.trace",
        "git",
    ],
}
"""Modules by the kinds of the stages that need them."""


_LONGEST_TEMPORARY_FOLDER = 71
"""Bytes: a socket's path holds 103 on macOS, 107 on Linux, and the process that steps fork from adds 32."""


def start_method(modules: list[str]) -> dict[str, dict[str, object]]:
    """How Dagster starts a step: forked from a process that has imported some modules, where it can have a socket.

    A temporary folder with a long path, as of some clusters, holds none: each step is a fresh process then.
    """
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TEMPORARY_FOLDER:
        return {"spawn": {}}
    return {"forkserver": {"preload_modules": modules}}


def modules_of(kinds: Iterable[str] = _OF_KIND) -> list[str]:
    """What steps of stages of some kinds import."""
    return _OF_EVERY_STEP + [module for kind in sorted(_OF_KIND.keys() & set(kinds)) for module in _OF_KIND[kind]]


def start_step_server(systems: Sequence[str], stages: Sequence[str] | None) -> None:
    """Let the process that steps fork from import what they need while this one imports Dagster and prepares a run.

    Its steps see the environment as it is now.

    Args:
        systems: whose job it builds, so that no step needs to.
        stages: that are run, whose imports it makes; others import for themselves. All where None.

    Raises:
        CgAssetsError: the executor's options cannot be read.
    """
    own = installation()
    default = own.executor == "multiprocess" and "start_method" not in executor_options(own)
    modules = [*modules_of([]), "cg_assets.operations.built_ahead"]
    if default and "forkserver" in start_method(modules):
        set_variables({AHEAD: json.dumps({"systems": systems, "stages": stages})})
        multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
        forkserver.ensure_running()


def executor_options(own: Installation) -> dict[str, object]:
    """The options of `CG_EXECUTOR_CONFIG`.

    Raises:
        CgAssetsError: they cannot be read.
    """
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
