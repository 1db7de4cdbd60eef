"""What a molecule is judged by where its file names no collective variable."""

from __future__ import annotations

from pathlib import Path

from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.pdb_residues import pdb_residues
from cg_assets.systems.base import Fields, fields_of

_LONGEST, _PER_BEAD = 1.5, 0.15
"""Range of a distance of two beads, and of a radius of gyration for each bead [nm]."""
_CAPS = {"ACE", "NME"}


def with_variables(content: Fields) -> Fields:
    """The content of a system's file, of a molecule without collective variables with one of its beads.

    Two beads are judged by their distance, more by their radius of gyration. One bead has neither: it stays without.
    """
    if fields_of(content.get("model")).get("type") != "molecule" or content.get("collective_variables"):
        return content
    judged, beads = fields_of(content.get("evaluation")), _beads(content)
    if "collective_variables" in judged or len(beads) < 2:
        return content
    name, longest = ("distance", _LONGEST) if len(beads) == 2 else ("radius_of_gyration", 0.3 + _PER_BEAD * len(beads))
    variable: Fields = {"type": name, "atoms": [*beads], "range": [0.0, round(longest, 3)]}
    return content | {
        "collective_variables": {name: variable},
        "evaluation": judged | {"collective_variables": [name]},
    }


def _beads(content: Fields) -> list[str]:
    """Names of the beads; none where only the force field tells the atoms."""
    model, beads = fields_of(content.get("model")), fields_of(content.get("mapping")).get("beads")
    if isinstance(beads, dict):
        return list(beads)
    if beads != "alpha_carbons":
        return []
    if isinstance(sequence := model.get("sequence"), list):
        return [f"{place + 1}:CA" for place, residue in enumerate(sequence) if residue not in _CAPS]
    path = Path(str(content.get("folder", "."))) / str(model.get("pdb"))
    residues = enumerate(pdb_residues(path))
    return [f"{place + 1}:CA" for place, item in residues if "CA" in item.atoms and item.name not in {*WATER, "CA"}]
