"""PMF error of capped alanine in implicit solvent against atomistic time: unbiased, metadynamics, uniform and adaptive.

The PMF is that of the force labels alone (`cg_assets.evaluation.torque_surface`), so that no network and no CG
simulation enters: python benchmarks/sampling_plans.py [seeds]
"""

from __future__ import annotations

import math
import sys

import numpy as np

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.metrics import jensen_shannon_divergence, squared_log_error
from cg_assets.evaluation.long_runs import read_reference
from cg_assets.evaluation.torque_surface import torque_surface
from cg_assets.labels.next_batch import concrete_plan, propose
from cg_assets.mapping.run import fit_force_map, map_frames
from cg_assets.sampling.molecule.starts import preparation_time
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems import load_system

SYSTEM = load_system("capped_alanine_implicit")
BATCHES = 3
WINDOWS = {
    "bias": {
        "type": "adaptive",
        "collective_variables": ["phi", "psi"],
        "windows": 24,
        "candidates": 16,
        "highest": 10.0,
        "force_constant": 30.0,
    },
    "replicas": 48,
    "burn_in": 4.0,
    "duration": 10.0,
}
"""A batch of windows: 48 x 14 ps and the way there."""


def plan(**changes) -> SamplingPlan:
    return SamplingPlan.model_validate(SYSTEM.sampling.biased.model_dump(mode="json") | changes)


def sample(settings: SamplingPlan, seed: int) -> Frames:
    """Labelled CG frames of a plan."""
    sampler = SYSTEM.sampler(settings, seed)
    parts = []
    while True:
        try:
            frames = sampler.next_chunk()
        except StopIteration:
            break
        if frames is not None:
            parts.append(frames)
    frames = Frames.concatenate(parts)
    beads = SYSTEM.beads()
    return map_frames(beads, frames, fit_force_map(SYSTEM.mapping, beads, frames))


def judged(name: str, seed: int, batches: list[Frames], time: float) -> None:
    """Print the errors of the surface from all batches so far."""
    reference = read_reference(SYSTEM.reference_case())
    bins = Bins(tuple(reference.edges))
    known = reference.probability.mean(axis=0)
    surface = torque_surface(SYSTEM.beads(), SYSTEM.evaluation.collective_variables, batches, bins)
    basin = SYSTEM.evaluation.basins["phi_positive"].limits
    inside = bins.centres[0] > 0
    exact = -SYSTEM.thermal_energy * math.log(known[inside].sum() / known[~inside].sum())
    error = surface.estimate(lambda p: squared_log_error(p, known))
    divergence = surface.estimate(lambda p: jensen_shannon_divergence(p, known))
    print(
        f"| {name} | {seed} | {time / 1000:.2f} | {error} | {divergence} | {surface.basin_free_energy(basin)} "
        f"({exact:.2f}) |",
        flush=True,
    )


def windows(name: str, adaptive: bool, seed: int) -> None:
    """Batches of umbrella windows, spread evenly or placed where the mean force is known worst."""
    wanted, batches, time = plan(**WINDOWS), [], 0.0
    for batch in range(BATCHES):
        centers = (
            propose(SYSTEM.beads(), wanted, wanted.bias.adaptive, batches).points() if adaptive and batches else None
        )
        concrete = concrete_plan(SYSTEM.beads(), wanted, centers)
        batches.append(sample(concrete, 1000 * seed + batch))
        time += concrete.total_time + preparation_time(concrete)
        judged(name, seed, batches, time)


def stretches(name: str, settings: SamplingPlan, seed: int, fractions: list[float]) -> None:
    """The first parts of one long batch."""
    frames = sample(settings, 1000 * seed)
    for fraction in fractions:
        kept = fraction * settings.duration
        time = settings.total_time - settings.replicas * (settings.duration - kept) + preparation_time(settings)
        judged(name, seed, [frames.select(frames.time <= kept * (1 + 1e-9))], time)


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print("| plan | seed | ns | PMF error | JSD | free energy of phi > 0 [kJ/mol] (reference) |")
    print("|---" * 6 + "|")
    for seed in seeds:
        stretches("metadynamics", SYSTEM.sampling.biased, seed, [0.1, 0.3, 1.0])
        windows("uniform windows", False, seed)
        windows("adaptive windows", True, seed)
    long = SYSTEM.sampling.unbiased.model_dump(mode="json") | {"duration": 6200.0, "frame_interval": 0.1}
    for seed in seeds:
        stretches("unbiased", SamplingPlan.model_validate(long), seed, list(np.array([0.625, 6.2, 25.0]) / 25.0))


if __name__ == "__main__":
    main()
