"""OpenMM: force field files, shipped ones and own ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.core.errors import SystemSpecError, library_errors, one_line
from cg_assets.mapping.topologies.base import CreateArguments, atom_names
from cg_assets.mapping.topologies.soundness import check_system, read_xml

if TYPE_CHECKING:
    import openmm


def force_field_files(names: Sequence[str], folder: Path) -> list[str]:
    """Force field files as OpenMM reads them: those in the folder of the YAML file with their path."""
    return [str(folder / name) if (folder / name).is_file() else name for name in names]


def own_force_fields(names: Sequence[str], folder: Path) -> list[Path]:
    """Those of the force field files that are the user's own."""
    return [Path(name) for name in force_field_files(names, folder) if Path(name).is_file()]


def matched_system(files: Sequence[str], named: str, topology: Any, arguments: CreateArguments) -> openmm.System:
    """The OpenMM System of a topology by force field files.

    Args:
        files: what OpenMM reads.
        named: the files as `model.force_fields` names them.
        topology: of OpenMM.
        arguments: of `createSystem`.

    Raises:
        SystemSpecError: a file cannot be read, or a residue has no template, or a bond no parameters in an own file.
    """
    from openmm import app

    own = [Path(name) for name in files if Path(name).is_file()]
    for path in own:
        read_xml(path, "model.force_fields")
    with library_errors(SystemSpecError, f"model.force_fields: {named} cannot be read"):
        force_field = app.ForceField(*files)
    try:
        created = force_field.createSystem(topology, **arguments)
    except Exception as error:  # a bare one of charmm36.xml
        fault = _template_fault(error, force_field, topology)
        raise SystemSpecError(
            f"model.force_fields: {named} cannot describe the molecule: {fault}; choose force fields with one "
            "template for each residue, and give the molecule with all its hydrogens and standard residue names"
        ) from error
    if own:
        bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
        check_system(created, atom_names(topology), f"model.force_fields: {named}", bonds)
    return created


def _template_fault(error: Exception, force_field: Any, topology: Any) -> str:
    """OpenMM's words, with residues counted from 1 and those without a template named."""
    try:
        unmatched = force_field.getUnmatchedResidues(topology)
    except Exception:  # it may fail as createSystem did, whose error is the one to show
        unmatched = []
    words = re.sub(r"residue -1 \(Merged\)", "neighbouring residues together", one_line(error, 600))
    words = re.sub(r"residue (\d+)", lambda found: f"residue {int(found[1]) + 1}", words)
    words = words.partition("  For more")[0].partition(" For more information")[0].rstrip(".")
    names = list(dict.fromkeys(f"{residue.index + 1} {residue.name}" for residue in unmatched))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{words} (without a template: residue {', '.join(names[:5])}{more})" if names else words
