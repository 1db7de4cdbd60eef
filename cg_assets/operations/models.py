"""`cg-assets lookup`: everything about a version of a registered model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.operations.tables import Table
from cg_assets.registry.mlflow_records import LOSS_UNIT
from cg_assets.registry.models import ModelVersion

_OF_EVALUATION = ("evaluation/", "evaluation_error/", "evaluation.", "evaluation_error.")
"""Metrics and tags that repeat the evaluation."""
Row = tuple[str, str, object, object, str]


def model_table(found: ModelVersion) -> Table:
    """Evaluation, training, settings, tags and files of a version, each number with its error and unit."""
    rows = list(_rows(found))
    head = f"{found.name} version {found.version}  aliases: {', '.join(found.aliases) or 'none'}"
    width = max(len(name) for _, name, *_ in rows)
    lines, part = [head], ""
    for kind, name, value, error, unit in rows:
        if kind != part:
            part = kind
            lines += ["", kind]
        lines.append(f"  {name:<{width}}  {_shown(value, error, unit)}".rstrip())
    evaluation = {key: item.to_json() for key, item in found.evaluation.items()}
    whole = dataclasses.asdict(found) | {"evaluation": evaluation}
    return Table(("part", "name", "value", "standard_error", "unit"), rows, "\n".join(lines), whole)


def _rows(found: ModelVersion) -> Iterator[Row]:
    for key, item in sorted(found.evaluation.items()):
        yield "evaluation", key, item.value, item.standard_error, item.unit
    loss = found.run_tags.get(LOSS_UNIT, "")
    for key, number in sorted(found.metrics.items()):
        if not key.startswith(_OF_EVALUATION):
            unit = "s" if key == "seconds" else loss if key.endswith(("loss", "noise_floor")) else ""
            yield "training", key, number, None, unit
    for key, text in sorted(found.params.items()):
        yield "settings", key, text, None, ""
    for key, text in sorted(found.tags.items()):
        if not key.startswith(_OF_EVALUATION):
            yield "tags", key, text, None, ""
    for entry in found.lineage:
        yield "lineage", entry.file, f"{entry.content_hash}  {entry.status}", None, ""


def _shown(value: object, error: object, unit: str) -> str:
    """A number by its error, or with five digits where there is none; text as it is."""
    if isinstance(value, float) and isinstance(error, float):
        return str(Estimate(value, error, unit))
    return " ".join(filter(None, (f"{value:.5g}" if isinstance(value, float) else str(value), unit)))
