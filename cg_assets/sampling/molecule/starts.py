"""Bring a molecule to the collective-variable values at which replicas start."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.settings import SamplingPlan

_STAGES = 50
_STEPS_PER_STAGE = 60
_LONGEST_TIMESTEP = 0.002
"""Far from equilibrium shorter steps are safe [ps]."""


def preparation_time(plan: SamplingPlan) -> float:
    """Time of the restrained dynamics that lead the replicas of a plan to their starts and windows [ps]."""
    if plan.starts == "equilibrium":
        return 0.0
    starts = plan.starts[: plan.replicas] + (plan.probe.starts[: plan.probe.replicas] if plan.probe else [])
    reached = sum(1 for targets in starts if targets)
    if plan.bias is not None and plan.bias.windowed:
        reached += len({(plan.start_of(replica), replica % plan.windows) for replica in range(plan.replicas)})
    return reached * 2 * _STAGES * _STEPS_PER_STAGE * min(plan.timestep, _LONGEST_TIMESTEP)


class StartFinder:
    """Restrained dynamics from the built structure to given values of collective variables."""

    def __init__(
        self,
        molecule: MoleculeModel,
        variables: AtomVariables,
        platform: str,
        properties: dict[str, str],
        temperature: float,
        timestep: float,
    ) -> None:
        """Create a context with a restraint on every variable and relax the built structure."""
        import openmm

        system = openmm.XmlSerializer.clone(molecule.system)
        for name in variables.names:
            system.addForce(variables.harmonic_force(name))
        self._variables = variables
        self._temperature = temperature
        self._integrator = openmm.LangevinMiddleIntegrator(temperature, 5.0, min(timestep, _LONGEST_TIMESTEP))
        self._context = openmm.Context(
            system, self._integrator, openmm.Platform.getPlatformByName(platform), properties
        )
        self._context.setPositions(molecule.positions)
        openmm.LocalEnergyMinimizer.minimize(self._context)
        self._relaxed = self._positions()

    def reach(
        self, targets: Mapping[str, float], seed: int, positions: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Positions `(n_atoms, 3)` [nm] at the target values [rad or nm]; variables not named are left alone.

        Args:
            targets: value of some or all collective variables.
            seed: seed of velocities and noise.
            positions: structure to come from; the relaxed built structure by default.

        Raises:
            SamplingError: a target was not reached.
        """
        import openmm

        if not targets:
            return self._relaxed if positions is None else positions
        velocity_seed, noise_seed = (
            1 + int(item) % 0x7FFFFFFE for item in np.random.SeedSequence(seed).generate_state(2)
        )
        self._integrator.setRandomNumberSeed(noise_seed)
        self._context.reinitialize()
        self._context.setPositions(self._relaxed if positions is None else positions)
        self._context.applyConstraints(1e-8)
        self._context.setVelocitiesToTemperature(self._temperature, velocity_seed)
        paths = {}
        for name, target in targets.items():
            start = self._value(name)
            paths[name] = start - self._variables[name].difference(start, target) * np.linspace(0.0, 1.0, _STAGES)
            self._context.setParameter(f"k_{name}", self._variables[name].stiffness)
        try:
            for stage in range(2 * _STAGES):  # the second half stays at the target
                for name, path in paths.items():
                    center = path[min(stage, _STAGES - 1)]
                    if self._variables[name].periodic:
                        center = (center + np.pi) % (2 * np.pi) - np.pi
                    self._context.setParameter(f"center_{name}", float(center))
                self._integrator.step(_STEPS_PER_STAGE)
            openmm.LocalEnergyMinimizer.minimize(self._context)
        except openmm.OpenMMException as error:
            raise SamplingError(f"start {dict(targets)} cannot be reached: {error}; choose another start") from None
        for name, target in targets.items():
            value = self._value(name)
            if not abs(self._variables[name].difference(value, target)) <= self._variables[name].tolerance:
                raise SamplingError(
                    f"start {name} = {target} was not reached: restrained dynamics ended at {value:.3f}; choose a "
                    "start that the molecule can take"
                )
        return self._positions()

    def _value(self, name: str) -> float:
        return float(self._variables.evaluate(self._positions())[self._variables.names.index(name)])

    def _positions(self) -> NDArray[np.float64]:
        state = self._context.getState(positions=True)
        return np.array(state.getPositions(asNumpy=True)._value, dtype=np.float64)
