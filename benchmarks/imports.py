"""Time and memory of the import of a long trajectory: a file of capped alanine, mapped to its heavy atoms.

The file is made first, block by block: a short run of the molecule, again and again with a little noise, so that no
frame is like the one before. The import is the command `cg-assets run SYSTEM --select imported_beads` in one process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SYSTEM = Path(__file__).parent / "systems" / "my_alanine.yaml"
SHORT = 350_000
"""Frames in 0.1 GB."""


def short_run():
    """Frames of the molecule `(n_frames, n_atoms, 3)` [nm], and its topology."""
    import mdtraj

    from cg_assets.systems import load_system

    system = load_system("capped_alanine_quick")
    plan = system.sampling.unbiased.model_copy(
        update={"replicas": 8, "burn_in": 2.0, "duration": 50.0, "frame_interval": 0.1}
    )
    sampler = system.sampler(plan, seed=3)
    chunks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    positions = np.concatenate([chunk.positions for chunk in chunks if chunk is not None])
    return positions, mdtraj.Topology.from_openmm(system.structure().topology)


def write_trajectory(path: Path, positions, n_bytes: float) -> int:
    """A DCD file of so many bytes, its first frames written by MDTraj; its number of frames.

    MDTraj takes an hour for 10 GB of small frames. What it writes after the header is, for each frame, x, y and z of
    all atoms [Å], each between its length in bytes.
    """
    import mdtraj

    with mdtraj.open(str(path), "w", force_overwrite=True) as file:
        file.write(positions * np.float32(10.0))
    n_atoms = positions.shape[1]
    axes = [[(f"before_{axis}", "<i4"), (axis, "<f4", n_atoms), (f"after_{axis}", "<i4")] for axis in "xyz"]
    kind = np.dtype([field for axis in axes for field in axis])
    content = path.read_bytes()
    header = content[: -kind.itemsize * len(positions)]
    frames = np.frombuffer(content[len(header) :], kind).copy()
    np.testing.assert_allclose(frames["y"], 10 * positions[:, :, 1], atol=1e-5)
    rng, n_blocks = np.random.default_rng(0), max(1, round(n_bytes / frames.nbytes))
    first = frames.copy()
    with open(path, "wb") as file:
        count = (n_blocks * len(frames)).to_bytes(4, "little")
        file.write(header[:8] + count + header[12:])
        for _ in range(n_blocks):
            for axis in "xyz":
                frames[axis] = first[axis] + 0.01 * rng.random(frames[axis].shape, np.float32)
            file.write(frames.tobytes())
    with mdtraj.open(str(path)) as file:
        assert len(file) == n_blocks * len(frames)
    return n_blocks * len(frames)


def plain_readers(path: Path, pdb: Path, count: int) -> None:
    """CPU time for each GB of this reader and of other libraries, which read the file and apply the same map.

    Args:
        path: of the file.
        pdb: of its molecule.
        count: of its frames; MDAnalysis, which takes 40 times as long as this reader, reads `SHORT` of them at most.
    """
    import MDAnalysis
    import mdtraj

    from cg_assets.systems import load_system

    system = load_system("my_alanine")
    reader, matrix = system.imported_reader("0000"), system.beads().cg_map.matrix
    gigabytes = path.stat().st_size / 1e9

    def show(name: str, begun: float, frames: int) -> None:
        used = time.process_time() - begun
        print(f"{name}: {used / (gigabytes * frames / count):.1f} CPU seconds for each GB, from {frames} frames")

    begun = time.process_time()
    frames = sum(len(reader.next_chunk()) for _ in range(reader.n_chunks))
    show("this reader, with checks, without output", begun, frames)
    begun = time.process_time()
    frames = sum(len(np.matmul(matrix, block.xyz)) for block in mdtraj.iterload(str(path), top=str(pdb), chunk=90_000))
    show("mdtraj.iterload, without checks or output", begun, frames)
    begun = time.process_time()
    some = MDAnalysis.Universe(str(pdb), str(path)).trajectory[: min(count, SHORT)]
    frames = sum(len(matrix @ frame.positions) > 0 for frame in some)
    show("MDAnalysis, without checks or output", begun, frames)


def main() -> None:
    """Make the file, import it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="size of the file")
    parser.add_argument("--folder", type=Path, help="where the home folder is made; it is removed in any case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        systems = Path(scratch) / "systems"
        systems.mkdir()
        (systems / "my_alanine.yaml").write_bytes(SYSTEM.read_bytes())
        positions, topology = short_run()
        import mdtraj

        mdtraj.Trajectory(positions[:1], topology).save_pdb(str(systems / "alanine.pdb"))
        path = systems / "run_0000_a.dcd"
        begun = time.monotonic()
        count = write_trajectory(path, positions, options.gigabytes * 1e9)
        size = path.stat().st_size
        print(f"{count:.3g} frames, {size / 1e9:.2f} GB, made in {time.monotonic() - begun:.0f} s")
        os.environ["CG_ASSETS_HOME"] = scratch
        plain_readers(path, systems / "alanine.pdb", count)
        begun = time.monotonic()
        command = [sys.executable, "-m", "cg_assets.cli", "--home", scratch, "run", "my_alanine"]
        subprocess.run(
            [*command, "--select", "imported_beads"], check=True, env=os.environ | {"CG_EXECUTOR": "in_process"}
        )
        seconds, used = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        beads = Path(scratch) / "data" / "my_alanine" / "imported_beads" / "0000" / "part-0.parquet"
        print(
            f"imported in {seconds:.0f} s ({used.ru_utime + used.ru_stime:.0f} CPU seconds, {size / seconds / 1e6:.0f} "
            f"MB/s), most memory {used.ru_maxrss / 1e6:.2f} GB, beads {beads.stat().st_size / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
