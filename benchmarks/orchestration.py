"""What Dagster and MLflow add to the science of the demo: its wall time against the same work in plain Python.

The plain run calls the same science functions for the same systems in two processes, which share the potentials of a
system. It is timed twice: keeping everything in memory, and leaving the same Parquet files and figures behind, as a
script would, to be of use afterwards. Processes, records, checks, catalogue, tracking and registry are
orchestration in both.

With `batches` it is the time of 1, 10 and 100 batches (or of numbers given next) of trajectories and their mapped
forces of `muller_brown`, each batch a `cg-assets run` of its own, against one process of plain Python that leaves the
same files and figures behind.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ctypes
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from cg_assets.operations.demo import DEMOS

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


def sample(system: Any, labels: str, folder: Path | None, batch: str) -> tuple[Any, Any]:
    """Frames of the plan behind some labels, judged, and the frozen bias that they were made under."""
    from cg_assets.core.frames import Frames
    from cg_assets.figures.samples import equilibration_figure, sampling_figure
    from cg_assets.labels.quality import check_equilibration, compares_windows
    from cg_assets.systems import seed_of

    sampled = system.sampling.by_labels()[labels]
    plan = sampled.plan
    sampler = system.sampler(plan, seed_of(system.name, sampled.samples, batch))
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    frames = Frames.concatenate([chunk for chunk in chunks if chunk is not None])
    drawn = [sampling_figure(system.beads(), frames, sampled.name)] if folder else []
    if plan.bias is not None:
        equilibration = check_equilibration(system.beads(), system.mapping, plan, frames)
        drawn += [equilibration_figure(system.beads(), equilibration, compares_windows(plan))] if folder else []
    write(folder, system, sampled.samples, frames, *drawn, batch=batch)
    return frames, sampler.summary().bias


def label(name: str, labels: str, folder: Path | None, batch: str = FIRST) -> tuple[Any, Any, Any]:
    """CG frames with forces of sampled atoms, the noise of these, and the bias that they were sampled under."""
    from cg_assets.figures.labels import label_noise_figure
    from cg_assets.labels.quality import measure_label_noise
    from cg_assets.mapping.run import fit_force_map, map_frames
    from cg_assets.systems import load_system, seed_of

    system = load_system(name)
    samples, bias = sample(system, labels, folder, batch)
    samples = samples.select(~samples.probe)
    beads, seed = system.beads(), seed_of(name, labels, batch)
    force_map = fit_force_map(system.mapping, beads, samples)
    frames = map_frames(beads, samples, force_map)
    noise = measure_label_noise(
        *(beads, system.mapping, samples, frames, force_map),
        lambda force_maps: system.repeated_labels(samples, frames, force_maps, seed),
    )
    drawn = [label_noise_figure(beads, noise)] if folder else []
    write(folder, system, labels, frames, *drawn, batch=batch)
    return frames, noise, bias


def train_kernel(name: str, kernel: str, frames: Any, folder: Path | None) -> Any:
    """The flow of a kernel, learned from configurations."""
    from cg_assets.figures.training import flow_training_plot
    from cg_assets.labels.kernels.flow_training import train_flow
    from cg_assets.labels.kernels.run import flow_config
    from cg_assets.systems import load_system
    from cg_assets.training.data import correlated_groups

    system = load_system(name)
    source = system.labels[kernel]
    config = flow_config(system.beads(), source.noise, source.hidden, frames.temperature)
    settings, groups = source.training, correlated_groups([frames])
    result = train_flow(config, settings, frames.positions, groups, settings.seed, temperature=frames.temperature)
    if folder:
        write(folder, system, kernel, None, flow_training_plot(result.history))
    return result.module


def label_by_source(system: Any, labels: str, given: tuple[Any, Any, Any], model: Any, folder: Path | None) -> Any:
    """Frames with the labels of a source, and the noise of these."""
    from cg_assets.figures.labels import labels_figure
    from cg_assets.labels.source import LabelInputs
    from cg_assets.systems import seed_of

    made, (frames, _, bias) = system.by_source_labels()[labels], given
    inputs = LabelInputs(frames, system.beads(), bias, seed_of(system.name, labels, FIRST), model)
    labelled = made.source.label(inputs)
    drawn = [labels_figure(labelled.details, system.title)] if folder else []
    write(folder, system, labels, labelled.frames, *filter(None, drawn))
    return labelled.frames, labelled.noise


def refer(name: str, folder: Path | None) -> Any:
    """The reference of a system."""
    from cg_assets.figures.evaluation import reference_figure
    from cg_assets.systems import load_system, seed_of

    system = load_system(name)
    with tempfile.TemporaryDirectory() as scratch:
        reference = system.compute_reference(seed_of(name, "reference", FIRST), Path(scratch))
    if folder:
        write(folder, system, "reference", None, reference_figure(system.beads(), reference))
    return reference


def learn(
    name: str, potential: str, given: tuple[Any, Any, Any], enhanced: Any, reference: Any, model: Any, folder: Any
) -> Any:
    """From labelled frames to the evaluation of a potential."""
    from cg_assets.assets.data import learnt_frames
    from cg_assets.assets.evaluations import judge
    from cg_assets.figures.evaluation import evaluation_figures
    from cg_assets.figures.simulation import cg_simulation_figure
    from cg_assets.figures.training import training_plot
    from cg_assets.potentials.model_format import save_potential
    from cg_assets.simulation.run import run_cg_simulation
    from cg_assets.systems import load_system
    from cg_assets.training.setup import potential_config, training_data
    from cg_assets.training.train import train

    system = load_system(name)
    settings, fit = system.potentials[potential], system.training_of(potential)
    (stage,), (frames, noise, _) = settings.stages, given
    if stage in system.by_source_labels():
        frames, noise = label_by_source(system, stage, given, model, folder)
    learns = settings.learns or "forces"
    data = training_data(system.network, [frames], settings.frames, fit.seed, noise.floor.value, learns)
    config = potential_config(system.network, system.beads(), fit.committee, [frames], learns)
    result = train(config, fit, data, fit.seed)
    if folder:
        write(folder, system, f"potential_{potential}", None, training_plot(result.history, noise.floor))
        save_potential(folder / name / FIRST / f"potential_{potential}", result.module, config)
    enhanced = enhanced if system.cg_simulation.enhanced_duration else None
    simulated = run_cg_simulation(result.module, system.beads(), system.cg_simulation, frames, bias=enhanced)
    if folder:
        picture = cg_simulation_figure(system.beads(), simulated, potential)
        write(folder, system, f"cg_simulation_{potential}", simulated.frames, picture)
    learnt = learnt_frames(system, potential, frames)
    judged = judge(system, result.module, reference, simulated.frames, simulated.runs, learnt, frames)
    if folder:
        pictures = evaluation_figures(potential, judged, system.title)
        write(folder, system, f"evaluation_{potential}", None, *pictures.values())
    return judged


def plain_system(pool: ProcessPoolExecutor, name: str, folder: Path | None) -> None:
    """One system from samples to the comparison of its potentials."""
    from cg_assets.evaluation.comparison import Comparison
    from cg_assets.figures.comparison import comparison_figures
    from cg_assets.systems import load_system

    system = load_system(name)
    labelled = {labels: pool.submit(label, name, labels, folder) for labels in reversed(system.sampling.by_labels())}
    reference = pool.submit(refer, name, folder)
    given = {labels: work.result() for labels, work in labelled.items()}
    sources, flows, judged = system.by_source_labels(), {}, {}
    for made in sources.values():
        if made.source.own_flow() is not None:
            flows[f"{made.name}_kernel"] = pool.submit(train_kernel, name, made.name, given[made.frames][0], folder)
    for potential, settings in system.potentials.items():
        (stage,), flow = settings.stages, None
        if stage in sources:
            made = sources[stage]
            stage, flow = made.frames, flows.get(made.source.model_stage(made.name))
        work = name, potential, given[stage], given.get("relabelled_forces", [None])[-1], reference.result()
        judged[potential] = pool.submit(learn, *work, flow and flow.result(), folder)
    result = Comparison({potential: work.result() for potential, work in judged.items()})
    if folder:
        write(folder, system, "comparison", None, *comparison_figures(result, system.title).values())


def plain(folder: Path | None) -> float:
    """Wall time of the plain run [s]."""
    started = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in DEMOS["biased"]:
            plain_system(pool, name, folder)
            print(f"  up to {name}: {time.monotonic() - started:.0f} s", flush=True)
    return time.monotonic() - started


def plain_batches(count: int, folder: Path) -> None:
    """The plain run of some batches, in a process of its own."""
    for number in range(count):
        batch = f"{number:04d}"
        label("muller_brown", "mapped_forces", folder, batch)


class Cost(NamedTuple):
    """What some work in child processes costs [s]."""

    wall: float
    cpu: float


def measured(work: Callable[[], object]) -> Cost:
    """Wall time and CPU time of work that other processes do; theirs that outlive their parents, too."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become children of this process
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    wall = time.monotonic() - started
    time.sleep(2.0)  # orphans end
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def command(folder: str, *arguments: str) -> None:
    """Run `cg-assets` in a home folder."""
    line = [sys.executable, "-m", "cg_assets.cli", "--home", folder, *arguments]
    subprocess.run(line, check=True, capture_output=True)


def batches() -> None:
    """Run some batches both ways and print a row of the table for each number."""
    print("| batches | cg-assets [s] | plain Python [s] | added to each batch [s] | added CPU time [s] |")
    print("|---|---|---|---|---|")
    for count in map(int, sys.argv[2:] or (1, 10, 100)):
        with tempfile.TemporaryDirectory() as folder:

            def orchestrated(count: int = count, folder: str = folder) -> None:
                for number in range(count):
                    stages = ("--select", "trajectories", "mapped_forces")
                    command(folder, "run", "muller_brown", "--batch", f"{number:04d}", *stages)

            def bare(count: int = count, folder: str = folder) -> None:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    pool.submit(plain_batches, count, Path(folder) / "plain").result()

            plain, ours = measured(bare), measured(orchestrated)
        wall, cpu = ((mine - bare) / count for mine, bare in zip(ours, plain, strict=True))
        print(f"| {count} | {ours.wall:.1f} | {plain.wall:.1f} | {wall:.2f} | {cpu:.2f} |", flush=True)


def main() -> None:
    """Run all three and print the comparison."""
    if sys.argv[1:2] == ["batches"]:
        return batches()
    with tempfile.TemporaryDirectory() as folder:
        print("plain Python, in memory", flush=True)  # which also compiles what later runs find compiled
        memory = measured(lambda: plain(None))
        print("demo", flush=True)
        demo = measured(lambda: command(folder, "demo"))
        print("plain Python, with files and figures", flush=True)
        files = measured(lambda: plain(Path(folder) / "plain"))
    print(f"demo {demo.wall:.0f} s, {demo.cpu:.0f} CPU s")
    for what, cost in (("in memory", memory), ("with files and figures", files)):
        added, cpu = 1.0 - cost.wall / demo.wall, 1.0 - cost.cpu / demo.cpu
        print(
            f"plain Python {what} {cost.wall:.0f} s, {cost.cpu:.0f} CPU s: orchestration adds {added:.0%} of the "
            f"demo's wall time, {cpu:.0%} of its CPU time"
        )


if __name__ == "__main__":
    main()
