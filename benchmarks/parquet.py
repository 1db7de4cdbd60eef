"""Writing, reading and size of frames in Parquet (as this project stores them), npz and HDF5.

200,000 frames of 10 beads, positions and forces, of a random walk about a fixed structure; each format writes and reads
the same arrays in the same process, formats take turns, the table gives the median and the spread (max - min) of the
repeats. Files are synced to the disk when written and lie in the page cache when read. Needs h5py.

    python benchmarks/parquet.py [--frames 200000] [--beads 10] [--repeats 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from cg_assets.core.frames import Frames
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.parquet import write_frames
from cg_assets.storage.schemas import FileMetadata

METADATA = FileMetadata("benchmark", "frames", "molar", variable_units={"phi": "rad"})


def make_frames(n_frames: int, n_beads: int) -> Frames:
    generator = np.random.default_rng(0)
    structure = generator.normal(scale=0.3, size=(1, n_beads, 3))
    walk = np.cumsum(generator.normal(scale=0.002, size=(n_frames, n_beads, 3)), axis=0)
    return Frames(
        positions=(structure + 0.05 * np.sin(walk * 20)).astype(np.float32),
        forces=generator.normal(scale=800.0, size=(n_frames, n_beads, 3)).astype(np.float32),
        time=np.arange(n_frames) * 0.2,
        replica=np.zeros(n_frames, np.int32),
        temperature=np.full(n_frames, 300.0),
        start=np.zeros(n_frames, np.int32),
        probe=np.zeros(n_frames, bool),
        potential_energy=generator.normal(size=n_frames),
        collective_variables={"phi": generator.normal(size=n_frames).astype(np.float32)},
    )


def arrays_of(frames: Frames) -> dict[str, np.ndarray]:
    return {
        "positions": frames.positions,
        "forces": frames.forces,
        "time": frames.time,
        "replica": frames.replica,
        "temperature": frames.temperature,
        "start": frames.start,
        "probe": frames.probe,
        "potential_energy": frames.potential_energy,
        "cv_phi": frames.collective_variables["phi"],
    }


def write_parquet(path: Path, frames: Frames) -> None:
    write_frames(path, [frames], METADATA, "0000")


def read_parquet(path: Path) -> dict[str, np.ndarray]:
    return arrays_of(read_frames(path))


def write_npz(save):
    return lambda path, frames: save(path, **arrays_of(frames))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def write_hdf5(compression: str | None):
    def write(path: Path, frames: Frames) -> None:
        with h5py.File(path, "w") as file:
            for name, values in arrays_of(frames).items():
                chunks = (min(8000, len(values)), *values.shape[1:]) if compression else None
                file.create_dataset(name, data=values, compression=compression, chunks=chunks)

    return write


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {name: dataset[...] for name, dataset in file.items()}


FORMATS = {
    "Parquet (cg_assets)": (write_parquet, read_parquet, ".parquet"),
    "npz": (write_npz(np.savez), read_npz, ".npz"),
    "npz compressed": (write_npz(np.savez_compressed), read_npz, ".npz"),
    "HDF5": (write_hdf5(None), read_hdf5, ".h5"),
    "HDF5 gzip": (write_hdf5("gzip"), read_hdf5, ".h5"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--beads", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    frames = make_frames(options.frames, options.beads)
    expected = arrays_of(frames)
    megabytes = sum(values.nbytes for values in expected.values()) / 1e6
    speeds = {name: ([], []) for name in FORMATS}
    sizes = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for repeat in range(options.repeats):
            for name, (write, read, suffix) in FORMATS.items():
                path = Path(folder) / f"{name.replace(' ', '_')}-{repeat}{suffix}"
                begin = time.perf_counter()
                write(path, frames)
                with open(path, "rb") as stream:
                    os.fsync(stream.fileno())
                speeds[name][0].append(megabytes / (time.perf_counter() - begin))
                begin = time.perf_counter()
                found = read(path)
                speeds[name][1].append(megabytes / (time.perf_counter() - begin))
                for key, values in expected.items():
                    np.testing.assert_array_equal(found[key], values)
                sizes[name] = path.stat().st_size / 1e6
                path.unlink()
    print(f"{options.frames} frames x {options.beads} beads, {megabytes:.1f} MB in memory, {options.repeats} repeats")
    print(f"{'format':22}{'write MB/s':>18}{'read MB/s':>18}{'size MB':>10}")
    for name, (writing, reading) in speeds.items():
        cells = [f"{np.median(values):.0f} ± {np.ptp(values) / 2:.0f}" for values in (writing, reading)]
        print(f"{name:22}{cells[0]:>18}{cells[1]:>18}{sizes[name]:10.1f}")


if __name__ == "__main__":
    main()
