"""Spread the replicas of a molecule over processes: the caller's own, and workers that it starts.

A worker is this module run as a program. It reads messages on its standard input and answers on its standard output;
a message is a line of JSON that gives a command and the number of bytes of an `.npz` archive that follows.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import cg_assets
from cg_assets.core.errors import SamplingError
from cg_assets.core.replica_exchange import Heat
from cg_assets.sampling.molecule.engine import Arrays, EngineSettings, MoleculeEngine
from cg_assets.settings import child_environment


class EnginePool:
    """Replicas dealt out to one engine in this process and one in each worker process."""

    def __init__(self, settings: EngineSettings, n_replicas: int, n_processes: int) -> None:
        """Start the workers; replica i lives in process i modulo their number."""
        self.n_processes = max(1, min(n_processes, n_replicas))
        self._n_replicas = n_replicas
        self._workers = [_Worker(settings) for _ in range(self.n_processes - 1)]
        self._engine = MoleculeEngine(settings)

    def create(self, positions: Mapping[int, NDArray[np.float64]], seed: int) -> None:
        """Start replicas from their positions `(n_atoms, 3)` [nm]."""
        arrays = {f"positions_{replica}": value for replica, value in positions.items()}
        self._run("create", list(positions), arrays, seed=seed)

    def set_grid(self, values: NDArray[np.float64]) -> None:
        """Update the bias grid everywhere [kJ/mol]."""
        self._run("set_grid", range(self._n_replicas), {"values": values})

    def advance(self, replicas: Sequence[int], n_steps: int, heat: Sequence[Heat] | None = None) -> Arrays:
        """`MoleculeEngine.advance` for replicas in any process, in the order given."""
        return self._run("advance", replicas, {}, n_steps=n_steps, heat=heat)

    def record(
        self,
        replicas: Sequence[int],
        n_frames: int,
        frame_steps: int,
        snapshots: Sequence[int] = (),
        heat: Sequence[Heat] | None = None,
    ) -> Arrays:
        """`MoleculeEngine.record` for replicas in any process, in the order given."""
        return self._run(
            "record", replicas, {}, n_frames=n_frames, frame_steps=frame_steps, snapshots=list(snapshots), heat=heat
        )

    def checkpoints(self) -> dict[int, bytes]:
        """OpenMM checkpoint of every replica."""
        arrays = self._run("fetch", range(self._n_replicas), {}, stack=False)
        return {int(name.removeprefix("checkpoint_")): value.tobytes() for name, value in arrays.items()}

    def load(self, checkpoints: dict[int, bytes]) -> None:
        """Give every replica its checkpoint."""
        arrays = {f"checkpoint_{replica}": np.frombuffer(item, np.uint8) for replica, item in checkpoints.items()}
        self._run("load", range(self._n_replicas), arrays)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def _run(
        self, command: str, replicas: Sequence[int], arrays: Arrays, stack: bool = True, **arguments: Any
    ) -> Arrays:
        """Send a command to every process, do this process's own part, and put the answers in order."""
        shares = [[item for item in replicas if item % self.n_processes == part] for part in range(self.n_processes)]
        for worker, share in zip(self._workers, shares[1:], strict=True):
            worker.send({"command": command, "replicas": share, **arguments}, arrays)
        failure: SamplingError | None = None
        answers: list[Arrays] = []
        try:
            answers.append(perform(self._engine, command, shares[0], arrays, arguments))
        except SamplingError as error:
            failure = error
        for worker in self._workers:  # read every answer, else the next command would meet an old one
            try:
                answers.append(worker.receive())
            except SamplingError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        if not stack:
            return {name: value for answer in answers for name, value in answer.items()}
        order = np.argsort([item for share in shares for item in share], kind="stable")
        ranks = np.argsort(np.argsort(replicas, kind="stable"), kind="stable")
        filled = [answer for answer in answers if answer]
        if not filled:
            return {}
        joined = {name: np.concatenate([answer[name] for answer in filled if name in answer]) for name in filled[0]}
        return {name: value[order][ranks] for name, value in joined.items()}


def perform(
    engine: MoleculeEngine, command: str, replicas: list[int], arrays: Arrays, arguments: dict[str, Any]
) -> Arrays:
    """Carry out one command on an engine."""
    match command:
        case "create":
            for replica in replicas:
                engine.create(replica, arrays[f"positions_{replica}"], arguments["seed"])
        case "set_grid":
            engine.set_grid(arrays["values"])
        case "load":
            for replica in replicas:
                engine.checkpoints[replica] = arrays[f"checkpoint_{replica}"].tobytes()
        case "fetch":
            return {
                f"checkpoint_{replica}": np.frombuffer(engine.checkpoints[replica], np.uint8) for replica in replicas
            }
        case "advance" if replicas:
            return engine.advance(replicas, **arguments)
        case "record" if replicas:
            return engine.record(replicas, **arguments)
    return {}


class _Worker:
    """A worker process, seen from the caller."""

    def __init__(self, settings: EngineSettings) -> None:
        package_folder = str(Path(cg_assets.__file__).parent.parent)
        environment = child_environment()
        paths = [package_folder, *filter(None, [environment.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cg_assets.sampling.molecule.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self.send({"settings": settings.to_json()}, {})

    def send(self, message: dict[str, object], arrays: Arrays) -> None:
        try:
            _write(self._process.stdin, message, arrays)
        except OSError:
            raise self._lost() from None

    def receive(self) -> Arrays:
        answer = _read(self._process.stdout)
        if answer is None:
            raise self._lost()
        message, arrays = answer
        if "error" in message:
            raise SamplingError(message["error"])
        return arrays

    def close(self) -> None:
        self._finalizer()

    def _lost(self) -> SamplingError:
        code = self._process.wait()
        return SamplingError(
            f"a sampling process ended with code {code}; its messages are above. Run again to resume from the last "
            "finished piece, or set CG_ASSETS_THREADS=1 to use one process"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close a worker's input, at which it ends, and wait for it."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write(stream: IO[bytes] | None, message: dict[str, object], arrays: Arrays) -> None:
    if stream is None:
        raise OSError("the stream is closed")
    body = b""
    if arrays:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        body = buffer.getvalue()
    stream.write(json.dumps(message | {"bytes": len(body)}).encode() + b"\n" + body)
    stream.flush()


def _read(stream: IO[bytes] | None) -> tuple[dict[str, Any], Arrays] | None:
    """The next message, None at the end of the stream."""
    line = stream.readline() if stream is not None else b""
    if not line:
        return None
    message = json.loads(line)
    n_bytes = message.pop("bytes")
    if n_bytes == 0 or stream is None:
        return message, {}
    with np.load(io.BytesIO(stream.read(n_bytes)), allow_pickle=False) as archive:
        return message, {name: archive[name] for name in archive.files}


def main() -> None:
    """Serve one caller until it closes the connection."""
    source = sys.stdin.buffer
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not reach the caller's stream
    first = _read(source)
    if first is None:
        return
    engine = MoleculeEngine(EngineSettings(**first[0]["settings"]))
    while (received := _read(source)) is not None:
        message, arrays = received
        command, replicas = message.pop("command"), message.pop("replicas")
        try:
            answer = perform(engine, command, replicas, arrays, message)
        except SamplingError as error:
            _write(target, {"error": str(error)}, {})
            continue
        _write(target, {}, answer)


if __name__ == "__main__":
    main()
