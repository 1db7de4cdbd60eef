"""Independent samples of (phi, psi) of capped alanine per CPU second: beads, atoms in implicit solvent, atoms in water.

    CG_ASSETS_HOME=... python benchmarks/samples.py [--system NAME] [--beads 0.002:1:100 0.004:1:96] [--repeats 5]
                                                    [--water 10000]

Reads a home where the system was run: its registered model, biased samples and reference. The slowest motion is that
between phi < 0 and phi > 0. Replicas start from equilibrium in phi > 0 (biased samples, reweighted), and the rate k at
which they leave is the number of those that reach the core of phi < 0, over the time that all spent before. By detailed
balance the indicator of phi > 0 then has the autocorrelation time tau = (1 - p)/k, p being its population, and samples
are independent after 2 tau. The error of tau is that of the number of events, of which at least five are needed.
`--beads` gives timestep [ps], friction [1/ps] and replicas of each CG simulation to compare; the default is the plan of
the system. Of atoms in water there is one trajectory: a spring on phi and psi brings them to phi > 0, and when they
have left they go on from one of the states before, with other velocities. Without `--water`, its duration [ps], they
are given the tau of those in implicit solvent. Speeds are of one core; all take turns, and the table has medians and
lowest to highest.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets import load_model, load_system
from cg_assets.core.frames import Frames
from cg_assets.evaluation.long_runs import read_reference
from cg_assets.sampling.molecule.platforms import choose_platform
from cg_assets.settings import installation
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation
from cg_assets.storage.store import ParquetStore

START = {"phi": 1.0, "psi": 0.7}
"""In phi > 0 [rad]."""
CORE = (-2.9, -0.6)
"""phi of the core of phi < 0 [rad]: from there nothing comes straight back."""
FEWEST = 5
"""Events below which 1/sqrt(n) is no error of tau."""
INTERVAL = 0.48
"""Time between two looks at phi [ps], of whole steps of 2, 3, 4, 5 or 6 fs."""

Speed = Callable[[], float]
"""Picoseconds of all replicas together per CPU second."""


class Leaving(NamedTuple):
    """Events, the time before them, and replicas that exploded."""

    events: int
    time: float
    exploded: int

    @staticmethod
    def of(phi: NDArray[np.float64]) -> Leaving:
        """Of phi `(n_times, n_replicas)` each `INTERVAL`, NaN from where a replica exploded; all start in phi > 0."""
        left = (phi > CORE[0]) & (phi < CORE[1])
        inside = np.isfinite(phi) & (np.cumsum(left, axis=0) == 0)
        return Leaving(int(left.any(axis=0).sum()), INTERVAL * float(inside.sum()), int(np.isnan(phi[-1]).sum()))

    def tau(self, population: float) -> tuple[float, float]:
        """Autocorrelation time of the indicator of phi > 0 and its error [ps]."""
        if self.events < FEWEST:
            raise SystemExit(
                f"{self.events} replicas left phi > 0 within {self.time:.0f} ps of all, and tau needs {FEWEST}; give a "
                "longer --duration or more --starts"
            )
        tau = (1.0 - population) * self.time / self.events
        return tau, tau / math.sqrt(self.events)

    def line(self, name: str, population: float) -> str:
        """What was seen, in a line."""
        tau, error = self.tau(population)
        return f"{name}: {self.events} events, tau {tau:.0f} ± {error:.0f} ps, {self.exploded} exploded"


class Beads:
    """CG simulations of a trained potential."""

    def __init__(
        self, system: Any, atoms: NDArray[np.float32], timestep: float, friction: float, replicas: int
    ) -> None:
        """Start from frames of atoms."""
        self.beads, self.potential = system.beads(), load_model(f"{system.name}.biased")
        self.timestep, self.friction = timestep, friction
        self.starts = self.beads.cg_map.apply(np.resize(atoms, (replicas, *atoms.shape[1:])))

    def run(self, duration: float, interval: float, starts: NDArray[np.float64]) -> Frames:
        """Frames of all replicas."""
        settings = CGSimulation(
            **{"replicas": len(starts), "timestep": self.timestep, "friction": self.friction},
            **{"duration": duration, "frame_interval": interval},
        )
        masses = self.beads.cg_map.bead_masses
        return simulate(self.potential, starts, masses, self.beads.thermal_energy, settings, seed=1).frames

    def leaving(self, duration: float, atoms: NDArray[np.float32]) -> Leaving:
        """How replicas leave phi > 0 within a time [ps]."""
        starts = self.beads.cg_map.apply(atoms)
        frames = self.run(duration, INTERVAL, starts)
        phi = np.full((round(duration / INTERVAL), len(starts)), np.nan)
        phi[np.rint(frames.time / INTERVAL).astype(int) - 1, frames.replica] = self.beads.variables(frames.positions)[
            "phi"
        ]
        return Leaving.of(phi)

    def speed(self, seconds: float) -> float:
        """Picoseconds per CPU second."""
        steps, took = 10, 0.0
        while took < 0.5 * seconds:
            begin = time.process_time()
            self.run(steps * self.timestep, steps * self.timestep, self.starts)
            took = time.process_time() - begin
            found, steps = steps, min(10 * steps, math.ceil(steps * seconds / took))
        return found * self.timestep * len(self.starts) / took


class Atoms:
    """Atoms stepped by OpenMM alone, on the platform that a run chooses."""

    def __init__(self, system: Any) -> None:
        """Set up a context, with springs that pull nothing."""
        import openmm

        structure, plan = system.structure(), system.sampling.unbiased
        spring = openmm.CustomTorsionForce("pull*min(away, 6.283185307179586-away)^2; away=abs(theta-start)")
        spring.addGlobalParameter("pull", 0.0)
        spring.addPerTorsionParameter("start")
        number = {(atom.residue.name, atom.name): atom.index for atom in structure.topology.atoms()}
        chain = [("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N")]
        for first, start in enumerate(START.values()):
            spring.addTorsion(*(number[atom] for atom in chain[first : first + 4]), [start])
        structure.system.addForce(spring)
        self.system, self.beads = system, system.beads()
        self.timestep, self.temperature = plan.timestep, system.temperature
        self.integrator = openmm.LangevinMiddleIntegrator(system.temperature, plan.friction, plan.timestep)
        self.integrator.setRandomNumberSeed(1)
        name, properties = choose_platform(structure.system.getNumParticles(), structure.box is not None)
        platform = openmm.Platform.getPlatformByName(name)
        self.context = openmm.Context(structure.system, self.integrator, platform, properties)
        self.context.setPositions(structure.positions)
        openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, 50)
        self.integrator.step(100)

    def leaving(self, duration: float, atoms: NDArray[np.float32]) -> Leaving:
        """How replicas leave phi > 0 within a time [ps]; each stops when it has left."""
        phi = np.full((round(duration / INTERVAL), len(atoms)), np.mean(CORE))
        for replica, start in enumerate(atoms):
            self.context.setPositions(start.astype(np.float64))
            self.context.applyConstraints(1e-8)
            self.context.setVelocitiesToTemperature(self.temperature, replica + 1)
            for row in range(len(phi)):
                phi[row, replica] = self._next()
                if CORE[0] < phi[row, replica] < CORE[1]:
                    break
        return Leaving.of(phi)

    def leaving_again(self, duration: float) -> Leaving:
        """How often a replica leaves phi > 0 within a time [ps], put back each time."""
        for pull in (10.0, 100.0, 0.0):
            self.context.setParameter("pull", pull)
            self.integrator.step(round(5.0 / self.timestep))
        generator, events = np.random.default_rng(1), 0
        states = [self.context.getState(positions=True)]
        for step in range(1, round(duration / INTERVAL) + 1):
            phi = self._next()
            if CORE[0] < phi < CORE[1]:
                events += 1
                self.context.setState(states[generator.integers(len(states))])
                self.context.setVelocitiesToTemperature(self.temperature, events)
            elif phi > 0 and step % 40 == 0:
                states.append(self.context.getState(positions=True))
            if step % 1000 == 0:
                print(f"  {step * INTERVAL:.0f} of {duration:g} ps in water, {events} events", flush=True)
        return Leaving(events, duration, 0)

    def _next(self) -> float:
        """What phi is after an interval."""
        self.integrator.step(round(INTERVAL / self.timestep))
        now = self.context.getState(positions=True).getPositions(asNumpy=True)._value
        return float(self.beads.variables(self.beads.cg_map.apply(now[None]))["phi"][0])

    def speed(self, seconds: float) -> float:
        """Picoseconds per CPU second."""
        steps, took = 10, 0.0
        while took < 0.5 * seconds:
            begin = time.process_time()
            self.integrator.step(steps)
            self.context.getState(energy=True)
            took = time.process_time() - begin
            found, steps = steps, min(10 * steps, math.ceil(steps * seconds / took))
        return found * self.timestep / took


def starts(system: Any, store: ParquetStore, count: int) -> NDArray[np.float32]:
    """Atoms `(count, n, 3)` in equilibrium in phi > 0."""
    beads = system.beads()
    frames = store.read_frames(system.name, "biased_samples")
    rows = np.flatnonzero((beads.variables(beads.cg_map.apply(frames.positions))["phi"] > 0) & ~frames.probe)
    weights = np.exp((frames.bias_energy[rows] - frames.bias_energy[rows].max()) / beads.thermal_energy)
    return frames.positions[np.random.default_rng(0).choice(rows, count, p=weights / weights.sum())]


def population(system: Any) -> float:
    """Of phi > 0 in the reference that comes with a system."""
    return float(read_reference(system.reference_case()).population({"phi": (0.0, math.pi)})[0].mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="capped_alanine_implicit")
    parser.add_argument("--beads", nargs="*", help="timestep:friction:replicas of CG simulations")
    parser.add_argument("--starts", type=int, default=192, help="of the beads, a quarter of them of the atoms")
    parser.add_argument("--duration", type=float, default=200.0, help="of beads, four times of atoms [ps]")
    parser.add_argument("--water", type=float, help="of atoms in water, whose tau is not measured without it [ps]")
    parser.add_argument("--repeats", type=int, default=5, help="of the speeds")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement of speed")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    system, store = load_system(chosen.system), ParquetStore(installation().home)
    plan, share = system.cg_simulation, population(system)
    atoms = starts(system, store, chosen.starts)
    plans = chosen.beads or [f"{plan.timestep}:{plan.friction}:{plan.replicas}"]
    cases: dict[str, Any] = {}
    times: dict[str, tuple[float, float]] = {}
    for text in plans:
        timestep, friction, replicas = text.split(":")
        name = f"beads, {1000 * float(timestep):g} fs, friction {friction}/ps, {replicas} replicas"
        cases[name] = Beads(system, atoms, float(timestep), float(friction), int(replicas))
        leaving = cases[name].leaving(chosen.duration, atoms)
        times[name] = leaving.tau(share)
        print(leaving.line(name, share), flush=True)
    for solvent, other in (("implicit solvent", system), ("water", load_system("capped_alanine_water"))):
        cases[f"atoms in {solvent}"] = Atoms(other)
    implicit, water = "atoms in implicit solvent", "atoms in water"
    leaving = cases[implicit].leaving(4 * chosen.duration, atoms[: chosen.starts // 4])
    times[implicit] = times[water] = leaving.tau(share)
    print(leaving.line(implicit, share), flush=True)
    if chosen.water:
        leaving, share = cases[water].leaving_again(chosen.water), population(cases[water].system)
        times[water] = leaving.tau(share)
        print(leaving.line(water, share), flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(chosen.repeats):
        for name, case in cases.items():
            speeds[name].append(case.speed(chosen.seconds))
    table(times, speeds, (implicit, water))


def table(times: dict[str, tuple[float, float]], speeds: dict[str, list[float]], atoms: tuple[str, ...]) -> None:
    """Print speeds, their ratios to those of atoms, times and samples."""
    print(f"\n| simulation | ps per CPU second | to {' | to '.join(atoms)} | tau [ps] | samples per CPU second |")
    print("|---|---|---|---|---|---|")
    for name, found in speeds.items():
        tau, error = times[name]
        ratios = [[own / its for own, its in zip(found, speeds[other], strict=True)] for other in atoms]
        cells = [shown(values) for values in (found, *ratios)]
        print(
            f"| {name} | {' | '.join(cells)} | {tau:.0f} ± {error:.0f} | {statistics.median(found) / (2 * tau):.3g} |"
        )


def shown(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):,.3g} ({min(values):,.3g}-{max(values):,.3g})"


if __name__ == "__main__":
    main()
