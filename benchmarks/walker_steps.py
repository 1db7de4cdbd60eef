"""Langevin dynamics of a model potential: walker-steps per CPU second of cg_assets, NumPy and plain OpenMM.

All three integrate the Müller-Brown system of cg_assets with the same splitting (BAOAB positions), timestep, friction,
number of walkers and number of steps, random numbers included, from the same point; runs alternate, one thread each.
CPU seconds of the process are counted, so that other work on the machine matters less. The mean potential energy after
the last step shows that they sample the same well. Run: `python benchmarks/walker_steps.py`.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from cg_assets.core.units import BOLTZMANN
from cg_assets.sampling.model_potential.walkers import Walkers
from cg_assets.systems import load_system

START = (24.0, 31.0)
TIMESTEP, FRICTION = 0.4, 0.1


def prepare_ours(landscape, n_walkers):
    walkers = Walkers(
        landscape,
        np.tile(START, (n_walkers, 1)),
        mass=1.0,
        thermal_energy=1.0,
        timestep=TIMESTEP,
        friction=FRICTION,
        seed=1,
    )
    walkers.advance(0, 1)
    taken = [1]

    def run(n_steps):
        for _ in range(n_steps // 250):
            walkers.advance(taken[0], 250)
            taken[0] += 250
        return walkers.points()

    return run


def prepare_numpy(landscape, n_walkers):
    """A vectorised script with the gradient written out by hand, in single precision (faster than double)."""
    rng = np.random.default_rng(1)
    x, y = (np.full(n_walkers, value, dtype=np.float32) for value in START)
    vx, vy = rng.standard_normal((2, n_walkers), dtype=np.float32)
    decay = float(np.exp(-FRICTION * TIMESTEP))
    noise = float(np.sqrt(1 - decay**2))

    def forces(x, y):
        dx, dy = x - 48, y - 8
        first = -17.3 * np.exp(-0.0039 * dx * dx - 0.0391 * dy * dy)
        fx, fy = 0.0078 * dx * first, 0.0782 * dy * first
        dx, dy = x - 32, y - 16
        second = -8.7 * np.exp(-0.0039 * dx * dx - 0.0391 * dy * dy)
        fx += 0.0078 * dx * second
        fy += 0.0782 * dy * second
        dx, dy = x - 24, y - 32
        third = -14.7 * np.exp(-0.0254 * dx * dx + 0.043 * dx * dy - 0.0254 * dy * dy)
        fx -= (-0.0508 * dx + 0.043 * dy) * third
        fy -= (0.043 * dx - 0.0508 * dy) * third
        dx, dy = x - 16, y - 24
        fourth = 1.3 * np.exp(0.00273 * dx * dx + 0.0023 * dx * dy + 0.00273 * dy * dy)
        fx -= (0.00546 * dx + 0.0023 * dy) * fourth
        fy -= (0.0023 * dx + 0.00546 * dy) * fourth
        return fx, fy

    def run(n_steps):
        nonlocal x, y, vx, vy
        for _ in range(n_steps):
            fx, fy = forces(x, y)
            vx += TIMESTEP * fx
            vy += TIMESTEP * fy
            x += 0.5 * TIMESTEP * vx
            y += 0.5 * TIMESTEP * vy
            gx, gy = rng.standard_normal((2, n_walkers), dtype=np.float32)
            vx = decay * vx + noise * gx
            vy = decay * vy + noise * gy
            x += 0.5 * TIMESTEP * vx
            y += 0.5 * TIMESTEP * vy
        return np.stack([x, y], axis=1)

    return run


def prepare_openmm(landscape, n_walkers):
    """Many particles without interactions in one context of the Reference platform, its fastest here; z moves too."""
    import openmm

    system = openmm.System()
    force = openmm.CustomExternalForce(landscape.expression.replace("**", "^"))
    for index in range(n_walkers):
        system.addParticle(1.0)
        force.addParticle(index)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(1.0 / BOLTZMANN, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.tile([*START, 0.0], (n_walkers, 1)))
    context.setVelocitiesToTemperature(1.0 / BOLTZMANN, 1)
    integrator.step(1)

    def run(n_steps):
        integrator.step(n_steps)
        return context.getState(getPositions=True).getPositions(asNumpy=True)._value[:, :2]

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walkers", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--work", type=float, default=5e6, help="walker-steps of each run")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    system = load_system("muller_brown")
    landscape = system.model.landscape(system.beads())
    methods = {"cg_assets": prepare_ours, "NumPy": prepare_numpy, "OpenMM Reference": prepare_openmm}
    print(
        f"Müller-Brown, {options.work:.0e} walker-steps a run, {options.repeats} alternating repeats; median of "
        "walker-steps per CPU second, ratio of ours to each; setup of ours compiles where no cache has it"
    )
    print(f"{'method':<18}{'walkers':>8}{'walker-steps/s':>15}{'lowest':>10}{'highest':>10}{'ratio':>7}", end="")
    print(f"{'setup':>9}{'<V>':>16}")
    for n_walkers in options.walkers:
        compare(methods, landscape, n_walkers, max(1, round(options.work / n_walkers / 250)) * 250, options.repeats)


def compare(methods, landscape, n_walkers, n_steps, repeats):
    runs, setup = {}, {}
    for name, prepare in methods.items():
        begin = time.process_time()
        runs[name] = prepare(landscape, n_walkers)
        setup[name] = time.process_time() - begin
    speeds, energies = {name: [] for name in runs}, {}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.process_time()
            points = run(n_steps)
            speeds[name].append(n_walkers * n_steps / (time.process_time() - begin))
            energies[name] = landscape.energy_and_forces(points)[0]
    ours = np.median(speeds["cg_assets"])
    for name, values in speeds.items():
        middle, energy = np.median(values), energies[name]
        error = energy.std(ddof=1) / np.sqrt(len(energy))
        print(f"{name:<18}{n_walkers:>8}{middle:>15.3g}{min(values):>10.3g}{max(values):>10.3g}", end="")
        print(f"{ours / middle:>7.1f}{setup[name]:>7.2f} s{energy.mean():>9.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
