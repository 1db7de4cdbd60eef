"""Beads of a molecule in the PDB file of another structure, whose residues are counted otherwise."""

import numpy as np
import pytest
from test_bonds import BEAD, built

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.other_structure import beads_in

NAMES = ["GLY", "TYR", "ASP", "PRO", "GLU", "THR"]
PLACES = np.cumsum([[3.8, 0.3 * (-1) ** k, 0.1 * k] for k in range(9)], axis=0)


def chain(names, number, letter="A", skip=0):
    return [
        BEAD.format("ATOM", k + 1, "CA", name, letter, number + k, *PLACES[k + skip], "C")
        for k, name in enumerate(names)
    ]


def found(folder, model, structure):
    molecule, _ = built(folder, model, "alpha_carbons")
    (folder / "native.pdb").write_text("\n".join([*structure, "END", ""]))
    cg_map = BeadMapping(type="beads", beads="alpha_carbons").cg_map(molecule)
    return beads_in(molecule, cg_map, folder / "native.pdb", "evaluation.native.file")


@pytest.mark.parametrize(
    ("model", "structure", "first", "shown"),
    [
        (chain(NAMES, 1), chain(NAMES, 1), 0, []),
        (chain(NAMES, 38), chain(["SER", "SER", *NAMES], 36), 2, []),
        (chain(NAMES, 1), chain(NAMES, 38), 0, ["residues 1-6 = A/38-43 (place = chain/number in native.pdb)"]),
        (chain(NAMES, 38, "B"), chain(NAMES, 1), 0, ["residues 1-6 = A/1-6 (place = chain/number in native.pdb)"]),
        (chain(["ALA"] * 6, 38), chain(["ALA"] * 9, 35), 3, []),
        (chain(NAMES, 38), chain(["GLY", "PHE", *NAMES[2:]], 38), 0, ["other names of residues: 2 TYR is PHE"]),
    ],
    ids=["alike", "longer", "renumbered", "other chain", "equal names", "a mutant"],
)
def test_residues_are_found_by_number_or_by_place(tmp_path, model, structure, first, shown):
    places, facts = found(tmp_path, model, structure)
    np.testing.assert_allclose(places, 0.1 * PLACES[first : first + 6], atol=1e-4)
    assert len(facts) == len(shown)
    assert all(text.endswith(words) for (_, text), words in zip(facts, shown, strict=True))


def test_another_molecule_and_missing_atoms_are_refused(tmp_path):
    with pytest.raises(SystemSpecError, match=r"A/1-8 are those of another molecule.*1 GLY is SER, 2 TYR is SER"):
        found(tmp_path, chain(NAMES, 38), chain(["SER", "SER", *NAMES], 1))
    with pytest.raises(SystemSpecError, match=r"native\.pdb lacks 6:CA, on which beads sit"):
        found(tmp_path, chain(NAMES, 1), chain(NAMES[:5], 1))
