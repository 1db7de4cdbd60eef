"""Turn a molecule's specification into an OpenMM System, checking the specification against its atoms first."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cg_assets.core.errors import SystemSpecError, library_errors, shortened
from cg_assets.core.settings import Fact, Strict, distinct
from cg_assets.mapping.bead_mapping import BeadMapping
from cg_assets.mapping.cells import Cell, cell_vectors, reduced, same_cell, shown_cell
from cg_assets.mapping.chains import connected_groups
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.liquids.liquid import DALTON_PER_NM3
from cg_assets.mapping.pdb import read_pdb
from cg_assets.mapping.peptides import build_peptide
from cg_assets.mapping.solvation import add_water
from cg_assets.mapping.topologies import Topology
from cg_assets.mapping.topologies.base import CreateArguments, atom_names
from cg_assets.mapping.topologies.force_fields import force_field_files, matched_system, own_force_fields
from cg_assets.mapping.topologies.soundness import check_system

if TYPE_CHECKING:
    import openmm

_HYDROGEN = 1.008
"""Mass of a hydrogen [amu]."""
_GB_OFFSET = 0.009
"""Offset of the Born radii of the OBC model [nm]."""


class MoleculeSettings(Strict):
    """A molecule built from its sequence or read from a PDB file, with an OpenMM force field where it is simulated."""

    sequence: list[str] | None = Field(default=None, max_length=500)
    """Residues of a peptide, capped as [ACE, ALA, NME] or with free ends as [TYR, ASP, GLY]; built extended."""
    pdb: Path | None = None
    """A PDB file relative to the folder of the YAML file, with all hydrogens where there is a force field."""
    force_fields: list[str] = Field(default_factory=list)
    """Force field files that OpenMM ships, for example amber14-all.xml, or own ones in its format, relative to the
    folder of the YAML file; none where frames are only imported."""
    topology: Topology | None = None
    """Atoms and parameters from the files of another engine, instead of sequence or pdb and force_fields."""
    implicit_solvent: Literal["OBC2"] | None = None
    """Name of a generalised Born model of OpenMM, for example OBC2; null for none."""
    constraints: Literal["h_bonds", "none"] = "h_bonds"
    """Bonds of fixed length: none, or all with hydrogen."""
    hydrogen_mass: PositiveFloat | None = 4.0
    """Mass of each hydrogen after repartitioning [amu]; null keeps the force field's masses."""
    cutoff: PositiveFloat | None = None
    """Cutoff of non-bonded interactions [nm]; null for none. A periodic box needs one."""
    box: Cell | None = None
    """Edge of the cubic periodic box, three edges, three vectors [nm], or a shape with an edge; null for an isolated
    molecule, or for the box of the topology's coordinates."""
    waters: PositiveInt | None = Field(default=None, le=100_000)
    """Water molecules to put around the molecule; a force field file must include them. The edge of the box at
    atmospheric pressure comes from `cg-assets box`."""
    masses: dict[str, PositiveFloat] | None = None
    """Of beads in the PDB file, by their names [amu], where they are no atoms: {BB: 72, SC1: 54}."""

    def files(self, folder: Path) -> list[Path]:
        """The files of the structure and of force fields that are the user's own, given the folder of the YAML file."""
        own = own_force_fields(self.force_fields, folder)
        structure = [] if self.pdb is None else [folder / self.pdb]
        return structure + own + ([] if self.topology is None else self.topology.files(folder))

    @property
    def has_forces(self) -> bool:
        """Whether there is a force field."""
        return bool(self.force_fields) or self.topology is not None

    _distinct = field_validator("force_fields")(distinct)

    @property
    def longest_timestep(self) -> float:
        """That vibrations of hydrogens, or where these are rigid those of the other atoms, allow [ps]."""
        bonds = 0.001 if self.constraints == "none" else 0.0025
        return bonds * math.sqrt((self.hydrogen_mass or _HYDROGEN) / _HYDROGEN)

    @model_validator(mode="after")
    def _one_source(self) -> MoleculeSettings:
        if [self.sequence, self.pdb, self.topology].count(None) != 2:
            raise ValueError("give exactly one of sequence, pdb and topology")
        if self.topology is not None and (self.force_fields or self.implicit_solvent or self.waters):
            raise ValueError(
                "topology holds all molecules and forces; remove force_fields, implicit_solvent and waters"
            )
        if self.masses is not None and (self.force_fields or self.pdb is None):
            raise ValueError("masses are of the beads in a PDB file without force field; remove them")
        if self.waters is not None and self.box is None:
            raise ValueError(f"waters is {self.waters}, but box is null; water needs a periodic box [nm]")
        if self.box is not None:
            if self.cutoff is None and self.has_forces:
                raise ValueError("a periodic box needs a cutoff [nm]")
            if self.implicit_solvent:
                raise ValueError("implicit_solvent needs an isolated molecule; set box to null")
            check_cutoff(self.cutoff, cell_vectors(self.box))
        return self


def check_cutoff(cutoff: float | None, box: NDArray[np.float64]) -> None:
    """Refuse a cutoff beyond half the narrowest height of a cell.

    Raises:
        ValueError: it is.
    """
    half = float(np.diag(box).min()) / 2
    if cutoff is not None and cutoff > half:
        raise ValueError(f"cutoff {cutoff} nm is beyond half the box ({half} nm); lower it or enlarge the box")


@dataclass(frozen=True)
class MoleculeModel:
    """A molecule ready to be simulated.

    Attributes:
        system: OpenMM System without any bias, all its forces in force group 0; None without a force field.
        topology: OpenMM topology.
        atom_names: `residue number:atom name` of each atom, residues counted from 1.
        elements: element symbol of each atom, "" for virtual sites.
        masses: `(n_atoms,)` physical masses [amu], 0 for virtual sites.
        positions: `(n_atoms, 3)` built or read positions [nm].
        bonds: pairs of bonded atoms.
        constraints: pairs of atoms whose distance is fixed.
        n_degrees_of_freedom: momenta that carry kinetic energy (centre of mass included).
        box: `(3, 3)` vectors of the periodic box in rows [nm], in reduced form, or None.
        stored: `(n_stored,)` atoms that frames keep: those of the molecules that carry beads.
        facts: what was done to the bonds of the file.
    """

    system: openmm.System | None
    topology: Any
    atom_names: list[str]
    elements: list[str]
    masses: NDArray[np.float64]
    positions: NDArray[np.float64]
    bonds: list[tuple[int, int]]
    constraints: list[tuple[int, int]]
    n_degrees_of_freedom: int
    box: NDArray[np.float64] | None
    stored: NDArray[np.int64]
    facts: list[Fact] = field(default_factory=list)

    def stored_pairs(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of some pairs of atoms that frames keep, numbered as in frames."""
        place = {int(atom): index for index, atom in enumerate(self.stored)}
        return [(place[first], place[second]) for first, second in pairs if first in place]

    @cached_property
    def stored_groups(self) -> NDArray[np.int64]:
        """Molecule `(n_stored,)` of each atom that frames keep, counted from 0; a virtual site is in its residue."""
        inside = [(atom.index, next(atom.residue.atoms()).index) for atom in self.topology.atoms()]
        groups = connected_groups(self.n_atoms, [*self.bonds, *inside])
        return np.unique(groups[self.stored], return_inverse=True)[1]

    @property
    def stored_constraints(self) -> list[tuple[int, int]]:
        """The constraints among the atoms that frames keep, numbered as in frames."""
        return self.stored_pairs(self.constraints)

    @property
    def density(self) -> float | None:
        """Of all molecules in the box [kg/m³]; None without one."""
        return (
            None if self.box is None else float(self.masses.sum()) * DALTON_PER_NM3 / float(np.prod(np.diag(self.box)))
        )

    @property
    def n_atoms(self) -> int:
        """Number of atoms, virtual sites included."""
        return len(self.atom_names)

    def way(self, first: int, last: int) -> float:
        """Length of the shortest way from an atom to another along bonds [nm]; infinite without one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import dijkstra

        pairs = np.array(self.bonds, dtype=int).reshape(-1, 2).T
        lengths = np.linalg.norm(self.positions[pairs[0]] - self.positions[pairs[1]], axis=1)
        graph = coo_array((lengths, (pairs[0], pairs[1])), shape=(self.n_atoms, self.n_atoms)).tocsr()
        return float(dijkstra(graph, directed=False, indices=first)[last])

    def atom_index(self, name: str) -> int:
        """Index of the atom `residue number:atom name`."""
        return self.atom_names.index(name)


_built: dict[str, MoleculeModel] = {}
"""The molecules that this process has built, by the hash of all that they are built from."""


def build_molecule(
    settings: MoleculeSettings, mapping: BeadMapping, variables: Mapping[str, CollectiveVariable], folder: Path
) -> MoleculeModel:
    """Build a molecule and check everything that names its atoms.

    A molecule is built once in a process; callers copy its System before they add to it.

    Args:
        settings: what to build.
        mapping: its beads.
        variables: its collective variables.
        folder: where a PDB file is looked for.

    Raises:
        SystemSpecError: an atom that is named does not exist, the force field lacks a template, the PDB has no
            hydrogens, or its box does not fit.
    """
    parts = [settings, mapping, *variables.values()]
    content = json.dumps([[part.model_dump(mode="json") for part in parts], list(variables), str(folder)])
    if missing := [str(path) for path in settings.files(folder) if not path.is_file()]:
        raise SystemSpecError(f"model: there is no file {missing[0]}; give paths relative to the YAML file")
    files = b"".join(path.read_bytes() for path in settings.files(folder))
    key = hashlib.sha256(content.encode() + files).hexdigest()
    if key not in _built:
        _built[key] = _build(settings, mapping, variables, folder)
    return _built[key]


def _build(
    molecule: MoleculeSettings, mapping: BeadMapping, variables: Mapping[str, CollectiveVariable], folder: Path
) -> MoleculeModel:
    topology, positions, n_solute, facts, create = _structure(molecule, folder)
    vectors = topology.getPeriodicBoxVectors()
    atoms = list(topology.atoms())
    names = atom_names(topology)
    beads = molecule.masses or {}
    elements = [atom.element.symbol if atom.element is not None else atom.name * (atom.name in beads) for atom in atoms]
    element_of = dict(zip(names[:n_solute], elements, strict=False))  # added water carries no beads
    _check_atoms(mapping, names, element_of)
    for name, variable in variables.items():
        _check_variable(name, variable, mapping, element_of)
    physical = np.array(
        [atom.element.mass._value if atom.element is not None else beads.get(atom.name, 0.0) for atom in atoms]
    )
    openmm_system, simulated, pairs = None, physical, []
    if create is not None:
        openmm_system = create()
        _check_masses(molecule, openmm_system, names, elements)
        simulated = np.array([openmm_system.getParticleMass(i)._value for i in range(len(atoms))])
        pairs = [openmm_system.getConstraintParameters(i)[:2] for i in range(openmm_system.getNumConstraints())]
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return MoleculeModel(
        system=openmm_system,
        topology=topology,
        atom_names=names,
        elements=elements,
        masses=physical,
        positions=positions,
        bonds=bonds,
        constraints=[(int(first), int(second)) for first, second in pairs],
        n_degrees_of_freedom=3 * int((simulated > 0).sum()) - len(pairs),
        box=None if vectors is None else np.array(vectors._value, dtype=np.float64),
        stored=_stored_atoms(mapping, atoms, names, bonds),
        facts=facts,
    )


def _stored_atoms(
    mapping: BeadMapping, atoms: list[Any], names: list[str], bonds: list[tuple[int, int]]
) -> NDArray[np.int64]:
    """Atoms of the molecules that carry beads; a virtual site belongs to its residue."""
    residues = [(atom.index, first.index) for atom in atoms for first in [next(atom.residue.atoms())]]
    group = connected_groups(len(atoms), [*bonds, *residues])
    carriers = mapping.carriers(names, [atom.residue.name for atom in atoms], group.tolist())
    return np.flatnonzero(np.isin(group, group[carriers]))


def _structure(
    molecule: MoleculeSettings, folder: Path
) -> tuple[Any, NDArray[np.float64], int, list[Fact], Callable[[], openmm.System] | None]:
    """Topology, positions [nm], number of atoms without added water, facts, and what creates the System, if any."""
    facts: list[Fact] = []
    box = None if molecule.box is None else cell_vectors(molecule.box)
    if molecule.topology is not None:
        return _of_topology(molecule, molecule.topology, folder, box)
    if molecule.sequence is not None:
        topology, positions = build_peptide(molecule.sequence)
    else:
        topology, positions, facts = read_pdb(molecule, folder / str(molecule.pdb))
    n_solute = topology.getNumAtoms()
    if molecule.waters is not None and box is not None:
        files = force_field_files(molecule.force_fields, folder)
        topology, positions = add_water(topology, positions, files, molecule.waters, box)
    topology.setPeriodicBoxVectors(box)
    create = partial(_create_system, molecule, topology, folder) if molecule.force_fields else None
    return topology, positions, n_solute, facts, create


def _of_topology(
    molecule: MoleculeSettings, source: Topology, folder: Path, box: NDArray[np.float64] | None
) -> tuple[Any, NDArray[np.float64], int, list[Fact], Callable[[], openmm.System]]:
    """As `_structure`, of the files of another engine."""
    found, files = source.load(folder, box), [path.name for path in source.files(folder)]
    where = f"model.topology ({source.type}: {shortened(files, 3)})"
    own = None if found.box is None else reduced(found.box)
    if box is not None and own is not None and not same_cell(box, own):
        raise SystemSpecError(
            f"model.box is {shown_cell(box)}, but the box of {source.coordinates} is {shown_cell(own)}; make them "
            "equal, or leave model.box out"
        )
    box = own if box is None else box
    if box is not None:
        if molecule.cutoff is None:
            raise SystemSpecError(
                f"model.cutoff is null, but {where} has a periodic box; give one [nm], or, for an isolated molecule, "
                "positions without a box (gmx editconf -box 0)"
            )
        with library_errors(SystemSpecError, "model"):
            check_cutoff(molecule.cutoff, box)
    found.topology.setPeriodicBoxVectors(box)
    arguments, names = _nonbonded(molecule, box is not None), atom_names(found.topology)

    def create() -> openmm.System:
        with library_errors(SystemSpecError, f"{where}: OpenMM can make no System of it"):
            created = found.create(**arguments)
        check_system(created, names, where)
        if box is not None:
            created.setDefaultPeriodicBoxVectors(*box)
        for force in created.getForces():
            force.setForceGroup(0)
        return created

    read: list[Fact] = [("topology", f"{source.type}, of {len(source.files(folder))} files")]
    return found.topology, found.positions, found.topology.getNumAtoms(), read, create


def _nonbonded(molecule: MoleculeSettings, periodic: bool) -> CreateArguments:
    """Arguments of OpenMM's `createSystem`."""
    from openmm import app, unit

    isolated = app.NoCutoff if molecule.cutoff is None else app.CutoffNonPeriodic
    rigid = molecule.constraints == "h_bonds"
    arguments: CreateArguments = {
        "nonbondedMethod": app.PME if periodic else isolated,
        "removeCMMotion": False,
        "constraints": app.HBonds if rigid else None,
        "rigidWater": rigid,
    }
    if molecule.cutoff is not None:
        arguments["nonbondedCutoff"] = molecule.cutoff * unit.nanometer
    if molecule.hydrogen_mass is not None:
        arguments["hydrogenMass"] = molecule.hydrogen_mass * unit.dalton
    return arguments


def _check_atoms(mapping: BeadMapping, names: list[str], element_of: dict[str, str]) -> None:
    """Every atom that a bead is made of exists once, in the molecule."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SystemSpecError(f"model: the atom names {repeated[:5]} occur twice in a residue; rename them in the PDB")
    for bead, members in mapping.named.items():
        for atom in members:
            _check_exists(f"mapping.beads.{bead}", atom, element_of)
        if not members or len(set(members)) < len(members):
            raise SystemSpecError(f"mapping.beads.{bead} is {members}; list each of its atoms once")
        if all(element_of[atom] == "" for atom in members):
            raise SystemSpecError(
                f"mapping.beads.{bead} holds only virtual sites; name atoms with mass, or of beads give model.masses"
            )


def _check_variable(name: str, variable: CollectiveVariable, mapping: BeadMapping, element_of: dict[str, str]) -> None:
    """A collective variable uses beads only."""
    for atom in (site for site in variable.atoms if ":" in site):  # the others are beads
        _check_exists(f"collective_variables.{name}.atoms", atom, element_of)
        if mapping.beads == "heavy_atoms" and element_of[atom] in {"H", ""}:
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


def _create_system(molecule: MoleculeSettings, topology: Any, folder: Path) -> openmm.System:
    """The OpenMM System with the native implicit-solvent force, every force in group 0."""
    files = force_field_files(molecule.force_fields, folder) + (
        ["implicit/obc2.xml"] if molecule.implicit_solvent else []
    )
    arguments = _nonbonded(molecule, molecule.box is not None)
    created = matched_system(files, ", ".join(molecule.force_fields), topology, arguments)
    _check_solvent(molecule, created)
    if molecule.implicit_solvent:
        use_native_obc(created)
    for force in created.getForces():
        force.setForceGroup(0)
    return created


def _check_solvent(molecule: MoleculeSettings, created: openmm.System) -> None:
    """Refuse implicit solvent twice, which counts its energy twice."""
    import openmm

    born = sum(isinstance(force, openmm.CustomGBForce | openmm.GBSAOBCForce) for force in created.getForces())
    if born > 1:
        raise SystemSpecError(
            f"model.implicit_solvent is {molecule.implicit_solvent} and model.force_fields are "
            f"{', '.join(molecule.force_fields)}: they hold {born} implicit solvents, which would be added up; leave "
            "all but one out"
        )


def _check_masses(molecule: MoleculeSettings, created: openmm.System, names: list[str], elements: list[str]) -> None:
    """Refuse hydrogens so heavy that the atoms bonded to them have no mass left."""
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
