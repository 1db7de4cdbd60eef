"""Speed of this project on a machine with a GPU, against the libraries that it stands on used bare.

    python benchmarks/gpu.py [--device cuda] [--minutes 6] [--seconds 8] [--tiny]

It needs torch with CUDA and, for the sampling, OpenMM with its CUDA platform; nothing is downloaded. Every measurement
is of wall time on the device, that of this project and that of the bare library in turn:

- sampling: a batch of capped alanine in implicit and in explicit solvent, with its frames; the same System stepped by
  OpenMM alone;
- training: epochs of a message-passing network; a plain loop of torch with Adam on the same network and batches;
- CG steps of every potential: `simulate`; a plain loop of torch with the same splitting and the same energy, forces by
  automatic differentiation.

What the minutes no longer suffice for is named. `--tiny` shows on any machine that the script runs from end to end.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_assets.core.errors import DeviceError
from cg_assets.core.settings import Training
from cg_assets.potentials.base import Potential
from cg_assets.potentials.settings import build_potential
from cg_assets.sampling.molecule.platforms import choose_platform
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems import load_system
from cg_assets.training.data import TrainingData
from cg_assets.training.train import train

THERMAL_ENERGY, TEMPERATURE, TIMESTEP = 2.494, 300.0, 1e-6
"""These networks are untrained: beads may not move far [ps]."""

FORM = {"form": "taylor_temperature", "origin": 300.0, "order": 2}
TENSORS = {"cutoff": 0.62, "soft_cutoff": 0.55, "features": 64, "sensitivities": 20, "layers": 3, "tensor_order": 2}
CHAIN = {"type": "message_passing", "interactions": 2, "basis_functions": 4, "cutoff": None, "features": 32}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        seconds: of one measurement.
        device: of torch.
        replicas: of molecules and of model potentials.
        molecules: of CG water.
        frames: of training.
        repeats: of each pair of measurements.
        solvents: systems that are sampled.
    """

    seconds: float
    device: str
    replicas: int
    molecules: int
    frames: int
    repeats: int
    solvents: tuple[str, ...]


Pair = tuple[str, str, Callable[[], float], Callable[[], float]]
"""What is measured, its unit, the rate of this project, and that of the bare library."""


def clocked(run: Callable[[int], None], seconds: float, device: str, first: int = 4) -> float:
    """Rate of a function of a number of steps [1/s]; the number grows until the time suffices."""
    run(first)  # compiles, where anything is compiled
    count = first
    while True:
        begin = time.perf_counter()
        run(count)
        if device == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begin
        if took >= 0.5 * seconds or count >= 10_000_000:
            return count / took
        count = min(10 * count, math.ceil(count * seconds / max(took, 1e-6)))


# ----------------------------------------------------------------------------------- sampling


def samplings(sizes: Sizes) -> Iterator[Pair]:
    """Atomistic steps of batches of shipped systems."""
    import openmm

    for name in sizes.solvents:
        system = load_system(name)
        structure = system.structure()
        plan = system.sampling.unbiased or system.sampling.biased
        platform, properties = choose_platform(structure.system.getNumParticles(), structure.box is not None)

        def ours(system: Any = system, plan: Any = plan) -> float:
            count, taken, took = 20, 0, 0.0
            while took < 0.5 * sizes.seconds:
                taken, took = sampled(system, plan, count)
                count = min(10 * count, math.ceil(count * sizes.seconds / max(took, 1e-6)))
            return taken / took

        def bare(
            structure: Any = structure, plan: Any = plan, platform: str = platform, properties: Any = properties
        ) -> float:
            integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, plan.friction, plan.timestep)
            own = openmm.Platform.getPlatformByName(platform)
            context = openmm.Context(structure.system, integrator, own, properties)
            context.setPositions(structure.positions)
            openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)

            def run(steps: int) -> None:
                integrator.step(steps)
                context.getState(energy=True)

            return clocked(run, sizes.seconds, "cpu", 50)

        yield f"sampling {name}, OpenMM {platform}", "steps", ours, bare


def sampled(system: Any, plan: Any, frames: int) -> tuple[int, float]:
    """Steps of all replicas for so many frames of each, and their seconds; a burn-in before starts the engines."""
    times = {"burn_in": 10 * plan.frame_interval, "duration": frames * plan.frame_interval}
    sampler = system.sampler(plan.model_copy(update={"bias": None} | times), 0)
    sampler.next_chunk()
    begin, taken = time.perf_counter(), 0
    for _ in range(1, sampler.n_chunks):
        found = sampler.next_chunk()
        taken += 0 if found is None else len(found)
    took = time.perf_counter() - begin
    sampler.close()
    return taken * round(plan.frame_interval / plan.timestep), took


# ----------------------------------------------------------------------------------- training


def chain(count: int, beads: int = 10) -> np.ndarray:
    """Jittered frames `(count, n, 3)` of a helix of beads 0.38 nm apart [nm]."""
    turn = np.arange(beads) * 1.75
    helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(beads)], axis=1)
    return (helix + 0.01 * np.random.default_rng(0).standard_normal((count, beads, 3))).astype(np.float32)


def trainings(sizes: Sizes) -> Iterator[Pair]:
    """Frames of a message-passing network in training."""
    config: Any = CHAIN | {"bead_types": list(range(10)), "thermal_energy": THERMAL_ENERGY}
    positions = chain(sizes.frames)
    forces = -THERMAL_ENERGY / 0.01**2 * (positions - positions.mean(axis=0))  # of harmonic beads
    data = TrainingData(positions, forces, np.arange(len(positions)))

    def ours(epochs: int) -> None:
        settings = Training(epochs=epochs, batch_size=256, learning_rate=1e-4)
        train(config, settings, data, 0, sizes.device)

    def bare(epochs: int) -> None:
        network = build_potential(config)
        network.fit_statistics(torch.as_tensor(positions))
        network.to(sizes.device)
        optimizer = torch.optim.Adam(network.parameters(), 1e-4)
        points, labels = (torch.as_tensor(array).to(sizes.device) for array in (positions, forces))
        for _ in range(epochs):
            for rows in torch.randperm(len(points), device=sizes.device).split(256):
                loss = (network.evaluate(points[rows])[1] - labels[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def rate(run: Callable[[int], None]) -> Callable[[], float]:
        return lambda: sizes.frames * clocked(run, sizes.seconds, sizes.device, 1)

    yield "training message_passing, 10 beads", "frames", rate(ours), rate(bare)


# ----------------------------------------------------------------------------------- CG steps


def potentials(sizes: Sizes) -> Iterator[tuple[str, Potential, np.ndarray, float | None, np.ndarray | None]]:
    """Every kind of potential with starts `(r, n, d)` and its temperature and box, where it has any."""
    replicas, molecules = sizes.replicas, sizes.molecules
    uniform = np.random.default_rng(2).uniform(-3, 3, (replicas, 2, 1)).astype(np.float32)
    unlike = {"bead_types": list(range(10)), "thermal_energy": THERMAL_ENERGY}
    models: dict[str, dict[str, Any]] = {
        "radial_basis": {"range": [-4, 4], "basis_functions": 24, "basis_width": 0.4, "hidden": [32]},
        "spline_surface": {"range": {"x": [-4, 4], "y": [-4, 4]}, "spacing": 0.5},
        "thermal_curve": {"range": [-4, 4], "spacing": 0.5, "temperature_dependence": FORM},
    }
    for kind, config in models.items():
        starts = uniform if kind == "spline_surface" else uniform[:, :1]
        yield kind, *_built({"type": kind, "thermal_energy": THERMAL_ENERGY} | config, starts, None)
    yield "message_passing, 10 beads", *_built(CHAIN | unlike, chain(replicas), None)
    thermal = CHAIN | unlike | {"temperature_dependence": FORM}
    yield "message_passing of all temperatures, 10 beads", *_built(thermal, chain(replicas), None)
    edge = (molecules * 0.02992) ** (1 / 3)
    side = math.ceil(molecules ** (1 / 3))
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:molecules] * edge / side
    water = (lattice + 0.01 * np.random.default_rng(3).standard_normal(lattice.shape))[None].astype(np.float32)
    common = {"bead_types": [0] * molecules, "periodic": True, "temperature_dependence": FORM}
    splines = {"type": "spline", "pair_cutoff": 0.62, "pair_functions": 24}
    for name, config in (
        ("spline, pairs", splines),
        ("spline, triples", splines | {"triple_cutoff": 0.45, "triple_functions": 5, "triple_degree": 4}),
        ("tensor_network", {"type": "tensor_network"} | TENSORS),
    ):
        yield f"{name}, {molecules} beads", *_built(common | config, water, np.full(3, edge))


def _built(
    config: dict[str, Any], starts: np.ndarray, box: np.ndarray | None
) -> tuple[Potential, np.ndarray, float | None, np.ndarray | None]:
    own: Any = config
    potential = build_potential(own, torch.Generator().manual_seed(0))
    edges = None if box is None else torch.tensor(box)
    potential.fit_statistics(torch.as_tensor(starts), edges, torch.tensor([50.0]))
    temperature = TEMPERATURE if "temperature" in potential.conditions else None
    return potential.requires_grad_(False), starts, temperature, box


def simulations(sizes: Sizes) -> Iterator[Pair]:
    """CG steps of all replicas, of every potential."""
    for name, potential, starts, temperature, box in potentials(sizes):
        masses, replicas = np.full(starts.shape[1], 18.0), len(starts)

        def ours(steps: int, case: Any = (potential, starts, masses, temperature, box)) -> None:
            one, begin, weights, kelvin, edges = case
            settings = CGSimulation(
                **{"replicas": len(begin), "timestep": TIMESTEP, "friction": 1.0},
                **{"duration": steps * TIMESTEP, "frame_interval": steps * TIMESTEP},
            )
            simulate(
                one, begin, weights, THERMAL_ENERGY, settings, 0, device=sizes.device, temperature=kelvin, box=edges
            )

        def bare(steps: int, case: Any = (potential, starts, masses, temperature, box)) -> None:
            plain_dynamics(*case, sizes.device, steps)

        def rate(run: Callable[[int], None], replicas: int = replicas) -> Callable[[], float]:
            return lambda: replicas * clocked(run, sizes.seconds, sizes.device)

        yield f"CG steps, {name}, {replicas} replicas", "replica-steps", rate(ours), rate(bare)


def plain_dynamics(
    potential: Potential,
    starts: np.ndarray,
    masses: np.ndarray,
    temperature: float | None,
    box: np.ndarray | None,
    device: str,
    steps: int,
) -> None:
    """BAOAB as one would write it with torch alone."""
    potential.to(device)
    dtype = next(value.dtype for value in potential.state_dict().values() if value.is_floating_point())
    positions = torch.as_tensor(starts, dtype=dtype, device=device)
    edges = None if box is None else torch.as_tensor(box, dtype=dtype, device=device)
    weights = torch.as_tensor(masses, dtype=dtype, device=device)[:, None]
    velocities = (THERMAL_ENERGY / weights).sqrt() * torch.randn_like(positions)
    keep = math.exp(-TIMESTEP)
    spread = (THERMAL_ENERGY / weights).sqrt() * math.sqrt(1 - keep * keep)

    def forces() -> Tensor:
        points = positions.detach().requires_grad_(True)
        return -torch.autograd.grad(potential.energy(points, temperature, edges).sum(), points)[0]

    pull = forces()
    for _ in range(steps):
        velocities = velocities + 0.5 * TIMESTEP * pull / weights
        positions = positions + 0.5 * TIMESTEP * velocities
        velocities = keep * velocities + spread * torch.randn_like(velocities)
        positions = positions + 0.5 * TIMESTEP * velocities
        pull = forces()
        velocities = velocities + 0.5 * TIMESTEP * pull / weights


# ----------------------------------------------------------------------------------- table


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which nothing more is begun")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--tiny", action="store_true", help="a few steps of small systems")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("torch finds no GPU; install a CUDA build of torch, or give --device cpu")
    solvents = ("capped_alanine_implicit", "capped_alanine_water")
    sizes = Sizes(chosen.seconds, chosen.device, 4096, 512, 20_000, 3, solvents)
    if chosen.tiny:
        sizes = Sizes(0.02, chosen.device, 3, 64, 3000, 1, solvents[:1])
    what = torch.cuda.get_device_name() if chosen.device == "cuda" else "CPU"
    print(f"torch {torch.__version__} on {what}, medians of {sizes.repeats}\n")
    print("| measurement | unit | ours/s | bare/s | ratio (range) |\n|---|---|---|---|---|")
    end = time.monotonic() + 60 * chosen.minutes
    for measure in (simulations, trainings, samplings):
        try:
            for name, unit, ours, bare in measure(sizes):
                print(f"| {name} | {unit} | {row(ours, bare, sizes.repeats, end)} |", flush=True)
        except ImportError as error:
            print(f"| {measure.__name__} | | not measured: {error} | | |", flush=True)


def row(ours: Callable[[], float], bare: Callable[[], float], repeats: int, end: float) -> str:
    """Cells of one measurement."""
    pairs = []
    for _ in range(repeats):
        if time.monotonic() > end:
            break
        pairs.append((ours(), bare()))
    if not pairs:
        return "not measured: no time left | | "
    ratios = [mine / theirs for mine, theirs in pairs]
    mine, theirs = np.median(pairs, axis=0)
    return f"{mine:,.0f} | {theirs:,.0f} | {np.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
