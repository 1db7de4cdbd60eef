"""Frames made elsewhere are compared with the model bond by bond and centre by centre."""

import io

import numpy as np
import pytest
from openmm import app, unit

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.mapping.first_frames import check_first_frames
from cg_assets.mapping.peptides import build_peptide

AMBER = ["N", "H", "CA", "HA", "CB", "HB1", "HB2", "HB3", "C", "O"]
ALPHA = "ATOM  {:5d}  CA  ALA {}{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C"


def written(folder, sequence, heavy=False):
    topology, positions = build_peptide(sequence)
    text = io.StringIO()
    app.PDBFile.writeFile(topology, positions * unit.nanometer, text)
    lines = text.getvalue().splitlines()
    lines = [line for line in lines if line.startswith(("ATOM", "HETATM")) and not (heavy and line[77] == "H")]
    (folder / "own.pdb").write_text("\n".join([*lines, "END", ""]))
    return molecule(folder)


def molecule(folder, beads="heavy_atoms", name="own.pdb"):
    return build_molecule(MoleculeSettings(pdb=name), BeadMapping(type="beads", beads=beads), {}, folder)


def trace(folder, places, name="trace.pdb"):
    lines = [ALPHA.format(i + 1, "A", i + 1, *(10 * place)) for i, place in enumerate(places)]
    (folder / name).write_text("\n".join([*lines, "END", ""]))
    return molecule(folder, "alpha_carbons", name)


def helix(number):
    """Alpha carbons of a right-handed helix: 100 degrees and 0.15 nm each, 0.38 nm apart."""
    turn = np.radians(100) * np.arange(number)
    return np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(number)], axis=1)


def frames(model, number=10, noise=0.004):
    places = model.positions[model.stored]
    return places + noise * np.random.default_rng(1).normal(size=(number, *places.shape))


def refusal(model, positions):
    with pytest.raises(SamplingError) as caught:
        check_first_frames(model, positions, "run.xtc")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_order_of_amber_is_refused_by_its_first_bond(tmp_path):
    model = written(tmp_path, ["ACE", "ALA", "NME"])
    check_first_frames(model, frames(model), "run.xtc")
    inside = [name for name in model.atom_names if name.startswith("2:")]
    order = list(range(model.n_atoms))
    start = model.atom_index(inside[0])
    order[start : start + 10] = [model.atom_index(f"2:{name}") for name in AMBER]
    assert sorted(order) == list(range(22))
    words = refusal(model, frames(model)[:, order])
    assert words.startswith("run.xtc: frame 0: the bond 2:")
    assert "order" in words


def test_one_pair_of_swapped_atoms_in_a_later_frame_is_found(tmp_path):
    model = written(tmp_path, ["ACE", "ALA", "NME"])
    positions = frames(model)
    swapped = [model.atom_index(name) for name in ("2:O", "3:N")]
    positions[7:, swapped] = positions[7:, swapped[::-1]]
    assert "frame 7: the bond" in refusal(model, positions)


def test_mirror_images_are_refused_by_their_first_centre(tmp_path):
    for heavy in (False, True):
        model = written(tmp_path, ["ACE", "ALA", "NME"], heavy)
        words = refusal(model, frames(model) * [1, 1, -1])
        assert "frame 0: the atoms around 2:CA are the mirror image" in words
        assert "1 of 1 centres" in words


@pytest.mark.parametrize("sequence", [["GLY", "ILE", "GLY"], ["GLY", "THR", "GLY"]])
def test_one_centre_of_two_with_the_other_hand(tmp_path, sequence):
    """The second centre of isoleucine and threonine: bonds alone hardly show it."""
    model = written(tmp_path, sequence, heavy=True)
    branch = ["2:CG1", "2:CG2"] if "ILE" in sequence else ["2:OG1", "2:CG2"]
    places = {name: model.positions[model.atom_index(name)] for name in ["2:CA", "2:CB", *branch]}
    normal = np.cross(places["2:CA"] - places["2:CB"], places[branch[0]] - places["2:CB"])
    normal /= np.linalg.norm(normal)
    positions = frames(model)
    mirrored = places[branch[1]] - 2 * ((places[branch[1]] - places["2:CB"]) @ normal) * normal
    positions[:, model.atom_index(branch[1])] = mirrored
    words = refusal(model, positions)
    assert "around 2:CB are the mirror image" in words
    assert "(1 of 2 centres)" in words


def test_prochiral_groups_are_no_centres(tmp_path):
    """Programs number the methyl groups of valine and the hydrogens of CH2 in both ways."""
    model = written(tmp_path, ["GLY", "VAL", "GLY"])
    positions, names = frames(model), model.atom_names
    for one, other in (("2:CG1", "2:CG2"), ("1:HA2", "1:HA3"), *((f"2:HG1{i}", f"2:HG2{i}") for i in (1, 2, 3))):
        pair = [names.index(one), names.index(other)]
        positions[:, pair] = positions[:, pair[::-1]]
    check_first_frames(model, positions, "run.xtc")


def test_ten_heavy_atoms_are_not_taken_for_alpha_carbons(tmp_path):
    model = written(tmp_path, ["ACE", "ALA", "NME"], heavy=True)
    assert model.n_atoms == 10
    check_first_frames(model, frames(model), "run.xtc")
    assert "divide Å by 10" in refusal(model, 10 * frames(model))
    assert "multiply them by 10" in refusal(model, 0.1 * frames(model))


def test_traces_of_alpha_carbons_in_nm_and_in_angstrom(tmp_path):
    model = trace(tmp_path, helix(10))
    check_first_frames(model, frames(model, noise=0.02), "run.xtc")
    words = refusal(model, 10 * frames(model, noise=0.02))
    assert "has 0.383 nm" in words
    assert "divide Å by 10" in words


def test_the_mirror_image_of_a_helix_of_beads_and_a_swap(tmp_path):
    model = trace(tmp_path, helix(12))
    assert "mirror images" in refusal(model, frames(model, noise=0.02) * [-1, 1, 1])
    order = [0, 1, 2, 6, 4, 5, 3, *range(7, 12)]
    assert "the bond 3:CA-4:CA" in refusal(model, frames(model, noise=0.02)[:, order])


def test_a_stretched_structure_and_hot_frames_are_right(tmp_path):
    """The structure is a rough model, 12 % too long; frames are at 600 K."""
    model = written(tmp_path, ["ACE", "ALA", "NME"])
    positions = frames(model, noise=0.006)
    lines = (tmp_path / "own.pdb").read_text().splitlines()
    for index, line in enumerate(lines[:-1]):
        place = "".join(f"{1.12 * float(line[start : start + 8]):8.3f}" for start in (30, 38, 46))
        lines[index] = line[:30] + place + line[54:]
    (tmp_path / "own.pdb").write_text("\n".join(lines) + "\n")
    check_first_frames(molecule(tmp_path), positions, "run.xtc")
