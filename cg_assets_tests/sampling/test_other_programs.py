"""Files that LAMMPS, MDAnalysis and ASE wrote, of the same frames, and forces that hold a thermostat's noise.

`lammps_butane` holds twelve frames of butane, written by LAMMPS of 22 July 2025 (`lmp -in butane.in`): under `fix
langevin`, and of a rerun without it.
"""

import re
import shutil
from pathlib import Path

import ase
import ase.io
import MDAnalysis
import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from test_imported import MINE, read

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.force_maps import slice_map
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.imported.file_forces import net_force
from cg_assets.systems import load_system

BUTANE = Path(__file__).parent / "lammps_butane"
KCAL, EV = 41.84, 964.8533212331


@pytest.fixture
def folder(tmp_path):
    """Files of LAMMPS, and a PDB of butane with its bonds."""
    for file in BUTANE.iterdir():
        shutil.copy(file, tmp_path)
    atoms = molecule("trans-butane")
    apart = atoms.get_all_distances()
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 14) if apart[i, j] < (1.7 if j < 4 else 1.2)]
    rows = enumerate(zip(atoms.symbols, atoms.positions, strict=True), 1)
    lines = [
        f"HETATM{number:5d} {f'{element}{number}':<4} BUT A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00{element:>12}"
        for number, (element, (x, y, z)) in rows
    ]
    lines += [f"CONECT{first + 1:5d}{second + 1:5d}" for first, second in pairs]
    (tmp_path / "it.pdb").write_text("\n".join([*lines, "END", ""]))
    return tmp_path


def imported(folder, name, **fields):
    """The system that imports a file, and its reader."""
    content = yaml.safe_load(MINE) | {
        "name": "butane",
        "model": {"type": "molecule", "pdb": "it.pdb"},
        "mapping": {"type": "beads", "beads": "heavy_atoms", "force_map": "slice"},
        "collective_variables": {"turn": {"type": "torsion", "atoms": ["1:C1", "1:C2", "1:C3", "1:C4"]}},
        "imported": {"files": [name], "forces": "file", "frame_interval": 0.2} | fields,
        "potentials": {"own": {"labels": "imported_forces"}},
        "evaluation": {"reference": {"type": "data"}, "collective_variables": ["turn"], "max_pmf_error": 1},
    }
    del content["labels"]
    (folder / "butane.yaml").write_text(yaml.safe_dump(content))
    system = load_system(folder / "butane.yaml")
    return system, system.imported_reader("0000")


def labels_of(folder, name, **fields):
    system, reader = imported(folder, name, **fields)
    beads = system.beads()
    return map_frames(beads, read(reader), slice_map(beads.cg_map))


def frames_of(path):
    """Positions [Å], forces [kcal/mol/Å] and cells of a dump, by MDAnalysis, which converts no forces.

    It reads no dump with units and times.
    """
    plain = path.with_suffix(".plain")
    plain.write_text(re.sub(r"ITEM: (UNITS|TIME)\n.*\n", "", path.read_text()))
    steps = MDAnalysis.coordinates.LAMMPS.DumpReader(str(plain))
    return [(step.positions.copy(), step.forces.copy(), step.triclinic_dimensions.copy()) for step in steps]


def test_files_that_other_programs_wrote_give_the_same_labels(folder):
    frames = frames_of(folder / "clean.lammpstrj")
    universe = MDAnalysis.Universe.empty(14, trajectory=True, forces=True)
    with MDAnalysis.Writer(str(folder / "it.nc"), n_atoms=14, forces=True) as writer:
        for number, (positions, forces, cell) in enumerate(frames):
            universe.atoms.positions, universe.atoms.forces = positions, 4.184 * forces
            universe.trajectory.ts.triclinic_dimensions, universe.trajectory.ts.time = cell, 0.2 * number
            writer.write(universe.atoms)
    by_ase = []
    for positions, forces, cell in frames:
        atoms = ase.Atoms("C4H10", positions, cell=cell, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, forces=forces * KCAL / EV)
        by_ase.append(atoms)
    ase.io.write(folder / "ase.extxyz", by_ase)
    expected = KCAL * np.array([forces[:4] for _, forces, _ in frames])
    scale = np.sqrt((expected**2).mean())
    for name, unit in {
        "it.nc": None,
        "clean.lammpstrj": None,
        "ase.extxyz": None,
        "clean.extxyz": "kcal/mol/angstrom",
    }.items():
        labels = labels_of(folder, name, force_unit=unit)
        assert np.abs(labels.forces - expected).max() < 1e-4 * scale, name
        between = np.linalg.norm(labels.positions[:, 1:] - labels.positions[:, :-1], axis=2)
        theirs = [np.linalg.norm(np.diff(positions[:4], axis=0), axis=1) / 10 for positions, _, _ in frames]
        np.testing.assert_allclose(between, theirs, atol=1e-5, err_msg=name)


def test_noise_of_a_thermostat_in_a_dump_is_seen_by_the_net_force(folder):
    noisy, clean = (
        KCAL * np.array([forces for _, forces, _ in frames_of(folder / f"{name}.lammpstrj")])
        for name in ("thermostatted", "clean")
    )
    added = np.sqrt(((noisy - clean) ** 2).sum() / (noisy**2).sum())
    assert net_force(clean) < 1e-5
    assert net_force(noisy) == pytest.approx(added, rel=0.3)
    _, reader = imported(folder, "thermostatted.lammpstrj")
    assert any("hold the noise of a thermostat (fix langevin of LAMMPS)" in note for note in reader.notes)
    _, reader = imported(folder, "clean.lammpstrj")
    assert any("would show, unless it was set to zero yes; forces on all atoms cancel" in note for note in reader.notes)


def test_noise_of_a_thermostat_is_refused_where_the_solvent_is_in_the_file(folder):
    """Butane and an argon atom that no bead sits on; without the argon atom in the file, nothing can be seen."""
    text = (
        (folder / "it.pdb")
        .read_text()
        .replace("CONECT", "HETATM   15 AR    AR B   2      20.0    20.0    20.0  1.00  0.00          AR\nCONECT", 1)
    )
    (folder / "it.pdb").write_text(text)
    for name in ("thermostatted", "clean"):
        frames = frames_of(folder / f"{name}.lammpstrj")
        positions = np.array([np.vstack([places, [3.0, 3.0, 3.0]]) for places, _, _ in frames]) / 10
        forces = KCAL * np.array([np.vstack([pushes, np.zeros(3)]) for _, pushes, _ in frames])
        np.savez(folder / f"{name}.npz", positions=positions, forces=forces)
    fields = {"force_unit": "kJ/mol/nm"}
    imported(folder, "clean.npz", **fields)
    with pytest.raises(SamplingError, match=r"fix langevin of LAMMPS\).* write the forces again in a rerun without it"):
        imported(folder, "thermostatted.npz", **fields)
    _, reader = imported(folder, "thermostatted.lammpstrj")
    assert any("cannot be seen without all atoms" in note for note in reader.notes)
