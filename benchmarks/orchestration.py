"""What Dagster and MLflow add to the science of the demo: its wall time against the same work in plain Python.

The plain run calls the same science functions for the same systems in two processes, one potential of a system at a
time in each. It keeps frames in memory: files, figures, records and the registry count as orchestration.
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

from cg_assets.demo import DEMO_SYSTEMS


def science(name: str, potential: str) -> float:
    """From sampling to evaluation of one potential; gives the seconds that it took."""
    from cg_assets.analysis.evaluation import evaluate
    from cg_assets.analysis.labels import check_equilibration, measure_label_noise
    from cg_assets.analysis.reference import compute_reference
    from cg_assets.frames import Frames
    from cg_assets.mapping.run import fit_force_map, map_frames
    from cg_assets.potentials.energies import energy_function
    from cg_assets.sampling.build import build_sampler
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.systems import load_system, seed_of
    from cg_assets.training.loop import train
    from cg_assets.training.setup import network_config, training_data

    started = time.monotonic()
    system = load_system(name)
    stage, plan = ("trajectories", system.sampling.unbiased)
    if system.potentials[potential].labels == "relabelled_forces":
        stage, plan = ("biased_samples", system.sampling.biased)
    seed = seed_of(name, stage, "0000")
    sampler = build_sampler(system, plan, seed)
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    samples = Frames.concatenate([chunk for chunk in chunks if chunk is not None])
    bias = sampler.summary()["bias"]
    if plan.bias is not None:
        check_equilibration(system, plan, samples)
    samples = samples.select(~samples.probe)
    force_map = fit_force_map(system, samples)
    frames = map_frames(system, samples, force_map)
    measure_label_noise(system, samples, frames, force_map, seed)
    data = training_data(system, [frames], system.potentials[potential].frames)
    module = train(network_config(system), system.training, data, system.training.seed).module
    simulated = run_cg_simulation(system, module, frames, bias)
    with tempfile.TemporaryDirectory() as scratch:
        reference = compute_reference(system, seed, Path(scratch))
    evaluate(system, energy_function(module), reference, simulated.frames, simulated.summary(), frames)
    return time.monotonic() - started


def main() -> None:
    """Run both and print the table."""
    started = time.monotonic()
    jobs = [(name, potential) for name in DEMO_SYSTEMS for potential in ("unbiased", "biased")]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        seconds = list(pool.map(science, *zip(*jobs, strict=True)))
    plain = time.monotonic() - started
    for (name, potential), one in zip(jobs, seconds, strict=True):
        print(f"{name + '.' + potential:40} {one:7.1f} s")
    with tempfile.TemporaryDirectory() as home:
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "cg_assets.cli", "--home", home, "demo"], check=True, capture_output=True)
        demo = time.monotonic() - started
    print(f"plain Python {plain:.0f} s, demo {demo:.0f} s, orchestration {(demo - plain) / demo:.0%} of the demo")


if __name__ == "__main__":
    main()
