"""The worked example with real GROMACS: a solvated dodecahedron, forces in TRR files, two restarts."""

import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPOSITORY

from cg_assets.core.frames import Frames
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.systems import load_system

STEPS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("gmx") is None:
        pytest.skip("GROMACS is not installed: apt-get install gromacs")
    folder = tmp_path_factory.mktemp("gromacs")
    script = REPOSITORY / "examples" / "gromacs" / "prepare.sh"
    subprocess.run(["bash", str(script), str(folder), str(STEPS)], check=True, capture_output=True, timeout=1200)
    return folder


def frames_of(system, forces):
    imported = system.imported.model_copy(update={"forces": forces})
    reader = system.model_copy(update={"imported": imported}).imported_reader("0000")
    return reader, Frames.concatenate([reader.next_chunk() for _ in range(reader.n_chunks)])


@pytest.mark.slow
def test_three_parts_are_one_replica_with_the_forces_of_the_topology(folder):
    system = load_system(folder / "gromacs_alanine.yaml")
    system.check()
    reader, read = frames_of(system, "file")
    assert len(read) == 3 * STEPS // 50 + 1
    assert np.unique(read.replica).tolist() == [0]
    assert sum("repeats the times of 1 frames" in note for note in reader.notes) == 2
    np.testing.assert_allclose(np.diff(read.time), 0.1, atol=1e-4)
    assert read.box.shape == (len(read), 3, 3)
    _, recomputed = frames_of(system, "recomputed")
    beads = system.beads()
    force_map = fit_force_map(system.mapping, beads, read)
    mine, other = (map_frames(beads, frames, force_map).forces.astype(float) for frames in (read, recomputed))
    assert np.sqrt(((mine - other) ** 2).mean()) < 1e-3 * np.sqrt((mine**2).mean())
