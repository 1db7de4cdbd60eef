"""Trajectories made elsewhere: read whole whatever their format, refused with a reason, and enough for a potential."""

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dagster as dg
import mdtraj
import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.metrics import jensen_shannon_divergence
from cg_assets.registry.tracking import ModelTracking
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

MINE = (REPOSITORY / "benchmarks" / "systems" / "my_alanine.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run():
    """Four replicas of 100 ps each of capped alanine, with the molecule."""
    system = load_system("capped_alanine_quick")
    plan = system.sampling.unbiased.model_copy(update={"replicas": 4, "burn_in": 2.0, "duration": 100.0})
    plan = plan.model_copy(update={"frame_interval": 0.1})
    sampler = system.sampler(plan, seed=3)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return system.structure(), Frames.concatenate([part for part in parts if part is not None])


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    """A home with the system `my_alanine` and no trajectory yet."""
    molecule, frames = run
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    systems = tmp_path / "systems"
    systems.mkdir()
    (systems / "my_alanine.yaml").write_text(MINE)
    mdtraj.Trajectory(frames.positions[:1], topology_of(molecule)).save_pdb(str(systems / "alanine.pdb"))
    return systems


def topology_of(molecule):
    return mdtraj.Topology.from_openmm(molecule.topology)


def changed(folder, **sections):
    content = yaml.safe_load(MINE)
    for name, value in sections.items():
        content[name] = content[name] | value if isinstance(content.get(name), dict) and value else value
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    return load_system("my_alanine")


def read(reader):
    return Frames.concatenate([reader.next_chunk() for _ in range(reader.n_chunks)])


def test_every_format_gives_the_same_beads(run, folder):
    molecule, frames = run
    positions = frames.positions[frames.replica == 0]
    trajectory = mdtraj.Trajectory(positions, topology_of(molecule))
    np.savez(folder / "run_0000_a.npz", positions=positions)
    trajectory.save_dcd(str(folder / "run_0000_b.dcd"))
    trajectory.save_xtc(str(folder / "run_0000_c.xtc"))
    trajectory.save_trr(str(folder / "run_0000_d.trr"))
    exact = load_system("my_alanine").beads().cg_map.apply(positions.astype(np.float64))
    psi = frames.collective_variables["psi"][frames.replica == 0]
    for path, precision in zip(sorted(folder.glob("run_0000_*")), (1e-6, 1e-6, 6e-4, 1e-6), strict=True):
        beads = read(changed(folder, imported={"files": [path.name]}).imported_reader("0000"))
        np.testing.assert_allclose(beads.positions, exact, rtol=0, atol=precision)
        np.testing.assert_allclose(beads.time, 0.05 * np.arange(len(positions)))
        np.testing.assert_allclose(np.cos(beads.collective_variables["psi"] - psi), 1.0, atol=20 * precision)


def test_a_long_file_is_never_whole_in_memory(run, folder, monkeypatch):
    """Twelve times as much on the disk as ever in memory; the imports' own allocations are made before."""
    _, frames = run
    positions = np.tile(frames.positions[frames.replica == 0], (200, 1, 1))
    np.savez(folder / "run_0000_a.npz", positions=positions)
    monkeypatch.setattr("cg_assets.sampling.imported.reader.PIECE_NUMBERS", positions.size // 200)
    reader = load_system("my_alanine").imported_reader("0000")
    assert reader.n_chunks >= 200
    reader.next_chunk()
    tracemalloc.start()
    try:
        for _ in range(reader.n_chunks - 1):
            reader.next_chunk()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < positions.nbytes / 12


IMPORT_IN_BLOCKS = """
import re, sys
from pathlib import Path
import dagster as dg
import cg_assets.sampling.imported.reader as imported
from cg_assets.orchestration.as_asset import build_assets
from cg_assets.orchestration.resources import build_resources
from cg_assets.systems import load_system

imported.PIECE_NUMBERS = 3_000_000
system = load_system("my_alanine")
assets = [asset for asset in build_assets({system.name: system}) if asset.key.path[-1] == "imported_beads"]
peaks = []
for batch in ("0000", "0001"):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("my_alanine_batches", [batch])
        resources = build_resources(sys.argv[1])
        assert dg.materialize(assets, instance=instance, resources=resources, partition_key=batch).success
    # Not getrusage, which counts what the process had before it became this program.
    peaks.append(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
print("peaks", *peaks)
"""


@pytest.mark.slow
def test_a_long_import_needs_no_more_memory_than_a_short_one(run, folder):
    """300 MB of atoms after 14 MB, in one process: reading, joining, checking and drawing all go block by block."""
    _, frames = run
    rng = np.random.default_rng(0)
    for batch, repeats in (("0000", 13), ("0001", 285)):
        positions = np.tile(frames.positions, (repeats, 1, 1))
        positions += rng.uniform(-1e-4, 1e-4, positions.shape).astype(np.float32)
        np.savez(folder / f"run_{batch}_a.npz", positions=positions)
    large = (folder / "run_0001_a.npz").stat().st_size
    assert large > 3e8
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CG_ASSETS_HOME": str(folder.parent)}
    command = [sys.executable, "-c", IMPORT_IN_BLOCKS, str(folder.parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    short, long = map(int, done.stdout.split("peaks")[1].split())
    print(f"most memory {short / 1e6:.0f} MB after {large / 22e6:.0f} MB of atoms, then {long / 1e6:.0f} MB")
    assert long - short < large / 3


@pytest.mark.parametrize("suffix", ["npz", "xtc"])
def test_stride_and_an_interruption(run, folder, monkeypatch, suffix):
    molecule, frames = run
    monkeypatch.setattr("cg_assets.sampling.imported.reader.PIECE_NUMBERS", 3 * molecule.n_atoms * 3 * 70)
    for replica in range(2):
        positions = frames.positions[frames.replica == replica]
        if suffix == "npz":
            np.savez(folder / f"run_0000_{replica}.npz", positions=positions)
        else:
            mdtraj.Trajectory(positions, topology_of(molecule)).save_xtc(str(folder / f"run_0000_{replica}.xtc"))
    system = changed(folder, imported={"stride": 3})
    reader = system.imported_reader("0000")
    assert reader.n_chunks == 2 * 5, "334 frames of each in blocks of 70"
    whole = read(reader)
    expected = np.concatenate([frames.positions[frames.replica == replica][::3] for replica in range(2)])
    beads = system.beads().cg_map.apply(expected.astype(np.float64))
    np.testing.assert_allclose(whole.positions, beads, rtol=0, atol=1e-6 if suffix == "npz" else 6e-4)
    first = system.imported_reader("0000")
    for _ in range(3):
        first.next_chunk()
    second = system.imported_reader("0000")
    second.restore(first.state())
    rest = Frames.concatenate([second.next_chunk() for _ in range(second.n_chunks - 3)])
    np.testing.assert_array_equal(rest.positions, whole.positions[3 * 70 :])
    np.testing.assert_allclose(rest.time, whole.time[3 * 70 :])


def test_molecules_cut_by_the_box_are_made_whole(run, folder):
    molecule, frames = run
    positions = frames.positions[:200] + 2.4
    box = np.full((200, 3), 2.5, np.float32)
    trajectory = mdtraj.Trajectory(
        np.mod(positions, 2.5), topology_of(molecule), unitcell_lengths=box, unitcell_angles=np.full((200, 3), 90.0)
    )
    trajectory.save_xtc(str(folder / "run_0000_cut.xtc"))
    beads = read(load_system("my_alanine").imported_reader("0000"))
    bonds = np.array(load_system("my_alanine").beads().cg_map.bonds)
    lengths = np.linalg.norm(beads.positions[:, bonds[:, 0]] - beads.positions[:, bonds[:, 1]], axis=2)
    assert 0.11 < lengths.min() < lengths.max() < 0.18


def test_a_chain_of_alpha_carbons_has_bonds(folder):
    chain = np.cumsum(np.full((6, 3), 0.38 / np.sqrt(3)), axis=0)
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i + 1:4d}    {10 * x:8.3f}{10 * y:8.3f}{10 * z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(chain)
    ]
    (folder / "alanine.pdb").write_text("\n".join([*lines, "END"]) + "\n")
    variables = {"end": {"type": "distance", "atoms": ["1:CA", "6:CA"], "range": [0.0, 3.0]}}
    content = yaml.safe_load(MINE) | {"collective_variables": variables}
    content["mapping"]["beads"] = "alpha_carbons"
    content["evaluation"] |= {"collective_variables": ["end"], "basins": {}}
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    system = load_system("my_alanine")
    assert system.beads().cg_map.bonds == [(i, i + 1) for i in range(5)]
    positions = chain + 0.01 * np.random.default_rng(0).normal(size=(50, 6, 3))
    np.savez(folder / "run_0000_1.npz", positions=positions)
    cut = mdtraj.Trajectory(np.mod(positions + 2.0, 2.5), mdtraj.load_topology(str(folder / "alanine.pdb")))
    cut.unitcell_lengths, cut.unitcell_angles = np.full((50, 3), 2.5), np.full((50, 3), 90.0)
    cut.save_dcd(str(folder / "run_0000_2.dcd"))
    whole = read(system.imported_reader("0000"))
    assert whole.positions.shape == (100, 6, 3)
    ends = whole.collective_variables["end"]
    np.testing.assert_allclose(ends[:50], ends[50:], atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (lambda x: 10 * x, "must be in nm.*divide Å by 10"),
        (lambda x: x[:, :-1], "has 21 atoms; the model has 22"),
        (lambda x: x[:1], r"holds 1 frame\(s\)"),
        (lambda x: x[0], "must be"),
    ],
)
def test_wrong_files_are_explained(run, folder, positions, message):
    np.savez(folder / "run_0000_1.npz", positions=positions(run[1].positions[:20]))
    with pytest.raises(SamplingError, match=message):
        load_system("my_alanine").imported_reader("0000")


def test_missing_damaged_and_foreign_files_are_explained(run, folder):
    molecule, frames = run
    system = load_system("my_alanine")
    with pytest.raises(SamplingError, match=r"no file .*run_0000_\*"):
        system.imported_reader("0000")
    np.savez(folder / "run_0000_1.npz", coordinates=frames.positions[:20])
    with pytest.raises(SamplingError, match="needs an array named positions"):
        system.imported_reader("0000")
    (folder / "run_0000_1.npz").unlink()
    (folder / "run_0000_1.xtc").write_bytes(b"no trajectory at all" * 20)
    with pytest.raises(SamplingError, match="frame 0 is damaged, or this is no XTC file"):
        system.imported_reader("0000")
    part = mdtraj.Trajectory(frames.positions[:20], topology_of(molecule)).atom_slice(range(12))
    part.save_xtc(str(folder / "run_0000_1.xtc"))
    with pytest.raises(SamplingError, match="cannot be read with the 22 atoms of the model"):
        system.imported_reader("0000")
    with pytest.raises(SamplingError, match="would read the files of batch 0000 again"):
        changed(folder, imported={"files": ["run.xtc"]}).imported_reader("0001")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"imported": None, "labels": {}}, "type is data, but there are neither imported"),
        (
            {"labels": {"flow": {"type": "flow", "of": "imported", "noise": 0.01}}},
            r"imported\.forces is null; use clean",
        ),
        ({"labels": {"flow": {"type": "flow", "noise": 0.01}}}, "labels.flow.of is unbiased; there are imported"),
        ({"potentials": {"flow": {"labels": "imported_beads"}}}, "potentials.flow.labels is imported_beads"),
        ({"learning_curve": {"fractions": [0.5, 1.0]}}, "learning_curve needs simulated times"),
    ],
)
def test_wrong_specifications_are_explained(folder, sections, message):
    with pytest.raises(SystemSpecError, match=message):
        changed(folder, **sections)


def test_a_force_field_is_needed_only_to_simulate(folder):
    plan = load_system("capped_alanine_quick").sampling.unbiased.model_dump(mode="json")
    with pytest.raises(SystemSpecError, match=r"force_fields is empty, but sampling\.unbiased simulates"):
        changed(folder, sampling={"unbiased": plan})


def test_the_example_of_the_documentation_loads_and_is_checked(run, folder):
    molecule, frames = run
    text = (Path(__file__).parents[2] / "docs" / "own_simulations.md").read_text(encoding="utf-8")
    (example,) = [part for part in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if part.startswith("name:")]
    (folder / "my_alanine.yaml").write_text(example, encoding="utf-8")
    system = load_system("my_alanine")
    with pytest.raises(SamplingError, match="no file"):
        system.check()
    mdtraj.Trajectory(frames.positions[:50], topology_of(molecule)).save_xtc(str(folder / "run_0000_1.xtc"))
    system.check()


def test_reference_is_the_data_and_its_halves_the_error(run, folder):
    system = load_system("my_alanine")
    np.savez(folder / "run_0000_1.npz", positions=run[1].positions)
    frames = read(system.imported_reader("0000"))
    reference = system.compute_reference(0, folder, data=frames)
    psi = frames.collective_variables["psi"]
    halves = [float(((half >= -2) & (half < 1)).mean()) for half in np.array_split(psi, 2)]
    found = reference.populations["alpha"]
    assert found.value == pytest.approx(np.mean(halves), abs=1e-6)
    assert found.standard_error >= abs(halves[0] - halves[1]) / 2 - 1e-6
    one, other = (surface.probability for surface in reference.runs)
    assert reference.disagreement()["jsd"].value == pytest.approx(jensen_shannon_divergence(one, other))


def test_configurations_alone_make_a_registered_potential(run, folder, tmp_path, monkeypatch):
    molecule, frames = run
    monkeypatch.setenv("CG_DEVICE", "cpu")
    for replica in range(4):
        trajectory = mdtraj.Trajectory(frames.positions[frames.replica == replica], topology_of(molecule))
        trajectory.save_dcd(str(folder / f"run_0000_{replica}.dcd"))
    system = load_system("my_alanine")
    result = materialize(system, tmp_path, dg.DagsterInstance.ephemeral())
    assert result.success
    assert not {name for name, passed in verdicts_of(result).items() if not passed}
    store = ParquetStore(tmp_path)
    extra = store.describe("my_alanine", "imported_beads", "0000").metadata.extra
    assert len(extra["files"]) == 4
    assert "figure" in metadata_of(result)["imported_beads"]
    model, _ = ModelTracking(None, tmp_path).load("my_alanine.flow", "1")
    assert model is not None
