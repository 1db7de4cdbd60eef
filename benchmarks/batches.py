"""What a batch costs as batches grow: files, catalogue, planning of the next refresh, questions, memory.

Frames of a model potential in two dimensions are drawn at random and written through the project's own store, as
`trajectories` and as the `mapped_forces` made of them: by default 1,000 batches of 10,000 frames. Everything that a
refresh does besides science is timed, in CPU time, which other work on the machine changes little. A second table
times questions to the catalogue. Give the name of a PNG file to draw the times.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

SYSTEM = Path(__file__).parent / "systems" / "tiny_wells.yaml"
STAGES = ("trajectories", "mapped_forces")
QUESTIONS = {
    "how many frames": "SELECT count(*) FROM tiny_wells.trajectories",
    "frames of each batch": "SELECT batch, count(*) FROM tiny_wells.trajectories GROUP BY batch",
    "one batch's mean force": "SELECT avg(forces[1]) FROM tiny_wells.mapped_forces WHERE batch = '{last}'",
    "histogram of x over all": "SELECT floor(positions[1] / 0.1) AS bin, count(*) FROM tiny_wells.mapped_forces "
    "GROUP BY bin",
    "lineage of a batch": "SELECT upstream FROM lineage WHERE stage = 'mapped_forces' AND batch = '{last}'",
    "files by stage": "SELECT stage, count(*), sum(rows), sum(bytes) FROM lineage GROUP BY stage",
}


def frames_of(rng, count, dimension):
    """Frames as a sampler of the wells gives them."""
    from cg_assets.core.frames import Frames

    shape = (count, 1, dimension)
    return Frames(
        positions=rng.normal(size=shape).astype(np.float32),
        forces=rng.normal(size=shape).astype(np.float32),
        time=np.arange(count, dtype=np.float64),
        replica=(np.arange(count) % 64).astype(np.int32),
        temperature=np.ones(count),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
    )


def append(store, batch, count):
    """Write one batch of both stages and enter it into the catalogue; CPU seconds of both."""
    from cg_assets.storage.catalogue import record
    from cg_assets.storage.schemas import FileMetadata

    rng = np.random.default_rng(int(batch))
    written = recorded = 0.0
    upstream: dict[str, str] = {}
    for stage, dimension in zip(STAGES, (2, 1), strict=True):
        frames = frames_of(rng, count, dimension)
        metadata = FileMetadata("tiny_wells", stage, "reduced", seed=int(batch), upstream_data_versions=upstream)
        begun = time.process_time()
        file = store.write_frames(frames, metadata, batch)
        ended = time.process_time()
        record(store.home, file.path)
        written += ended - begun
        recorded += time.process_time() - ended
        upstream = {f"tiny_wells/{stage}/{batch}": file.content_hash}
    return written, recorded


def pool(store):
    """The table of a potential that has learned from all batches, as the stage writes it; CPU seconds."""
    from cg_assets.storage.catalogue import record
    from cg_assets.storage.schemas import FileMetadata

    begun = time.process_time()
    batches = store.batches("tiny_wells", "mapped_forces")
    upstream = store.upstream(*(f"tiny_wells/mapped_forces/{batch}" for batch in batches))
    metadata = FileMetadata("tiny_wells", "potential_unbiased", "reduced", upstream_data_versions=upstream)
    record(store.home, store.write_table({"epoch": [1]}, metadata).path)
    return time.process_time() - begun


def finish(store, system):
    """Tables in the place of all that follows from the potential: what is unfinished would come before a new batch."""
    from cg_assets.assets import stages_of
    from cg_assets.storage.schemas import FileMetadata

    there = [f"tiny_wells/mapped_forces/{batch}" for batch in store.batches("tiny_wells", "mapped_forces")]
    for stage in stages_of(system):
        if stage.batched:
            continue
        key = f"tiny_wells/{stage.name}"
        if stage.name != "potential_unbiased":
            metadata = FileMetadata("tiny_wells", stage.name, "reduced", upstream_data_versions=store.upstream(*there))
            store.write_table({"epoch": [1]}, metadata)
        there.append(key)


def plan(store, system):
    """What the next refresh would do; CPU seconds."""
    from cg_assets.orchestration.refresh import plan_refresh

    begun = time.process_time()
    found = plan_refresh(store, system, store.batches("tiny_wells", "trajectories"))
    assert found.added is not None and len(found.runs) == 1, found
    return time.process_time() - begun


def memory():
    """Most memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Append the batches, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", nargs="?", type=Path, help="PNG file of the times")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=10_000, help="of each batch")
    parser.add_argument("--folder", type=Path, help="where the data are made (and left); a temporary folder otherwise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(options, options.folder or Path(scratch))


def run(options, home: Path) -> None:
    """The benchmark in a home folder."""
    os.environ["CG_ASSETS_HOME"] = str(home)
    from cg_assets.storage.catalogue import query
    from cg_assets.storage.dataset import FrameDataset
    from cg_assets.storage.store import ParquetStore
    from cg_assets.systems import load_system

    (home / "systems").mkdir(parents=True, exist_ok=True)
    (home / "systems" / "tiny_wells.yaml").write_bytes(SYSTEM.read_bytes())
    system, store = load_system("tiny_wells"), ParquetStore(home)
    points = sorted({*(n for n in (1, 3, 10, 30, 100, 300, 1000, 3000) if n < options.batches), options.batches})
    print("CPU milliseconds; files and catalogue: median of the last 20 batches, lowest to highest")
    print("| batches | frames | files of a batch | catalogue of a batch | a potential of all | plan | memory MB |")
    print("|---|---|---|---|---|---|---|")
    rows, times = [], []
    for number in range(options.batches):
        times.append(append(store, f"{number:04}", options.frames))
        if number + 1 not in points:
            continue
        last = 1e3 * np.array(times[-20:])
        written, recorded = (f"{np.median(column):.0f} ({column.min():.0f}-{column.max():.0f})" for column in last.T)
        pooled = 1e3 * pool(store)
        finish(store, system)
        planned = 1e3 * plan(store, system)
        rows.append((number + 1, *np.median(last, axis=0), pooled, planned))
        print(
            f"| {number + 1} | {(number + 1) * options.frames:.0e} | {written} | {recorded} | {pooled:.0f} | "
            f"{planned:.0f} | {memory():.0f} |",
            flush=True,
        )
    size = sum(path.stat().st_size for path in store.data.rglob("*.parquet"))
    print(f"\n{size / 1e6:.0f} MB of data, catalogue {(home / 'catalog.duckdb').stat().st_size / 1e6:.1f} MB\n")
    print("| question | milliseconds, median of 5 (lowest to highest) | CPU |")
    print("|---|---|---|")
    for name, sql in QUESTIONS.items():
        taken, used = [], []
        for _ in range(5):
            begun = time.perf_counter(), time.process_time()
            query(home, sql.format(last=f"{options.batches - 1:04}"))
            taken.append(1e3 * (time.perf_counter() - begun[0]))
            used.append(1e3 * (time.process_time() - begun[1]))
        print(
            f"| {name} | {np.median(taken):.0f} ({min(taken):.0f}-{max(taken):.0f}) | {np.median(used):.0f} |",
            flush=True,
        )
    begun = time.process_time()
    count = sum(
        float(frames.positions.sum(dtype=np.float64) * 0 + len(frames))
        for frames in FrameDataset(store.files("tiny_wells", "mapped_forces"))
    )
    print(f"\nall {count:.0f} frames read in blocks: {time.process_time() - begun:.1f} s, memory {memory():.0f} MB")
    if options.figure:
        draw(rows, options.figure)


def draw(rows, path: Path) -> None:
    """Times against the number of batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="batches", ylabel="CPU time [ms]", xscale="log", yscale="log")
    names = ("files of a batch", "catalogue of a batch", "a potential's record of all", "plan of the next refresh")
    for name, column in zip(names, np.array(rows).T[1:], strict=True):
        axes.plot([row[0] for row in rows], column, marker="o", label=name)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
