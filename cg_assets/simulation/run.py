"""The CG simulations of a system: without a bias, and under the frozen bias of its biased samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.bead_bias import BeadBias
from cg_assets.core.errors import ExplosionError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.units import unit
from cg_assets.potentials.base import Potential
from cg_assets.simulation.langevin import CGTrajectory, simulate
from cg_assets.simulation.settings import ENHANCED, UNBIASED, CGSimulation
from cg_assets.systems.spec import SystemSpec


@dataclass(frozen=True)
class CGSimulationResult:
    """Frames of all CG simulations of a potential.

    Attributes:
        frames: positions, collective variables and bias energies of stable replicas; `window` is 0 without a bias and 1
            under it. There are none of a biased run of which most replicas exploded: the others are no fair sample.
        replicas: number of replicas of the run without a bias, of ladders under tempering.
        stable_replicas: those that did not explode.
        enhanced_replicas: number of replicas of the run under the bias; 0 where there was none.
        enhanced_stable_replicas: those that did not explode.
        replica_temperatures: kinetic temperature of each replica of the run without a bias [K or reduced]; NaN for
            those that exploded.
        kinetic_temperature: mean over stable replicas [K or reduced].
        kinetic_temperature_error: its standard error.
        steps_per_second: replica-steps per second of the run without a bias.
        target_temperature: temperature of the system.
        temperature_unit: its unit.
        exchange_acceptance: accepted part of the exchanges between neighbouring temperatures; none without tempering.
    """

    frames: Frames
    replicas: int
    stable_replicas: int
    replica_temperatures: NDArray[np.float64]
    kinetic_temperature: float
    kinetic_temperature_error: float
    steps_per_second: float
    target_temperature: float
    temperature_unit: str
    enhanced_replicas: int = 0
    enhanced_stable_replicas: int = 0
    exchange_acceptance: tuple[float, ...] = ()

    @property
    def stability(self) -> str:
        """How many replicas were stable, in words."""
        words = f"{self.stable_replicas} of {self.replicas} replicas stable"
        if self.enhanced_replicas:
            words += f", under the bias {self.enhanced_stable_replicas} of {self.enhanced_replicas}"
        return words

    def summary(self) -> dict[str, Any]:
        """The numbers in plain JSON types."""
        exchange = {"exchange_acceptance": list(self.exchange_acceptance)} if self.exchange_acceptance else {}
        return exchange | {
            "replicas": self.replicas,
            "stable_replicas": self.stable_replicas,
            "enhanced_replicas": self.enhanced_replicas,
            "enhanced_stable_replicas": self.enhanced_stable_replicas,
            "kinetic_temperature": self.kinetic_temperature,
            "kinetic_temperature_error": self.kinetic_temperature_error,
            "steps_per_second": self.steps_per_second,
            "target_temperature": self.target_temperature,
            "unit": self.temperature_unit,
        }


def run_cg_simulation(
    system: SystemSpec,
    potential: Potential,
    data: Frames,
    bias: Mapping[str, Any] | None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> CGSimulationResult:
    """Simulate the beads as a system's `cg_simulation` says.

    Replicas of a molecule start from frames of the training data, wherever those went, displaced at random where the
    settings ask for it; replicas of a model potential from the equilibrium density of the potential itself.

    Args:
        system: the system.
        potential: its trained potential.
        data: CG frames that it was trained on.
        bias: definition of the frozen bias for the enhanced run; None for no such run.
        device: `cpu` or `cuda`.
        progress: told of the steps.

    Raises:
        ExplosionError: fewer than two replicas of the run without a bias stayed stable.
    """
    settings = system.cg_simulation
    generator = np.random.default_rng(settings.seed)
    beads = system.beads()

    def run(window: int, settings: CGSimulation, definition: Mapping[str, Any] | None) -> tuple[CGTrajectory, Frames]:
        trajectory = simulate(
            potential,
            _starts(system, potential, data, generator),
            beads.cg_map.bead_masses,
            system.thermal_energy,
            settings,
            seed=settings.seed + window,
            bias=None if definition is None else BeadBias(beads, definition, device),
            progress=progress,
            device=device,
            temperature=system.temperature,
            box=None if data.box is None else data.box[0],
        )
        frames = trajectory.stable_frames
        zeros = np.zeros(len(frames))
        variables = beads.variables(frames.positions)
        return trajectory, replace(
            frames,
            window=np.full(len(frames), window, dtype=np.int32),
            bias_energy=zeros if frames.bias_energy is None else frames.bias_energy,
            collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
        )

    free, frames = run(UNBIASED, settings, None)
    stable = int((~free.exploded).sum())
    if stable < 2:
        raise ExplosionError(
            f"{system.name}: {stable} of {settings.kept_replicas} replicas of the CG simulation stayed stable, which "
            f"leaves nothing to judge the potential by; train it longer (epochs) or on more frames, or lower "
            f"cg_simulation.timestep (now {settings.timestep})"
        )
    parts, enhanced_stable = [frames], 0
    if bias is not None:
        # A bias may lead where a potential knows nothing: a result that is reported, not a failure.
        with suppress(ExplosionError):
            enhanced, frames = run(ENHANCED, settings.enhanced, bias)
            enhanced_stable = int((~enhanced.exploded).sum())
            if 2 * enhanced_stable >= settings.replicas:
                parts.append(replace(frames, replica=frames.replica + settings.replicas))
    return CGSimulationResult(
        frames=Frames.concatenate(parts),
        replicas=settings.kept_replicas,
        stable_replicas=stable,
        enhanced_replicas=0 if bias is None else settings.replicas,
        enhanced_stable_replicas=enhanced_stable,
        replica_temperatures=free.replica_temperatures,
        kinetic_temperature=free.kinetic_temperature,
        kinetic_temperature_error=free.kinetic_temperature_error,
        steps_per_second=free.replica_steps_per_second,
        target_temperature=system.temperature,
        temperature_unit=unit("temperature", system.units),
        exchange_acceptance=free.exchange_acceptance,
    )


def _starts(
    system: SystemSpec, potential: Potential, data: Frames, generator: np.random.Generator
) -> NDArray[np.float32]:
    replicas, displacement = system.cg_simulation.replicas, system.cg_simulation.displacement
    drawn = potential.equilibrium(replicas, generator.random)
    if drawn is not None:
        return drawn.numpy().astype(np.float32)
    starts = data.positions[generator.choice(len(data), replicas, replace=replicas > len(data))]
    if displacement > 0.0:
        starts = starts + generator.normal(scale=displacement, size=starts.shape).astype(np.float32)
    return starts
