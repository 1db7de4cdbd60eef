"""Speed of temperature-dependent potentials of water: CG steps and atomistic ones, our HIP-NN-TS and hippynn.

    OMP_NUM_THREADS=1 python benchmarks/thermal_potentials.py [--molecules 64 512] [--repeats 3] [--seconds 2]

Water at 997 kg/m3 and 300 K, one thread, everything per CPU second. Beads come from a short run of the atoms (SPC/E,
reaction field, cutoff 0.6 nm, OpenMM's CPU platform). Contenders take turns within each repeat; the table gives median
and range. Splines are fitted to forces of that run, so that their beads are a liquid. HIP-NN-TS has made-up weights, so
small that beads are an ideal gas, which costs it somewhat more. OpenMM's threads make twice as many steps a second on
one core: `taskset -c 1` for numbers that do not flatter the beads. From 512 molecules on, a further table has the cost
of a step for these beads and for eight boxes of them.
With hippynn (`pip install 'cg-assets[benchmark]'`) its network is given our weights, and energies and forces are
compared: they must agree to 1e-5.
"""

from __future__ import annotations

import os

# Idle threads of hippynn's kernels spin, in CPU time that all others pay.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.liquids.liquid import box_edge
from cg_assets.mapping.liquids.water import WATER_MODELS, Water
from cg_assets.potentials.base import Labels, Potential
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.potentials.thermal.pairs import neighbour_pairs
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

TEMPERATURE = 300.0
CUTOFF = 0.62
CG_TIMESTEP, ATOM_TIMESTEP = 0.008, 0.002
"""[ps]; rigid water is stable at 0.002 to 0.004, one-site water at 0.008."""
AGREEMENT = 1e-5
ATOMS = "atoms (OpenMM, CPU platform)"

FORM = {"form": "taylor_temperature", "origin": 450.0, "order": 2}
SPLINES = {"type": "spline", "pair_cutoff": CUTOFF, "pair_functions": 24}
TRIPLES = {"triple_cutoff": 0.45, "triple_functions": 5, "triple_degree": 4}
NETWORK = {
    "type": "tensor_network",
    "cutoff": CUTOFF,
    "soft_cutoff": 0.55,
    "features": 64,
    "sensitivities": 20,
    "layers": 3,
    "tensor_order": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "splines, pairs": SPLINES,
    "splines, pairs and triples": SPLINES | TRIPLES,
    "HIP-NN-TS, 64 features": NETWORK,
    "HIP-NN-TS, 24 features": NETWORK | {"features": 24, "sensitivities": 12, "layers": 1},
}


def atoms(molecules: int) -> tuple[Any, float, Water]:
    """A running OpenMM context of water after 4 ps, and the edge of its box."""
    import openmm

    edge = box_edge(WATER_MODELS["spce"].mass, molecules, 997.0)
    water = Water(WATER_MODELS["spce"], molecules, edge, 0.6)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, ATOM_TIMESTEP)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(water.free_system(), integrator, platform, {"Threads": "1"})
    context.setPositions(water.lattice(seed=1))
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(2000)
    return context, edge, water


class Liquid(NamedTuple):
    """Frames of beads `(f, n, 3)` and the forces on them, in a cubic box."""

    frames: np.ndarray
    forces: np.ndarray
    edge: float

    @property
    def start(self) -> np.ndarray:
        """The last frame."""
        return self.frames[-1]

    def eight(self) -> Liquid:
        """Eight boxes."""
        shifts = self.edge * np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 1, 3)
        count = len(self.frames)
        places = (shifts + self.frames[:, None]).reshape(count, -1, 3)
        return Liquid(places, np.tile(self.forces, (1, 8, 1)), 2 * self.edge)


def sampled(context: Any, water: Water, edge: float) -> Liquid:
    """The next frames of the atoms."""
    frames, forces = [], []
    for _ in range(max(8, 6400 // water.n_molecules)):
        context.getIntegrator().step(200)
        state = context.getState(positions=True, forces=True)
        frames.append(water.beads(state.getPositions(asNumpy=True)._value))
        forces.append(state.getForces(asNumpy=True)._value.reshape(water.n_molecules, -1, 3).sum(axis=1))
    return Liquid(np.array(frames, dtype=float), np.array(forces), edge)


def potential(config: dict[str, Any], liquid: Liquid) -> ThermalPotential:
    """A potential with statistics of frames; splines learn their forces, without the terms that depend on T."""
    beads, forces = torch.as_tensor(liquid.frames), torch.as_tensor(liquid.forces)
    config = config | {"bead_types": [0] * beads.shape[1], "temperature_dependence": FORM}
    module = build_potential(config, torch.Generator().manual_seed(0))
    box, kelvin = torch.full((len(beads), 3), liquid.edge), torch.full((len(beads),), TEMPERATURE, dtype=torch.float64)
    module.fit_statistics(beads, box[0], torch.tensor([50.0]))
    if config["type"] == "spline":
        constant = {"temperature_dependence": FORM | {"order": 0}}
        plain = build_potential(config | constant, torch.Generator().manual_seed(0))
        plain.fit_statistics(beads, box[0], torch.tensor([50.0]))
        unknown = {"first_order": forces, "second_order": forces, "mean_energy": kelvin}
        errors = {name: torch.full_like(values, torch.inf) for name, values in unknown.items()}
        labels = Labels(
            *(beads, forces, box, kelvin, torch.arange(len(beads))),
            values=unknown | {"forces": forces},
            errors=errors | {"forces": torch.zeros_like(forces)},
            emphasis={"forces": 1.0},
        )
        plain.solve(labels)
        module.coefficients[0] = plain.coefficients[0]
    else:
        module.readout.data.mul_(1e-6)
        module.prior[0] = 0.0  # nothing else would keep beads apart, and it is too steep for that at 8 fs
    return module


def cg_speed(module: ThermalPotential, liquid: Liquid, seconds: float) -> float:
    """CG steps per CPU second."""
    module.requires_grad_(False)

    def run(steps: int) -> float:
        time_of_run = steps * CG_TIMESTEP
        settings = CGSimulation(
            replicas=1, timestep=CG_TIMESTEP, friction=1.0, duration=time_of_run, frame_interval=time_of_run
        )
        started = time.process_time()
        thermal_energy, box, beads = BOLTZMANN * TEMPERATURE, np.full(3, liquid.edge), liquid.start
        masses = np.full(len(beads), 18.0)
        simulate(module, beads[None], masses, thermal_energy, settings, 0, temperature=TEMPERATURE, box=box)
        return steps / (time.process_time() - started)

    return run(max(5, int(seconds * run(5))))


def atom_speed(context: Any, seconds: float) -> float:
    """Atomistic steps per CPU second."""

    def run(steps: int) -> float:
        started = time.process_time()
        context.getIntegrator().step(steps)
        context.getState(getEnergy=True)
        return steps / (time.process_time() - started)

    return run(max(5, int(seconds * run(50))))


def hippynn_energies(module: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The energy heads of hippynn's HIP-NN-TS with our weights, as a function of positions and box."""
    from hippynn.layers.targets import HEnergy
    from hippynn.networks.hipnn import HipnnQuad

    features, count, layers = module.readout.shape[1], len(module.centers), len(module.inner)
    network = HipnnQuad(
        features, count, 0.25, 0.5, module.cutoff, layers, 1, n_input_features=module.n_kinds, cusp_reg=1e-6
    )
    head = HEnergy(network.feature_sizes, n_target=module.n_terms)
    block = network.blocks[0]
    interaction = block[0].base_layer
    pairs = {
        interaction.sensitivity.mu: module.centers[None],
        interaction.sensitivity.sigma: module.widths[None],
        interaction.int_weights: module.interaction.reshape(features, count, -1).permute(1, 0, 2),
        interaction.selfint.weight: module.own,
        interaction.selfint.bias: module.bias,
        interaction.vecscales: module.tensor_scales[0],
        interaction.quadscales: module.tensor_scales[1],
        block[0].res_layer.weight: module.first,
        block[0].res_layer.bias: module.first_bias,
        block[0].adjust_layer.weight: module.adjust,
        head.layers[0].weight: module.type_energies,
        head.layers[1].weight: module.readout,
    }
    for layer in range(layers):
        pairs |= {
            block[1 + layer].base_layer.weight: module.inner[layer],
            block[1 + layer].base_layer.bias: module.inner_biases[layer],
            block[1 + layer].res_layer.weight: module.outer[layer],
            block[1 + layer].res_layer.bias: module.outer_biases[layer],
        }
    with torch.no_grad():
        for theirs, ours in pairs.items():
            theirs.copy_(ours)
        head.layers[1].bias.zero_()
    network.to(module.centers), head.to(module.centers)

    def energies(positions: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        near = neighbour_pairs(positions, box, module.cutoff).both_ways()
        one_hot = torch.ones(positions.shape[0] * positions.shape[1], 1).to(positions)
        hidden = network(one_hot, near.first, near.second, near.distance, near.difference)
        frame = torch.arange(len(positions)).repeat_interleave(positions.shape[1])
        return module.energy_scale * head(hidden, frame, len(positions))[0]

    energies.weights = [*network.parameters(), *head.parameters()]  # type: ignore[attr-defined]
    return energies


def training_speed(
    energies: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], weights: list, liquid: Liquid
) -> Callable[[float], float]:
    """Frames per CPU second of one Adam step on forces of all orders, batches of 4."""
    optimizer = torch.optim.Adam([weight.requires_grad_(True) for weight in weights], 1e-6)
    positions = torch.as_tensor(liquid.start, dtype=torch.float32)[None].repeat(4, 1, 1)
    box, labels = torch.full((3,), liquid.edge), torch.zeros_like(positions)

    def run(seconds: float) -> float:
        started, steps = time.process_time(), 0
        while time.process_time() - started < seconds or not steps:
            points = positions.clone().requires_grad_(True)
            terms = energies(points, box)
            loss = points.new_zeros(())
            for term in range(terms.shape[1]):
                (gradient,) = torch.autograd.grad(terms[:, term].sum(), points, create_graph=True)
                loss = loss + (gradient - labels).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 4
        return steps / (time.process_time() - started)

    run(0.0)
    return run


def check_agreement(liquid: Liquid) -> float:
    """Largest difference of our energies and forces from hippynn's, relative to their size, in double precision."""
    module = potential(NETWORK, liquid).double().requires_grad_(False)
    module.prior.zero_()
    positions, box = torch.as_tensor(liquid.start)[None], torch.full((3,), liquid.edge).double()
    found = []
    for energies in (module.terms, hippynn_energies(module)):
        points = positions.clone().requires_grad_(True)
        terms = energies(points, box)
        forces = [torch.autograd.grad(term, points, retain_graph=True)[0] for term in terms[0]]
        found.append((terms.detach(), torch.stack(forces)))
    parts = zip(*found, strict=True)
    worst = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in parts)
    if not worst < AGREEMENT:
        raise SystemExit(f"our HIP-NN-TS differs from hippynn's by {worst:.2g}, more than {AGREEMENT:g}")
    return worst


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def compare_steps(context: Any, liquid: Liquid, repeats: int, seconds: float) -> None:
    """Print the table of steps."""
    contenders: dict[str, tuple[Callable[[], float], float]] = {
        ATOMS: (partial(atom_speed, context, seconds), ATOM_TIMESTEP)
    }
    for name, config in CONFIGS.items():
        module = potential(config, liquid)
        contenders[name] = (partial(cg_speed, module, liquid, seconds), CG_TIMESTEP)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, (speed, _) in contenders.items():
            speeds[name].append(speed())
    atom_day = statistics.median(speeds[ATOMS]) * ATOM_TIMESTEP * 86.4
    print(
        f"\n| {len(liquid.start)} molecules | steps per CPU second | time step [fs] | ns per CPU day | to the atoms |"
    )
    print("|---|---|---|---|---|")
    for name, (_, timestep) in contenders.items():
        day = statistics.median(speeds[name]) * timestep * 86.4
        row = (name, shown(speeds[name]), f"{1000 * timestep:g}", f"{day:,.1f}", f"{day / atom_day:.1f}")
        print("| " + " | ".join(row) + " |", flush=True)


def compare_sizes(liquid: Liquid, repeats: int, seconds: float) -> None:
    """Print the cost of a step of these beads and of eight boxes of them."""
    sizes = liquid, liquid.eight()
    print(
        f"\n| CPU milliseconds of a step | {len(liquid.start)} beads | {8 * len(liquid.start)} beads | ratio |\n"
        "|---|---|---|---|"
    )
    for name, config in CONFIGS.items():
        modules = [potential(config, size) for size in sizes]
        found = [
            [1000.0 / cg_speed(module, size, seconds) for module, size in zip(modules, sizes, strict=True)]
            for _ in range(repeats)
        ]
        ratios = [large / small for small, large in found]
        cells = [f"{statistics.median(column):.3g}" for column in zip(*found, strict=True)]
        print(
            f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |"
        )


def compare_with_hippynn(liquid: Liquid, repeats: int, seconds: float) -> None:
    """Print how far hippynn's numbers are from ours, and both speeds of training and of CG steps."""
    print(f"\nlargest relative difference of energies and forces: {check_agreement(liquid):.1e}", flush=True)
    warnings.filterwarnings("ignore", message="Provided distances are underneath")  # repeated at every step
    ours, peer = (potential(NETWORK, liquid) for _ in range(2))
    theirs = hippynn_energies(ours)
    peer.terms = theirs  # type: ignore[method-assign]
    peer.engine = partial(Potential.engine, peer)  # type: ignore[method-assign]
    runs = {
        "ours": (
            training_speed(ours.terms, list(ours.parameters()), liquid),
            partial(cg_speed, potential(NETWORK, liquid), liquid),
        ),
        "hippynn": (
            training_speed(theirs, theirs.weights, liquid),  # type: ignore[attr-defined]
            partial(cg_speed, peer, liquid),
        ),
    }
    speeds: dict[str, list[list[float]]] = {name: [[], []] for name in runs}
    for _ in range(repeats):
        for name, contest in runs.items():
            for kind, run in enumerate(contest):
                speeds[name][kind].append(run(seconds))
    print(f"\n| HIP-NN-TS, 64 features, {len(liquid.start)} molecules | training frames | CG steps (per CPU second) |")
    print("|---|---|---|")
    for name, kinds in speeds.items():
        columns = [f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})" for values in kinds]
        print(f"| {name} | {columns[0]} | {columns[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    peer = importlib.util.find_spec("hippynn") is not None
    if not peer:
        print("hippynn is not installed: pip install 'cg-assets[benchmark]'")
    for molecules in given.molecules:
        context, edge, water = atoms(molecules)
        liquid = sampled(context, water, edge)
        compare_steps(context, liquid, given.repeats, given.seconds)
        if molecules >= 512:
            compare_sizes(liquid, given.repeats, given.seconds)
        if peer:
            compare_with_hippynn(liquid, given.repeats, given.seconds)


if __name__ == "__main__":
    main()
