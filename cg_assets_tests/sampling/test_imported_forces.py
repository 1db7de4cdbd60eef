"""Forces of trajectories made elsewhere: the same numbers from every format."""

import struct

import mdtraj
import numpy as np
import pytest
from test_imported import MINE, changed, folder, read, run, topology_of  # noqa: F401 - fixtures

from cg_assets.core.errors import SamplingError


def write_trr(path, positions, forces=None, time=None, box=None, every=(1, 1), velocities=False, kind=">f4"):
    """A TRR file after the GROMACS manual; positions in every so many frames, forces in every so many."""
    reals = np.dtype(kind)
    time = np.arange(len(positions)) if time is None else time
    with open(path, "wb") as file:
        for number, frame in enumerate(positions):
            parts = [b""] * 4
            if box is not None:
                parts[0] = np.asarray(box, kind).tobytes()
            if number % every[0] == 0:
                parts[1] = frame.astype(kind).tobytes()
            if velocities:
                parts[2] = (0 * frame).astype(kind).tobytes()
            if forces is not None and number % every[1] == 0:
                parts[3] = forces[number].astype(kind).tobytes()
            sizes = [0, 0, len(parts[0]), 0, 0, 0, 0, *map(len, parts[1:])]
            file.write(struct.pack(">iii12s", 1993, 13, 12, b"GMX_trn_file"))
            file.write(struct.pack(">13i", *sizes, frame.shape[0], number, 0))
            file.write(np.array([time[number], 0], reals).tobytes() + b"".join(parts))


@pytest.fixture
def with_forces(run, folder):  # noqa: F811
    """The system that imports forces too, positions, and forces."""
    frames = run[1].select(run[1].replica == 0)
    changed(folder, imported={"forces": "file"})
    return folder, frames.positions, frames.forces


def test_forces_of_trr_and_npz_are_those_of_the_engine(with_forces, run):  # noqa: F811
    folder, positions, forces = with_forces  # noqa: F811
    time = 0.05 * np.arange(len(positions))
    write_trr(folder / "run_0000_a.trr", positions, forces, time)
    write_trr(folder / "run_0000_b.trr", positions, forces, time, np.eye(3) * 5, velocities=True, kind=">f8")
    np.savez(folder / "run_0000_c.npz", positions=positions, forces=forces, box=np.full((len(positions), 3), 5.0))
    system = changed(folder, imported={"forces": "file"})
    atoms = read(system.imported_reader("0000"))
    for replica in range(3):
        mine = atoms.select(atoms.replica == replica)
        np.testing.assert_allclose(mine.positions, positions, atol=1e-6)
        np.testing.assert_array_equal(mine.forces, forces)
        np.testing.assert_allclose(
            mine.collective_variables["psi"], run[1].collective_variables["psi"][: len(mine)], atol=1e-4
        )


def test_our_trr_reader_agrees_with_mdanalysis():
    from pathlib import Path

    from MDAnalysis.lib.formats.libmdaxdr import TRRFile
    from MDAnalysisTests.datafiles import TRR_xvf

    from cg_assets.sampling.imported.formats import Source, open_trajectory

    file = open_trajectory(Source(Path(TRR_xvf), forces=True))
    assert file.contents().n_frames == 3
    (block,) = file.blocks(range(3), 3)
    with TRRFile(TRR_xvf) as other:
        for number, frame in enumerate(other):
            np.testing.assert_array_equal(block.positions[number], frame.x)
            np.testing.assert_array_equal(block.forces[number], frame.f)
            np.testing.assert_array_equal(block.box[number], frame.box)
            assert block.time[number] == frame.time


def test_frames_of_a_trr_without_positions_are_left_out_and_counted(run, folder):  # noqa: F811
    """Forces twice as often as positions: half of the frames hold no positions, which read as zeros elsewhere."""
    positions = run[1].positions[run[1].replica == 0][:401]
    write_trr(folder / "run_0000_a.trr", positions, 0 * positions, 0.025 * np.arange(401), every=(2, 1))
    system = changed(folder, imported={"stride": 1})
    reader = system.imported_reader("0000")
    beads = read(reader)
    np.testing.assert_allclose(beads.positions, system.beads().cg_map.apply(positions[::2]), atol=1e-6)
    assert any("200 of 401 frames lack positions" in note for note in reader.notes)


def test_files_without_forces_are_refused_where_forces_are_wanted(with_forces, run):  # noqa: F811
    folder, positions, _ = with_forces  # noqa: F811
    system = changed(folder, imported={"forces": "file"})
    path = folder / "run_0000_a.trr"
    write_trr(path, positions)
    with pytest.raises(SamplingError, match=r"run_0000_a\.trr: holds no forces"):
        system.imported_reader("0000")
    path.unlink()
    np.savez(folder / "run_0000_a.npz", positions=positions)
    with pytest.raises(SamplingError, match="no forces"):
        system.imported_reader("0000")
    (folder / "run_0000_a.npz").unlink()
    mdtraj.Trajectory(positions, topology_of(run[0])).save_dcd(str(folder / "run_0000_a.dcd"))
    with pytest.raises(SamplingError, match="no forces are read from this format"):
        system.imported_reader("0000")
