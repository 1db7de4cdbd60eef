"""Sample the atoms at fixed beads: the noise of a force label and its conditional mean, measured directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.maps import CGMap
from cg_assets.sampling.molecule.engine import EngineSettings
from cg_assets.sampling.molecule.platforms import choose_platform, process_count, seconds_per_step
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.settings import Dynamics

_IMMOBILE_MASS = 1e12
"""Mass of an atom that carries a bead [amu]: it moves less than 1e-4 nm in 100 ps."""
_CENTROID_STIFFNESS = 1e6
"""Restraint of the centre of a bead of several atoms [kJ/mol/nm²]: it moves by 0.0016 nm at 300 K."""
_RELAXATION, _INTERVAL = 2.0, 0.1
"""Time before the first label, and between two, in a measurement of noise [ps]."""
_AT_ONCE = 4
"""Configurations between two reports of progress."""


@dataclass(frozen=True)
class ConditionalForces:
    """Repeated force labels at fixed bead positions.

    Attributes:
        positions: `(n_configurations, n_beads, dimension)` bead positions [nm or reduced].
        forces: `(n_maps, n_configurations, n_samples, n_beads, dimension)` labels B f of each force map [kJ/mol/nm or
            reduced], in time order.
        how: what the samples are, in words.
    """

    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    how: str = "samples with fixed beads"


class FixedBeads:
    """Dynamics of the other atoms of a molecule at fixed beads, in any number of configurations.

    Beads on one atom are held by giving the atom an immense mass, which leaves the conditional density of the others
    unchanged; beads of several atoms by a stiff restraint of their centre. The configurations are independent of each
    other and of how they are spread over processes.
    """

    def __init__(
        self, molecule: MoleculeModel, beads: Beads, positions: NDArray, timestep: float, friction: float, seed: int
    ) -> None:
        """Prepare the configurations; nothing is simulated yet.

        Args:
            molecule: the molecule.
            beads: where its beads are.
            positions: `(n_configurations, n_atoms, 3)` all atoms of each [nm].
            timestep: [ps].
            friction: [1/ps].
            seed: seed of velocities and noise.
        """
        self._molecule, self._beads = molecule, beads
        self._positions = np.asarray(positions, dtype=np.float64)
        self._seed, self._timestep, self._friction = seed, timestep, friction
        self._carriers = _carriers(beads.cg_map, molecule.stored)
        self._platform, self._properties = choose_platform(self._molecule.n_atoms, self._molecule.box is not None)
        self._pool: EnginePool | None = None

    def forces(
        self, configurations: Sequence[int], relaxation: float, n_samples: int, interval: float
    ) -> NDArray[np.float64]:
        """Unbiased forces of the stored atoms at fixed beads.

        Args:
            configurations: which.
            relaxation: time before the first sample [ps].
            n_samples: samples of each.
            interval: time between two [ps].

        Returns:
            `(n, n_samples, n_stored, 3)` [kJ/mol/nm], in time order.

        Raises:
            SamplingError: the dynamics blew up.
        """
        time = len(self._positions) * (relaxation + n_samples * interval)
        pool = self._engines(time / self._timestep)
        pool.create({index: self._positions[index] for index in configurations}, self._seed)
        if steps := round(relaxation / self._timestep):
            pool.advance(configurations, steps)
        return pool.record(configurations, n_samples, round(interval / self._timestep))["forces"].astype(np.float64)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _engines(self, steps: float) -> EnginePool:
        if self._pool is None:
            molecule, periodic = self._molecule, self._molecule.box is not None
            seconds = steps * seconds_per_step(molecule.n_atoms, periodic)
            n_processes = process_count(self._platform, len(self._positions), seconds)
            self._pool = EnginePool(self._settings(), len(self._positions), n_processes)
        return self._pool

    def _settings(self) -> EngineSettings:
        import openmm

        molecule = self._molecule
        held = openmm.XmlSerializer.clone(molecule.system)
        single, groups = self._carriers
        for atom in single:
            held.setParticleMass(atom, _IMMOBILE_MASS)
        _hold_centres(held, molecule.masses, groups)
        parameters = [_centres(groups, molecule.masses, start) for start in self._positions] if groups else []
        return EngineSettings(
            system_xml=openmm.XmlSerializer.serialize(held),
            platform=self._platform,
            properties=self._properties,
            temperature=self._beads.temperature,
            friction=self._friction,
            timestep=self._timestep,
            n_degrees_of_freedom=molecule.n_degrees_of_freedom,
            variables=AtomVariables.of(self._beads.collective_variables, molecule, self._beads.cg_map).to_json(),
            stored=molecule.stored.tolist(),
            replica_parameters=parameters,
        )


def sample_conditional_forces(
    molecule: MoleculeModel,
    beads: Beads,
    frames: Frames,
    force_maps: Sequence[ForceMap],
    dynamics: Dynamics,
    seed: int,
    n_configurations: int = 24,
    n_samples: int = 100,
    progress: Progress | None = None,
) -> ConditionalForces:
    """Draw frames and sample the other atoms with the beads held where they are.

    Args:
        molecule: the molecule.
        beads: where its beads are.
        frames: atomistic frames with all atoms to draw configurations from.
        force_maps: the maps whose noise is wanted; all see the same forces.
        dynamics: time step and friction.
        seed: seed of the choice of frames and of the dynamics.
        n_configurations: number of bead configurations.
        n_samples: labels per configuration, 0.1 ps apart after 2 ps of relaxation.
        progress: called after each configuration.

    Raises:
        SamplingError: the dynamics blew up.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(len(frames), size=min(n_configurations, len(frames)), replace=False))
    starts, fixed_seed = frames.positions[chosen], int(generator.integers(1, 2**31 - 1))
    fixed = FixedBeads(molecule, beads, starts, dynamics.timestep, dynamics.friction, fixed_seed)
    matrices = np.stack([force_map.matrix for force_map in force_maps])[:, None, None]
    forces = []
    try:
        for first in range(0, len(chosen), _AT_ONCE):
            some = list(range(first, min(first + _AT_ONCE, len(chosen))))
            forces.append(matrices @ fixed.forces(some, _RELAXATION, n_samples, _INTERVAL))
            if progress is not None:
                progress(some[-1] + 1, len(chosen), "configurations")
    finally:
        fixed.close()
    positions = beads.cg_map.matrix @ starts[:, molecule.stored].astype(np.float64)
    return ConditionalForces(positions, np.concatenate(forces, axis=1))


def _carriers(cg_map: CGMap, stored: NDArray[np.int64]) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Atoms that carry a bead alone, and the groups of atoms of the other beads."""
    members = [stored[np.flatnonzero(row)] for row in cg_map.matrix]
    return [int(atoms[0]) for atoms in members if len(atoms) == 1], [atoms for atoms in members if len(atoms) > 1]


def _centres(groups: list[NDArray[np.intp]], masses: NDArray, positions: NDArray) -> dict[str, float]:
    """The parameters of `_hold_centres` for one configuration."""
    centres = [np.average(positions[members], axis=0, weights=masses[members]) for members in groups]
    return {
        f"centre_{axis}{group}": float(value)
        for group, centre in enumerate(centres)
        for axis, value in zip("xyz", centre, strict=True)
    }


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
