"""Forces that came with a trajectory become labels, and those of another unit, frame or orientation do not."""

import re
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import REPOSITORY
from openmm import app, unit
from plain_runs import make
from scipy.spatial.transform import Rotation
from test_imported_forces import write_dump, write_netcdf, write_trr

from cg_assets.assets.forces import judge_scale
from cg_assets.core.errors import ForceMapError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.labels.force_matching import unexplained_noise
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.sampling.imported.rigid import rigid_bonds
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

MINE = yaml.safe_load((REPOSITORY / "benchmarks" / "systems" / "my_alanine.yaml").read_text(encoding="utf-8"))
UNITS = {"kcal/mol/angstrom": 41.84, "kJ/mol/angstrom": 10.0, "eV/angstrom": 964.8533}


@pytest.fixture(scope="module")
def run():
    """Four replicas of 20 ps of capped alanine at a short step, with the system that made them."""
    system = load_system("capped_alanine_quick")
    plan = system.sampling.unbiased.model_copy(update={"replicas": 4, "burn_in": 5.0, "duration": 20.0})
    plan = plan.model_copy(update={"frame_interval": 0.05, "timestep": 0.002})
    sampler = system.sampler(plan, seed=3)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return system, Frames.concatenate([part for part in parts if part is not None])


def mine(folder, own, frames, positions=None, forces=None, how="file"):
    """A system that imports frames with forces."""
    folder.mkdir(exist_ok=True)
    for replica in range(4):
        rows = frames.replica == replica
        np.savez(
            folder / f"run_0000_{replica}.npz",
            positions=(frames.positions if positions is None else positions)[rows],
            forces=(frames.forces if forces is None else forces)[rows],
        )
    content = MINE | {
        "model": own.model.model_dump(mode="json", exclude_none=True),
        "mapping": own.mapping.model_dump(mode="json", exclude_none=True),
        "imported": MINE["imported"] | {"forces": how},
        "potentials": {"own": {"labels": "imported_forces"}},
    }
    del content["labels"]
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    return load_system(folder / "my_alanine.yaml")


def labels_of(home, system):
    make(home, system, "imported_samples")
    return make(home, system, "imported_forces")


def fault_of(done):
    return {verdict.check.name: verdict.message for verdict in done.verdicts if not verdict.passed}


def test_imported_forces_are_the_labels_of_our_own_run(run, tmp_path):
    own, frames = run
    done = labels_of(tmp_path / "home", mine(tmp_path / "mine", own, frames))
    assert not fault_of(done)
    stored = read_frames([ParquetStore(tmp_path / "home").file("my_alanine", "imported_forces", "0000")])
    force_map = fit_force_map(own.mapping, own.beads(), frames)
    expected = map_frames(own.beads(), frames, force_map)
    np.testing.assert_allclose(stored.positions, expected.positions, atol=1e-6)
    np.testing.assert_allclose(stored.forces, expected.forces, atol=1e-4 * np.abs(expected.forces).max())


def as_npz(path, positions, forces):
    np.savez(path.with_suffix(".npz"), positions=positions, forces=forces)


def as_trr(path, positions, forces):
    write_trr(path.with_suffix(".trr"), positions, forces, time=0.05 * np.arange(len(positions)))


def as_extended_xyz(path, positions, forces):
    """In eV/Å, as ASE has them."""
    frames = []
    for places, pushes in zip(positions, forces, strict=True):
        atoms = ase.Atoms("C" * len(places), 10 * places)
        atoms.calc = SinglePointCalculator(atoms, forces=pushes / 964.8533, energy=0.0)
        frames.append(atoms)
    ase.io.write(path.with_suffix(".xyz"), frames, format="extxyz")


def as_netcdf(path, positions, forces):
    write_netcdf(path.with_suffix(".nc"), positions, forces)


def as_dump(path, positions, forces):
    write_dump(path.with_suffix(".lammpstrj"), positions, forces, factor=1.0)


@pytest.mark.parametrize("write", [as_npz, as_trr, as_extended_xyz, as_netcdf, as_dump])
def test_a_wrong_unit_is_refused_with_its_factor_in_every_format(run, tmp_path, write):
    """By Stein's identity where there is no force field, and at once where there is one."""
    own, frames = run
    alone = without_force_field(run, tmp_path, "optimal")
    full = mine(tmp_path / "full", own, frames)
    systems = [alone, full]
    if write is as_dump:
        imported = [system.imported.model_copy(update={"force_unit": "kJ/mol/nm"}) for system in systems]
        systems = [system.model_copy(update={"imported": one}) for system, one in zip(systems, imported, strict=True)]
    for file in tmp_path.glob("*/*.npz"):
        file.unlink()
    for name, factor in (UNITS | {"": 1.0}).items():
        for system in systems:
            for replica in range(4 if system is systems[0] else 1):
                rows = frames.replica == replica
                write(system.folder / f"run_0000_{replica}", frames.positions[rows], frames.forces[rows] / factor)
        read = all_of(systems[0].imported_reader("0000"))
        verdict = verdict_of(own, read)
        assert verdict.passed == (not name)
        if not name:
            systems[1].imported_reader("0000")
            continue
        assert f", a factor of {factor:.6g}" in verdict.message
        with pytest.raises(
            SamplingError, match=rf"those of the force field of the model: {name} was read as .*{factor:.6g}"
        ):
            systems[1].imported_reader("0000")


def all_of(reader):
    return Frames.concatenate([reader.next_chunk() for _ in range(reader.n_chunks)])


def with_other_forces(run, tmp_path, forces):
    """A reader of the frames of a run with other forces, where the model has a force field."""
    own, frames = run
    return mine(tmp_path / "mine", own, frames, forces=forces.astype(np.float32)).imported_reader("0000")


def test_forces_are_compared_with_the_force_field_frame_by_frame(run, tmp_path):
    """Those of other frames are refused, noise on each atom is said; forces of rigid bonds do not count."""
    own, frames = run
    reader = with_other_forces(run, tmp_path, frames.forces)
    assert not any(": forces" in note or "add up" in note for note in reader.notes)
    with pytest.raises(SamplingError, match=r"forces have a correlation of .* they are of other frames"):
        with_other_forces(run, tmp_path, np.roll(frames.forces, 100, axis=0))
    rms = np.sqrt((frames.forces**2).mean())
    noise = rms * np.random.default_rng(2).normal(size=frames.forces.shape)
    notes = with_other_forces(run, tmp_path, frames.forces + noise).notes
    (net,) = [note for note in notes if "(fix langevin of LAMMPS)" in note]
    assert float(re.search(r"add up to (\S+) of", net)[1]) == pytest.approx(np.sqrt(0.5), rel=0.25)
    assert net.endswith("(and of 3 more files)")
    assert any("force field of the model: they hold a bias or the noise" in note for note in notes)
    notes = with_other_forces(run, tmp_path, frames.forces + _pulls(frames, own.structure().constraints)).notes
    assert not any(": forces" in note or "add up" in note for note in notes)


def _pulls(frames, pairs):
    """Forces along rigid bonds, as SHAKE adds them."""
    pulls, generator = np.zeros_like(frames.forces), np.random.default_rng(3)
    for first, second in pairs:
        pull = (
            1000 * generator.normal(size=(len(frames), 1)) * (frames.positions[:, first] - frames.positions[:, second])
        )
        pulls[:, first] += pull
        pulls[:, second] -= pull
    return pulls


def verdict_of(own, frames):
    beads = own.beads()
    return judge_scale(own, map_frames(beads, frames, fit_force_map(own.mapping, beads, frames)))


def test_forces_of_other_frames_and_turned_positions_are_refused(run):
    own, frames = run
    turns = Rotation.random(len(frames), random_state=1).as_matrix()
    turned = np.einsum("fij,faj->fai", turns, frames.positions).astype(np.float32)
    assert "positions were rotated without them" in verdict_of(own, replace(frames, positions=turned)).message
    moved = np.roll(frames.forces, len(frames) // 3, axis=0)
    assert not verdict_of(own, replace(frames, forces=moved)).passed


def test_recomputed_forces_are_those_of_the_run(run, tmp_path):
    own, frames = run
    system = mine(tmp_path / "mine", own, frames, forces=np.zeros_like(frames.forces), how="recomputed")
    reader = system.imported_reader("0000")
    read = all_of(reader)
    scale = np.sqrt((frames.forces.astype(float) ** 2).mean())
    assert np.sqrt(((read.forces - frames.forces) ** 2).mean()) < 1e-3 * scale
    np.testing.assert_allclose(read.potential_energy, frames.potential_energy, rtol=1e-4, atol=0.02)


def test_rounded_positions_are_measured_by_the_forces_that_they_change(run, tmp_path):
    own, frames = run
    rounded = (np.round(frames.positions / 0.001) * 0.001).astype(np.float32)
    system = mine(tmp_path / "mine", own, frames, positions=rounded, how="recomputed")
    reader = system.imported_reader("0000")
    noise = float(re.search(r"rounded to 0.001 nm change the recomputed forces by (\S+) of", reader.rounding_note())[1])
    read = reader.next_chunk()
    true = frames.forces[: len(read)].astype(float)
    assert noise == pytest.approx(np.sqrt(((read.forces - true) ** 2).mean()), rel=0.15)


def test_the_noise_floor_holds_what_rounding_did_to_the_labels(run, tmp_path):
    """The true change: mapped forces at the exact positions less those at the rounded positions of the same frames."""
    own, frames = run
    rounded = (np.round(frames.positions / 0.001) * 0.001).astype(np.float32)
    labels_of(tmp_path / "home", mine(tmp_path / "mine", own, frames, positions=rounded, how="recomputed"))
    store = ParquetStore(tmp_path / "home")
    facts = store.describe("my_alanine", "imported_forces", "0000").metadata.extra
    stored = read_frames([store.file("my_alanine", "imported_forces", "0000")])
    force_map = ForceMap.from_json(facts["force_map"])
    exact = map_frames(own.beads(), frames, force_map)
    true = ((stored.forces.astype(float) - exact.forces) ** 2).mean()
    added = float(re.search(r", plus (\S+) by positions that are rounded", facts["noise_floor"]["method"])[1])
    assert added == pytest.approx(true, rel=0.1)


def test_without_a_force_field_the_noise_has_an_upper_bound(run):
    """The cross-validated residual of a linear force field is a little above the noise at fixed beads."""
    own, frames = run
    beads = own.beads()
    force_map = fit_force_map(own.mapping, beads, frames)
    mapped = map_frames(beads, frames, force_map)
    repeated = own.repeated_labels(frames, mapped, [force_map], 1)
    true, bound = (
        conditional_noise(repeated.forces[0]).noise_floor,
        unexplained_noise(beads, mapped, "").noise_floor,
    )
    assert -3 * true.standard_error < bound.value - true.value < 0.25 * true.value


def without_force_field(run, tmp_path, how, positions=None):
    """A system that has the atoms of the run alone, and no constraints but those of its data."""
    own, frames = run
    mine(tmp_path / "mine", own, frames, positions=positions)
    molecule = own.structure()
    with (tmp_path / "mine" / "it.pdb").open("w") as file:
        app.PDBFile.writeFile(molecule.topology, unit.Quantity(molecule.positions, unit.nanometer), file)
    path = tmp_path / "mine" / "my_alanine.yaml"
    content = yaml.safe_load(path.read_text()) | {"model": {"type": "molecule", "pdb": "it.pdb"}}
    content["mapping"]["force_map"] = how
    path.write_text(yaml.safe_dump(content))
    return load_system(path)


@pytest.mark.parametrize("rounded", [False, True])
def test_rigid_bonds_are_found_in_the_data_without_a_force_field(run, tmp_path, rounded):
    own, frames = run
    positions = (np.round(frames.positions / 0.001) * 0.001).astype(np.float32) if rounded else frames.positions
    system = without_force_field(run, tmp_path, "group", positions)
    reader = system.imported_reader("0000")
    assert {frozenset(pair) for pair in reader.rigid} == {frozenset(pair) for pair in own.beads().constraints}
    assert any("12 bonds never change their length, the first 1:" in note for note in reader.notes)
    system.check()
    with pytest.raises(ForceMapError, match=r"atoms 1:C\S* and 1:H\S* are rigidly bound"):
        without_force_field(run, tmp_path, "slice", positions).check()


def test_labels_heed_the_rigid_bonds_of_the_data(run, tmp_path):
    own, frames = run
    system = without_force_field(run, tmp_path, "optimal")
    assert not fault_of(labels_of(tmp_path / "home", system))
    stored = read_frames([ParquetStore(tmp_path / "home").file("my_alanine", "imported_forces", "0000")])
    expected = map_frames(own.beads(), frames, fit_force_map(system.mapping, own.beads(), frames))
    np.testing.assert_allclose(stored.forces, expected.forces, atol=1e-3 * np.abs(expected.forces).max())


def test_bonds_that_vibrate_are_not_rigid_and_coarse_frames_do_not_show_it():
    """A bond of the stiffest kind, C=O, at 300 K, and a rigid one; in two files, of which one is of another run."""
    generator, kt = np.random.default_rng(5), 2.494
    vibrating, rigid = generator.normal(0.123, np.sqrt(kt / 5e5), (200, 40)), np.full((200, 40), 0.1)
    lengths = [vibrating, rigid + 1e-5 * generator.normal(size=(200, 40))]
    for grid in (None, 0.001):
        noise = [0.0 if grid is None else generator.normal(0, grid / np.sqrt(6), part.shape) for part in lengths]
        seen = [part + shift for part, shift in zip(lengths, noise, strict=True)]
        assert not rigid_bonds([seen[0][:30], seen[0][30:60]], kt, grid).any()
        assert rigid_bonds([seen[0], seen[1]], kt, grid).all()
    assert rigid_bonds([rigid[:6], rigid[:3]], kt, None) is None
    assert rigid_bonds([rigid[:5], rigid[5:10], rigid[10:13]], kt, None).all()
    assert rigid_bonds([rigid], kt, 0.002) is None
