"""How runs, data sets and values are recorded in MLflow."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from cg_assets.core.statistics.estimates import Estimate

_DATASETS = 500
"""Data sets in a request; MLflow takes 1,000 at most."""
_TRIES = 6
"""Attempts to log data sets that other trainings log at the same moment."""
_LONGEST = 5_000
"""Characters of a value; MLflow cuts longer ones, so that they are no JSON any more, or refuses them."""


def signature(n_beads: int, dimension: int, names: Sequence[str]) -> Any:
    """Outputs only: MLflow would refuse doubles for floats, and drop optional inputs without an error.

    The model checks its inputs itself.

    Args:
        n_beads: number of beads.
        dimension: Cartesian components of a bead.
        names: of the outputs; an energy is one number a frame, all others are of the shape of the beads.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    shapes = {name: (-1,) if name == "energy" else (-1, n_beads, dimension) for name in names}
    outputs: list[Any] = [TensorSpec(np.dtype("float32"), shape, name=name) for name, shape in shapes.items()]
    return ModelSignature(outputs=Schema(outputs))


def log_datasets(mlflow: Any, inputs: list[tuple[Path, str, str, str]]) -> None:
    """Log files as inputs of the active run: path, data key, path in the home folder, content hash of each."""
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.meta_dataset import MetaDataset

    datasets, tags = [], []
    for path, key, file, version in inputs:
        source = get_dataset_source_from_json(json.dumps({"uri": str(path.absolute())}), "local")
        datasets.append(MetaDataset(source, name=key, digest=version))  # type: ignore[abstract]
        tags.append({"file": file})
    for first in range(0, len(datasets), _DATASETS):
        part = slice(first, first + _DATASETS)
        _log_inputs(mlflow, datasets[part], tags[part])


def _log_inputs(mlflow: Any, datasets: list[Any], tags: list[dict[str, str]]) -> None:
    """Log once more where another training logged the same data at the same moment, which MLflow's database refuses."""
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    for left in reversed(range(_TRIES)):
        try:
            mlflow.log_inputs(datasets, ["training"] * len(datasets), tags)
            return
        except (MlflowException, sqlalchemy.exc.IntegrityError) as error:
            if not left or "unique" not in str(error).lower():
                raise
            time.sleep(random.uniform(0.05, 0.5))


def log_metrics(
    client: Any, run_id: str, metrics: Mapping[str, object], step: int, tags: Mapping[str, object] | None = None
) -> None:
    """Log those metrics that are numbers, with tags, in one request."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, Real)}
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, step) for key, value in numbers.items()],
        tags=[RunTag(key, value) for key, value in text(tags or {}).items()],
    )


LOSS_UNIT = "loss_unit"
"""Tag of a training run."""
EVALUATION, EVALUATION_ERROR, UNITS = "evaluation/", "evaluation_error/", "evaluation_units"
"""How metrics of an evaluation and their errors are called, and the tag that holds their units."""
FORMER = "evaluation_former"
"""The tag that names metrics which the newest evaluation of a run does not have; MLflow cannot remove a metric."""


def log_results(client: Any, run_id: str, metrics: Mapping[str, Estimate], step: int) -> None:
    """Log the metrics of an evaluation with their errors and units, in one request.

    An unknown error is logged, too, as nan: else the run would keep that of an earlier evaluation.
    """
    units: dict[str, str] = {}
    for key, item in metrics.items():
        # One name mostly has one unit, wherever it is measured.
        if units.setdefault(key.partition(".")[0], item.unit) != item.unit:
            units[key] = item.unit
    numbers: dict[str, object] = {f"{EVALUATION}{key}": item.value for key, item in metrics.items()}
    numbers |= {f"{EVALUATION_ERROR}{key}": item.standard_error for key, item in metrics.items()}
    there = client.get_run(run_id).data.metrics
    former = sorted(name for name in there if name.startswith(EVALUATION) and name not in numbers)
    log_metrics(client, run_id, numbers, step, {UNITS: units, FORMER: former})


def read_results(metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, Estimate]:
    """The metrics that `log_results` logged last; errors are nan and units empty where an older version logged none."""
    units, former, found = json.loads(tags.get(UNITS, "{}")), json.loads(tags.get(FORMER, "[]")), {}
    for name, value in metrics.items():
        if (key := name.removeprefix(EVALUATION)) != name and name not in former:
            unit = units.get(key) or units.get(key.partition(".")[0], "")
            found[key] = Estimate(value, metrics.get(f"{EVALUATION_ERROR}{key}", math.nan), unit)
    return found


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as one level, names joined by dots."""
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def text(values: Mapping[str, object]) -> dict[str, str]:
    """Values as text, JSON where they are none; those that are None are left out.

    Of lists and mappings that are too long for MLflow, as the versions of a thousand batches, their number and the
    SHA-256 of their JSON are given; the batches themselves are the run's data sets.
    """
    found = {}
    for key, value in values.items():
        if value is None:
            continue
        found[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        if len(found[key]) > _LONGEST and isinstance(value, list | dict):
            digest = hashlib.sha256(found[key].encode()).hexdigest()
            found[key] = json.dumps({"entries": len(value), "sha256": digest})
    return found


def file_name(name: str) -> str:
    """A title as a file name without ending."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name.removesuffix(".png"))
