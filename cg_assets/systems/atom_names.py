"""Atoms that a system's file names by chain and number of its PDB file."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import JsonValue

from cg_assets.core.nested import fields_of, rebuilt
from cg_assets.mapping.pdb_residues import plain_atom
from cg_assets.systems.base import Fields

_OF_FILE = re.compile(r"[A-Za-z0-9]*/-?[0-9]+[A-Z]?:[A-Za-z0-9'*]+")


def with_plain_atoms(content: Fields) -> Fields:
    """The content of a system's file with `A/38:CA` replaced by the place of the residue, as in `5:CA`.

    Raises:
        SystemSpecError: the PDB file has no such residue, or several.
    """
    pdb = fields_of(content.get("model")).get("pdb")
    if not isinstance(pdb, str | Path):
        return content
    path = Path(str(content.get("folder", "."))) / pdb

    def plain(value: JsonValue) -> JsonValue:
        if isinstance(value, str) and _OF_FILE.fullmatch(value) and path.is_file():
            return plain_atom(value, path)
        return rebuilt(value, plain)

    sections = [name for name in ("mapping", "collective_variables") if name in content]
    return content | {name: plain(content[name]) for name in sections}
