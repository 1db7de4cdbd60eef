"""What Dagster and MLflow add to the science of the demo: its wall time against the same work in plain Python.

The plain run calls the same science functions for the same systems in two processes, one for each potential of a
system. It keeps frames in memory: files, figures, records and the registry count as orchestration.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cg_assets.demo import DEMO_SYSTEMS

STAGES = {"unbiased": "trajectories", "biased": "biased_samples"}


def sample(name: str, plan_name: str) -> tuple[Any, Any]:
    """Frames of a plan, judged, and the frozen bias that they were made under."""
    from cg_assets.analysis.labels import check_equilibration
    from cg_assets.frames import Frames
    from cg_assets.sampling.build import build_sampler
    from cg_assets.systems import load_system, seed_of

    system = load_system(name)
    plan = getattr(system.sampling, plan_name)
    sampler = build_sampler(system, plan, seed_of(name, STAGES[plan_name], "0000"))
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    frames = Frames.concatenate([chunk for chunk in chunks if chunk is not None])
    if plan.bias is not None:
        check_equilibration(system, plan, frames)
    return frames, sampler.summary()["bias"]


def learn(name: str, plan_name: str, samples: Any, bias: Any) -> None:
    """From samples to the evaluation of their potential."""
    from cg_assets.analysis.evaluation import evaluate
    from cg_assets.analysis.labels import measure_label_noise
    from cg_assets.analysis.reference import compute_reference
    from cg_assets.mapping.run import fit_force_map, map_frames
    from cg_assets.potentials.energies import energy_function
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.systems import load_system, seed_of
    from cg_assets.training.loop import train
    from cg_assets.training.setup import network_config, training_data

    system = load_system(name)
    seed = seed_of(name, STAGES[plan_name], "0000")
    samples = samples.select(~samples.probe)
    force_map = fit_force_map(system, samples)
    frames = map_frames(system, samples, force_map)
    measure_label_noise(system, samples, frames, force_map, seed)
    data = training_data(system, [frames], system.potentials[plan_name].frames)
    module = train(network_config(system), system.training, data, system.training.seed).module
    enhanced = bias if system.cg_simulation.enhanced_duration else None
    simulated = run_cg_simulation(system, module, frames, enhanced)
    with tempfile.TemporaryDirectory() as scratch:
        reference = compute_reference(system, seed, Path(scratch))
    evaluate(system, energy_function(module), reference, simulated.frames, simulated.summary(), frames)


def main() -> None:
    """Run both and print the comparison."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        started = time.monotonic()
        for name in DEMO_SYSTEMS:
            unbiased, biased = pool.map(sample, [name] * 2, STAGES)
            list(pool.map(learn, [name] * 2, STAGES, (unbiased[0], biased[0]), [biased[1]] * 2))
            print(f"plain Python, up to {name}: {time.monotonic() - started:.0f} s", flush=True)
        plain = time.monotonic() - started
    with tempfile.TemporaryDirectory() as home:
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "cg_assets.cli", "--home", home, "demo"], check=True, capture_output=True)
        demo = time.monotonic() - started
    print(f"plain Python {plain:.0f} s, demo {demo:.0f} s, orchestration {(demo - plain) / demo:.0%} of the demo")


if __name__ == "__main__":
    main()
