"""Faults of trajectories made elsewhere: clocks, parts of one run, copies, damaged and cut files."""

import shutil

import mdtraj
import numpy as np
import pytest
from test_imported import changed, folder, read, run, topology_of  # noqa: F401 - fixtures
from test_imported_forces import write_trr

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.sampling.imported.bad_frames import coordinate_grid, grid_fault
from cg_assets.sampling.imported.formats import Source, open_trajectory


@pytest.fixture
def positions(run):  # noqa: F811
    """1000 frames of one run, 0.1 ps apart."""
    return run[1].positions[run[1].replica == 0]


def save_xtc(run, path, positions, time):  # noqa: F811
    mdtraj.Trajectory(positions, topology_of(run[0]), time=np.asarray(time)).save_xtc(str(path))


def imported(folder, **settings):  # noqa: F811
    reader = changed(folder, imported={"frame_interval": 0.1} | settings).imported_reader("0000")
    return reader, read(reader)


def test_another_time_between_frames_is_refused_and_the_clock_counts_without_one(run, folder, positions):  # noqa: F811
    save_xtc(run, folder / "run_0000_a.xtc", positions[:100], 10.0 * np.arange(100))
    with pytest.raises(SamplingError, match=r"run_0000_a\.xtc: its frames are 10 ps apart, where .* gives 0\.05 ps"):
        imported(folder, frame_interval=0.05)
    _, beads = imported(folder, frame_interval=None, stride=3)
    np.testing.assert_allclose(beads.time, 30.0 * np.arange(34))
    save_xtc(run, folder / "run_0000_b.xtc", positions[100:200], 20.0 * np.arange(100))
    with pytest.raises(SamplingError, match=r"b\.xtc: its frames are 20 ps apart, where run_0000_a\.xtc has 10 ps"):
        imported(folder, frame_interval=None)


def test_replicas_are_cut_at_gaps(run, folder, positions):  # noqa: F811
    time = 0.1 * np.arange(200)
    time[120:] += 5000.0
    write_trr(folder / "run_0000_a.trr", positions[:200], time=time)
    reader, beads = imported(folder)
    np.testing.assert_array_equal(beads.replica, np.repeat([0, 1], [120, 80]))
    np.testing.assert_allclose(beads.time, 0.1 * np.concatenate([np.arange(120), np.arange(80)]), atol=1e-9)
    assert any("a gap of 5000.1 ps before frame 120" in note for note in reader.notes)


def test_irregular_times_are_refused(run, folder, positions):  # noqa: F811
    time = np.cumsum(np.random.default_rng(0).uniform(0.05, 0.15, 200))
    write_trr(folder / "run_0000_a.trr", positions[:200], time=time)
    with pytest.raises(SamplingError, match=r"run_0000_a\.trr: its times are irregular"):
        imported(folder, frame_interval=None)


def test_a_format_without_a_clock_needs_the_users_word(run, folder, positions):  # noqa: F811
    mdtraj.Trajectory(positions[:50], topology_of(run[0])).save_dcd(str(folder / "run_0000_a.dcd"))
    with pytest.raises(SamplingError, match=r"run_0000_a\.dcd: has no clock; give imported\.frame_interval"):
        imported(folder, frame_interval=None)
    reader, beads = imported(folder, frame_interval=2.0)
    np.testing.assert_allclose(beads.time, 2.0 * np.arange(50))
    assert any("has no clock; imported.frame_interval counts, 2 ps" in note for note in reader.notes)


@pytest.mark.parametrize("times", [np.arange(50.0), np.zeros(50)])
def test_a_clock_of_nonsense_gives_way_to_the_users_word(run, folder, positions, times):  # noqa: F811
    """MDTraj numbers the frames where it is given no times."""
    write_trr(folder / "run_0000_a.trr", positions[:50], time=times)
    reader, beads = imported(folder, frame_interval=2.0)
    np.testing.assert_allclose(beads.time, 2.0 * np.arange(50))
    assert any("imported.frame_interval counts, 2 ps" in note for note in reader.notes)


def test_times_that_number_the_frames_are_taken_for_ps_and_shown(run, folder, positions):  # noqa: F811
    write_trr(folder / "run_0000_a.trr", positions[:50], time=np.arange(50.0))
    system = changed(folder, imported={"frame_interval": None})
    shown = [text for about, text in system.understood(system.check()) if about == "imported"]
    assert shown[0] == "50 frames in 1 replica(s), 1 ps apart"
    assert shown[1].endswith("has the times 0, 1, 2, ...; if these number the frames, give frame_interval")
    write_trr(folder / "run_0000_a.trr", positions[:50], time=np.arange(50.0)[::-1])
    with pytest.raises(SamplingError, match=r"times that never rise, from 49 to 0 ps; give imported\.frame_interval"):
        imported(folder, frame_interval=None)


def test_parts_of_one_run_are_one_replica(run, folder, positions):  # noqa: F811
    """Two runs of two parts each (`-noappend`); a restart repeats its first frame or, after a crash, more of them."""
    other = run[1].positions[run[1].replica == 1]
    time = 0.1 * np.arange(300)
    write_trr(folder / "run_0000_a.trr", positions[:151], time=time[:151])
    write_trr(folder / "run_0000_a.part0002.trr", positions[150:300], time=time[150:300])
    write_trr(folder / "run_0000_b.trr", other[:180], time=time[:180])  # 30 frames after its last checkpoint
    continued = other[150:300] + 0.03 * np.random.default_rng(1).normal(size=(150, 1, 3)).astype(np.float32)
    write_trr(folder / "run_0000_b.part0002.trr", continued, time=time[150:300])
    reader, beads = imported(folder, frame_interval=None, stride=2)
    cg_map = changed(folder).beads().cg_map
    for replica, expected in enumerate((positions[:300], np.concatenate([other[:150], continued]))):
        mine = beads.select(beads.replica == replica)
        np.testing.assert_allclose(mine.positions, cg_map.apply(expected[::2]), atol=1e-6)
        np.testing.assert_allclose(mine.time, time[::2], atol=1e-5)
    assert set(beads.replica) == {0, 1}
    assert sum("one replica" in note for note in reader.notes) == 2
    assert any("repeats the times of 30 frames" in note for note in reader.notes)


def test_parts_without_a_clock_that_share_a_frame_are_one_replica(run, folder, positions):  # noqa: F811
    """Three parts of a DCD run, each of which begins with the last frame before it, and a run of its own."""
    ends = {"a1": (0, 20), "a2": (19, 40), "a10": (39, 60), "b": (100, 130)}
    for name, (begin, end) in ends.items():
        trajectory = mdtraj.Trajectory(positions[begin:end], topology_of(run[0]))
        trajectory.save_dcd(str(folder / f"run_0000_{name}.dcd"))
    reader, beads = imported(folder)
    np.testing.assert_array_equal(beads.replica, np.repeat([0, 1], [60, 30]))
    np.testing.assert_allclose(beads.time, 0.1 * np.concatenate([np.arange(60), np.arange(30)]), atol=1e-9)
    kept = np.concatenate([positions[:60], positions[100:130]])
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(kept), atol=1e-6)
    assert sum("begins with the last frame of run_0000_a" in note for note in reader.notes) == 2
    assert "2 files without a clock count as independent replicas; join those that are parts of one run" in reader.notes
    _, strided = imported(folder, stride=7)
    np.testing.assert_allclose(strided.time[strided.replica == 0], 0.7 * np.arange(9), atol=1e-9)


def test_numbered_parts_continue_the_run_of_their_name(run, folder, positions):  # noqa: F811
    """Without a frame in common the names decide; ten comes after nine."""
    for name, frames in (("x", positions), ("y", run[1].positions[run[1].replica == 1])):
        for part in range(11):
            rows = np.arange(10 * part, 10 * part + 10)
            write_trr(folder / f"run_0000_{name}_{part}.trr", frames[rows], time=0.1 * rows)
    _, beads = imported(folder)
    assert np.bincount(beads.replica).tolist() == [110, 110]
    expected = changed(folder).beads().cg_map.apply(positions[:110])
    np.testing.assert_allclose(beads.positions[beads.replica == 0], expected, atol=1e-6)


def test_one_file_that_a_restart_was_appended_to(run, folder, positions):  # noqa: F811
    rows = np.concatenate([np.arange(105), np.arange(100, 200)])
    write_trr(folder / "run_0000_a.trr", positions[rows], time=0.1 * rows)
    reader, beads = imported(folder)
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(positions[:200]), atol=1e-6)
    assert set(beads.replica) == {0}
    assert any("repeats the times of 5 frames" in note for note in reader.notes)


def test_independent_replicas_of_overlapping_times_stay_apart(run, folder, positions):  # noqa: F811
    """Equilibration of another length was cut off; no frame is shared."""
    other = run[1].positions[run[1].replica == 1]
    write_trr(folder / "run_0000_a.trr", positions[:100], time=0.1 * np.arange(100))
    write_trr(folder / "run_0000_b.trr", other[20:150], time=0.1 * np.arange(20, 150))
    reader, beads = imported(folder)
    assert np.bincount(beads.replica).tolist() == [100, 130]
    assert any("but other frames: another replica" in note for note in reader.notes)


def test_the_same_content_twice_is_refused_by_name(run, folder, positions):  # noqa: F811
    time = 0.1 * np.arange(50)
    write_trr(folder / "run_0000_a.trr", positions[:50], time=time)
    shutil.copy(folder / "run_0000_a.trr", folder / "run_0000_b.trr")
    with pytest.raises(SamplingError, match=r"b\.trr: has the same content as .*a\.trr"):
        imported(folder)
    (folder / "run_0000_b.trr").rename(folder / "run_0001_a.trr")
    with pytest.raises(SamplingError, match=r"run_0001_a\.trr: has the same content as .*run_0000_a\.trr"):
        changed(folder, imported={"frame_interval": 0.1}).imported_reader("0001")
    with pytest.raises(SamplingError, match=r"run_0000_a\.trr is named twice"):
        imported(folder, files=["run_0000_*", "run_0000_a.trr"])


@pytest.mark.parametrize("other", ["another format", "other times", "turned", "a gap"])
def test_the_same_frames_twice_are_refused(run, folder, positions, other):  # noqa: F811
    """Of two replicas that start from one structure the first frames may be equal."""
    time, places = 0.1 * np.arange(50), positions[:50]
    write_trr(folder / "run_0000_a.trr", places, time=time)
    if other == "turned":
        places = places[:, :, [1, 2, 0]] + 2.0
    if other == "another format":
        save_xtc(run, folder / "run_0000_b.xtc", places, time)
    elif other == "a gap":
        twice = np.concatenate([time, time + 90.0])
        write_trr(folder / "run_0000_a.trr", np.concatenate([places, places]), time=twice)
    else:
        write_trr(folder / "run_0000_b.trr", places, time=time + 90.0)
    name = "a" if other == "a gap" else "b"
    with pytest.raises(SamplingError, match=rf"_{name}\.\w+ \(frame .*has the same frames as .*_a\.trr \(frame 1"):
        imported(folder)
    (folder / "run_0000_b.xtc").unlink(missing_ok=True)
    write_trr(folder / "run_0000_a.trr", positions[:50], time=time)
    write_trr(folder / "run_0000_b.trr", np.concatenate([positions[:1], positions[100:149]]), time=time)
    assert imported(folder)[0].n_replicas == 2


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_a_collapsed_frame_is_left_out(run, folder, positions, size):  # noqa: F811
    bad = positions.copy()
    bad[321] *= size
    write_trr(folder / "run_0000_a.trr", bad, time=0.1 * np.arange(1000))
    reader, beads = imported(folder)
    assert len(beads) == 999
    assert any("the first frame 321 of" in note and "nm apart" in note for note in reader.notes)


@pytest.mark.parametrize("fault", [50.0, np.nan])
def test_one_bad_frame_in_a_thousand_is_left_out_and_named(run, folder, positions, fault):  # noqa: F811
    bad = positions.copy()
    bad[321, 7, 0] += fault
    write_trr(folder / "run_0000_a.trr", bad, time=0.1 * np.arange(1000))
    reader, beads = imported(folder)
    kept = np.delete(np.arange(1000), 321)
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(positions[kept]), atol=1e-6)
    np.testing.assert_allclose(beads.time, 0.1 * kept, atol=1e-9)
    assert any("1 damaged frames are left out, the first frame 321 of" in note for note in reader.notes)
    bad[400, 3, 1] = fault
    write_trr(folder / "run_0000_a.trr", bad, time=0.1 * np.arange(1000))
    with pytest.raises(SamplingError, match=r"2 of 1000 frames are damaged, the first frame 321 of .*run_0000_a\.trr"):
        imported(folder)


def test_a_bad_force_is_found_too(run, folder, positions):  # noqa: F811
    forces = run[1].forces[run[1].replica == 0].copy()
    forces[5, 0, 0] = 9.96920996838687e36  # what NetCDF fills gaps with
    np.savez(folder / "run_0000_a.npz", positions=positions, forces=forces)
    reader, atoms = imported(folder, forces="file")
    assert len(atoms) == 999
    assert any("frame 5 of" in note and "forces" in note for note in reader.notes)


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "mdcrd", "xyz"])
def test_whole_frames_of_a_cut_file_are_used(run, folder, positions, suffix):  # noqa: F811
    path = folder / f"run_0000_a.{suffix}"
    whole = mdtraj.Trajectory(positions[:50], topology_of(run[0]), time=0.1 * np.arange(50))
    whole.save(str(path))
    content = path.read_bytes()
    path.write_bytes(content[:-60])
    reader, beads = imported(folder)
    assert len(beads) == 49
    assert [note for note in reader.notes if "cut within its last frame; its 49 whole frames are used" in note]
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(positions[:49]), atol=1e-3)


@pytest.mark.parametrize(("place", "letters"), [(0, b"\0" * 4), (4, b"\0" * 4), (88, b"\x11" * 4), (30, b"")])
def test_an_xtc_file_damaged_in_its_middle_is_not_taken_for_cut(run, folder, positions, place, letters):  # noqa: F811
    """First number, number of atoms, size of the coordinates; 100 bytes that are missing."""
    path = folder / "run_0000_a.xtc"
    save_xtc(run, path, positions[:50], 0.1 * np.arange(50))
    with mdtraj.formats.XTCTrajectoryFile(str(path)) as file:
        begin = int(file.offsets[25]) + place
    content = path.read_bytes()
    path.write_bytes(content[:begin] + letters + content[begin + (len(letters) or 100) :])
    with pytest.raises(SamplingError, match=r"run_0000_a\.xtc: frame 2[56] is damaged; copy it again"):
        imported(folder)


def test_coarse_coordinates_are_measured(run, folder, positions):  # noqa: F811
    assert coordinate_grid(positions) is None
    for step in (0.01, 0.001):
        assert coordinate_grid(np.round(positions / step).astype(np.float32) * np.float32(step)) == step
    coarse = np.round(positions[:50] / 0.01) * 0.01
    save_xtc(run, folder / "run_0000_a.xtc", coarse, 0.1 * np.arange(50))
    reader, _ = imported(folder)
    assert reader.grid == 0.01
    assert any("rounded to 0.01 nm" in note for note in reader.notes)
    assert "as coarse as the noise of 0.007 nm" in changed(folder).labels["flow"].rounding_fault(reader.grid)
    assert grid_fault(0.001, 0.007) is None
    with pytest.raises(SystemSpecError, match=r"labels\.flow\.noise is 0\.007 nm: coordinates are rounded to 0\.01 nm"):
        changed(folder, imported={"frame_interval": 0.1}).check()


@pytest.mark.parametrize(
    "name", ["run_0000.mdcrd", "run_0000.XTC", "run_0000[1].xtc", "run_0000.pdb", "run_0000.gro", "r.xyz"]
)
def test_names_and_formats(run, folder, positions, name):  # noqa: F811
    suffix = name.rpartition(".")[2].lower()
    whole = mdtraj.Trajectory(positions[:20], topology_of(run[0]), time=0.1 * np.arange(20))
    whole.save(str(folder / f"whole.{suffix}"))
    (folder / f"whole.{suffix}").rename(folder / name)
    _, beads = imported(folder, files=[name])
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(positions[:20]), atol=2e-3)


def test_a_trajectory_of_more_atoms_than_the_model_names_the_remedy(run, folder, positions):  # noqa: F811
    more = np.concatenate([positions[:10], positions[:10] + 3], axis=1)
    np.savez(folder / "run_0000_a.npz", positions=more)
    with pytest.raises(SamplingError, match=r"has 44 atoms; the model has 22.*give model\.pdb with every atom"):
        imported(folder)


def test_the_hand_is_judged_in_a_frame_of_each_piece(run, folder, positions, monkeypatch):  # noqa: F811
    """The last part of a file is of the mirror image, as when files of two isomers were joined."""
    monkeypatch.setattr("cg_assets.sampling.imported.reader.PIECE_NUMBERS", 3 * 22 * 100)
    joined = positions[np.arange(400) % len(positions)].copy()
    joined[200:] *= [-1, 1, 1]
    np.savez(folder / "run_0000_a.npz", positions=joined)
    with pytest.raises(SamplingError, match=r"run_0000_a\.npz: frame 200: the atoms around 2:CA are the mirror image"):
        imported(folder)


def test_a_dummy_box_is_none(run, folder, positions):  # noqa: F811
    write_trr(folder / "run_0000_a.trr", positions[:20], time=0.1 * np.arange(20), box=0.1 * np.eye(3))
    _, beads = imported(folder)
    np.testing.assert_allclose(beads.positions, changed(folder).beads().cg_map.apply(positions[:20]), atol=1e-6)


@pytest.mark.parametrize("cell", [None, (90.0, 90.0, 90.0), (60.0, 60.0, 90.0)])
def test_our_dcd_reader_agrees_with_mdtraj(run, tmp_path, positions, cell):  # noqa: F811
    path, whole = tmp_path / "a.dcd", mdtraj.Trajectory(positions[:30], topology_of(run[0]))
    if cell is not None:
        whole.unitcell_lengths = np.linspace([3, 3, 3], [4, 4, 4], 30)
        whole.unitcell_angles = np.tile(cell, (30, 1))
    whole.save_dcd(str(path))
    other = mdtraj.load(str(path), top=topology_of(run[0]))
    blocks = list(open_trajectory(Source(path)).blocks(range(2, 30, 3), 4))
    np.testing.assert_allclose(np.concatenate([block.positions for block in blocks]), other.xyz[2::3], atol=1e-6)
    if cell is None:
        assert blocks[0].box is None
    else:
        boxes = np.concatenate([block.box for block in blocks])
        np.testing.assert_allclose(boxes, other.unitcell_vectors[2::3], atol=1e-5)


def test_check_examines_the_files_once(run, folder, positions):  # noqa: F811
    path = folder / "run_0000_a.trr"
    write_trr(path, positions[:50], time=0.1 * np.arange(50))
    system = changed(folder, imported={"frame_interval": None})
    built = system.check()
    path.unlink()
    assert ("imported", "50 frames in 1 replica(s), 0.1 ps apart") in system.understood(built)
