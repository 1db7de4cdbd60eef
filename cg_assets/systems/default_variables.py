"""What a molecule is judged by where its file names no collective variable."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cg_assets.core.nested import fields_of, listed
from cg_assets.mapping.bead_mapping import WATER
from cg_assets.mapping.pdb_residues import pdb_residues
from cg_assets.systems.base import Fields

_LONGEST, _PER_BEAD, _LARGEST = 1.5, 0.15, 20.0
"""Range of a distance of two beads, and of a radius of gyration for each bead and at most [nm]."""
_COIL = 0.25, 0.6
"""Radius of gyration of a chain of n alpha carbons that is larger than that of a coil, 0.19 nm n^0.6 (J. E. Kohn et
al., Proc. Natl Acad. Sci. 101, 12491 (2004))."""
_CAPS = {"ACE", "NME"}
NO_SHAPE = (
    "has no internal coordinates: in free space and in a periodic solvent its mean force is zero everywhere, so there "
    "is nothing to learn"
)
"""Why one bead makes no system."""


def with_variables(content: Fields) -> Fields:
    """The content of a system's file, of a molecule without collective variables with one of its beads.

    Two beads are judged by their distance, more by their radius of gyration, heavy atoms by that of the alpha carbons.
    Ranges hold twice what the structure has.

    Raises:
        ValueError: there is one bead, which has neither.
    """
    if fields_of(content.get("model")).get("type") != "molecule" or content.get("collective_variables"):
        return content
    judged, beads = fields_of(content.get("evaluation")), _beads(content)
    if "collective_variables" in judged or not beads:
        return content
    if len(beads) == 1:
        raise ValueError(
            f"mapping.beads: a single bead ({next(iter(beads))}) {NO_SHAPE}; map the molecule to two beads or more"
        )
    chain = not fields_of(fields_of(content.get("mapping")).get("beads"))
    size = 0.3 + (_COIL[0] * len(beads) ** _COIL[1] if chain else _PER_BEAD * len(beads))
    name, longest = ("distance", _LONGEST) if len(beads) == 2 else ("radius_of_gyration", size)
    longest = min(max(longest, 2.0 * _size(beads, content)), _LARGEST)
    variable: Fields = {"type": name, "atoms": [*beads], "range": [0.0, round(longest, 3)]}
    return content | {
        "collective_variables": {name: variable},
        "evaluation": judged | {"collective_variables": [name]},
    }


def _size(beads: dict[str, list[str]], content: Fields) -> float:
    """Distance of two beads, or radius of gyration of more, in the file of the structure [nm]; 0 where it has none."""
    known = {
        f"{place + 1}:{atom}": position
        for place, item in enumerate(pdb_residues(_structure(content)))
        for atom, position in item.places.items()
        if position
    }
    atoms = [[known[atom] for atom in members if atom in known] for members in beads.values()]
    if not all(atoms):
        return 0.0
    centres = np.array([np.mean(positions, axis=0) for positions in atoms])
    if len(centres) == 2:
        return float(np.linalg.norm(centres[1] - centres[0]))
    return float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _structure(content: Fields) -> Path:
    """The file that has the positions of a molecule."""
    model = fields_of(content.get("model"))
    named = model.get("pdb") or fields_of(model.get("topology")).get("coordinates")
    return Path(str(content.get("folder", "."))) / str(named)


def _beads(content: Fields) -> dict[str, list[str]]:
    """Atoms of the beads by their names, of heavy atoms the alpha carbons; none where the files do not name them."""
    model, mapping = fields_of(content.get("model")), fields_of(content.get("mapping"))
    beads, only = mapping.get("beads"), mapping.get("molecules")
    if beads not in ("alpha_carbons", "heavy_atoms"):
        named = {str(name): [str(atom) for atom in listed(members)] for name, members in fields_of(beads).items()}
        return {name: members for name, members in named.items() if members}
    if (sequence := model.get("sequence")) is not None:
        places = [place for place, residue in enumerate(listed(sequence)) if residue not in _CAPS]
    else:
        places = [
            place
            for place, item in enumerate(pdb_residues(_structure(content)))
            if "CA" in item.atoms and item.name not in {*WATER, "CA"} and (only is None or item.name in listed(only))
        ]
    return {f"{place + 1}:CA": [f"{place + 1}:CA"] for place in places}
