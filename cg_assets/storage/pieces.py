"""The pieces of an unfinished batch: a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.storage import parquet
from cg_assets.storage.atomic import acquire_lock, atomic_file, fsync_folder, remove_leftovers
from cg_assets.storage.schemas import FileMetadata, to_frames


class PieceStore:
    """The pieces of an unfinished batch, so that a killed run resumes where it stopped.

    The folder `.pieces-<batch>` next to the batch holds `piece-00012.npz` files and `state.npz`, each of which
    appears whole or not at all. The state is written after its piece and records the number of pieces, so a kill
    between the two only loses the last piece. Pieces of another plan, seed or code version are dropped.
    One process at a time works on a batch: it holds a lock that ends with it.
    """

    def __init__(
        self, destination: Path, batch: str | None, tag: str, publish: Callable[[Path], None] | None = None
    ) -> None:
        """The pieces of one batch.

        Args:
            destination: the file that `finish` writes.
            batch: name of the batch, None for a stage without batches.
            tag: what determines the pieces (plan, seed, code); pieces with another tag are dropped.
            publish: called with the finished file, before the pieces are removed.
        """
        self.destination = Path(destination)
        self._publish = publish
        self.batch = batch
        self._tag = hashlib.sha256(tag.encode()).hexdigest()
        parent = self.destination.parent if batch is None else self.destination.parent.parent
        self.folder = parent / (".pieces" if batch is None else f".pieces-{batch}")
        self._lock: int | None = None
        self._done: int | None = None
        self._kept: list[int] = []

    def __enter__(self) -> PieceStore:
        """Lock the pieces for this process."""
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        """Free the lock; the pieces stay."""
        self.close()

    def close(self) -> None:
        """Free the lock; the pieces stay for a later `resume`."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._done = None

    def _hold(self) -> None:
        if self._lock is None:
            self._lock = acquire_lock(self.folder / "lock", 0.0, f"the unfinished batch in {self.folder}")

    def resume(self) -> tuple[int, dict[str, NDArray] | None]:
        """Where to resume: pieces done and the state after the last of them (0 and None to begin).

        Raises:
            StorageError: another process works on this batch.
        """
        self._hold()
        remove_leftovers(self.folder)
        done, kept, state = self._stored()
        names = {self._piece(number).name for number in kept}
        for path in self.folder.glob("piece-*"):
            if path.name not in names:
                path.unlink()
        self._done, self._kept = done, kept
        return done, state

    def _stored(self) -> tuple[int, list[int], dict[str, NDArray] | None]:
        path = self.folder / "state.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(stored["header"].tobytes())
                state = {name.removeprefix("state."): stored[name] for name in stored.files if name != "header"}
        except FileNotFoundError:
            return 0, [], None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            header, state = None, {}  # damaged: start again
        if not header or header["tag"] != self._tag or not all(self._is_sound(number) for number in header["kept"]):
            path.unlink()
            return 0, [], None
        return header["done"], header["kept"], state

    def _is_sound(self, number: int) -> bool:
        try:
            self._read(number)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False
        return True

    def _read(self, number: int) -> Frames:
        """The frames of a piece; the archive holds check sums of its arrays."""
        with np.load(self._piece(number), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if arrays.pop("tag").item() != self._tag:
            raise ValueError(f"{self._piece(number)}: is of other work")
        return to_frames(arrays)

    def _piece(self, number: int) -> Path:
        return self.folder / f"piece-{number:05d}.npz"

    def append(self, frames: Frames | None, state: Mapping[str, ArrayLike]) -> None:
        """Store the next piece and the state after it.

        Args:
            frames: frames of the piece; None where it keeps none.
            state: what the sampler needs to resume; arrays of numbers, booleans or text.

        Raises:
            StorageError: the state holds an array of Python objects, or the disk is full.
        """
        if self._done is None:
            self.resume()
        number = self._done or 0
        arrays = {f"state.{name}": np.asarray(value) for name, value in state.items()}
        if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
            raise StorageError(f"{self.folder}: {', '.join(objects)} holds Python objects; store arrays of numbers")
        kept = list(self._kept)
        if frames is not None and len(frames):
            # not Parquet, which the finished file is: that takes four times as long
            with atomic_file(self._piece(number)) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, allow_pickle=False, tag=np.array(self._tag), **frames.arrays())
            kept.append(number)
        header = json.dumps({"tag": self._tag, "done": number + 1, "kept": kept}).encode()
        with atomic_file(self.folder / "state.npz") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, header=np.frombuffer(header, np.uint8), **arrays)
        self._done, self._kept = number + 1, kept

    def finish(
        self,
        metadata: FileMetadata,
        mark: parquet.Mark | None = None,
        watch: Callable[[Frames], None] | None = None,
    ) -> Path:
        """Join the pieces into the file of the batch, then remove them.

        Args:
            metadata: where the frames came from.
            mark: as in `parquet.write_frames`; called after `watch` was shown all pieces.
            watch: is shown the frames of each piece.

        Returns:
            The file.

        Raises:
            StorageError: there are no frames, or a piece is damaged.
        """
        if self._done is None:
            self.resume()
        if not self._kept:
            raise StorageError(f"{self.folder}: no piece has frames; check the plan's duration and frame interval")
        metadata = replace(metadata, batch=self.batch)

        def shown(number: int) -> Frames:
            frames = self._read(number)
            if watch is not None:
                watch(frames)
            return frames

        parquet.write_frames(self.destination, map(shown, self._kept), metadata, self.batch, mark)
        if self._publish is not None:
            self._publish(self.destination)
        self.discard()
        return self.destination

    def frames(self) -> Frames:
        """All frames of the pieces, as the finished file will hold them."""
        return Frames.concatenate([self._read(number) for number in self._kept])

    def discard(self) -> None:
        """Remove the pieces and free the lock."""
        self._hold()
        (self.folder / "state.npz").unlink(missing_ok=True)  # first: without it the rest counts for nothing
        shutil.rmtree(self.folder)
        fsync_folder(self.folder.parent)
        self.close()
