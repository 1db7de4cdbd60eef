"""Turn a molecule's specification into an OpenMM System, checking the specification against its atoms first."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.peptides import build_peptide
from cg_assets.mapping.settings import BeadMapping, Molecule
from cg_assets.mapping.solvation import add_water
from cg_assets.systems.spec import SystemSpec

if TYPE_CHECKING:
    import openmm

WATER = {"HOH", "WAT"}
"""Residue names of water."""
_GB_OFFSET = 0.009
"""Offset of the Born radii of the OBC model [nm]."""


@dataclass(frozen=True)
class MoleculeModel:
    """A molecule ready to be simulated.

    Attributes:
        system: OpenMM System without any bias, all its forces in force group 0; None without a force field.
        topology: OpenMM topology.
        atom_names: `residue number:atom name` of each atom, residues counted from 1.
        elements: element symbol of each atom, "" for virtual sites.
        masses: `(n_atoms,)` physical masses [amu], 0 for virtual sites.
        simulated_masses: `(n_atoms,)` masses after hydrogen mass repartitioning [amu].
        positions: `(n_atoms, 3)` built or read positions [nm].
        bonds: pairs of bonded atoms.
        constraints: pairs of atoms whose distance is fixed.
        n_degrees_of_freedom: momenta that carry kinetic energy (centre of mass included).
        box: edge of the cubic periodic box [nm], or None.
        stored: `(n_stored,)` atoms that frames keep: those of the molecules that carry beads.
    """

    system: openmm.System | None
    topology: Any
    atom_names: list[str]
    elements: list[str]
    masses: NDArray[np.float64]
    simulated_masses: NDArray[np.float64]
    positions: NDArray[np.float64]
    bonds: list[tuple[int, int]]
    constraints: list[tuple[int, int]]
    n_degrees_of_freedom: int
    box: float | None
    stored: NDArray[np.int64]

    def stored_pairs(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of some pairs of atoms that frames keep, numbered as in frames."""
        place = {int(atom): index for index, atom in enumerate(self.stored)}
        return [(place[first], place[second]) for first, second in pairs if first in place]

    @property
    def n_atoms(self) -> int:
        """Number of atoms, virtual sites included."""
        return len(self.atom_names)

    def atom_index(self, name: str) -> int:
        """Index of the atom `residue number:atom name`."""
        return self.atom_names.index(name)


_built: dict[tuple[str, str], MoleculeModel] = {}
"""The molecules that this process has built, by the hash of what they follow from and the folder of their files."""


def build_molecule(system: SystemSpec) -> MoleculeModel:
    """Build the molecule of a system and check the whole specification against its atoms.

    A molecule is built once in a process; callers copy its System before they add to it.

    Raises:
        SystemSpecError: the system is no molecule, an atom that it names does not exist, the force field lacks a
            template, the PDB has no hydrogens, or its box does not fit.
    """
    if not isinstance(system.model, Molecule):
        raise SystemSpecError(f"{system.name} is a model potential, not a molecule; it has no atoms to build")
    key = (system.hash_of("model", "mapping", "collective_variables"), str(system.folder))
    if key not in _built:
        _built[key] = _build(system, system.model)
    return _built[key]


def _build(system: SystemSpec, molecule: Molecule) -> MoleculeModel:
    topology, positions, n_solute = _structure(system, molecule)
    atoms = list(topology.atoms())
    names = [f"{atom.residue.index + 1}:{atom.name}" for atom in atoms]
    elements = [atom.element.symbol if atom.element is not None else "" for atom in atoms]
    _check_atoms(system, names, elements, names[:n_solute])
    physical = np.array([atom.element.mass._value if atom.element is not None else 0.0 for atom in atoms])
    openmm_system, simulated, pairs = None, physical, []
    if molecule.force_fields:
        openmm_system = _create_system(system, molecule, topology)
        _check_masses(molecule, openmm_system, names, elements)
        simulated = np.array([openmm_system.getParticleMass(i)._value for i in range(len(atoms))])
        pairs = [openmm_system.getConstraintParameters(i)[:2] for i in range(openmm_system.getNumConstraints())]
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()] or _chain_bonds(topology)
    return MoleculeModel(
        system=openmm_system,
        topology=topology,
        atom_names=names,
        elements=elements,
        masses=physical,
        simulated_masses=simulated,
        positions=positions,
        bonds=bonds,
        constraints=[(int(first), int(second)) for first, second in pairs],
        n_degrees_of_freedom=3 * int((simulated > 0).sum()) - len(pairs),
        box=molecule.box,
        stored=_stored_atoms(system, atoms, names, bonds),
    )


def _chain_bonds(topology: Any) -> list[tuple[int, int]]:
    """Bonds of neighbouring residues in a chain of one atom each: a structure of alpha carbons alone."""
    chains = [[next(residue.atoms()).index for residue in chain.residues()] for chain in topology.chains()]
    whole = topology.getNumAtoms() == topology.getNumResidues()
    return [pair for chain in chains for pair in itertools.pairwise(chain)] if whole else []


def connected_groups(n_atoms: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number of the group `(n_atoms,)` that each atom is connected to by pairs; groups in order of first atoms."""
    parent = list(range(n_atoms))

    def root(atom: int) -> int:
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.unique([root(atom) for atom in range(n_atoms)], return_inverse=True)[1]


def _stored_atoms(
    system: SystemSpec, atoms: list[Any], names: list[str], bonds: list[tuple[int, int]]
) -> NDArray[np.int64]:
    """Atoms of the molecules that carry beads; a virtual site belongs to its residue."""
    mapping = system.mapping
    if not isinstance(mapping, BeadMapping):
        raise SystemSpecError("mapping.type must be beads for a molecule")
    residues = [(atom.index, first.index) for atom in atoms for first in [next(atom.residue.atoms())]]
    group = connected_groups(len(atoms), [*bonds, *residues])
    if isinstance(mapping.beads, str):
        carriers = [atom.index for atom in atoms if atom.residue.name not in WATER]
    else:
        named = {atom for members in mapping.beads.values() for atom in members}
        carriers = [index for index, name in enumerate(names) if name in named]
    return np.flatnonzero(np.isin(group, group[carriers]))


def _structure(system: SystemSpec, molecule: Molecule) -> tuple[Any, NDArray[np.float64], int]:
    """Topology, positions [nm] and number of atoms without added water, from the sequence or the PDB file."""
    if molecule.sequence is not None:
        topology, positions = build_peptide(molecule.sequence)
    else:
        topology, positions = _read_pdb(system, molecule)
    n_solute = topology.getNumAtoms()
    if molecule.waters is not None and molecule.box is not None:
        topology, positions = add_water(topology, positions, molecule.force_fields, molecule.waters, molecule.box)
    if molecule.box is not None:
        topology.setPeriodicBoxVectors(np.eye(3) * molecule.box)
    else:
        topology.setPeriodicBoxVectors(None)
    return topology, positions, n_solute


def _read_pdb(system: SystemSpec, molecule: Molecule) -> tuple[Any, NDArray[np.float64]]:
    from openmm import app, unit

    path = system.folder / str(molecule.pdb)
    try:
        pdb = app.PDBFile(str(path))
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise SystemSpecError(f"model.pdb: {path} cannot be read as a PDB file: {error}") from None
    topology = pdb.topology
    has_hydrogens = any(atom.element is not None and atom.element.symbol == "H" for atom in topology.atoms())
    if molecule.force_fields and not has_hydrogens:
        raise SystemSpecError(
            f"model.pdb: {path} has no hydrogen atoms; add them, for example with openmm.app.Modeller.addHydrogens "
            "or PDBFixer, and save the file again"
        )
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        edges = np.diag(np.array(vectors.value_in_unit(unit.nanometer)))
        _check_box(molecule, edges, topology, path)
    return topology, np.array(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)


def _check_box(molecule: Molecule, edges: NDArray, topology: Any, path: Any) -> None:
    """Refuse a box in the PDB file that contradicts the specification."""
    shown = " x ".join(f"{edge:.3f}" for edge in edges)
    if molecule.box is None:
        waters = sum(residue.name in WATER for residue in topology.residues())
        if waters:
            raise SystemSpecError(
                f"model.box is null, but {path} holds {waters} water molecules in a box of {shown} nm; set model.box "
                "and model.cutoff"
            )
        return
    if molecule.cutoff is not None and molecule.cutoff > edges.min() / 2:
        raise SystemSpecError(
            f"model.cutoff {molecule.cutoff} nm is beyond half the box of {path} ({shown} nm); lower it or use a "
            "larger box"
        )
    if np.abs(edges - molecule.box).max() > 1e-3 * molecule.box:
        raise SystemSpecError(f"model.box is {molecule.box} nm, but the box of {path} is {shown} nm; make them equal")


def _check_atoms(system: SystemSpec, names: list[str], elements: list[str], solute: list[str]) -> None:
    """Every atom that the specification names exists once, in the molecule; collective variables stand on beads."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SystemSpecError(f"model: the atom names {repeated[:5]} occur twice in a residue; rename them in the PDB")
    if not isinstance(system.mapping, BeadMapping):
        raise SystemSpecError("mapping.type must be beads for a molecule")
    element_of = dict(zip(solute, elements, strict=False))  # added water carries no beads
    if isinstance(system.mapping.beads, dict):
        for bead, members in system.mapping.beads.items():
            for atom in members:
                _check_exists(f"mapping.beads.{bead}", atom, element_of)
            if not members or len(set(members)) < len(members):
                raise SystemSpecError(f"mapping.beads.{bead} is {members}; list each of its atoms once")
            if all(element_of[atom] == "" for atom in members):
                raise SystemSpecError(f"mapping.beads.{bead} holds only virtual sites; name atoms with mass")
    for name, variable in system.collective_variables.items():
        for atom in variable.atoms:
            _check_exists(f"collective_variables.{name}.atoms", atom, element_of)
            if system.mapping.beads == "heavy_atoms" and element_of[atom] in {"H", ""}:
                raise SystemSpecError(
                    f"collective_variables.{name}.atoms: {atom} is not a heavy atom, so no bead sits on it; choose "
                    "atoms that are beads"
                )
        if len(set(variable.atoms)) < len(variable.atoms):
            raise SystemSpecError(f"collective_variables.{name}.atoms {list(variable.atoms)} names an atom twice")


def _check_exists(where: str, atom: str, element_of: dict[str, str]) -> None:
    if atom in element_of:
        return
    residue = atom.split(":")[0]
    siblings = [name for name in element_of if name.split(":")[0] == residue]
    last = max(int(name.split(":")[0]) for name in element_of)
    remedy = f"residue {residue} has {', '.join(siblings)}" if siblings else f"residues are numbered 1 to {last}"
    raise SystemSpecError(f"{where}: there is no atom {atom}; {remedy}")


def _create_system(system: SystemSpec, molecule: Molecule, topology: Any) -> openmm.System:
    """The OpenMM System with the native implicit-solvent force, every force in group 0."""
    from openmm import app, unit

    files = list(molecule.force_fields) + (["implicit/obc2.xml"] if molecule.implicit_solvent else [])
    try:
        force_field = app.ForceField(*files)
    except (ValueError, OSError) as error:
        raise SystemSpecError(f"model.force_fields {molecule.force_fields}: {error}") from None
    isolated = app.NoCutoff if molecule.cutoff is None else app.CutoffNonPeriodic
    method = isolated if molecule.box is None else app.PME
    arguments: dict[str, Any] = {"nonbondedMethod": method, "removeCMMotion": False}
    if molecule.cutoff is not None:
        arguments["nonbondedCutoff"] = molecule.cutoff * unit.nanometer
    if molecule.hydrogen_mass is not None:
        arguments["hydrogenMass"] = molecule.hydrogen_mass * unit.dalton
    rigid = molecule.constraints == "h_bonds"
    try:
        created = force_field.createSystem(
            topology, constraints=app.HBonds if rigid else None, rigidWater=rigid, **arguments
        )
    except (ValueError, KeyError) as error:
        raise SystemSpecError(
            f"model.force_fields {molecule.force_fields} cannot describe the molecule: {error} Choose force fields "
            "that know each residue, and give the molecule with all its hydrogens and standard residue names"
        ) from None
    if molecule.implicit_solvent:
        use_native_obc(created)
    for force in created.getForces():
        force.setForceGroup(0)
    return created


def _check_masses(molecule: Molecule, created: openmm.System, names: list[str], elements: list[str]) -> None:
    """Refuse hydrogens so heavy that the atoms which carry them have no mass left."""
    for index, (name, element) in enumerate(zip(names, elements, strict=True)):
        if element and created.getParticleMass(index)._value < 1.0:
            raise SystemSpecError(
                f"model.hydrogen_mass {molecule.hydrogen_mass} leaves atom {name} a mass of "
                f"{created.getParticleMass(index)._value:.3f} amu; lower it (4.0 is usual) or set it to null"
            )


def use_native_obc(openmm_system: openmm.System) -> None:
    """Replace the CustomGBForce that OpenMM's OBC2 file builds by the native GBSAOBCForce, several times faster.

    Both are the model of Onufriev, Bashford and Case, Proteins 55, 383 (2004), set II, with dielectric constants 1 and
    78.5 and the surface term of Schaefer with 2.25936 kJ/mol/nm².
    """
    import openmm

    index = next(i for i, force in enumerate(openmm_system.getForces()) if isinstance(force, openmm.CustomGBForce))
    custom = openmm_system.getForce(index)
    native = openmm.GBSAOBCForce()
    native.setSoluteDielectric(1.0)
    native.setSolventDielectric(78.5)
    native.setSurfaceAreaEnergy(28.3919551 / (4 * np.pi))
    native.setNonbondedMethod(custom.getNonbondedMethod())
    native.setCutoffDistance(custom.getCutoffDistance())
    for particle in range(custom.getNumParticles()):
        charge, offset_radius, scaled_radius = custom.getParticleParameters(particle)
        native.addParticle(charge, offset_radius + _GB_OFFSET, scaled_radius / offset_radius)
    openmm_system.removeForce(index)
    openmm_system.addForce(native)
