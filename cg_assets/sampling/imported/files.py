"""Which files a batch is imported from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cg_assets.core.errors import SamplingError

if TYPE_CHECKING:
    from cg_assets.sampling.imported.settings import ImportedTrajectories


def imported_files(imported: ImportedTrajectories, folder: Path, batch: str) -> list[Path]:
    """The files of a batch, sorted.

    Args:
        imported: what to import.
        folder: against which paths are read.
        batch: name of the batch.

    Raises:
        SamplingError: there are none, one is found twice, or a further batch would read the files of the first again.
    """
    if batch != "0000" and not any("{batch}" in name for name in imported.files):
        raise SamplingError(
            f"batch {batch} would read the files of batch 0000 again; put {{batch}} into imported.files, for example "
            "run_{batch}_*.xtc"
        )
    return found_files("files", imported.files, folder, batch)


def read_files(imported: ImportedTrajectories, folder: Path, batch: str) -> list[Path]:
    """All files that a batch is read from: trajectories, those of forces, those of the bias.

    Raises:
        SamplingError: as of `imported_files`.
    """
    forces = found_files("force_files", imported.force_files or [], folder, batch)
    biases = [] if imported.bias is None else imported.bias.own_files(folder, batch)
    return [*imported_files(imported, folder, batch), *forces, *biases]


def run_name(path: Path) -> str:
    """Name of a run without the number that GROMACS gives to its parts."""
    return str(path.parent / re.sub(r"\.part\d+$", "", path.stem))


def found_files(field: str, names: list[str], folder: Path, batch: str) -> list[Path]:
    """Files by their names, wildcards filled in, in the order of the names; errors as of `imported_files`."""
    found: list[Path] = []
    for name in names:
        pattern = Path(name.replace("{batch}", batch))
        root = Path(pattern.anchor) if pattern.is_absolute() else folder
        exact = root / pattern
        relative = pattern.relative_to(root) if pattern.is_absolute() else pattern
        paths = [exact] if exact.is_file() else sorted(root.glob(str(relative)))
        if not paths:
            raise SamplingError(f"imported.{field}: no file {exact}; give paths relative to the YAML file")
        if twice := [str(path) for path in paths if path in found]:
            raise SamplingError(f"imported.{field}: {twice[0]} is named twice, again by {name}; name each file once")
        found += paths
    return found
