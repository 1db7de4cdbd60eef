"""Run replicas of one molecule in one OpenMM context, each from its own checkpoint.

OpenMM's Reference platform draws the random numbers of all contexts of a process from one generator, so replicas in
threads would neither be reproducible nor independent of scheduling. Its checkpoints hold that generator's state: a
replica is therefore a checkpoint, loaded before and stored after each stretch of steps, and replicas run in parallel
in processes (`molecule_worker`). The result does not depend on how they are spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.grid import GridBias, GridForce
from cg_assets.core.errors import SamplingError
from cg_assets.core.replica_exchange import Heat
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.atom_variables import BIAS_GROUP, AtomVariables

Arrays = dict[str, NDArray]
_HELD = 1.0e9
"""Mass from which an atom is there to hold others, and its kinetic energy is not counted [amu]."""
_HOT = 1.0e4
"""Kinetic temperature above which a simulation counts as blown up [K]."""


@dataclass(frozen=True)
class EngineSettings:
    """Everything that a worker needs, in plain JSON types.

    Attributes:
        system_xml: serialized OpenMM System without grid bias.
        platform: name of the OpenMM platform.
        properties: its properties.
        temperature: [K].
        friction: [1/ps].
        timestep: [ps].
        n_degrees_of_freedom: momenta that carry kinetic energy.
        variables: `AtomVariables.to_json()`.
        stored: atoms whose positions and forces frames keep.
        grid: definition of the grid bias, or None.
        biased: whether any bias acts.
        replica_parameters: global parameters of each replica (umbrella windows); empty where there are none.
    """

    system_xml: str
    platform: str
    properties: dict[str, str]
    temperature: float
    friction: float
    timestep: float
    n_degrees_of_freedom: int
    variables: dict[str, Any]
    stored: list[int]
    grid: dict[str, Any] | None = None
    biased: bool = False
    replica_parameters: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types, the arguments of the constructor."""
        return asdict(self)


class MoleculeEngine:
    """One context that runs any number of replicas in turn."""

    def __init__(self, settings: EngineSettings) -> None:
        """Create the context."""
        import openmm

        self.settings = settings
        self.variables = AtomVariables.from_json(settings.variables)
        self.checkpoints: dict[int, bytes] = {}
        system = openmm.XmlSerializer.deserialize(settings.system_xml)
        self._grid: GridForce | None = None
        if settings.grid is not None:
            self._grid = GridForce(self.variables, GridBias.from_definition(settings.grid))
            system.addForce(self._grid.force)
        masses = np.array([system.getParticleMass(index)._value for index in range(system.getNumParticles())])
        self._masses = masses
        self._massive = masses > 0
        self._moving_masses = np.where(masses < _HELD, masses, 0.0)
        self._plain = system.getNumConstraints() == 0 and not (masses >= _HELD).any()
        self._stored = np.array(settings.stored)
        self._weights = masses[self._stored] / masses[self._stored].sum()
        self._integrator = openmm.LangevinMiddleIntegrator(settings.temperature, settings.friction, settings.timestep)
        platform = openmm.Platform.getPlatformByName(settings.platform)
        self._context = openmm.Context(system, self._integrator, platform, settings.properties)

    def create(self, replica: int, positions: NDArray[np.float64], seed: int) -> None:
        """Start a replica: positions `(n_atoms, 3)` [nm], Maxwell velocities and noise from `seed`."""
        velocity_seed, noise_seed = (
            1 + int(value) % 0x7FFFFFFE for value in np.random.SeedSequence([seed, replica]).generate_state(2)
        )
        self._integrator.setRandomNumberSeed(noise_seed)
        self._context.reinitialize()
        self._context.setPositions(positions)
        self._set_parameters(replica)
        self._context.applyConstraints(1e-8)
        self._context.setVelocitiesToTemperature(self.settings.temperature, velocity_seed)
        self.checkpoints[replica] = self._context.createCheckpoint()

    def set_grid(self, values: NDArray[np.float64]) -> None:
        """Update the node values of the grid bias [kJ/mol]."""
        if self._grid is None:
            raise SamplingError("this engine has no grid bias to update; start it with a metadynamics plan")
        self._grid.update(values, self._context)

    def advance(self, replicas: Sequence[int], n_steps: int, heat: Sequence[Heat] | None = None) -> Arrays:
        """Run replicas and return where they end.

        Args:
            replicas: which.
            n_steps: how far.
            heat: thermostat of every replica, by number; None for that of the settings.

        Returns:
            `variables` `(n_replicas, n_variables)` [rad or nm], `bias_energy` and, of the other forces,
            `potential_energy` `(n_replicas,)` [kJ/mol].
        """
        ends, energies, biases = [], [], []
        for replica in replicas:
            self._load(replica, heat)
            self._step(replica, n_steps)
            state = self._state(replica, groups=1, positions=True, energy=True)
            self._check(replica, state)
            ends.append(self.variables.evaluate(_array(state.getPositions(asNumpy=True))))
            energies.append(state.getPotentialEnergy()._value)
            biases.append(self._state(replica, groups=1 << BIAS_GROUP, energy=True).getPotentialEnergy()._value)
            self._store(replica)
        return {
            "variables": np.array(ends),
            "bias_energy": np.array(biases),
            "potential_energy": np.array(energies),
        }

    def record(
        self,
        replicas: Sequence[int],
        n_frames: int,
        frame_steps: int,
        snapshots: Sequence[int] = (),
        heat: Sequence[Heat] | None = None,
    ) -> Arrays:
        """Run replicas and keep a frame each `frame_steps` steps.

        Args:
            replicas: which.
            n_frames: frames of each.
            frame_steps: steps between two.
            snapshots: numbers, from 0, of the frames of which all atoms are kept.
            heat: as in `advance`.

        Returns:
            Arrays of shape `(n_replicas, n_frames, ...)`: `positions` [nm] and unbiased `forces` [kJ/mol/nm] of the
            stored atoms, `potential_energy` [kJ/mol], `kinetic_energy`, `bias_energy` [kJ/mol] and `variables` [rad or
            nm]; and `snapshots` `(n_replicas, n_snapshots, n_atoms, 3)` [nm].
        """
        columns: dict[str, list[Any]] = {
            name: []
            for name in ("positions", "forces", "potential_energy", "kinetic_energy", "bias_energy", "variables")
        }
        whole: list[Any] = []
        for replica in replicas:
            self._load(replica, heat)
            for frame in range(n_frames):
                self._step(replica, frame_steps)
                state = self._state(replica, groups=1, positions=True, velocities=True, forces=True, energy=True)
                self._check(replica, state)
                positions = _array(state.getPositions(asNumpy=True))
                forces = _array(state.getForces(asNumpy=True))
                forces[~self._massive] = 0.0  # OpenMM leaves in the rows of virtual sites what it spread already
                if frame in snapshots:
                    whole.append(positions)
                columns["positions"].append(self._placed(positions[self._stored]))
                columns["forces"].append(forces[self._stored])
                columns["variables"].append(self.variables.evaluate(positions))
                columns["potential_energy"].append(state.getPotentialEnergy()._value)
                columns["kinetic_energy"].append(self._kinetic_energy(state))
                if self.settings.biased:
                    state = self._state(replica, groups=1 << BIAS_GROUP, energy=True)
                    columns["bias_energy"].append(state.getPotentialEnergy()._value)
            self._store(replica)
        shape = (len(replicas), n_frames)
        if not self.settings.biased:
            del columns["bias_energy"]
        arrays = {name: np.array(values).reshape(*shape, *np.shape(values)[1:]) for name, values in columns.items()}
        arrays["snapshots"] = np.reshape(whole, (len(replicas), len(snapshots), len(self._masses), 3))
        return {
            name: values.astype(np.float32) if name in {"positions", "forces", "variables", "snapshots"} else values
            for name, values in arrays.items()
        }

    def _placed(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Stored atoms with their centre of mass at the origin, or moved by whole boxes so that it is in the first."""
        centre = self._weights @ positions
        box = self.settings.variables["box"]
        if box is None:
            return positions - centre
        vectors = np.array(box)
        return positions - np.floor(centre @ np.linalg.inv(vectors)) @ vectors

    def _kinetic_energy(self, state: Any) -> float:
        """Kinetic energy [kJ/mol] of the motion that the constraints allow, without atoms that are held by their mass.

        After a step half of the noise along rigid bonds is still in OpenMM's velocities; it never moves an atom, but
        the kinetic energy of the state counts it: (1 - exp(-2 friction timestep))/4 of kT/2 for each constraint, 2 %
        of the whole at friction 50/ps. The velocities are put back as they were, so that looking changes no digit.
        """
        if self._plain:
            return state.getKineticEnergy()._value
        velocities = state.getVelocities(asNumpy=True)._value
        self._context.applyVelocityConstraints(1e-8)
        allowed = _array(self._context.getState(velocities=True).getVelocities(asNumpy=True))
        self._context.setVelocities(velocities)
        return float(0.5 * (self._moving_masses[:, None] * allowed**2).sum())

    def _load(self, replica: int, heat: Sequence[Heat] | None) -> None:
        self._context.loadCheckpoint(self.checkpoints[replica])
        self._set_parameters(replica)
        if heat is not None:
            temperature, scale = heat[replica]
            self._integrator.setTemperature(temperature)
            if scale != 1.0:
                self._context.setVelocities(scale * self._context.getState(velocities=True).getVelocities(asNumpy=True))

    def _store(self, replica: int) -> None:
        self.checkpoints[replica] = self._context.createCheckpoint()

    def _set_parameters(self, replica: int) -> None:
        parameters: Mapping[str, float] = (
            self.settings.replica_parameters[replica] if self.settings.replica_parameters else {}
        )
        for name, value in parameters.items():
            self._context.setParameter(name, value)

    def _step(self, replica: int, n_steps: int) -> None:
        import openmm

        try:
            self._integrator.step(n_steps)
        except openmm.OpenMMException as error:
            raise self._blown_up(replica, str(error)) from None

    def _state(self, replica: int, **wanted: Any) -> Any:
        import openmm

        try:
            return self._context.getState(**wanted)
        except openmm.OpenMMException as error:
            raise self._blown_up(replica, str(error)) from None

    def _check(self, replica: int, state: Any) -> None:
        temperature = 2 * state.getKineticEnergy()._value / (self.settings.n_degrees_of_freedom * BOLTZMANN)
        if not temperature < _HOT or not math.isfinite(state.getPotentialEnergy()._value):
            raise self._blown_up(replica, f"its kinetic temperature is {temperature:.3g} K")

    def _blown_up(self, replica: int, reason: str) -> SamplingError:
        return SamplingError(
            f"the simulation of replica {replica} blew up with timestep {self.settings.timestep} ps ({reason}); lower "
            "timestep (0.004 needs constraints h_bonds and hydrogen_mass 4, 0.0005 is safe without), or weaken the bias"
        )


def _array(quantity: Any) -> NDArray[np.float64]:
    """The numbers of an OpenMM quantity in OpenMM's own units."""
    return np.asarray(quantity._value, dtype=np.float64)
