"""What Dagster and MLflow add to the science of the demo: its wall time against the same work in plain Python.

The plain run calls the same science functions for the same systems in two processes, one for each potential of a
system. It is timed twice: keeping everything in memory, and leaving the same Parquet files and figures behind, as a
script would, to be of use afterwards. Processes, records, checks, catalogue, tracking and registry are
orchestration in both.

With `batches` it is the time of 1, 10 and 100 batches of trajectories and their mapped forces of `muller_brown`, each
batch a `cg-assets run` of its own, against one process of plain Python that leaves the same files and figures behind.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cg_assets.operations.demo import DEMOS

STAGES = {"unbiased": "trajectories", "biased": "biased_samples"}
FIRST = "0000"


def write(folder: Path | None, system: Any, stage: str, frames: Any, *figures: bytes, batch: str = FIRST) -> None:
    """Leave frames and figures behind, unless the run keeps everything in memory."""
    if folder is None:
        return
    from cg_assets.storage.parquet import write_frames
    from cg_assets.storage.schemas import FileMetadata

    place = folder / system.name / batch
    place.mkdir(parents=True, exist_ok=True)
    if frames is not None:
        metadata = FileMetadata(system.name, stage, system.units, variable_units=system.variable_units)
        write_frames(place / f"{stage}.parquet", [frames], metadata, batch)
    for number, figure in enumerate(figures):
        (place / f"{stage}_{number}.png").write_bytes(figure)


def sample(name: str, plan_name: str, folder: Path | None, batch: str = FIRST) -> tuple[Any, Any]:
    """Frames of a plan, judged, and the frozen bias that they were made under."""
    from cg_assets.core.frames import Frames
    from cg_assets.figures.samples import equilibration_figure, sampling_figure
    from cg_assets.labels.quality import check_equilibration, compares_windows
    from cg_assets.systems import load_system, seed_of

    system = load_system(name)
    plan = getattr(system.sampling, plan_name)
    sampler = system.sampler(plan, seed_of(name, STAGES[plan_name], batch))
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    frames = Frames.concatenate([chunk for chunk in chunks if chunk is not None])
    drawn = [sampling_figure(system.beads(), frames, plan_name)] if folder else []
    if plan.bias is not None:
        equilibration = check_equilibration(system.beads(), system.mapping, plan, frames)
        drawn += [equilibration_figure(system.beads(), equilibration, compares_windows(plan))] if folder else []
    write(folder, system, STAGES[plan_name], frames, *drawn, batch=batch)
    return frames, sampler.summary().bias


def label(name: str, plan_name: str, samples: Any, folder: Path | None, batch: str = FIRST) -> tuple[Any, Any]:
    """CG frames with their force labels, and the noise of these."""
    from cg_assets.figures.labels import label_noise_figure
    from cg_assets.labels.quality import measure_label_noise
    from cg_assets.mapping.run import fit_force_map, map_frames
    from cg_assets.systems import load_system, seed_of

    system = load_system(name)
    samples = samples.select(~samples.probe)
    beads, seed = system.beads(), seed_of(name, STAGES[plan_name], batch)
    force_map = fit_force_map(system.mapping, beads, samples)
    frames = map_frames(beads, samples, force_map)
    noise = measure_label_noise(
        *(beads, system.mapping, samples, frames, force_map),
        lambda force_maps: system.repeated_labels(samples, frames, force_maps, seed),
    )
    drawn = [label_noise_figure(beads, noise)] if folder else []
    write(folder, system, f"forces_{plan_name}", frames, *drawn, batch=batch)
    return frames, noise


def learn(name: str, plan_name: str, samples: Any, bias: Any, folder: Path | None) -> None:
    """From samples to the evaluation of their potential."""
    from cg_assets.assets.evaluations import judge
    from cg_assets.figures.evaluation import evaluation_figures
    from cg_assets.figures.simulation import cg_simulation_figure
    from cg_assets.figures.training import training_plot
    from cg_assets.potentials.model_format import save_potential
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.systems import load_system, seed_of
    from cg_assets.training.setup import potential_config, training_data
    from cg_assets.training.train import train

    system = load_system(name)
    frames, noise = label(name, plan_name, samples, folder)
    seed, number = system.fit.seed, system.potentials[plan_name].frames
    data = training_data(system.network, [frames], number, seed, noise.floor.value)
    config = potential_config(system.network, system.beads())
    result = train(config, system.fit, data, seed)
    if folder:
        write(folder, system, plan_name, None, training_plot(result.history, noise.floor))
        save_potential(folder / system.name / FIRST / f"potential_{plan_name}", result.module, config)
    enhanced = bias if system.cg_simulation.enhanced_duration else None
    simulated = run_cg_simulation(result.module, system.beads(), system.cg_simulation, frames, bias=enhanced)
    if folder:
        picture = cg_simulation_figure(system.beads(), simulated, "biased")
        write(folder, system, f"cg_simulation_{plan_name}", simulated.frames, picture)
    with tempfile.TemporaryDirectory() as scratch:
        seed = seed_of(name, STAGES[plan_name], FIRST)
        reference = system.compute_reference(seed, Path(scratch))
    judged = judge(system, result.module, reference, simulated.frames, simulated.runs, frames)
    if folder:
        pictures = evaluation_figures(plan_name, judged, system.title)
        write(folder, system, f"evaluation_{plan_name}", None, *pictures.values())


def plain(folder: Path | None) -> float:
    """Wall time of the plain run [s]."""
    started = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in DEMOS["biased"]:
            unbiased, biased = pool.map(sample, [name] * 2, STAGES, [folder] * 2)
            list(pool.map(learn, [name] * 2, STAGES, (unbiased[0], biased[0]), [biased[1]] * 2, [folder] * 2))
            print(f"  up to {name}: {time.monotonic() - started:.0f} s", flush=True)
    return time.monotonic() - started


def plain_batches(count: int, folder: Path) -> None:
    """The plain run of some batches, in a process of its own."""
    for number in range(count):
        batch = f"{number:04d}"
        frames, _ = sample("muller_brown", "unbiased", folder, batch)
        label("muller_brown", "unbiased", frames, folder, batch)


def wall(work: Callable[[], object]) -> float:
    """Time that some work takes [s]."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def batches() -> None:
    """Run some batches both ways and print a row of the table for each number."""
    print("| batches | cg-assets [s] | plain Python [s] | added to each batch [s] |")
    print("|---|---|---|---|")
    for count in (1, 10, 100):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "cg_assets.cli", "--home", folder, "run", "muller_brown"]

            def orchestrated(count: int = count, command: list[str] = command) -> None:
                for number in range(count):
                    stages = ("--batch", f"{number:04d}", "--select", "trajectories", "mapped_forces")
                    subprocess.run([*command, *stages], check=True, capture_output=True)

            def bare(count: int = count, folder: str = folder) -> None:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    pool.submit(plain_batches, count, Path(folder) / "plain").result()

            ours, plain = wall(orchestrated), wall(bare)
        print(f"| {count} | {ours:.1f} | {plain:.1f} | {(ours - plain) / count:.2f} |", flush=True)


def main() -> None:
    """Run all three and print the comparison."""
    if sys.argv[1:] == ["batches"]:
        return batches()
    with tempfile.TemporaryDirectory() as folder:
        print("demo", flush=True)
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "cg_assets.cli", "--home", folder, "demo"], check=True, capture_output=True
        )
        demo = time.monotonic() - started
        print("plain Python, in memory", flush=True)
        memory = plain(None)
        print("plain Python, with files and figures", flush=True)
        files = plain(Path(folder))
    print(f"demo {demo:.0f} s")
    for what, seconds in (("in memory", memory), ("with files and figures", files)):
        print(f"plain Python {what} {seconds:.0f} s: orchestration adds {(demo - seconds) / demo:.0%} of the demo")


if __name__ == "__main__":
    main()
