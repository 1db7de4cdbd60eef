"""Sample the atoms at fixed beads: the noise of a force label and its conditional mean, measured directly."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.errors import SamplingError
from cg_assets.frames import Frames
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.maps import CGMap
from cg_assets.progress import Progress
from cg_assets.systems.spec import SystemSpec

_IMMOBILE_MASS = 1e12
"""Mass of an atom that carries a bead [amu]: it moves less than 1e-4 nm in 100 ps."""
_CENTROID_STIFFNESS = 1e6
"""Restraint of the centre of a bead of several atoms [kJ/mol/nm²]: it moves by 0.0016 nm at 300 K."""


@dataclass(frozen=True)
class ConditionalForces:
    """Repeated force labels at fixed bead positions.

    Attributes:
        positions: `(n_configurations, n_beads, 3)` bead positions [nm].
        forces: `(n_maps, n_configurations, n_samples, n_beads, 3)` labels B f of each force map [kJ/mol/nm], in time
            order.
    """

    positions: NDArray[np.float64]
    forces: NDArray[np.float64]


def sample_conditional_forces(
    system: SystemSpec,
    frames: Frames,
    cg_map: CGMap,
    force_maps: Sequence[ForceMap],
    seed: int,
    n_configurations: int = 24,
    n_samples: int = 100,
    progress: Progress | None = None,
) -> ConditionalForces:
    """Draw frames and sample the other atoms with the beads held where they are.

    Beads on one atom are held by giving the atom an immense mass, which leaves the conditional density of the others
    unchanged; beads of several atoms by a stiff restraint of their centre.

    Args:
        system: a molecule.
        frames: atomistic frames with all atoms to draw configurations from.
        cg_map: where the beads are.
        force_maps: the maps whose noise is wanted; all see the same forces.
        seed: seed of the choice of frames and of the dynamics.
        n_configurations: number of bead configurations.
        n_samples: labels per configuration, 0.1 ps apart after 2 ps of relaxation.
        progress: told of each finished configuration.

    Raises:
        SamplingError: the dynamics blew up.
    """
    import openmm
    from openmm import unit

    from cg_assets.sampling.platforms import choose_platform
    from cg_assets.systems.builders import build_molecule

    molecule = build_molecule(system)
    held = copy.deepcopy(molecule.system)
    carriers, groups = _carriers(cg_map, molecule.stored)
    for atom in carriers:
        held.setParticleMass(atom, _IMMOBILE_MASS)
    _hold_centres(held, molecule.masses, groups)

    generator = np.random.default_rng(seed)
    plan = system.sampling.unbiased
    integrator = openmm.LangevinMiddleIntegrator(
        system.temperature * unit.kelvin, plan.friction / unit.picosecond, plan.timestep * unit.picosecond
    )
    integrator.setRandomNumberSeed(int(generator.integers(1, 2**31 - 1)))
    integrator.setConstraintTolerance(1e-8)
    name, properties = choose_platform(molecule.n_atoms, molecule.box is not None)
    context = openmm.Context(held, integrator, openmm.Platform.getPlatformByName(name), properties)

    chosen = np.sort(generator.choice(len(frames), size=min(n_configurations, len(frames)), replace=False))
    relax_steps = max(1, round(2.0 / plan.timestep))
    interval_steps = max(1, round(0.1 / plan.timestep))
    matrices = np.stack([force_map.matrix for force_map in force_maps])
    positions, forces = [], []
    for count, index in enumerate(chosen):
        start = frames.positions[index].astype(np.float64)
        context.setPositions(start)
        for group, members in enumerate(groups):
            centre = np.average(start[members], axis=0, weights=molecule.masses[members])
            for axis, value in zip("xyz", centre, strict=True):
                context.setParameter(f"centre_{axis}{group}", value)
        context.applyConstraints(1e-8)
        velocities = _velocities(held, system.thermal_energy, generator)
        context.setVelocities(velocities)
        integrator.step(relax_steps)
        samples = np.empty((len(force_maps), n_samples, len(cg_map.bead_names), 3))
        for sample in range(n_samples):
            integrator.step(interval_steps)
            state = context.getState(getForces=True, groups={0})
            atomistic = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            samples[:, sample] = matrices @ atomistic[molecule.stored]
        if not np.isfinite(samples).all():
            raise SamplingError(
                f"{system.name}: conditional sampling blew up at frame {index}; lower sampling.unbiased.timestep "
                f"({plan.timestep} ps)"
            )
        positions.append(cg_map.matrix @ start[molecule.stored])
        forces.append(samples)
        if progress is not None:
            progress(count + 1, len(chosen), "configurations")
    return ConditionalForces(np.array(positions), np.stack(forces, axis=1))


def _carriers(cg_map: CGMap, stored: NDArray[np.int64]) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Atoms that carry a bead alone, and the groups of atoms of the other beads."""
    members = [stored[np.flatnonzero(row)] for row in cg_map.matrix]
    return [int(atoms[0]) for atoms in members if len(atoms) == 1], [atoms for atoms in members if len(atoms) > 1]


def _hold_centres(held: Any, masses: NDArray, groups: list[NDArray[np.intp]]) -> None:
    import openmm

    for index, members in enumerate(groups):
        distance = f"(x1-centre_x{index})^2 + (y1-centre_y{index})^2 + (z1-centre_z{index})^2"
        restraint = openmm.CustomCentroidBondForce(1, f"{_CENTROID_STIFFNESS / 2}*({distance})")
        for axis in "xyz":
            restraint.addGlobalParameter(f"centre_{axis}{index}", 0.0)
        restraint.addGroup([int(atom) for atom in members], [float(masses[atom]) for atom in members])
        restraint.addBond([0], [])
        restraint.setForceGroup(1)
        held.addForce(restraint)


def _velocities(held: Any, thermal_energy: float, generator: np.random.Generator) -> NDArray[np.float64]:
    masses = np.array([held.getParticleMass(index)._value for index in range(held.getNumParticles())])
    mobile = (masses > 0) & (masses < _IMMOBILE_MASS)
    velocities = np.zeros((len(masses), 3))
    velocities[mobile] = generator.normal(size=(mobile.sum(), 3)) * np.sqrt(thermal_energy / masses[mobile, None])
    return velocities
