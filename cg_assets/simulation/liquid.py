"""CG simulations of a liquid at several temperatures with one potential W(R, T)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cg_assets.core.errors import ExplosionError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.estimates import Estimate, autocorrelation_time
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.base import Potential
from cg_assets.simulation.langevin import CGTrajectory, simulate
from cg_assets.systems.thermal_spec import ThermalSystem

_UNKNOWN = Estimate(math.nan, math.nan, "K")


@dataclass(frozen=True)
class LiquidSimulation:
    """What the simulations of a liquid gave.

    Attributes:
        frames: of all replicas that stayed stable, at all temperatures; replicas are numbered over all of them, and
            positions are not wrapped into the box.
        kinetic_temperature: temperature of the thermostat [K] to that of the beads [K]; nan where all exploded.
        stable_replicas: temperature [K] to the number of replicas that stayed stable.
        replicas: their number at each temperature.
        replica_steps_per_second: steps of single replicas a second.
    """

    frames: Frames
    kinetic_temperature: dict[float, Estimate]
    stable_replicas: dict[float, int]
    replicas: int
    replica_steps_per_second: float

    def summary(self) -> dict[str, Any]:
        """All but the frames as plain JSON types."""
        return {
            "temperatures": list(self.kinetic_temperature),
            "kinetic_temperature": [item.to_json() for item in self.kinetic_temperature.values()],
            "stable_replicas": list(self.stable_replicas.values()),
            "replicas": self.replicas,
            "replica_steps_per_second": self.replica_steps_per_second,
        }


def run_liquid_simulation(
    system: ThermalSystem,
    module: Potential,
    atoms: Frames,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LiquidSimulation:
    """Simulate the beads at each temperature of the reference, from its frames.

    Args:
        system: the system.
        module: a potential W(R, T).
        atoms: frames of the atoms' dynamics at each temperature, as beads.
        device: `cpu` or `cuda`.
        progress: told the finished steps.

    Raises:
        SamplingError: there are no frames at a temperature, or the potential does not fit the box.
        ExplosionError: every replica exploded at every temperature.
    """
    settings, kelvins = system.cg_simulation, system.sampling.reference.temperatures
    evenly = (np.arange(settings.replicas) + 0.5) / settings.replicas
    starts = {}
    for kelvin in kelvins:
        rows = np.flatnonzero(atoms.temperature == kelvin)
        if not len(rows):
            raise SamplingError(f"there are no frames at {kelvin:g} K to start from; sample the reference there")
        starts[kelvin] = rows[(evenly * len(rows)).astype(int)]
    runs: dict[float, CGTrajectory | None] = {}
    for number, kelvin in enumerate(kelvins):

        def stretch(done: int, total: int, what: str, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(kelvins) * total, what)

        try:
            runs[kelvin] = simulate(
                module,
                atoms.positions[starts[kelvin]],
                np.full(atoms.n_sites, system.water.parameters.mass),
                BOLTZMANN * kelvin,
                settings,
                int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0]),
                progress=stretch,
                device=device,
                temperature=kelvin,
                box=np.full(3, system.model.edge),
            )
        except ExplosionError:
            runs[kelvin] = None
    done = [run for run in runs.values() if run is not None]
    parts = [
        replace(run.stable_frames, replica=run.stable_frames.replica + number * settings.replicas)
        for number, run in enumerate(runs.values())
        if run is not None and not run.exploded.all()
    ]
    if not parts:
        raise ExplosionError(
            "every replica exploded at every temperature; train on more frames, or lower cg_simulation.timestep "
            f"(now {settings.timestep})"
        )
    return LiquidSimulation(
        frames=Frames.concatenate(parts),
        kinetic_temperature={kelvin: _UNKNOWN if run is None else _kinetic(run) for kelvin, run in runs.items()},
        stable_replicas={kelvin: 0 if run is None else int((~run.exploded).sum()) for kelvin, run in runs.items()},
        replicas=settings.replicas,
        replica_steps_per_second=float(np.mean([run.replica_steps_per_second for run in done])),
    )


def _kinetic(run: CGTrajectory) -> Estimate:
    """Of the stable replicas, with an error from the correlation in time, since replicas are few."""
    stable = ~run.exploded
    if not stable.any():
        return _UNKNOWN
    order = np.argsort(run.frames.replica, kind="stable")
    rows = order[stable[run.frames.replica[order]]]
    series = run.frame_temperatures[rows].reshape(int(stable.sum()), -1)
    error = series.std() * math.sqrt(2.0 * autocorrelation_time(series) / series.size)
    return Estimate(float(series.mean()), error, "K")
