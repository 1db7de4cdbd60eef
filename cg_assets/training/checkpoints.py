"""Checkpoints of unfinished trainings: written whole, and refused where they belong to another training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.core.errors import TrainingError
from cg_assets.storage.atomic import atomic_file

if TYPE_CHECKING:
    import torch


def identity_of(content: Any) -> str:
    """Hash of everything (plain JSON) that determines the course of a training."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_checkpoint(path: Path, version: int, identity: str, content: dict[str, object]) -> None:
    """Replace a checkpoint; a crash leaves the old one or the new one, whole."""
    import torch

    with atomic_file(path) as temporary:
        torch.save({"version": version, "identity": identity} | content, temporary)


def read_checkpoint(path: Path, version: int, identity: str, device: torch.device) -> dict[str, Any]:
    """What `write_checkpoint` was given, tensors on the device.

    Raises:
        TrainingError: the file cannot be read, or belongs to another training.
    """
    import torch

    remedy = f"delete {path} to start from the first epoch"
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise TrainingError(f"{path}: the checkpoint cannot be read ({type(error).__name__}); {remedy}") from error
    if not isinstance(content, dict) or content.get("version") != version:
        raise TrainingError(f"{path}: not a checkpoint of this version ({version}); {remedy}")
    if content["identity"] != identity:
        raise TrainingError(f"{path}: this checkpoint was written with other data, settings or seed; {remedy}")
    return content
