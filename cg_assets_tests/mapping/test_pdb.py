"""Structures and force fields that OpenMM would misread, or refuse with other words than those that help."""

import io

import pytest
from openmm import app, unit

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.mapping.description import molecule_facts
from cg_assets.mapping.pdb import open_pdb
from cg_assets.mapping.peptides import build_peptide

HEAVY = BeadMapping(type="beads", beads="heavy_atoms")


def written(sequence):
    """The lines of a PDB file of a peptide."""
    topology, positions = build_peptide(sequence)
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions * unit.nanometer, text)
    return [line for line in text.getvalue().splitlines() if not line.startswith("CONECT")]


def moved(line, place):
    return line[:30] + "".join(f"{value:8.3f}" for value in place) + line[54:]


def refusal(tmp_path, lines, beads=HEAVY, **settings):
    (tmp_path / "own.pdb").write_text("\n".join(lines) + "\n")
    settings = {"force_fields": ["amber14-all.xml"]} | settings
    with pytest.raises(SystemSpecError) as caught:
        build_molecule(MoleculeSettings(pdb="own.pdb", **settings), beads, {}, tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def peptide():
    return written(["GLY", "HIS", "GLY"])


def test_a_residue_without_template_is_named_by_its_number_from_1(tmp_path, peptide):
    words = refusal(tmp_path, [line for line in peptide if " HB2 HIS" not in line])
    assert "residue 2 (HIS)" in words
    assert "without a template: residue 2 HIS" in words
    assert "http" not in words


def test_a_bare_exception_of_a_force_field_is_translated(tmp_path):
    words = refusal(tmp_path, written(["ACE", "ALA", "NME"]), force_fields=["charmm36.xml"])
    assert words.startswith("model.force_fields: charmm36.xml cannot describe the molecule")
    assert "-1" not in words


@pytest.mark.parametrize("files", [["nothing.xml"], ["../x"], [""], ["amber99sbildn.xml", "amber99sb.xml"]])
def test_force_fields_that_cannot_be_read(tmp_path, peptide, files):
    assert "cannot be read" in refusal(tmp_path, peptide, force_fields=files)


@pytest.mark.parametrize(
    ("files", "implicit"),
    [
        (["amber14-all.xml", "implicit/obc2.xml"], "OBC2"),
        (["amber14-all.xml", "implicit/obc2.xml", "implicit/gbn2.xml"], None),
        (["amber99sbildn.xml", "amber99_obc.xml"], "OBC2"),
    ],
)
def test_implicit_solvent_twice_is_refused(tmp_path, files, implicit):
    lines = written(["ACE", "ALA", "NME"])
    assert "2 implicit solvents" in refusal(tmp_path, lines, force_fields=files, implicit_solvent=implicit)


def test_implicit_solvent_in_a_box_is_refused(tmp_path):
    files = ["amber14-all.xml", "implicit/obc2.xml"]
    words = refusal(tmp_path, written(["ACE", "ALA", "NME"]), force_fields=files, box=3.0, cutoff=1.0)
    assert "nonbonded method" in words


def test_atoms_in_one_place_and_positions_in_nm(tmp_path, peptide):
    atoms = [index for index, line in enumerate(peptide) if line.startswith("ATOM")]
    place = [float(peptide[atoms[3]][start : start + 8]) for start in (30, 38, 46)]
    lines = [moved(line, place) if index == atoms[9] else line for index, line in enumerate(peptide)]
    assert "are in one place" in refusal(tmp_path, lines)
    small = [
        moved(line, [0.1 * float(line[start : start + 8]) for start in (30, 38, 46)]) if index in atoms else line
        for index, line in enumerate(peptide)
    ]
    assert "in Å" in refusal(tmp_path, small)


def test_conformer_and_handedness_are_printed_back(tmp_path):
    """OpenMM takes the first model, the first of alternate locations, and D-residues as L-residues without a word."""
    lines = [line for line in written(["ACE", "ALA", "NME"]) if line.startswith(("ATOM", "HETATM"))]
    mirrored = [moved(line, [-float(line[30:38]), float(line[38:46]), float(line[46:54])]) for line in lines]
    other = next(line for line in mirrored if line[12:16].strip() == "HB2")
    twice = []
    for line in mirrored:
        if line is other:
            twice.append(line[:16] + "A" + line[17:54] + "  0.40" + line[60:])
            twice.append(moved(line[:16] + "B" + line[17:54] + "  0.60" + line[60:], [9.0, 9.0, 9.0]))
        else:
            twice.append(line)
    text = "\n".join(["MODEL        1", *twice, "ENDMDL", "MODEL        2", *lines, "ENDMDL", "END", ""])
    (tmp_path / "own.pdb").write_text(text)
    settings = MoleculeSettings(pdb="own.pdb", force_fields=["amber14-all.xml"])
    molecule = build_molecule(settings, HEAVY, {}, tmp_path)
    assert abs(molecule.positions).max() < 0.85, "the first of the two locations"
    facts = dict(molecule_facts(settings, molecule, tmp_path))
    assert facts["conformer"] == "model 1 of 2 in own.pdb; alternate locations A, B: the first of each atom"
    assert facts["D-residues"].startswith("2 ALA;")
    assert "D-residues" not in dict(
        molecule_facts(
            settings,
            build_molecule(
                MoleculeSettings(sequence=["ACE", "ALA", "NME"], force_fields=["amber14-all.xml"]), HEAVY, {}, tmp_path
            ),
            tmp_path,
        )
    )


@pytest.mark.parametrize("text", ["", "END", "ATOM", "nothing", "ATOM      1  N   GLY A   1       x  y  z", "\x00\x01"])
def test_what_is_no_pdb_file(tmp_path, text):
    assert refusal(tmp_path, [text]).startswith(f"model.pdb: {tmp_path / 'own.pdb'}")


@pytest.mark.parametrize("text", ["", "REMARK of nothing\nEND", "data_x\nloop_\n_atom_site.id\n1"])
def test_a_file_without_atoms_gets_no_words_of_python(tmp_path, text):
    assert refusal(tmp_path, [text]).endswith("holds no atom; give a PDB file with ATOM or HETATM lines")


def test_atoms_of_one_name_are_named_by_their_residue(tmp_path, peptide):
    """As Open Babel writes them; OpenMM leaves out all but the first with a warning. Alternate locations are none."""
    same = [f"{line[:12]} H  {line[16:]}" if line[12:16].strip() in {"HB2", "HB3"} else line for line in peptide]
    words = refusal(tmp_path, same)
    assert "several atoms of residue HIS 2 are named H, of which OpenMM reads one (2 left out in all)" in words
    place = next(row for row, line in enumerate(peptide) if line[12:16].strip() == "HB2")
    one, other = (f"{peptide[place][:16]}{letter}{peptide[place][17:]}" for letter in "AB")
    alternate = [*peptide[:place], one, moved(other, (9.0, 9.0, 9.0)), *peptide[place + 1 :]]
    (tmp_path / "own.pdb").write_text("\n".join([*alternate, "END", ""]))
    atoms = sum(line.startswith("ATOM") for line in peptide)
    assert len(open_pdb(tmp_path / "own.pdb", "model.pdb")[1]) == atoms
