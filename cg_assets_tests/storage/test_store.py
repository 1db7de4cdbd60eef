"""The store's paths, and unfinished batches that survive SIGKILL at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.sampling.piecewise import run_sampler
from cg_assets.storage import parquet
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore, PieceStore

METADATA = FileMetadata(system="toy", stage="trajectories", units="reduced", seed=5, code_version="1")


class RandomWalk:
    """A sampler whose every frame depends on all before it; piece 0 is a burn-in without frames."""

    def __init__(self, seed=5, n_chunks=6, n_frames=700):
        self.n_chunks = n_chunks
        self.n_frames = n_frames
        self.generator = np.random.default_rng(seed)
        self.position = np.zeros((20, 3))
        self.done = 0
        self.calls = 0

    def next_chunk(self):
        self.calls += 1
        steps = self.generator.normal(size=(self.n_frames, 20, 3))
        path = self.position + np.cumsum(steps, axis=0)
        self.position = path[-1]
        self.done += 1
        if self.done == 1:
            return None
        n = self.n_frames
        return Frames(
            positions=path.astype(np.float32),
            time=np.arange(n) + float(n * self.done),
            replica=np.zeros(n, np.int32),
            temperature=np.ones(n),
            start=np.zeros(n, np.int32),
            probe=np.zeros(n, bool),
            potential_energy=path[:, 0, 0],
        )

    def state(self):
        import json

        text = json.dumps(self.generator.bit_generator.state).encode()
        return {
            "position": self.position,
            "done": np.array(self.done),
            "generator": np.frombuffer(text, np.uint8),
            "file": np.zeros(1),
        }

    def restore(self, state):
        import json

        self.position = state["position"]
        self.done = int(state["done"])
        self.generator.bit_generator.state = json.loads(state["generator"].tobytes())

    def summary(self):
        return {"steps": self.done, "last": float(self.position.sum())}


def pieces_in(home, plan="plan", seed=5, code="1") -> PieceStore:
    return ParquetStore(home).pieces("toy", "trajectories", "0000", plan, seed, code)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Content hash and summary of an undisturbed run."""
    pieces = pieces_in(tmp_path_factory.mktemp("whole"))
    summary = run_sampler(RandomWalk(), pieces)
    return parquet.content_hash(pieces.finish(METADATA)), summary


def test_paths_batches_and_keys(tmp_path):
    store = ParquetStore(tmp_path)
    assert store.path("toy", "stage", "0001") == tmp_path / "data/toy/stage/0001/part-0.parquet"
    assert store.path("toy", "pmf") == tmp_path / "data/toy/pmf/part-0.parquet"
    assert store.batches("toy", "stage") == []
    with pytest.raises(StorageError, match="toy/stage: no data"):
        store.files("toy", "stage")
    frames = RandomWalk(n_frames=10)
    frames.next_chunk()
    frames = frames.next_chunk()
    for batch in ("0001", "0000"):
        store.write_frames(frames, METADATA, batch)
    store.write_table({"x": [1.0, 2.0]}, FileMetadata("toy", "pmf", "reduced"), units={"x": "kT"})
    assert store.batches("toy", "trajectories") == ["0000", "0001"]
    assert len(store.read_frames("toy", "trajectories")) == 20
    assert len(store.read_frames("toy", "trajectories", ["0001"])) == 10
    assert store.read_table("toy", "pmf")["x"].to_pylist() == [1.0, 2.0]
    assert store.describe("toy", "pmf").columns[0]["unit"] == "kT"
    version = store.data_version("toy", "trajectories", "0000")
    assert store.upstream("toy/trajectories/0000") == {"toy/trajectories/0000": version}
    assert store.locate("toy/pmf") == store.path("toy", "pmf")
    with pytest.raises(StorageError, match=r"0007.*materialize these"):
        store.files("toy", "trajectories", ["0000", "0007"])
    for name in ("../x", "a/b", "", "ä"):
        with pytest.raises(StorageError, match="must be letters"):
            store.path("toy", name)
        with pytest.raises(StorageError, match="must be letters"):
            store.path("toy", "stage", name)
    with pytest.raises(StorageError, match="data key 'x'"):
        store.locate("x")


def test_pieces_join_and_vanish(tmp_path, whole):
    reports = []
    pieces = pieces_in(tmp_path)
    sampler = RandomWalk()
    assert run_sampler(sampler, pieces, lambda *values: reports.append(values)) == whole[1]
    assert reports == [(number, 6, "pieces") for number in range(1, 7)]
    assert len(list(pieces.folder.glob("piece-*.npz"))) == 5
    path = pieces.finish(METADATA)
    assert parquet.content_hash(path) == whole[0] == parquet.verify(path)
    assert not pieces.folder.exists()
    assert sorted(item.name for item in path.parent.parent.iterdir()) == ["0000"]


@pytest.mark.parametrize("stop", range(7))
def test_interrupted_between_pieces(tmp_path, whole, stop):
    class Interrupted(RandomWalk):
        def next_chunk(self):
            if self.done == stop:
                raise KeyboardInterrupt
            return super().next_chunk()

    pieces = pieces_in(tmp_path)
    if stop < 6:
        with pytest.raises(KeyboardInterrupt):
            run_sampler(Interrupted(), pieces)
    else:
        run_sampler(Interrupted(), pieces)
        pieces.close()
    sampler = RandomWalk()
    pieces = pieces_in(tmp_path)
    assert run_sampler(sampler, pieces) == whole[1]
    assert sampler.calls == 6 - stop
    assert parquet.content_hash(pieces.finish(METADATA)) == whole[0]


@pytest.mark.parametrize("change", [{"plan": "other"}, {"seed": 6}, {"code": "2"}])
def test_pieces_of_another_plan_are_dropped(tmp_path, change):
    pieces = pieces_in(tmp_path)
    run_sampler(RandomWalk(), pieces)
    pieces.close()
    other = pieces_in(tmp_path, **change)
    assert other.resume() == (0, None)
    assert list(other.folder.glob("piece-*")) == []
    assert not (other.folder / "state.npz").exists()


@pytest.mark.parametrize("damage", ["truncate state", "empty state", "truncate piece", "flip piece", "remove piece"])
def test_damaged_pieces_begin_anew(tmp_path, whole, damage):
    pieces = pieces_in(tmp_path)
    run_sampler(RandomWalk(), pieces)
    pieces.close()
    action, what = damage.split()
    path = pieces.folder / {"state": "state.npz", "piece": "piece-00003.npz"}[what]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    new = {"truncate": bytes(content[: len(content) // 2]), "empty": b"", "flip": bytes(content)}.get(action)
    path.write_bytes(new) if new is not None else path.unlink()
    sampler = RandomWalk()
    pieces = pieces_in(tmp_path)
    assert run_sampler(sampler, pieces) == whole[1]
    assert sampler.calls == 6
    assert parquet.content_hash(pieces.finish(METADATA)) == whole[0]


def test_one_process_at_a_time(tmp_path):
    with pieces_in(tmp_path) as pieces:
        pieces.resume()
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            pieces_in(tmp_path).resume()
    assert pieces_in(tmp_path).resume() == (0, None)


def test_states_of_objects_and_empty_batches_are_refused(tmp_path):
    pieces = pieces_in(tmp_path)
    with pytest.raises(StorageError, match=r"state\.thing holds Python objects"):
        pieces.append(None, {"thing": np.array([object()])})
    pieces.append(None, {"thing": np.zeros(1)})
    with pytest.raises(StorageError, match="no piece has frames"):
        pieces.finish(METADATA)


WORKER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from cg_assets.sampling.piecewise import run_sampler
from cg_assets.storage import atomic, parquet, pieces as module
from test_store import METADATA, RandomWalk, pieces_in
import test_store

moment, count = {moment!r}, {count!r}
seen = 0
def die(now):
    global seen
    if now == moment:
        seen += 1
        if seen > count:
            os.kill(os.getpid(), signal.SIGKILL)

replace = os.replace
def replacing(source, target):
    name = Path(target).name
    die("before " + name.split("-")[0])
    replace(source, target)
    die("after " + name.split("-")[0])
os.replace = replacing

group = parquet._row_groups
def groups(first, rest, size):
    for table in group(first, rest, 256):
        yield table
        die("inside a file")
parquet._row_groups = groups

unlink = Path.unlink
def unlinking(self, **options):
    unlink(self, **options)
    if self.name == "state.npz":
        die("inside removal")
Path.unlink = unlinking

class Walk(RandomWalk):
    def next_chunk(self):
        frames = super().next_chunk()
        die("inside a piece")
        return frames

pieces = pieces_in({home!r})
summary = run_sampler(Walk(), pieces)
print(pieces.finish(METADATA))
"""

MOMENTS = [
    ("inside a piece", 0),
    ("inside a piece", 3),
    ("inside a file", 1),
    ("before piece", 2),
    ("after piece", 2),
    ("before state.npz", 3),
    ("after state.npz", 3),
    ("inside a file", 4),
    ("before part", 0),
    ("after part", 0),
    ("inside removal", 0),
]


@pytest.mark.parametrize(("moment", "count"), MOMENTS)
def test_killed_at_any_moment(tmp_path, whole, moment, count):
    code = WORKER.format(tests=os.path.dirname(__file__), moment=moment, count=count, home=str(tmp_path))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    final = ParquetStore(tmp_path).path("toy", "trajectories", "0000")
    assert final.exists() == (moment in ("after part", "inside removal"))
    if final.exists():
        assert parquet.verify(final) == whole[0]
    pieces = pieces_in(tmp_path)
    assert run_sampler(RandomWalk(), pieces) == whole[1]
    assert parquet.verify(pieces.finish(METADATA)) == whole[0]
    ParquetStore(tmp_path).remove_leftovers()
    left = [item for item in (tmp_path / "data").rglob("*") if item.is_file()]
    assert left == [final]


def test_killed_from_outside(tmp_path, whole):
    """SIGKILL after ever longer times: the run always resumes, and the data are those of an undisturbed run."""
    code = WORKER.format(tests=os.path.dirname(__file__), moment="never", count=0, home=str(tmp_path))
    code = code.replace("class Walk", "import time\nprint('ready', flush=True)\nclass Walk")
    code = code.replace('die("inside a piece")', "time.sleep(0.03)")
    kills = 0
    for number in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        try:
            process.wait(0.02 + 0.03 * number)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        process.stdout.close()
    assert kills >= 1
    pieces = pieces_in(tmp_path)
    assert run_sampler(RandomWalk(), pieces) == whole[1]
    assert parquet.verify(pieces.finish(METADATA)) == whole[0]
