"""The polymer carries beads, or what the file of the system names; everything else is left out by name and number."""

import numpy as np
import pytest
from test_bonds import BEAD, built, moved, written

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.sampling.molecule.model import Molecule

CELL = "CRYST1   40.000   40.000   40.000  90.00  90.00  90.00 P 1           1"


def hetero(residue, number, atoms, place, chain="X"):
    """One molecule of atoms 1.4 Å apart."""
    return [
        BEAD.format("HETATM", 100 * number + k, name, residue, chain, number, place[0] + 1.4 * k, *place[1:], element)
        for k, (name, element) in enumerate(atoms)
    ]


def solvent(start=50):
    """Two sodium ions, a ligand, methanol, and three molecules of crystal water."""
    ions = [line for k in (0, 1) for line in hetero("NA", start + k, [("NA", "NA")], (20, 5.0 * k, 9))]
    ligand = hetero("LIG", start + 2, [("C1", "C"), ("C2", "C"), ("O1", "O")], (20, 0, 20))
    methanol = hetero("MOH", start + 3, [("C", "C"), ("O", "O")], (20, 10, 20))
    water = [line for k in (4, 5, 6) for line in hetero("HOH", start + k, [("O", "O")], (30, 5.0 * k, 0))]
    return [*ions, *ligand, *methanol, *water]


def carriers(model):
    return {name.split(":")[0] for name in (model.atom_names[atom] for atom in model.stored)}


@pytest.mark.parametrize("beads", ["heavy_atoms", "alpha_carbons"])
def test_ions_ligands_cosolvent_and_water_are_left_out(tmp_path, beads):
    model, facts = built(tmp_path, [*written(["GLY", "ALA", "GLY"]), *solvent()], beads)
    assert carriers(model) == {"1", "2", "3"}
    assert facts["without beads"].startswith("3 HOH, 2 NA, 1 LIG, 1 MOH;")
    cg_map = BeadMapping(type="beads", beads=beads).cg_map(model)
    assert cg_map.n_beads == {"heavy_atoms": 14, "alpha_carbons": 3}[beads]


def test_the_file_of_the_system_selects(tmp_path):
    built(tmp_path, [*written(["GLY", "ALA", "GLY"]), *solvent()])
    for mapping, expected in (
        ({"beads": "heavy_atoms", "molecules": ["LIG"]}, {"6"}),
        ({"beads": "heavy_atoms", "molecules": ["LIG", "ALA"]}, {"1", "2", "3", "6"}),
        ({"beads": {"sodium": ["4:NA"], "backbone": ["2:N", "2:CA"]}}, {"1", "2", "3", "4"}),
    ):
        settings = BeadMapping(type="beads", **mapping)
        assert carriers(build_molecule(MoleculeSettings(pdb="own.pdb"), settings, {}, tmp_path)) == expected
    with pytest.raises(SystemSpecError, match=r"mapping\.molecules: no residue is named XYZ; known are ALA"):
        wrong = BeadMapping(type="beads", beads="heavy_atoms", molecules=["XYZ"])
        build_molecule(MoleculeSettings(pdb="own.pdb"), wrong, {}, tmp_path)


def test_without_a_polymer_one_kind_carries_beads_and_two_are_ambiguous(tmp_path):
    kinds = {
        name: hetero(name, 1 + k, [("C", "C"), ("O", "O")], (9 * k, 0, 0)) for k, name in enumerate(("MOH", "ETH"))
    }
    ion = hetero("NA", 9, [("NA", "NA")], (30, 0, 0))
    assert carriers(built(tmp_path, [*kinds["MOH"], *ion])[0]) == {"1"}
    with pytest.raises(SystemSpecError, match=r"ETH, MOH carry beads is not clear; name them in mapping\.molecules"):
        built(tmp_path, [*kinds["MOH"], *kinds["ETH"]])


@pytest.mark.parametrize("beads", ["heavy_atoms", {"cap": ["1:CH3"], "side": ["2:CB"]}])
def test_one_solute_in_its_own_box_is_isolated_to_its_potential(tmp_path, beads):
    peptide, own = written(["ACE", "ALA", "NME"]), BeadMapping(type="beads", beads=beads)
    other = [f"{line[:21]}B{line[22:]}" for line in (moved(line, (0, 15, 0)) for line in peptide)]
    model = Molecule(type="molecule", pdb="own.pdb", box=4.0, cutoff=0.9)
    for lines, solvated in (
        ([*peptide, *solvent()], True),
        (peptide, False),
        ([*peptide, *other, *solvent()], beads != "heavy_atoms"),
    ):
        (tmp_path / "own.pdb").write_text("\n".join([CELL, *lines, "END", ""]))
        assert model.is_solvated(own, tmp_path) is solvated
    only = BeadMapping(type="beads", beads="heavy_atoms", molecules=["LIG"])
    assert model.is_solvated(only, tmp_path)


def test_one_alpha_carbon_is_a_bead(tmp_path):
    model, _ = built(tmp_path, written(["ACE", "ALA", "NME"]), "alpha_carbons")
    cg_map = BeadMapping(type="beads", beads="alpha_carbons").cg_map(model)
    assert cg_map.bead_names == ["2:CA"]
    assert np.count_nonzero(cg_map.matrix) == 1
