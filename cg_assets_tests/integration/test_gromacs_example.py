"""The worked example with real GROMACS: a solvated dodecahedron, forces in TRR files, two restarts."""

import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPOSITORY, Command
from test_published_numbers import figures_of_merit

from cg_assets.core.frames import Frames
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

STEPS = 2000
OF_GROMACS = "imported_samples", "imported_forces", "reference", "potential_gromacs", "cg_simulation_gromacs"
OF_GROMACS += "evaluation_gromacs", "evaluation_own"
"""Stages that depend on the run of GROMACS."""


def prepared(script, folder, *arguments):
    """Run a script of the example."""
    if shutil.which("gmx") is None:
        pytest.skip("GROMACS is not installed: apt-get install gromacs")
    path = REPOSITORY / "examples" / "gromacs" / script
    subprocess.run(["bash", str(path), str(folder), *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gromacs")
    prepared("prepare.sh", folder, STEPS)
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


@pytest.fixture(scope="module")
def vacuum(tmp_path_factory):
    """A home folder for all seeds of GROMACS: own sampling, which has seeds of its own, is judged by each."""
    return Command(tmp_path_factory.mktemp("vacuum") / "home")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_potential_of_imported_forces_is_that_of_own_sampling(vacuum, tmp_path, seed):
    """Judged against the frames of GROMACS, with the error of the forces alone; 20 CPU minutes for the first seed."""
    prepared("prepare_vacuum.sh", tmp_path, 10_000_000, seed)
    store, chosen = ParquetStore(vacuum.home), []
    if store.file("vacuum_alanine", "evaluation_own").is_file():
        shutil.copy(tmp_path / "vacuum_run.trr", vacuum.home / "systems")
        chosen = ["--select", *OF_GROMACS]
    else:
        shutil.copytree(tmp_path, vacuum.home / "systems", dirs_exist_ok=True)
    done = vacuum("run", "vacuum_alanine", *chosen, timeout=7200)
    assert done.returncode in (0, 3), done.stderr
    found = {name: figures_of_merit(store, "vacuum_alanine", name) for name in ("gromacs", "own")}
    keys = {"pmf_error": "", "jsd": "", "free_energy.phi_positive": "free_energy.labels.phi_positive"}
    print(seed, {name: {key: merits[key] for key in keys} for name, merits in found.items()})
    for key, of_labels in keys.items():
        values = [merits[key][0] for merits in found.values()]
        errors = [merits[item][1] for merits in found.values() for item in (key, of_labels) if item]
        assert abs(values[0] - values[1]) < 3 * np.linalg.norm(errors)
    assert found["gromacs"]["pmf_error"][0] < 1
    assert found["own"]["pmf_error"][0] < 1
    assert found["gromacs"]["stable_replicas"][0] == 1.0
