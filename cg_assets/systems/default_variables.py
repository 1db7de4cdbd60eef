"""What a molecule is judged by where its file names no collective variable."""

from __future__ import annotations

from pathlib import Path

from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.pdb_residues import pdb_residues
from cg_assets.systems.base import Fields, fields_of

_LONGEST, _PER_BEAD, _LARGEST = 1.5, 0.15, 20.0
"""Range of a distance of two beads, and of a radius of gyration for each bead and at most [nm]."""
_COIL = 0.25, 0.6
"""Radius of gyration of a chain of n alpha carbons that is larger than that of a coil, 0.19 nm n^0.6 (J. E. Kohn et
al., Proc. Natl Acad. Sci. 101, 12491 (2004))."""
_CAPS = {"ACE", "NME"}


def with_variables(content: Fields) -> Fields:
    """The content of a system's file, of a molecule without collective variables with one of its beads.

    Two beads are judged by their distance, more by their radius of gyration, heavy atoms by that of the alpha carbons.
    One bead has neither: it stays without.
    """
    if fields_of(content.get("model")).get("type") != "molecule" or content.get("collective_variables"):
        return content
    judged, beads = fields_of(content.get("evaluation")), _beads(content)
    if "collective_variables" in judged or len(beads) < 2:
        return content
    chain = isinstance(fields_of(content.get("mapping")).get("beads"), str)
    size = 0.3 + (_COIL[0] * len(beads) ** _COIL[1] if chain else _PER_BEAD * len(beads))
    name, longest = ("distance", _LONGEST) if len(beads) == 2 else ("radius_of_gyration", min(size, _LARGEST))
    variable: Fields = {"type": name, "atoms": [*beads], "range": [0.0, round(longest, 3)]}
    return content | {
        "collective_variables": {name: variable},
        "evaluation": judged | {"collective_variables": [name]},
    }


def _beads(content: Fields) -> list[str]:
    """Names of the beads, of heavy atoms those of the alpha carbons; none where only the topology has them."""
    model, mapping = fields_of(content.get("model")), fields_of(content.get("mapping"))
    beads, only = mapping.get("beads"), mapping.get("molecules")
    if isinstance(beads, dict):
        return list(beads)
    if beads not in ("alpha_carbons", "heavy_atoms"):
        return []
    if isinstance(sequence := model.get("sequence"), list):
        return [f"{place + 1}:CA" for place, residue in enumerate(sequence) if residue not in _CAPS]
    path = Path(str(content.get("folder", "."))) / str(model.get("pdb"))
    return [
        f"{place + 1}:CA"
        for place, item in enumerate(pdb_residues(path))
        if "CA" in item.atoms and item.name not in {*WATER, "CA"} and (not isinstance(only, list) or item.name in only)
    ]
