"""A network on disk, a potential or the flow of a kernel: `config.json` and `weights.pt` (a state dict, no code)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.core.errors import StorageError

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.pt"
FORMAT_VERSION = 2
"""1 had potentials in one piece; registered models of it hold their own code, and load with `mlflow.pyfunc`."""


def save_potential(
    directory: Path, module: torch.nn.Module, config: Mapping[str, object], metadata: dict[str, object] | None = None
) -> None:
    """Write a network into a directory, which is made if needed; each file appears whole or not at all.

    Args:
        directory: where the two files go.
        module: the network that `config` describes; its weights are stored as they are, on the CPU.
        config: network config, from which `build_potential` or `build_flow` builds the network again.
        metadata: anything else worth keeping (JSON), under the key `metadata`.

    Raises:
        StorageError: config or metadata is not plain JSON.
    """
    import torch

    content = {**config, "format_version": FORMAT_VERSION, "metadata": metadata or {}}
    try:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StorageError(f"{directory}: config and metadata of a potential must be plain JSON: {error}") from None
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        temporary = directory / f".{name}.{os.getpid()}"
        with temporary.open("wb") as file:
            if name == WEIGHTS_FILE:
                torch.save(weights, file)
            else:
                file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, directory / name)


def load_potential(
    directory: Path, others: Mapping[str, Callable[[Any], torch.nn.Module]] | None = None
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Read a network, ready to evaluate, and its config with `metadata`.

    Args:
        directory: where its two files are.
        others: types of networks that are no potentials, to what builds them from their config.

    Raises:
        StorageError: a file is missing or damaged, or weights and config do not belong together.
    """
    import torch

    from cg_assets.potentials.settings import build_potential

    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise StorageError(f"{directory}: {name} is missing; this is not a stored potential, or a damaged one")
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        if config.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version is {config.get('format_version')!r}; this code reads {FORMAT_VERSION}")
        module = (others or {}).get(config["type"], build_potential)(config)
        module.load_state_dict(torch.load(directory / WEIGHTS_FILE, weights_only=True, map_location="cpu"))
    except Exception as error:
        raise StorageError(
            f"{directory}: the stored potential cannot be read: {error}; train or copy it again"
        ) from error
    return module.requires_grad_(False).eval(), config
