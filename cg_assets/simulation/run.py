"""CG simulations with a potential: at one temperature or several, without a bias and under a frozen one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.bead_bias import BeadBias
from cg_assets.core.errors import ExplosionError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.estimates import FEW_REPLICAS, Estimate, autocorrelation_time
from cg_assets.core.units import thermal_energy, unit
from cg_assets.mapping.beads import Beads
from cg_assets.potentials.base import Potential
from cg_assets.simulation.langevin import CGTrajectory, simulate
from cg_assets.simulation.settings import ENHANCED, UNBIASED, CGSimulation

LEAST_REPLICAS = 2
"""Stable replicas without a bias, at all temperatures together, below which there is nothing to judge."""


@dataclass(frozen=True)
class Run:
    """What one run gave, at a temperature.

    Attributes:
        temperature: of the thermostat [K or reduced].
        biased: whether it was under the frozen bias.
        replicas: their number; of ladders under tempering.
        stable_replicas: those that did not explode.
        kinetic_temperature: of the beads, mean over stable replicas; nan where none was stable.
        replica_steps_per_second: steps of single replicas a second; 0 where all exploded at once.
        exchange_acceptance: accepted part of the exchanges between neighbouring temperatures; none without tempering.
    """

    temperature: float
    biased: bool
    replicas: int
    stable_replicas: int
    kinetic_temperature: Estimate
    replica_steps_per_second: float
    exchange_acceptance: tuple[float, ...] = ()

    @property
    def is_stable(self) -> bool:
        """Whether no replica exploded."""
        return self.stable_replicas == self.replicas

    def to_json(self) -> dict[str, object]:
        """Plain JSON types."""
        return asdict(self) | {"kinetic_temperature": self.kinetic_temperature.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """What `to_json` gave."""
        kinetic = Estimate.from_json(content["kinetic_temperature"])
        acceptance = tuple(content["exchange_acceptance"])
        return cls(**(dict(content) | {"kinetic_temperature": kinetic, "exchange_acceptance": acceptance}))


@dataclass(frozen=True)
class CGSimulationResult:
    """Frames of all CG simulations of a potential.

    Attributes:
        frames: of stable replicas, numbered over all runs. Where there is one temperature, they have collective
            variables and bias energies, and `window` is 0 without a bias and 1 under it; there are none of a biased run
            of which most replicas exploded: the others are no fair sample.
        runs: what each run gave, those without a bias first.
        replica_temperatures: kinetic temperature of each replica of the first run that not all of them left at once [K
            or reduced]; NaN for those that exploded.
    """

    frames: Frames
    runs: tuple[Run, ...]
    replica_temperatures: NDArray[np.float64] = field(repr=False)

    @property
    def stability(self) -> str:
        """How many replicas were stable, in words."""
        of = {True: [0, 0], False: [0, 0]}
        for run in self.runs:
            of[run.biased][0] += run.stable_replicas
            of[run.biased][1] += run.replicas
        free, biased = (f"{stable} of {replicas}" for stable, replicas in (of[False], of[True]))
        return f"{free} replicas stable" + (f", under the bias {biased}" if of[True][1] else "")

    @property
    def steps_per_second(self) -> float:
        """Steps of single replicas a second, mean over the runs without a bias."""
        speeds = [run.replica_steps_per_second for run in self.runs if not run.biased and run.stable_replicas]
        return float(np.mean(speeds))


@dataclass(frozen=True)
class _Plan:
    """One run to make.

    Attributes:
        temperature: of the thermostat [K or reduced].
        starts: `(r, n, d)` [nm or reduced].
        seed: of velocities and noise.
        settings: of the run.
        least: stable replicas from which its frames are a fair sample.
        window: written into its frames, with bias energies and collective variables; None for none of these.
        bias: that acts.
    """

    temperature: float
    starts: NDArray[np.float32]
    seed: int
    settings: CGSimulation
    least: int
    window: int | None = None
    bias: BeadBias | None = None

    @property
    def steps(self) -> int:
        """Steps with those of the burn-in."""
        return round(self.settings.burn_in / self.settings.timestep) + round(
            self.settings.duration / self.settings.timestep
        )


def run_cg_simulation(
    potential: Potential,
    beads: Beads,
    settings: CGSimulation,
    frames: Frames,
    temperatures: Sequence[float] = (),
    bias: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> CGSimulationResult:
    """Simulate beads as settings say, in their box.

    At the temperature of the beads, replicas start from frames drawn at random, displaced where the settings ask for
    it; those of a model potential from the equilibrium density of the potential itself. At several temperatures they
    start from frames at each of these, evenly chosen.

    Args:
        potential: of the beads.
        beads: of the system.
        settings: of the simulation; `replicas` of them at each temperature.
        frames: of the beads, to start from.
        temperatures: at which to run, one after the other [K]; none for that of the beads.
        bias: definition of a frozen bias for a second, enhanced run at that of the beads; None for no such run.
        device: `cpu` or `cuda`.
        progress: told of the steps of all runs.

    Raises:
        SamplingError: there are no frames at a temperature, or the potential does not fit temperature or box.
        ExplosionError: fewer than `LEAST_REPLICAS` replicas of the runs without a bias stayed stable.
    """
    if temperatures:
        plans = [_plan_at(kelvin, number, beads, settings, frames) for number, kelvin in enumerate(temperatures)]
    else:
        plans = _plans_at_one_temperature(potential, beads, settings, frames, bias, device)
    total, done = sum(plan.steps for plan in plans), 0
    unbiased = sum(plan.bias is None for plan in plans)
    runs: list[Run] = []
    parts, first = [], 0
    replica_temperatures = np.empty(0)
    for plan in plans:
        trajectory = _simulated(potential, beads, plan, device, _part_of(progress, done, total))
        done += plan.steps
        run = _run(plan, trajectory, unit("temperature", beads.units))
        runs.append(run)
        if trajectory is not None and run.stable_replicas >= plan.least:
            parts.append(_frames(plan, trajectory, beads, first))
        first += plan.settings.replicas
        if not len(replica_temperatures) and trajectory is not None:
            replica_temperatures = trajectory.replica_temperatures
        stable, replicas = (sum(getattr(run, name) for run in runs) for name in ("stable_replicas", "replicas"))
        if len(runs) == unbiased and stable < LEAST_REPLICAS:
            raise ExplosionError(
                f"{beads.name}: {stable} of {replicas} replicas of the CG simulation stayed stable, which leaves "
                "nothing to judge the potential by; train it longer (epochs) or on more frames, or lower "
                f"cg_simulation.timestep (now {settings.timestep})"
            )
    return CGSimulationResult(Frames.concatenate(parts), tuple(runs), replica_temperatures)


def _plans_at_one_temperature(
    potential: Potential,
    beads: Beads,
    settings: CGSimulation,
    frames: Frames,
    bias: Mapping[str, Any] | None,
    device: str,
) -> list[_Plan]:
    """A run without a bias and, where there is one, under it, from starts of one stream of random numbers."""
    generator, replicas = np.random.default_rng(settings.seed), settings.replicas
    acting = None if bias is None else BeadBias(beads, bias, device)

    def starts() -> NDArray[np.float32]:
        drawn = potential.equilibrium(replicas, generator.random)
        if drawn is not None:
            return drawn.numpy().astype(np.float32)
        places = frames.positions[generator.choice(len(frames), replicas, replace=replicas > len(frames))]
        if settings.displacement > 0.0:
            places = places + generator.normal(scale=settings.displacement, size=places.shape).astype(np.float32)
        return places

    kelvin, seed = beads.temperature, settings.seed
    plans = [_Plan(kelvin, starts(), seed + UNBIASED, settings, LEAST_REPLICAS, UNBIASED)]
    if acting is not None:
        half = math.ceil(replicas / 2)
        plans.append(_Plan(kelvin, starts(), seed + ENHANCED, settings.enhanced, half, ENHANCED, acting))
    return plans


def _plan_at(kelvin: float, number: int, beads: Beads, settings: CGSimulation, frames: Frames) -> _Plan:
    """The run at one of several temperatures; of a molecule its frames have collective variables."""
    rows = np.flatnonzero(frames.temperature == kelvin)
    if not len(rows):
        raise SamplingError(f"there are no frames at {kelvin:g} K to start from; sample the reference there")
    evenly = (np.arange(settings.replicas) + 0.5) / settings.replicas
    starts = frames.positions[rows[(evenly * len(rows)).astype(int)]]
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if beads.collective_variables:
        return _Plan(kelvin, starts, seed, settings, LEAST_REPLICAS, UNBIASED)
    return _Plan(kelvin, starts, seed, settings, 1)


def _part_of(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Progress of one run as a part of all."""
    if progress is None:
        return None
    return lambda steps, _, counted: progress(done + steps, total, counted)


def _simulated(
    potential: Potential, beads: Beads, plan: _Plan, device: str, progress: Progress | None
) -> CGTrajectory | None:
    """The trajectory of a run; None where all replicas exploded at once: a result that is reported, not a failure."""
    try:
        return simulate(
            potential,
            plan.starts,
            beads.cg_map.bead_masses,
            thermal_energy(plan.temperature, beads.units),
            plan.settings,
            plan.seed,
            plan.bias,
            progress,
            device,
            plan.temperature,
            box=beads.edges,
        )
    except ExplosionError:
        return None


def _run(plan: _Plan, trajectory: CGTrajectory | None, temperature_unit: str) -> Run:
    biased, replicas = plan.bias is not None, plan.settings.kept_replicas
    if trajectory is None:
        return Run(plan.temperature, biased, replicas, 0, Estimate(math.nan, math.nan, temperature_unit), 0.0)
    stable = int((~trajectory.exploded).sum())
    kinetic = Estimate(trajectory.kinetic_temperature, trajectory.kinetic_temperature_error, temperature_unit)
    if 0 < stable < FEW_REPLICAS:
        kinetic = _from_correlation(trajectory, temperature_unit)
    speed, acceptance = trajectory.replica_steps_per_second, trajectory.exchange_acceptance
    return Run(plan.temperature, biased, replicas, stable, kinetic, speed, acceptance)


def _from_correlation(trajectory: CGTrajectory, temperature_unit: str) -> Estimate:
    """Kinetic temperature of few stable replicas, with an error from the correlation in time."""
    stable = ~trajectory.exploded
    order = np.argsort(trajectory.frames.replica, kind="stable")
    rows = order[stable[trajectory.frames.replica[order]]]
    series = trajectory.frame_temperatures[rows].reshape(int(stable.sum()), -1)
    error = series.std() * math.sqrt(2.0 * autocorrelation_time(series) / series.size)
    return Estimate(float(series.mean()), error, temperature_unit)


def _frames(plan: _Plan, trajectory: CGTrajectory, beads: Beads, first: int) -> Frames:
    """Frames of the stable replicas of a run, whose replicas are numbered from `first`."""
    frames = trajectory.stable_frames
    frames = replace(frames, replica=frames.replica + np.int32(first))
    if plan.window is None:
        return frames
    variables = beads.variables(frames.positions)
    return replace(
        frames,
        window=np.full(len(frames), plan.window, dtype=np.int32),
        bias_energy=np.zeros(len(frames)) if frames.bias_energy is None else frames.bias_energy,
        collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
    )
