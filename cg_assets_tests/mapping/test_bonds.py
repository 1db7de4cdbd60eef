"""Bonds of residues without template, over gaps, and in chains of beads."""

import io

import numpy as np
import pytest
from openmm import app, unit

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.mapping.description import molecule_facts
from cg_assets.mapping.peptides import build_peptide

BEAD = "{:6s}{:5d}  {:<3s} {:3s} {}{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2s}"


def written(sequence):
    topology, positions = build_peptide(sequence)
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions * unit.nanometer, text)
    return [line for line in text.getvalue().splitlines() if line.startswith(("ATOM", "HETATM"))]


def named(line, old, new):
    """The line with another name of atom or residue."""
    if line[12:16].strip() == old:
        return line[:12] + (f" {new:<3s}" if len(new) < 4 else new) + line[16:]
    return line[:17] + new + line[20:] if line[17:20] == old else line


def renamed(lines, names):
    for old, new in names.items():
        lines = [named(line, old, new) for line in lines]
    return lines


def moved(line, shift):
    place = "".join(f"{float(line[30 + 8 * k : 38 + 8 * k]) + shift[k]:8.3f}" for k in range(3))
    return line[:30] + place + line[54:]


def built(folder, lines, beads="heavy_atoms", **settings):
    (folder / "own.pdb").write_text("\n".join([*lines, "END", ""]))
    settings = MoleculeSettings(pdb="own.pdb", **settings)
    model = build_molecule(settings, BeadMapping(type="beads", beads=beads), {}, folder)
    return model, dict(molecule_facts(settings, model, folder))


def bonds(model, names=None):
    names = names or {}
    plain = [f"{name.split(':')[0]}:{names.get(name.split(':')[1], name.split(':')[1])}" for name in model.atom_names]
    return {frozenset((plain[one], plain[other])) for one, other in model.bonds}


@pytest.mark.parametrize(
    ("residue", "new", "left_out"),
    [("HIS", "HSE", ""), ("LYS", "LYN", "HZ3"), ("CYS", "CYM", "HG"), ("ALA", "DAL", ""), ("TYR", "XYZ", "")],
)
def test_residues_without_template_keep_their_bonds(tmp_path, residue, new, left_out):
    lines = [
        line for line in written(["GLY", residue, "GLY"]) if line[12:16].strip() != left_out or line[17:20] == "GLY"
    ]
    expected = bonds(built(tmp_path, lines)[0])
    model, facts = built(tmp_path, renamed(lines, {residue: new}))
    assert bonds(model) == expected
    assert f"2 {new}" in facts["bonds by distance"]


def test_a_residue_with_other_name_is_simulated(tmp_path):
    model, _ = built(
        tmp_path, renamed(written(["GLY", "HIS", "GLY"]), {"HIS": "HSE"}), force_fields=["amber14-all.xml"]
    )
    assert model.system.getNumParticles() == model.n_atoms


def test_selenium_and_phosphate(tmp_path):
    lines = written(["GLY", "MET", "SER", "GLY"])
    lines = [line[:76] + "SE" + line[78:] if line[12:16].strip() == "SD" else line for line in lines]
    lines = renamed(lines, {"SD": "SE", "MET": "MSE", "SER": "SEP"})
    at = next(index for index, line in enumerate(lines) if line[17:20] == "SEP" and line[12:16].strip() == "HG")
    oxygen, hydrogen = (
        np.array([float(line[30 + 8 * k : 38 + 8 * k]) for k in range(3)])
        for line in (next(one for one in lines if one[12:16].strip() == "OG"), lines[at])
    )
    along = (hydrogen - oxygen) / np.linalg.norm(hydrogen - oxygen)
    side = np.cross(along, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side)
    other = np.cross(along, side)
    phosphorus = oxygen + 1.6 * along
    around = [np.cos(angle) * side + np.sin(angle) * other for angle in np.arange(3) * 2 * np.pi / 3]
    places = {"P": phosphorus} | {f"O{k + 1}P": phosphorus + 0.5 * along + 1.41 * arm for k, arm in enumerate(around)}
    group = [
        BEAD.format("HETATM", 900 + k, name, "SEP", "A", 3, *place, name[0])
        for k, (name, place) in enumerate(places.items())
    ]
    model, facts = built(tmp_path, [*lines[:at], *group, *lines[at + 1 :]])
    assert {frozenset(pair) for pair in (("2:CG", "2:SE"), ("2:SE", "2:CE"), ("3:OG", "3:P"))} <= bonds(model)
    assert {frozenset(("3:P", f"3:O{k}P")) for k in (1, 2, 3)} <= bonds(model)
    assert len(model.bonds) == model.n_atoms - 1
    assert "2 MSE" in facts["bonds by distance"]
    assert "3 SEP" in facts["bonds by distance"]


def test_caps_of_charmm_within_their_residue(tmp_path):
    lines = written(["ACE", "ALA", "NME"])
    first = {"C": "CY", "O": "OY", "CH3": "CAY", "H1": "HY1", "H2": "HY2", "H3": "HY3", "ACE": "ALA"}
    last = {"N": "NT", "H": "HNT", "C": "CAT", "CH3": "CAT", "H1": "HT1", "H2": "HT2", "H3": "HT3", "NME": "ALA"}
    names = {"ACE": first, "NME": last}
    lines = [renamed([line], names.get(line[17:20], {}))[0] if line[17:20] in names else line for line in lines]
    lines = [line[:22] + "   1" + line[26:] for line in lines]
    model, _ = built(tmp_path, lines)
    assert len(list(model.topology.residues())) == 1
    assert {frozenset(pair) for pair in (("1:CY", "1:N"), ("1:C", "1:NT"), ("1:NT", "1:CAT"))} <= bonds(model)
    assert len(model.bonds) == 21


def test_names_that_openmm_makes_equal_keep_those_of_the_file(tmp_path):
    lines = renamed(written(["GLY", "ALA", "GLY"]), {"H1": "HN", "H2": "HT1", "H3": "HT2"})
    model, _ = built(tmp_path, lines)
    assert {"1:HN", "1:HT1", "1:HT2"} - set(model.atom_names) <= {"1:HN", "1:HT2"}
    assert len(set(model.atom_names)) == model.n_atoms
    assert len(model.bonds) == model.n_atoms - 1
    hydrogens = [name for name in model.atom_names if frozenset((name, "1:N")) in bonds(model) and name != "1:CA"]
    assert len(hydrogens) == 3


def test_atoms_that_nothing_joins_are_refused_by_residue(tmp_path):
    lines = renamed(written(["GLY", "HIS", "GLY"]), {"HIS": "HSE"})
    lines = [
        moved(line, (0, 20, 0)) if line[17:20] == "HSE" and line[12:16].strip() == "NE2" else line for line in lines
    ]
    with pytest.raises(SystemSpecError, match="residue 2 HSE have no bonds that join them"):
        built(tmp_path, lines)


def test_missing_residues_are_not_bonded_over(tmp_path):
    lines = [line for line in written(["GLY"] * 6) if int(line[22:26]) not in (3, 4)]
    model, facts = built(tmp_path, lines)
    assert frozenset(("2:C", "3:N")) not in bonds(model)
    assert "2 GLY C and 3 GLY N" in facts["gaps"]
    assert facts["molecules"].startswith("2,")
    with pytest.raises(SystemSpecError, match="residue 2 GLY"):
        built(tmp_path, lines, force_fields=["amber14-all.xml"])


def test_a_wrong_conect_makes_no_bond(tmp_path):
    """As MDTraj writes for a slice: CONECT counts its atoms, ATOM has the numbers of the whole structure."""
    lines = [line for line in written(["ACE", "ALA", "NME"]) if line[77] != "H"]
    expected = built(tmp_path, lines)[0]
    serial = {(line[12:16].strip(), int(line[22:26])): int(line[6:11]) for line in lines}
    model, facts = built(tmp_path, [*lines, f"CONECT{serial['O', 1]:5d}{serial['CA', 2]:5d}"])
    assert bonds(model) == bonds(expected)
    assert len(model.bonds) == 9
    assert "a wrong CONECT): 1 ACE O and 2 ALA CA (0.274 nm)" in facts["gaps"]


def test_chains_without_ter_are_two_molecules_and_simulated(tmp_path):
    one = written(["GLY", "ALA", "GLY"])
    other = [moved(line, (0, 30, 0)) for line in one]
    other = [f"{line[:6]}{int(line[6:11]) + 100:5d}{line[11:22]}{int(line[22:26]) + 3:4d}{line[26:]}" for line in other]
    model, facts = built(tmp_path, [*one, *other], force_fields=["amber14-all.xml"])
    assert facts["molecules"].startswith("2,")
    assert len(model.bonds) == model.n_atoms - 2
    assert max(np.linalg.norm(model.positions[a] - model.positions[b]) for a, b in model.bonds) < 0.16


@pytest.mark.parametrize("angle", [90.0, 60.0])
def test_a_structure_cut_by_its_box_is_made_whole(tmp_path, angle):
    """Rectangular and triclinic."""
    lines = written(["ACE", "ALA", "NME"])
    expected = built(tmp_path, lines)[0]
    box = 30 * np.array([[1, 0, 0], [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0], [0, 0, 1]])
    cut, shift = [], np.array([3.0, -1.0, 0.5])
    for line in lines:
        place = np.array([float(line[30 + 8 * k : 38 + 8 * k]) for k in range(3)]) + shift
        cut.append(moved(line, shift - np.floor(place @ np.linalg.inv(box)) @ box))
    assert cut != [moved(line, shift) for line in lines]
    cell = f"CRYST1   30.000   30.000   30.000  90.00  90.00{angle:7.2f} P 1           1"
    model, _ = built(tmp_path, [cell, *cut])
    difference = model.positions - expected.positions
    np.testing.assert_allclose(difference - difference[0], 0, atol=3e-4)


def chain(start, number, name="CA", letter="A", residue="ALA", element="", step=3.8, shift=0.0):
    return [
        BEAD.format("ATOM", start + k, name, residue, letter, start + k, step * k, shift, 0.0, element).rstrip()
        for k in range(number)
    ]


@pytest.mark.parametrize("element", ["C", ""])
@pytest.mark.parametrize("extra", [[], ["CONECT    1    2"]])
def test_alpha_carbons_of_two_chains_with_an_ion(tmp_path, element, extra):
    ion = BEAD.format("HETATM", 20, "CA", "CA", "C", 20, 5.0, 5.0, 5.0, "CA" if element else "").rstrip()
    lines = [*chain(1, 4, element=element), *chain(11, 3, letter="B", element=element, shift=9.0), ion, *extra]
    model, _ = built(tmp_path, lines, "alpha_carbons")
    assert {frozenset(bond) for bond in model.bonds} == {frozenset((one, one + 1)) for one in (0, 1, 2, 4, 5)}
    cg_map = BeadMapping(type="beads", beads="alpha_carbons").cg_map(model)
    assert cg_map.bead_names == [f"{k}:CA" for k in range(1, 8)]
    np.testing.assert_allclose(cg_map.bead_masses, 12.01, atol=0.01)
    assert model.elements[-1] == "Ca"


def test_alpha_carbons_over_a_gap_and_chains_without_ter(tmp_path):
    lines = [*chain(1, 3, element="C"), *chain(8, 3, element="C", shift=9.0)]
    model, facts = built(tmp_path, lines, "alpha_carbons")
    assert len(model.bonds) == 4
    assert "3 ALA and 4 ALA (1.18 nm)" in facts["gaps in chains of beads"]


def test_beads_ask_for_masses(tmp_path):
    lines = [
        BEAD.format("ATOM", 2 * n + k + 1, ("BB", "SC1")[k], "LYS", "A", n + 1, 3.5 * n, 3.0 * k, 0.0, "").rstrip()
        for n in range(3)
        for k in range(2)
    ]
    with pytest.raises(SystemSpecError, match=r"give model\.masses"):
        built(tmp_path, lines)
    with pytest.raises(SystemSpecError, match=r"SC1 are names of beads.*give model\.masses"):
        built(tmp_path, [line for line in lines if "SC1" in line])
    with pytest.raises(SystemSpecError, match=r"BB are names of beads"):
        built(tmp_path, chain(1, 4, "BB", element="B"))
    conect = [f"CONECT{2 * n + 1:5d}{2 * n + 2:5d}" for n in range(3)]
    masses = {"BB": 72.0, "SC1": 54.0}
    with pytest.raises(SystemSpecError, match="CONECT"):
        built(tmp_path, lines, masses=masses)
    model, _ = built(tmp_path, [*lines, *conect], masses=masses)
    cg_map = BeadMapping(type="beads", beads="heavy_atoms").cg_map(model)
    assert cg_map.bead_masses.tolist() == [72.0, 54.0] * 3
    assert cg_map.bonds == [(0, 1), (0, 2), (2, 3), (2, 4), (4, 5)]


@pytest.mark.parametrize(("name", "element"), [("S", "sulfur"), ("C1A", "carbon"), ("NC3", "nitrogen")])
def test_beads_named_like_atoms_ask_for_masses_too(tmp_path, name, element):
    with pytest.raises(SystemSpecError, match=f"{name} are too far .* masses of {element}.*give model.masses"):
        built(tmp_path, chain(1, 4, name))
    model, _ = built(tmp_path, chain(1, 4, name), masses={name: 60.0})
    assert model.masses.tolist() == [60.0] * 4
    assert len(model.bonds) == 3
    assert len(built(tmp_path, chain(1, 4, "P"))[0].bonds) == 3  # phosphorus it is


def test_other_guessed_elements_are_refused(tmp_path):
    lines = [BEAD.format("ATOM", k, "NA", "LIG", "A", k, 3.8 * k, 0.0, 0.0, "").rstrip() for k in (1, 2)]
    with pytest.raises(SystemSpecError, match="would be read as the element Na"):
        built(tmp_path, lines)
