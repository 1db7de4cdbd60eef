"""OpenMM: a serialised System with a PDB file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError, library_errors
from cg_assets.mapping.cells import is_dummy
from cg_assets.mapping.topologies.base import CreateArguments, Parameterised, Topology, check_positions
from cg_assets.mapping.topologies.soundness import check_read_back, read_xml

if TYPE_CHECKING:
    import openmm

_DYNAMICS = {"AndersenThermostat", "CMMotionRemover"}


class OpenMMSystem(Topology):
    """A System that OpenMM's XmlSerializer wrote, with the atoms, names and positions of a PDB file."""

    type: Literal["openmm_system"]
    xml: Path
    """Relative to the folder of the YAML file."""

    def files(self, folder: Path) -> list[Path]:
        """The System and the PDB file."""
        return [folder / self.coordinates, folder / self.xml]

    def load(self, folder: Path, box: NDArray[np.float64] | None) -> Parameterised:
        """Read by OpenMM; errors as of `Topology.load`, and where the System changes pressure or velocities."""
        import openmm
        from openmm import app, unit

        path = folder / self.xml
        with library_errors(SystemSpecError, f"model.topology.xml: {path} cannot be read as a System of OpenMM"):
            root = read_xml(path, "model.topology.xml")
            system = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
            number = system.getNumParticles()
            check_read_back(root, system, path)
        with library_errors(SystemSpecError, f"model.topology.coordinates: {folder / self.coordinates} cannot be read"):
            pdb = app.PDBFile(str(folder / self.coordinates))
        positions = np.array(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)
        if number != len(positions):
            raise SystemSpecError(
                f"model.topology.xml: {path} has {number} particles where {self.coordinates} has {len(positions)} atoms"
            )
        forces = [type(force).__name__ for force in system.getForces()]
        if found := [name for name in forces if name in _DYNAMICS or "Barostat" in name]:
            raise SystemSpecError(
                f"model.topology.xml: {path} contains {', '.join(found)}, which our runs would add to their own "
                "dynamics; remove it and serialise the System again"
            )
        with library_errors(SystemSpecError, f"model.topology.xml: OpenMM cannot simulate {path}"):
            openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        own = np.array(unit.Quantity(system.getDefaultPeriodicBoxVectors()).value_in_unit(unit.nanometer))
        vectors = None if is_dummy(own) or not system.usesPeriodicBoundaryConditions() else own

        check_positions(pdb.topology, positions, vectors, folder / self.coordinates, path)

        def create(**arguments: Any) -> openmm.System:
            return _checked(system, path, cast("CreateArguments", arguments))

        return Parameterised(pdb.topology, positions, vectors, create)


def _checked(system: openmm.System, path: Path, arguments: CreateArguments) -> openmm.System:
    """The System as it is, where it does not contradict what the YAML file states."""
    import openmm

    for force in system.getForces():
        if not isinstance(force, openmm.NonbondedForce) or force.getNonbondedMethod() == force.NoCutoff:
            continue
        own, asked = force.getCutoffDistance()._value, arguments.get("nonbondedCutoff")
        if asked is None or abs(own - asked._value) > 1e-6:
            raise SystemSpecError(f"model.cutoff differs from the {own:g} nm of {path}; make them equal")
    if bool(system.getNumConstraints()) != (arguments["constraints"] is not None):
        here = "h_bonds" if system.getNumConstraints() else "none"
        raise SystemSpecError(
            f"model.constraints differs from {path}, which has {system.getNumConstraints()} constraints; set it to "
            f"{here}"
        )
    masses = [system.getParticleMass(atom)._value for atom in range(system.getNumParticles())]
    hydrogens, asked = [mass for mass in masses if 0.9 < mass < 4.5], arguments.get("hydrogenMass")
    wanted = 1.008 if asked is None else asked._value
    if hydrogens and abs(max(hydrogens) - wanted) > 0.05:
        raise SystemSpecError(
            f"model.hydrogen_mass differs from {path}, whose hydrogens have up to {max(hydrogens):.4g} amu; set it to "
            "that, or of unchanged masses to null"
        )
    return system
