"""Several chains through a periodic box, from the file to the beads."""

import mdtraj
import numpy as np
import pytest
import yaml
from test_imported import MINE, read

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.mapping.description import molecule_facts
from cg_assets.sampling.imported import reader
from cg_assets.systems import load_system

LINE = "ATOM  {:5d}  CA  ALA {}{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C"
CHAINS = np.array([[[0.38 * k, 0.6 * chain, 0.0] for k in range(3)] for chain in range(2)]).reshape(6, 3)


@pytest.fixture
def two_chains(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "systems"
    folder.mkdir()
    lines = [LINE.format(k + 1, "AB"[k // 3], k + 1, *(10 * place)) for k, place in enumerate(CHAINS)]
    (folder / "alanine.pdb").write_text("\n".join([*lines, "END", ""]))
    variables = {"apart": {"type": "distance", "atoms": ["1:CA", "4:CA"], "range": [0.0, 3.0]}}
    content = yaml.safe_load(MINE) | {"collective_variables": variables}
    content["mapping"]["beads"] = "alpha_carbons"
    content["evaluation"] |= {"collective_variables": ["apart"], "basins": {}}
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    return folder


def write(folder, positions, angles=(90.0, 90.0, 90.0), edge=2.6):
    """A DCD file with each bead at its image within the cell."""
    trajectory = mdtraj.Trajectory(positions, mdtraj.load_topology(str(folder / "alanine.pdb")))
    trajectory.unitcell_lengths = np.full((len(positions), 3), edge)
    trajectory.unitcell_angles = np.tile(angles, (len(positions), 1))
    vectors = trajectory.unitcell_vectors[0].astype(float)
    fractions = positions @ np.linalg.inv(vectors)
    trajectory.xyz = ((fractions - np.floor(fractions)) @ vectors).astype(np.float32)
    trajectory.save_dcd(str(folder / "run_0000_a.dcd"))


@pytest.mark.parametrize("angles", [(90.0, 90.0, 90.0), (60.0, 60.0, 90.0), (70.53, 109.47, 70.53)])
def test_two_chains_that_drift_through_a_box_keep_their_distance(two_chains, angles):
    rng = np.random.default_rng(4)
    drift = np.cumsum(rng.normal(scale=0.3, size=(200, 1, 3)), axis=0)
    positions = CHAINS + drift + 0.01 * rng.normal(size=(200, 6, 3))
    write(two_chains, positions, angles)
    frames = read(load_system("my_alanine").imported_reader("0000"))
    exact = np.linalg.norm(positions[:, 0] - positions[:, 3], axis=1)
    np.testing.assert_allclose(frames.collective_variables["apart"], exact, atol=1e-4)


@pytest.mark.parametrize("angles", [(90.0, 90.0, 90.0), (60.0, 60.0, 90.0)])
def test_chains_half_a_box_apart_follow_the_frame_before_across_blocks_and_a_resume(two_chains, angles, monkeypatch):
    """In a cube two images of the second chain are equally near, within a tenth, for the last ten of 40 frames."""
    rng, edge = np.random.default_rng(4), 2.6
    drift = np.cumsum(rng.normal(scale=0.3, size=(40, 1, 3)), axis=0)
    positions = CHAINS + drift + 0.01 * rng.normal(size=(40, 6, 3))
    positions[:, 3:, 0] += np.linspace(0.8, 0.525 * edge, 40)[:, None]
    write(two_chains, positions, angles, edge)
    for name, number in {"PIECE_NUMBERS": 4 * 6 * 3, "BLOCK_NUMBERS": 2 * 6 * 3, "_LEAST": 1}.items():
        monkeypatch.setattr(reader, name, number)
    system = load_system("my_alanine")
    whole = system.imported_reader("0000")
    frames = read(whole)
    assert whole.n_chunks == 10
    exact = np.linalg.norm(positions[:, 0] - positions[:, 3], axis=1)
    np.testing.assert_allclose(frames.collective_variables["apart"], exact, atol=1e-4)
    first = system.imported_reader("0000")
    parts = [first.next_chunk() for _ in range(8)]
    second = system.imported_reader("0000")
    second.restore(first.state())
    parts += [second.next_chunk() for _ in range(2)]
    np.testing.assert_array_equal(Frames.concatenate(parts).positions, frames.positions)


def test_chains_half_a_box_apart_are_refused_with_their_file_without_a_frame_before(two_chains):
    positions = np.tile(CHAINS, (20, 1, 1)) + 0.003 * np.random.default_rng(0).normal(size=(20, 6, 3))
    positions[:, 3:, 1] += 0.69
    write(two_chains, positions)
    with pytest.raises(SamplingError, match=r"run_0000_a\.dcd: frame 0: molecule 2 has two images.*ambiguous"):
        load_system("my_alanine").imported_reader("0000")


def test_a_real_protein_with_water_and_ions_in_a_dodecahedron(tmp_path, monkeypatch):
    """Adenylate kinase, cut by its box in the PDB file and in all ten frames (MDAnalysisTests)."""
    files = pytest.importorskip("MDAnalysisTests.datafiles")
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    content = yaml.safe_load(MINE) | {"name": "kinase", "collective_variables": {}}
    content |= {"model": {"type": "molecule", "pdb": files.PDB}, "imported": {"files": [files.XTC]}}
    content["mapping"]["beads"] = "alpha_carbons"
    content["evaluation"] = {"reference": {"type": "data"}, "max_pmf_error": 20}
    (tmp_path / "systems" / "kinase.yaml").write_text(yaml.safe_dump(content))
    system = load_system("kinase")
    molecule, beads = system.structure(), system.beads()
    assert (len(molecule.stored), beads.cg_map.n_beads, len(beads.cg_map.bonds)) == (3341, 214, 213)
    facts = dict(molecule_facts(system.model, molecule, tmp_path))
    assert facts["without beads"].startswith("11084 HOH, 4 NA+;")
    ends = molecule.positions[np.array(molecule.bonds)]
    assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).max() < 0.2
    frames = read(system.imported_reader("0000"))
    assert frames.positions.shape == (10, 214, 3)
    np.testing.assert_allclose(frames.time, 100.0 * np.arange(10), atol=1e-3)
    raw = mdtraj.load(files.XTC, top=files.PDB).atom_slice(molecule.stored)
    raw.make_molecules_whole(inplace=True)
    carbons = raw.topology.select("name CA")
    found = np.linalg.norm(frames.positions[:, None] - frames.positions[:, :, None], axis=-1)
    expected = np.linalg.norm(raw.xyz[:, None, carbons] - raw.xyz[:, carbons, None], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    bonded = np.linalg.norm(np.diff(frames.positions, axis=1), axis=2)
    assert 0.28 < bonded.min() < bonded.max() < 0.42
