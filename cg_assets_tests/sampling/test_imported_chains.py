"""Several chains through a periodic box, from the file to the beads."""

import mdtraj
import numpy as np
import pytest
import yaml
from test_imported import MINE, read

from cg_assets.core.errors import SamplingError
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


def test_chains_half_a_box_apart_are_refused_with_their_file(two_chains):
    positions = np.tile(CHAINS, (20, 1, 1))
    positions[:, 3:, 1] += np.linspace(0, 0.7, 20)[:, None]
    write(two_chains, positions)
    with pytest.raises(SamplingError, match=r"run_0000_a\.dcd: frame \d+: molecule 2 has two images.*ambiguous"):
        read(load_system("my_alanine").imported_reader("0000"))
