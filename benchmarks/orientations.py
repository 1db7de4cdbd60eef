"""Orientations of water at fixed beads: rotational dynamics and rotational Monte Carlo, and the cost of labels.

    OMP_NUM_THREADS=1 python -m benchmarks.orientations [--molecules 64] [--seconds 60]

Beads come from a short run of the atoms (SPC/E, 997 kg/m3, reaction field, cutoff 0.6 nm). Both methods draw from
p(r | R; T) at one temperature without exchange, one thread, everything per CPU second:

* dynamics: the frozen System of this project in OpenMM, its CPU platform, 4 fs, friction 2/ps;
* Monte Carlo: trial turns of single molecules about their beads, compiled by numba; the largest angle is tuned to 40 %
  acceptance. The forces of its samples are computed by OpenMM and not counted, in its favour.

An effective sample lowers the squared error of a mean force, from blocks, as an independent one would. The mean forces
of both must agree: z is the root mean square of their differences in standard errors. The last line is what the
pipeline's sampler makes of a CPU second, with replica exchange over the ladder of the system `water`.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from typing import Any

import numba
import numpy as np

from benchmarks.thermal_potentials import atoms
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.build_targets import check_frames
from cg_assets.mapping.liquids.water import Water
from cg_assets.sampling.fixed_bead_ladders import FixedBeadLadders
from cg_assets.sampling.held_beads import held_water
from cg_assets.systems import load_system

TEMPERATURES = (300.0, 400.0, 500.0, 700.0)
TIMESTEP, FRICTION = 0.004, 2.0
STEPS, SWEEPS = 25, 4
"""Of dynamics and of Monte Carlo between two samples."""
COULOMB, SOLVENT = 138.935458, 78.3
"""1/(4 pi epsilon_0) [kJ/mol nm/e^2], and OpenMM's dielectric constant beyond the cutoff."""
SWITCH = 0.85
BLOCKS = 16


@numba.njit(cache=True, fastmath=True)
def molecule_energy(one, sites, places, edge, charges, sigma, epsilon, cutoff):
    """Energy of a molecule's sites `places` with all other molecules, by the nearest image of each site."""
    krf = (SOLVENT - 1.0) / (2.0 * SOLVENT + 1.0) / cutoff**3
    crf = 3.0 * SOLVENT / (2.0 * SOLVENT + 1.0) / cutoff
    switch, total = SWITCH * cutoff, 0.0
    for two in range(len(sites)):
        if two == one:
            continue
        for a in range(3):
            for b in range(3):
                square = 0.0
                for axis in range(3):
                    gap = places[a, axis] - sites[two, b, axis]
                    gap -= edge * np.round(gap / edge)
                    square += gap * gap
                if square >= cutoff * cutoff:
                    continue
                r = math.sqrt(square)
                total += COULOMB * charges[a] * charges[b] * (1.0 / r + krf * square - crf)
                if a == 0 and b == 0:
                    sixth = (sigma * sigma / square) ** 3
                    energy = 4.0 * epsilon * (sixth * sixth - sixth)
                    if r > switch:
                        x = (r - switch) / (cutoff - switch)
                        energy *= 1.0 + x * x * x * (-10.0 + x * (15.0 - 6.0 * x))
                    total += energy
    return total


@numba.njit(cache=True, fastmath=True)
def sweep(sites, beads, box, charges, sigma, epsilon, cutoff, beta, trials):
    """Trial turns in place (rows: molecule, axis, angle, chance); how many were accepted."""
    accepted, places = 0, np.empty((3, 3))
    for trial in trials:
        one, axis, angle, chance = int(trial[0]), trial[1:4], trial[4], trial[5]
        cosine, sine = math.cos(angle), math.sin(angle)
        for a in range(3):
            v = sites[one, a] - beads[one]
            along = axis[0] * v[0] + axis[1] * v[1] + axis[2] * v[2]
            places[a, 0] = v[0] * cosine + (axis[1] * v[2] - axis[2] * v[1]) * sine + axis[0] * along * (1 - cosine)
            places[a, 1] = v[1] * cosine + (axis[2] * v[0] - axis[0] * v[2]) * sine + axis[1] * along * (1 - cosine)
            places[a, 2] = v[2] * cosine + (axis[0] * v[1] - axis[1] * v[0]) * sine + axis[2] * along * (1 - cosine)
            places[a] += beads[one]
        before = molecule_energy(one, sites, sites[one], box, charges, sigma, epsilon, cutoff)
        after = molecule_energy(one, sites, places, box, charges, sigma, epsilon, cutoff)
        if after <= before or chance < math.exp(-beta * (after - before)):
            sites[one] = places
            accepted += 1
    return accepted


class Engine:
    """Energies and bead forces of sites by OpenMM, and dynamics at fixed beads."""

    def __init__(self, water: Water, sites: np.ndarray, temperature: float) -> None:
        """Start at some orientations."""
        import openmm

        self.water = water
        integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, TIMESTEP)
        integrator.setRandomNumberSeed(1)
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(water.frozen_system(), integrator, platform, {"Threads": "1"})
        self.place(sites)
        self.context.setVelocitiesToTemperature(temperature, 1)

    def place(self, sites: np.ndarray) -> None:
        """Set the orientations."""
        self.context.setPositions(self.water.frozen_positions(sites.reshape(-1, 3)))

    def energy_and_forces(self) -> tuple[float, np.ndarray]:
        """Potential energy and the forces on the beads `(n_molecules, 3)`."""
        import openmm.unit as unit

        state = self.context.getState(getEnergy=True, getForces=True)
        forces = state.getForces(asNumpy=True)._value.reshape(self.water.n_molecules, -1, 3)
        held = [self.context.getSystem().isVirtualSite(index) for index in range(forces.shape[1])]
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return energy, forces[:, ~np.array(held)].sum(axis=1)


def dynamics(engine: Engine, seconds: float) -> tuple[np.ndarray, float]:
    """Forces of samples `(n, n_molecules, 3)`, and the CPU seconds that they took."""
    engine.context.getIntegrator().step(round(20.0 / TIMESTEP))
    started, forces = time.process_time(), []
    while time.process_time() - started < seconds:
        engine.context.getIntegrator().step(STEPS)
        forces.append(engine.energy_and_forces()[1])
    return np.array(forces), time.process_time() - started


def monte_carlo(engine: Engine, sites: np.ndarray, temperature: float, seconds: float) -> tuple[np.ndarray, float, Any]:
    """Forces of samples, the CPU seconds of the turns alone, and the acceptance."""
    water, n = engine.water, engine.water.n_molecules
    parameters = water.parameters
    sites, beads = sites.copy(), water.beads(sites.reshape(-1, 3))
    beta, largest = 1.0 / (BOLTZMANN * temperature), 0.6
    generator = np.random.default_rng(1)
    constants = (parameters.charges, parameters.sigma, parameters.epsilon, water.cutoff, beta)

    def turn(turns: int) -> int:
        axes = generator.standard_normal((turns, 3))
        columns = (
            generator.integers(n, size=turns),
            *(axes / np.linalg.norm(axes, axis=1, keepdims=True)).T,
            largest * generator.uniform(-1.0, 1.0, turns),
            generator.random(turns),
        )
        return sweep(sites, beads, water.box, *constants, np.stack(columns, axis=1))

    for _ in range(40):
        accepted = turn(20 * n) / (20 * n)
        largest = min(math.pi, largest * (1.0 + 0.5 * (accepted - 0.4)))
    forces, spent, accepted = [], 0.0, 0
    while spent < seconds:
        started = time.process_time()
        accepted += turn(SWEEPS * n)
        spent += time.process_time() - started
        engine.place(sites)
        forces.append(engine.energy_and_forces()[1])
    return np.array(forces), spent, (accepted / (len(forces) * SWEEPS * n), largest)


def check_energy(engine: Engine, sites: np.ndarray) -> float:
    """Largest relative difference of energy differences of single molecules' turns from OpenMM's."""
    water, generator = engine.water, np.random.default_rng(0)
    from scipy.spatial.transform import Rotation

    parameters, beads = water.parameters, water.beads(sites.reshape(-1, 3))
    common = (water.box, parameters.charges, parameters.sigma, parameters.epsilon, water.cutoff)
    engine.place(sites)
    reference, worst = engine.energy_and_forces()[0], 0.0
    for one in range(8):
        turned = sites.copy()
        rotation = Rotation.from_rotvec(0.3 * generator.standard_normal(3)).as_matrix()
        turned[one] = (sites[one] - beads[one]) @ rotation.T + beads[one]
        change = molecule_energy(one, sites, turned[one], *common) - molecule_energy(one, sites, sites[one], *common)
        engine.place(turned)
        theirs = engine.energy_and_forces()[0] - reference
        worst = max(worst, abs(change - theirs) / abs(theirs))
    return worst


def effective(forces: np.ndarray) -> float:
    """Independent samples that the series is worth."""
    return float(forces.var(axis=0).mean() / (mean_and_error(forces)[1] ** 2).mean())


def mean_and_error(forces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each component and its standard error, from blocks."""
    blocks = np.array([part.mean(axis=0) for part in np.array_split(forces, BLOCKS)])
    return forces.mean(axis=0), blocks.std(axis=0, ddof=1) / math.sqrt(BLOCKS)


def ladder(water: Water, sites: np.ndarray) -> str:
    """What the pipeline's sampler gives for a CPU second, in one process."""
    from cg_assets.core.frames import Frames

    os.environ["CG_ASSETS_THREADS"] = "1"
    shipped = load_system("water").sampling.conditional
    assert shipped is not None
    plan = shipped.model_copy(update={"frames": 1, "relaxation": 20.0, "duration": 60.0})
    sampler = FixedBeadLadders(held_water(water, sites.reshape(1, -1, 3)), plan, 1, "CPU")
    started = time.process_time()
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    spent = time.process_time() - started
    check = check_frames(Frames.concatenate([part for part in parts if part is not None]))[0]
    worth = check.effective_samples
    low, high = worth[0] / spent, worth[-1] / spent
    return (
        f"ladder of {len(plan.temperatures)} temperatures: {spent:.0f} CPU s, {worth.sum() / spent:.2f} effective "
        f"samples of the energy/s at all temperatures together, {low:.3f} at 250 K, {high:.3f} at 700 K, "
        f"{worth.sum() * water.n_molecules / spent:.0f} labels of beads/s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    import openmm.unit as unit

    context, _, water = atoms(options.molecules)
    positions = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    sites = np.array(positions).reshape(options.molecules, -1, 3)
    agreement = check_energy(Engine(water, sites, 300.0), sites)
    print(f"energies of turns against OpenMM: {agreement:.1e} relative\n")
    print("| T [K] | method | samples/s | effective samples/s | labels of beads/s | ratio | z | acceptance, angle |")
    print("|---|---|---|---|---|---|---|---|")
    for temperature in TEMPERATURES:
        engine = Engine(water, sites, temperature)
        moved, moving = dynamics(engine, options.seconds)
        turned, turning, rates = monte_carlo(engine, sites, temperature, options.seconds)
        (one, one_error), (two, two_error) = mean_and_error(moved), mean_and_error(turned)
        z = float(np.sqrt(((one - two) ** 2 / (one_error**2 + two_error**2)).mean()))
        speeds = effective(moved) / moving, effective(turned) / turning
        rows = (
            ("dynamics", len(moved) / moving, speeds[0], 1.0, ""),
            ("Monte Carlo", len(turned) / turning, speeds[1], speeds[1] / speeds[0], f"{rates[0]:.2f}, {rates[1]:.2f}"),
        )
        for name, rate, worth, ratio, note in rows:
            labels = worth * options.molecules
            numbers = f"{rate:.0f} | {worth:.2f} | {labels:.0f} | {ratio:.2f} | {z:.2f}"
            print(f"| {temperature:g} | {name} | {numbers} | {note} |", flush=True)
    print("\n" + ladder(water, sites))


if __name__ == "__main__":
    main()
