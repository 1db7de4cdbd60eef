"""CG simulations as files of other programs: written by one library, read by others."""

import csv
import dataclasses

import MDAnalysis
import mdtraj
import numpy as np
import pytest
from openmm import unit
from openmm.app import PDBFile

from cg_assets.assets.soundness import RECIPE
from cg_assets.cli import main
from cg_assets.core.frames import Frames
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.use.trajectory import write_trajectory


def simulated(home, model, box=None, n_replicas=3):
    """Random frames as a stored CG simulation, replica by replica at each time, as simulations write them."""
    name, potential = model.split(".")
    beads = load_system(name).beads().cg_map.n_beads
    random = np.random.default_rng(1)
    replica, time = np.tile(np.arange(n_replicas), 4), np.repeat([0.5, 1.0, 1.5, 2.0], n_replicas)
    frames = Frames(
        positions=random.normal(1.0, 0.3, (len(time), beads, 3)).astype(np.float32),
        time=time,
        replica=replica.astype(np.int32),
        temperature=np.full(len(time), 300.0),
        start=np.zeros(len(time), np.int32),
        probe=np.zeros(len(time), bool),
        box=None if box is None else np.tile(np.float32(box), (len(time), 1)),
    )
    ParquetStore(home).write_frames(frames, FileMetadata(name, f"cg_simulation_{potential}", "molar"))
    return frames


def test_a_molecule_is_read_by_other_programs(home, tmp_path, capsys):
    frames = simulated(home, "capped_alanine_quick.biased")
    folder = tmp_path / "out"
    assert main(["trajectory", "capped_alanine_quick.biased", str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / name) for name in ("beads.pdb", "beads.xtc", "frames.csv")]
    order = np.lexsort((frames.time, frames.replica))
    universe = MDAnalysis.Universe(str(folder / "beads.pdb"), str(folder / "beads.xtc"))
    found = np.array([step.positions.copy() for step in universe.trajectory])  # in Å
    assert np.abs(found / 10 - frames.positions[order]).max() < 6e-4
    assert [step.time for step in universe.trajectory] == frames.time[order].tolist()
    cg_map = load_system("capped_alanine_quick").beads().cg_map
    assert {tuple(sorted(bond.indices)) for bond in universe.bonds} == {tuple(sorted(bond)) for bond in cg_map.bonds}
    assert [f"{atom.resid}:{atom.name}" for atom in universe.atoms] == cg_map.bead_names
    first = PDBFile(str(folder / "beads.pdb"))
    assert first.topology.getNumBonds() == len(cg_map.bonds) and first.topology.getPeriodicBoxVectors() is None
    assert np.abs(first.getPositions(True).value_in_unit(unit.nanometer) - frames.positions[order[0]]).max() < 1e-4
    with open(folder / "frames.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["replica"]) for row in rows] == frames.replica[order].tolist()
    assert [float(row["time [ps]"]) for row in rows] == frames.time[order].tolist()


def test_a_box_is_kept_and_replicas_can_be_chosen(home, tmp_path):
    frames = simulated(home, "water_quick.splines", box=[1.5, 1.5, 2.5])
    folder = tmp_path / "out"
    assert main(["trajectory", "water_quick.splines", str(folder), "--replicas", "2"]) == 0
    found = mdtraj.load(str(folder / "beads.xtc"), top=str(folder / "beads.pdb"))
    chosen = frames.select(frames.replica == 2)
    assert np.abs(found.xyz - chosen.positions).max() < 6e-4
    assert found.unitcell_lengths == pytest.approx(np.tile([1.5, 1.5, 2.5], (4, 1)))
    assert found.unitcell_angles == pytest.approx(np.full((4, 3), 90.0))
    assert MDAnalysis.Universe(str(folder / "beads.pdb")).dimensions == pytest.approx([15, 15, 25, 90, 90, 90])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["capped_alanine_quick.none", "out"], "there are: capped_alanine_quick.unbiased"),
        (["capped_alanine_quick.biased@champion", "out"], "The simulation of the newest version is kept"),
        (["capped_alanine_quick.unbiased", "out"], "cg_simulation_unbiased/part-0.parquet"),
        (["capped_alanine_quick.biased", "out", "--replicas", "3"], "--replicas 3: there are 0 to 2"),
        (["capped_alanine_quick.biased", "."], "is not empty"),
    ],
)
def test_what_cannot_be_written_is_named(home, tmp_path, monkeypatch, capsys, arguments, words):
    simulated(home, "capped_alanine_quick.biased")
    monkeypatch.chdir(tmp_path)
    assert main(["trajectory", *arguments]) == 1
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_frames_of_other_beads_are_refused(home, tmp_path, capsys):
    """Fewer beads than today's map; or as many, of a mapping that has changed since."""
    name, stage = "capped_alanine_quick", "cg_simulation_biased"
    frames = simulated(home, f"{name}.biased")
    fewer = dataclasses.replace(frames, positions=frames.positions[:, :-1])
    same = load_system(name).hash_of("mapping")
    for kept, recipe, refused in ((fewer, same, True), (frames, "other", True), (frames, same, False)):
        metadata = FileMetadata(name, stage, "molar", extra={RECIPE: {"mapping": recipe}})
        ParquetStore(home).write_frames(kept, metadata)
        assert main(["trajectory", f"{name}.biased", str(tmp_path / "out")]) == int(refused)
        message = capsys.readouterr().err
        assert not refused or ("the beads of capped_alanine_quick changed" in message and message.count("\n") == 1)


def test_beads_without_places_are_refused(finished, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CG_ASSETS_HOME", str(finished.home))
    assert main(["trajectory", "small_wells.biased", str(tmp_path / "out")]) == 1
    assert "no places in space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "box", "words"),
    [
        (1000.0, None, "frame 0 (replica 0, 0.5 ps), bead 2 (1:C): 1000 nm does not fit into the 8 columns"),
        (-100.0, None, "bead 2 (1:C): -100 nm does not fit"),
        (np.nan, None, "frame 0 (replica 0, 0.5 ps), bead 2 (1:C): nan nm does not fit into an XTC file"),
        (3e6, None, "bead 2 (1:C): 3e+06 nm does not fit into an XTC file"),
        (0.0, [2.0, 10_000.0, 2.0], "edge of the box: 10000 nm does not fit into the 9 columns"),
    ],
)
def test_numbers_that_are_too_long_for_a_pdb_file_are_refused(home, tmp_path, capsys, place, box, words):
    """Where the columns of the file would run into each other; the other replicas are written."""
    model = "capped_alanine_quick.biased"
    frames = simulated(home, model, box)
    positions = frames.positions.copy()
    positions[frames.replica == 0, 1, 0] = place
    frames = dataclasses.replace(frames, positions=positions)
    ParquetStore(home).write_frames(frames, FileMetadata("capped_alanine_quick", "cg_simulation_biased", "molar"))
    assert main(["trajectory", model, str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert words in message and "--replicas" in message and message.count("\n") == 1
    assert not list(tmp_path.glob("*out*"))
    assert main(["trajectory", model, str(tmp_path / "out"), "--replicas", "1"]) == int(box is not None)


def test_an_interrupted_command_leaves_no_folder(home, tmp_path, monkeypatch):
    """Neither a half-made one nor a hidden one; an empty folder that was there stays, and is filled the next time."""
    simulated(home, "capped_alanine_quick.biased")
    (tmp_path / "empty").mkdir()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for folder in ("new", "empty"):
        with monkeypatch.context() as patch:
            patch.setattr(csv, "writer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_trajectory(home, "capped_alanine_quick.biased", tmp_path / folder)
        assert not (tmp_path / "new").exists() and [path.name for path in tmp_path.rglob("*")].count("beads.pdb") == 0
        assert not [path for path in tmp_path.rglob(".*")]
    for folder in ("new", "empty"):
        written = write_trajectory(home, "capped_alanine_quick.biased", tmp_path / folder)
        assert sorted(written) == sorted((tmp_path / folder).iterdir())
