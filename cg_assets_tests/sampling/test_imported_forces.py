"""Forces of trajectories made elsewhere: the same numbers from every format."""

import struct
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from test_imported import MINE, changed, folder, read, run, topology_of  # noqa: F401 - fixtures

from cg_assets.core.errors import SamplingError
from cg_assets.sampling.imported.formats import Source, open_trajectory


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
    np.savez(folder / "c.npz", positions=positions, forces=forces, box=np.full((len(positions), 3), 5.0))
    write_trr(folder / "a.trr", positions, forces, time)
    write_trr(folder / "b.trr", positions, forces, time, np.eye(3) * 5, velocities=True, kind=">f8")
    for name in ("a.trr", "b.trr", "c.npz"):
        atoms = read(changed(folder, imported={"forces": "file", "files": [name]}).imported_reader("0000"))
        np.testing.assert_allclose(atoms.positions, positions, atol=1e-6)
        np.testing.assert_array_equal(atoms.forces, forces)
        psi = run[1].collective_variables["psi"][: len(atoms)]
        np.testing.assert_allclose(atoms.collective_variables["psi"], psi, atol=1e-4)


def test_our_trr_reader_agrees_with_mdanalysis():
    from MDAnalysis.lib.formats.libmdaxdr import TRRFile
    from MDAnalysisTests.datafiles import TRR_xvf

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


KCAL, EV = 41.84, 964.8533212331
TILTED = np.array([[6.0, 0, 0], [1.5, 5.5, 0], [-1.0, 2.0, 5.0]])
"""A box [nm]."""


def write_netcdf(path, positions, forces=None):
    from scipy.io import netcdf_file

    with netcdf_file(str(path), "w", version=2) as file:
        file.Conventions, file.ConventionVersion = "AMBER", "1.0"
        for name, length in (("frame", None), ("atom", positions.shape[1]), ("spatial", 3), ("cell_spatial", 3)):
            file.createDimension(name, length)
        columns = {"coordinates": 10 * positions, "forces": None if forces is None else forces / KCAL}
        for name, array in columns.items():
            if array is not None:
                variable = file.createVariable(name, "f4", ("frame", "atom", "spatial"))
                variable.units = {"coordinates": "angstrom", "forces": "kilocalorie/mole/angstrom"}[name]
                variable[:] = array
        time = file.createVariable("time", "f4", ("frame",))
        time.units = "picosecond"
        time[:] = 0.05 * np.arange(len(positions))


def write_dump(path, positions, forces=None, style=None, columns="xyz", factor=KCAL, box=TILTED):
    """A LAMMPS dump in Å, its atoms in another order in each frame."""
    rng, (n_frames, n_atoms, _) = np.random.default_rng(0), positions.shape
    box, low = 10 * box, np.array([1.0, -2.0, 3.0])
    xy, xz, yz = box[1, 0], box[2, 0], box[2, 1]
    bounds = np.array([low, low + np.diag(box)]).T
    bounds[0] += min(0, xy, xz, xy + xz), max(0, xy, xz, xy + xz)
    bounds[1] += min(0, yz), max(0, yz)
    names = {"xyz": "x y z", "scaled": "xs ys zs", "unwrapped": "xu yu zu"}[columns]
    with open(path, "w") as file:
        for frame in range(n_frames):
            if style:
                file.write(f"ITEM: UNITS\n{style}\nITEM: TIME\n{50 * frame * (1 if style == 'real' else 1e-3):g}\n")
            file.write(f"ITEM: TIMESTEP\n{frame}\nITEM: NUMBER OF ATOMS\n{n_atoms}\n")
            file.write("ITEM: BOX BOUNDS xy xz yz pp pp pp\n")
            for (lower, upper), tilt in zip(bounds, (xy, xz, yz), strict=True):
                file.write(f"{lower} {upper} {tilt}\n")
            file.write(f"ITEM: ATOMS id type {names}{' fx fy fz' if forces is not None else ''}\n")
            places = 10 * positions[frame]
            if columns == "scaled":
                places = (places - low) @ np.linalg.inv(box)
            for atom in rng.permutation(n_atoms):
                row = [*places[atom], *([] if forces is None else forces[frame, atom] / factor)]
                file.write(f"{atom + 1} 1 {' '.join(f'{number:.9g}' for number in row)}\n")


def write_extxyz(path, positions, forces, elements):
    import ase
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = []
    for places, force in zip(positions, forces, strict=True):
        atoms = ase.Atoms(elements, 10 * places, cell=10 * TILTED, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=force / EV, energy=-2.0)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def write_h5md(path, positions, forces, length="nm", force="kJ mol-1 nm-1", every=1):
    import h5py

    scale = {"nm": 1.0, "Angstrom": 10.0}[length]
    unit = {"kJ mol-1 nm-1": 1.0, "kJ/mol/nm": 1.0, "eV Angstrom-1": EV}[force]
    with h5py.File(path, "w") as file:
        group = file.create_group("particles/all")
        group["box/edges"] = scale * np.full(3, 5.0)
        for name, array, step, stated in (
            ("position", scale * positions[::every], every, length),
            ("force", forces / unit, 1, force),
        ):
            group[f"{name}/value"] = array
            group[f"{name}/value"].attrs["unit"] = stated
            group[f"{name}/step"] = step * np.arange(len(array))
            group[f"{name}/time"] = 0.05 * step * np.arange(len(array))
            group[f"{name}/time"].attrs["unit"] = "ps"


@pytest.fixture
def short(run):  # noqa: F811
    frames = run[1].select(np.flatnonzero(run[1].replica == 0)[:60])
    return frames.positions - frames.positions.min(axis=(0, 1)) + np.float32(0.5), frames.forces


def elements_of(molecule):
    return "".join(molecule.elements)


FORMATS = {
    "a.nc": lambda path, x, f, _: write_netcdf(path, x, f),
    "b.lammpstrj": lambda path, x, f, _: write_dump(path, x, f, "real"),
    "c.dump": lambda path, x, f, _: write_dump(path, x, f, "metal", "scaled", EV),
    "d.extxyz": lambda path, x, f, elements: write_extxyz(path, x, f, elements),
    "e.h5md": lambda path, x, f, _: write_h5md(path, x, f),
    "f.h5md": lambda path, x, f, _: write_h5md(path, x, f, "Angstrom", "eV Angstrom-1"),
    "g.h5md": lambda path, x, f, _: write_h5md(path, x, f, "nm", "kJ/mol/nm"),
    "h.npz": lambda path, x, f, _: np.savez(path, positions=x, forces=f),
    "i.NPZ": lambda path, x, f, _: np.savez(path.open("wb"), positions=x.reshape(len(x), -1), forces=f),
    "j.npz": lambda path, x, f, _: np.savez(path, positions=np.asfortranarray(x), forces=np.asfortranarray(f)),
    "k[1].trr": lambda path, x, f, _: write_trr(path, x, f, 0.05 * np.arange(len(x))),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_positions_and_forces(folder, run, short, name):  # noqa: F811
    positions, forces = short
    FORMATS[name](folder / f"run_{name}", positions, forces, elements_of(run[0]))
    system = changed(folder, imported={"files": [f"run_{name}"], "forces": "file"})
    atoms = read(system.imported_reader("0000"))
    np.testing.assert_allclose(atoms.positions, positions, atol=2e-6)
    np.testing.assert_allclose(atoms.forces, forces, atol=2e-5 * np.abs(forces).max())
    assert atoms.forces.shape == (60, 22, 3)
    np.testing.assert_allclose(atoms.time, 0.05 * np.arange(60), atol=1e-6)


def test_forces_of_amber_may_lie_in_a_second_file(folder, run, short):  # noqa: F811
    positions, forces = short
    write_netcdf(folder / "run_0000_a.nc", positions)
    write_netcdf(folder / "run.frc", positions, forces)
    imported = {"forces": "file", "force_files": ["run.frc"]}
    atoms = read(changed(folder, imported=imported).imported_reader("0000"))
    np.testing.assert_allclose(atoms.forces, forces, atol=2e-5 * np.abs(forces).max())
    write_netcdf(folder / "run.frc", positions[1:], forces[1:])
    with pytest.raises(SamplingError, match=r"run\.frc: its forces .* are not those of the frames"):
        changed(folder, imported=imported).imported_reader("0000")


@pytest.mark.parametrize("name", ["posfor.ncdf", "bala.ncdf", "tz2.truncoct.nc", "ace_tip3p.nc", "cpptraj_traj.nc"])
def test_our_netcdf_reader_agrees_with_mdanalysis(name):
    """Files of AMBER and of cpptraj: positions, forces, cells and times."""
    from MDAnalysis.coordinates.TRJ import NCDFReader
    from MDAnalysisTests.datafiles import __file__ as place

    path = Path(place).parent / "data" / "Amber" / name
    file = open_trajectory(Source(path, forces=name == "posfor.ncdf"))
    blocks = list(file.blocks(range(file.contents().n_frames), 7))
    with NCDFReader(str(path)) as other:
        steps = [(0.1 * step.positions, step.triclinic_dimensions, step.time) for step in other]
        forces = [10 * step.forces for step in other] if other.has_forces else None
    np.testing.assert_allclose(np.concatenate([block.positions for block in blocks]), [step[0] for step in steps], 1e-6)
    if name == "cpptraj_traj.nc":
        assert file.contents().time is None
    else:
        np.testing.assert_allclose(file.contents().time, [step[2] for step in steps], 1e-6)
    if file.source.forces:
        np.testing.assert_allclose(np.concatenate([block.forces for block in blocks]), forces, 1e-5)
    if blocks[0].box is not None and steps[0][1] is not None:
        boxes = np.concatenate([block.box for block in blocks])
        np.testing.assert_allclose(boxes, [0.1 * step[1] for step in steps], atol=1e-5)


@pytest.mark.parametrize("which", ["run_0000_a.nc", "run.frc"])
def test_whole_frames_of_cut_amber_files_are_used(folder, run, short, which):  # noqa: F811
    """Cut within its last frame, and by so much that the header counts frames that are not there."""
    positions, forces = short
    for lost, left in ((100, 59), (2000, 56)):
        write_netcdf(folder / "run_0000_a.nc", positions, forces)
        write_netcdf(folder / "run.frc", positions, forces)
        content = (folder / which).read_bytes()
        (folder / which).write_bytes(content[:-lost])
        reader = changed(folder, imported={"forces": "file", "force_files": ["run.frc"]}).imported_reader("0000")
        atoms = read(reader)
        assert len(atoms) == left
        assert any(f"cut within its last frame; its {left} whole frames are used" in note for note in reader.notes)
        np.testing.assert_allclose(atoms.forces, forces[:left], atol=2e-5 * np.abs(forces).max())
    (folder / which).write_bytes(content[:200])
    with pytest.raises(SamplingError, match=rf"{which}: is no AMBER NetCDF file .*: it ends"):
        changed(folder, imported={"forces": "file", "force_files": ["run.frc"]}).imported_reader("0000")


def test_scale_factors_of_netcdf_are_heeded(folder, run, short):  # noqa: F811
    """AMBER's convention lets a variable hold its numbers over a factor; here MDAnalysis writes such a file."""
    import MDAnalysis

    positions, forces = (part[:12] for part in short)
    atoms = MDAnalysis.Universe.empty(positions.shape[1], trajectory=True, forces=True)
    path = folder / "run_0000_a.nc"
    scales = {"scale_coordinates": 2.0, "scale_forces": 20.455}
    with MDAnalysis.Writer(str(path), n_atoms=len(atoms.atoms), forces=True, **scales) as file:
        for number, (places, pushes) in enumerate(zip(positions, forces, strict=True)):
            atoms.atoms.positions, atoms.atoms.forces = 10 * places, pushes / 10
            atoms.trajectory.ts.time = 0.05 * number
            file.write(atoms.atoms)
    found = read(changed(folder, imported={"forces": "file"}).imported_reader("0000"))
    np.testing.assert_allclose(found.positions, positions, atol=2e-6)
    np.testing.assert_allclose(found.forces, forces, atol=2e-5 * np.abs(forces).max())


def write_amber_text(path, numbers, edges=None):
    """By MDTraj: a title, and ten numbers of eight letters in a line."""
    with mdtraj.formats.MDCRDTrajectoryFile(str(path), mode="w") as file:
        file.write(numbers, None if edges is None else np.tile(edges, (len(numbers), 1)))


@pytest.mark.parametrize("edges", [None, [50.0, 51.0, 52.0]])
def test_text_files_of_amber_give_positions_and_forces(folder, run, short, edges):  # noqa: F811
    positions, forces = short
    path = folder / "run_0000_a.mdcrd"
    write_amber_text(path, 10 * positions, edges)
    write_amber_text(folder / "run.mdfrc", forces / KCAL)
    imported = {"forces": "file", "force_files": ["run.mdfrc"]}
    atoms = read(changed(folder, imported=imported).imported_reader("0000"))
    np.testing.assert_allclose(atoms.positions, positions, atol=6e-5)
    np.testing.assert_allclose(atoms.forces, forces, atol=0.021)
    assert edges is None or np.allclose(atoms.box, np.array(edges) / 10)
    for cut in (path, folder / "run.mdfrc"):
        content = cut.read_bytes()
        cut.write_bytes(content[:-24])
        reader = changed(folder, imported=imported).imported_reader("0000")
        assert len(read(reader)) == 59
        assert any("its 59 whole frames are used" in note for note in reader.notes)
        cut.write_bytes(content)
    write_amber_text(folder / "run.mdfrc", forces[1:] / KCAL)
    with pytest.raises(SamplingError, match=r"run\.mdfrc: has fewer frames than run_0000_a\.mdcrd"):
        changed(folder, imported=imported).imported_reader("0000")
    with pytest.raises(SamplingError, match="holds no forces"):
        changed(folder, imported={"forces": "file"}).imported_reader("0000")


def test_our_reader_of_amber_text_agrees_with_mdanalysis():
    from MDAnalysis.coordinates.TRJ import TRJReader
    from MDAnalysisTests.datafiles import __file__ as place

    path = Path(place).parent / "data" / "Amber" / "ache.mdcrd"
    with TRJReader(str(path), n_atoms=252) as other:
        expected = np.array([0.1 * step.positions for step in other])
    file = open_trajectory(Source(path, atom_counts=(300, 252, 84)))
    (block,) = file.blocks(range(len(expected)), len(expected))
    assert file.contents().n_frames == len(expected)
    np.testing.assert_allclose(block.positions, expected, atol=1e-6)


def test_a_unit_that_no_file_states_must_be_given(folder, run, short):  # noqa: F811
    positions, forces = short
    write_dump(folder / "run_0000_a.lammpstrj", positions, forces, columns="unwrapped")
    system = changed(folder, imported={"forces": "file"})
    with pytest.raises(SamplingError, match=r"unit of force is not stated; give imported\.force_unit"):
        system.imported_reader("0000")
    system = changed(folder, imported={"forces": "file", "force_unit": "kcal/mol/angstrom"})
    atoms = read(system.imported_reader("0000"))
    np.testing.assert_allclose(atoms.forces, forces, atol=2e-5 * np.abs(forces).max())
    write_dump(folder / "run_0000_a.lammpstrj", positions, forces, "metal", factor=EV)
    with pytest.raises(SamplingError, match=r"is in units metal, but imported\.force_unit is kcal/mol/angstrom"):
        system.imported_reader("0000")
    write_dump(folder / "run_0000_a.lammpstrj", positions, forces, "lj")
    with pytest.raises(SamplingError, match="is in units lj, which have no scale"):
        system.imported_reader("0000")


def test_units_of_extended_xyz_that_lammps_wrote_are_not_guessed(folder, run, short):  # noqa: F811
    """ASE takes the forces of `dump extxyz` under `units real` for eV/Å: 23 times too large."""
    positions, forces = short
    path = folder / "run_0000_a.xyz"
    with path.open("w") as file:
        for step, (places, force) in enumerate(zip(10 * positions, forces / KCAL, strict=True)):
            file.write(f'{len(places)}\nTimestep={step} pbc="F F F" Properties=species:S:1:pos:R:3:forces:R:3\n')
            for element, row in zip(run[0].elements, np.hstack([places, force]), strict=True):
                file.write(f"{element} {' '.join(f'{number:.9g}' for number in row)}\n")
    with pytest.raises(SamplingError, match="unit of force is not stated"):
        changed(folder, imported={"forces": "file"}).imported_reader("0000")
    system = changed(folder, imported={"forces": "file", "force_unit": "kcal/mol/angstrom"})
    np.testing.assert_allclose(read(system.imported_reader("0000")).forces, forces, atol=2e-5 * np.abs(forces).max())


def test_a_unit_that_contradicts_the_file_is_refused(folder, run, short):  # noqa: F811
    write_h5md(folder / "run_0000_a.h5md", *short)
    system = changed(folder, imported={"forces": "file", "force_unit": "eV/angstrom"})
    with pytest.raises(SamplingError, match="states the unit kJ/mol/nm, but imported gives eV/angstrom"):
        system.imported_reader("0000")


def test_frames_without_forces_are_left_out_where_forces_are_wanted(folder, run, short):  # noqa: F811
    """Positions in every second step of an H5MD file, forces in each; forces in every third of a TRR file."""
    positions, forces = short
    write_h5md(folder / "run_0000_a.h5md", positions, forces, every=2)
    system = changed(folder, imported={"forces": "file", "frame_interval": 0.1})
    np.testing.assert_allclose(read(system.imported_reader("0000")).forces, forces[::2], rtol=1e-5)
    (folder / "run_0000_a.h5md").unlink()
    write_trr(folder / "run_0000_a.trr", positions, forces, 0.05 * np.arange(60), every=(1, 3))
    system = changed(folder, imported={"forces": "file", "frame_interval": 0.15})
    atoms = read(system.imported_reader("0000"))
    np.testing.assert_allclose(atoms.forces, forces[::3], rtol=1e-5)
    np.testing.assert_allclose(atoms.time, 0.15 * np.arange(20), atol=1e-6)
