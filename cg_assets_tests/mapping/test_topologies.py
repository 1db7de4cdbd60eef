"""Topologies of other engines give the System that their engine would, and boxes of any shape fit it."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openmm
import pytest
from charmm_files import write_parameters, write_psf
from malformed_topologies import amber, own_field
from openmm import app, unit

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.builders import MoleculeSettings, build_molecule
from cg_assets.mapping.cells import CellShape, cell_vectors, reduced, same_cell

GROMACS = pytest.mark.skipif(shutil.which("gmx") is None, reason="gmx (GROMACS) is not installed")
HEAVY = BeadMapping(type="beads", beads="heavy_atoms")


def built(folder, **fields):
    return build_molecule(MoleculeSettings.model_validate(fields), HEAVY, {}, folder)


def forces_of(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    return np.array(context.getState(forces=True).getForces(asNumpy=True)._value)


@pytest.mark.parametrize(
    ("cell", "volume"),
    [
        (3.0, 27.0),
        ([2.0, 3.0, 4.0], 24.0),
        (CellShape(shape="dodecahedron", edge=3.0), 27.0 / np.sqrt(2)),
        (CellShape(shape="octahedron", edge=3.0), 27.0 * 4 / np.sqrt(27)),
        ([[3.0, 0, 0], [1.6, 2.0, 0], [0.2, 1.4, 2.5]], 15.0),
    ],
)
def test_cells_have_their_volume_and_are_as_openmm_wants_them(cell, volume):
    vectors = cell_vectors(cell)
    assert np.linalg.det(vectors) == pytest.approx(volume)
    openmm.System().setDefaultPeriodicBoxVectors(*vectors)  # refuses vectors that are not reduced
    context = openmm.System()
    context.addParticle(1.0)
    context.setDefaultPeriodicBoxVectors(*vectors)
    openmm.Context(context, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def test_one_lattice_in_two_settings_is_the_same_and_another_is_not():
    vectors = cell_vectors(CellShape(shape="dodecahedron", edge=3.0))
    turned = reduced(vectors + np.array([[0, 0, 0], [0, 0, 0], 2 * vectors[0] - vectors[1]]))
    assert same_cell(vectors, turned)
    assert not same_cell(vectors, 3.0 * np.eye(3))
    assert not same_cell(vectors, 1.01 * vectors)


@pytest.fixture(scope="module")
def peptide(tmp_path_factory):
    """A peptide of OpenMM's amber14 in a folder, with its own System and XML."""
    folder = tmp_path_factory.mktemp("peptide")
    own = built(folder, sequence=["ACE", "ALA", "NME"], force_fields=["amber14-all.xml"], hydrogen_mass=None)
    with (folder / "it.pdb").open("w") as file:
        app.PDBFile.writeFile(own.topology, unit.Quantity(own.positions, unit.nanometer), file)
    (folder / "it.xml").write_text(openmm.XmlSerializer.serialize(own.system))
    return folder, own


def test_a_serialised_system_is_the_system(peptide):
    folder, own = peptide
    source = {"type": "openmm_system", "xml": "it.xml", "coordinates": "it.pdb"}
    again = built(folder, topology=source, hydrogen_mass=None)
    assert np.allclose(forces_of(again.system, own.positions), forces_of(own.system, own.positions))
    assert again.constraints == own.constraints
    assert again.atom_names == own.atom_names


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "hydrogen_mass"),
        ({"hydrogen_mass": None, "constraints": "none"}, "constraints"),
        ({"hydrogen_mass": None, "force_fields": ["a.xml"]}, "remove force_fields"),
    ],
)
def test_a_serialised_system_that_contradicts_the_file_is_refused(peptide, fields, words):
    source = {"type": "openmm_system", "xml": "it.xml", "coordinates": "it.pdb"}
    with pytest.raises((SystemSpecError, ValueError), match=words):
        built(peptide[0], topology=source, **fields)


def test_a_serialised_system_with_a_barostat_is_refused(peptide):
    folder, own = peptide
    system = openmm.XmlSerializer.clone(own.system)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    (folder / "pressed.xml").write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(SystemSpecError, match="MonteCarloBarostat"):
        source = {"type": "openmm_system", "xml": "pressed.xml", "coordinates": "it.pdb"}
        built(folder, topology=source, hydrogen_mass=None)


def test_an_own_force_field_lies_next_to_the_yaml_file_and_counts(peptide):
    folder, own = peptide
    shipped = next(path for path in app.forcefield._getDataDirectories() if path)
    shutil.copy(f"{shipped}/amber99sb.xml", folder / "mine.xml")
    settings = MoleculeSettings(sequence=["ACE", "ALA", "NME"], force_fields=["mine.xml"])
    assert folder / "mine.xml" in settings.files(folder)
    assert build_molecule(settings, HEAVY, {}, folder).n_atoms == own.n_atoms


def solvated(folder, shape, force_field="amber99sb-ildn", sequence=("ACE", "ALA", "NME")):
    """A peptide in TIP3P, by GROMACS's own tools."""
    own = built(folder, sequence=list(sequence))
    for atom in own.topology.atoms():
        atom.name = "CH3" if atom.residue.name == "NME" and atom.name == "C" else atom.name
    with (folder / "in.pdb").open("w") as file:
        app.PDBFile.writeFile(own.topology, unit.Quantity(own.positions, unit.nanometer), file)
    for command in (
        f"pdb2gmx -f in.pdb -o in.gro -p topol.top -ff {force_field} -water tip3p -ignh",
        f"editconf -f in.gro -o box.gro -bt {shape} -d 1.0",
        "solvate -cp box.gro -cs spc216.gro -p topol.top -o solvated.gro",
    ):
        subprocess.run(["gmx", *command.split()], cwd=folder, check=True, capture_output=True)


def forces_of_gromacs(folder):
    """Positions and forces `(n_atoms, 3)` of `solvated.gro`, by GROMACS itself."""
    import MDAnalysis

    (folder / "run.mdp").write_text(
        "integrator = md\nnsteps = 0\nnstfout = 1\nnstxout = 1\ncoulombtype = PME\nrcoulomb = 0.9\nrvdw = 0.9\n"
        "vdw-modifier = none\ncoulomb-modifier = none\nconstraints = h-bonds\nfourierspacing = 0.08\n"
        "ewald-rtol = 1e-6\nverlet-buffer-tolerance = -1\nrlist = 1.0\ncontinuation = yes\n"
    )
    for command in (
        "grompp -f run.mdp -c solvated.gro -p topol.top -o run.tpr -maxwarn 5",
        "mdrun -s run.tpr -rerun solvated.gro -o run.trr -nt 1",
    ):
        subprocess.run(["gmx", *command.split()], cwd=folder, check=True, capture_output=True)
    frame = MDAnalysis.coordinates.TRR.TRRReader(str(folder / "run.trr"))[0]
    return 0.1 * frame.positions.astype(np.float64), 10.0 * frame.forces.astype(np.float64)


def difference(ours, theirs):
    return np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean())


@GROMACS
@pytest.mark.parametrize("shape", ["dodecahedron", "octahedron"])
def test_a_gromacs_topology_gives_the_forces_of_gromacs(tmp_path, shape):
    solvated(tmp_path, shape)
    positions, theirs = forces_of_gromacs(tmp_path)
    source = {"type": "gromacs", "top": "topol.top", "coordinates": "solvated.gro"}
    own = built(tmp_path, topology=source, cutoff=0.9, hydrogen_mass=None)
    assert difference(forces_of(own.system, positions), theirs) < 1e-3
    assert len(own.stored) == 22
    assert same_cell(own.box, reduced(own.box))
    settings = MoleculeSettings(topology=source, cutoff=0.9)
    assert any(path.name == "ffbonded.itp" for path in settings.files(tmp_path))


@GROMACS
def test_a_charmm_topology_gives_the_forces_of_gromacs(tmp_path):
    """CHARMM27 in a psf and a prm, without the springs of rigid bonds, which OpenMM keeps unless asked not to."""
    solvated(tmp_path, "dodecahedron", "charmm27", ["ALA", "TRP", "SER"])
    positions, theirs = forces_of_gromacs(tmp_path)
    top = app.GromacsTopFile(str(tmp_path / "topol.top"), includeDir="/usr/share/gromacs/top")
    flexible = top.createSystem(rigidWater=False)
    write_parameters(tmp_path / "it.prm", top.topology, flexible)
    write_psf(tmp_path / "it.psf", top.topology, flexible)
    source = {"type": "charmm", "psf": "it.psf", "parameters": ["it.prm"], "coordinates": "solvated.gro"}
    own = built(tmp_path, topology=source, cutoff=0.9, hydrogen_mass=None)
    ours = forces_of(own.system, positions)
    assert difference(ours, theirs) < 1e-3
    assert difference(ours[own.stored], theirs[own.stored]) < 1e-3
    same = built(
        tmp_path,
        topology={"type": "gromacs", "top": "topol.top", "coordinates": "solvated.gro"},
        cutoff=0.9,
        hydrogen_mass=None,
    )
    assert len(own.constraints) == len(same.constraints)
    assert own.elements == same.elements
    assert len(own.stored) == len(same.stored)


def test_an_amber_topology_in_its_box_gives_the_forces_of_ff14sb_and_rigid_water():
    from MDAnalysisTests.datafiles import __file__ as place

    folder = Path(place).parent / "data" / "Amber"
    source = {"type": "amber", "prmtop": "parmed_ala2_solv.parm7", "coordinates": "parmed_ala2_solv.rst7"}
    own = built(folder, topology=source, cutoff=0.8, hydrogen_mass=None)
    waters = sum(residue.name == "HOH" for residue in own.topology.residues())
    assert own.n_atoms == len(own.stored) + 3 * waters
    assert len(own.constraints) >= 3 * waters
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    again = field.createSystem(
        own.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.8, constraints=app.HBonds, rigidWater=True
    )
    ours, theirs = (forces_of(system, own.positions) for system in (own.system, again))
    assert difference(ours[own.stored], theirs[own.stored]) < 1e-5


def test_a_missing_file_of_a_topology_is_named(tmp_path):
    with pytest.raises(SystemSpecError, match=r"no file .*it\.gro"):
        built(tmp_path, topology={"type": "gromacs", "top": "it.top", "coordinates": "it.gro"})


def test_positions_in_another_order_than_the_topology_are_refused(tmp_path):
    """AMBER writes the first hydrogen of an acetyl group before its carbon, GROMACS and OpenMM after it."""
    fields, files, _ = amber(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert built(tmp_path, **fields).n_atoms == 6
    title, number, first, *rest = files["it.inpcrd"].decode().splitlines()
    (tmp_path / "it.inpcrd").write_text("\n".join([title, number, first[36:] + first[:36], *rest, ""]))
    with pytest.raises(SystemSpecError, match=r"it\.inpcrd the atoms 1:CH3 and 1:H2.*bonds are too long"):
        built(tmp_path, **fields)


def test_a_bond_without_parameters_in_an_own_force_field_is_named(tmp_path):
    """OpenMM leaves it out."""
    fields, files, _ = own_field(tmp_path)
    lines = files["field.xml"].decode().splitlines(keepends=True)
    lost = next(line for line in lines if "<Bond" in line and 'type1="protein-C"' in line and "protein-N" in line)
    (tmp_path / "field.xml").write_text("".join(line for line in lines if line != lost))
    with pytest.raises(SystemSpecError, match=r"field\.xml: has no parameters for 2 bonds, the first 1:C-2:N"):
        built(tmp_path, **fields)
