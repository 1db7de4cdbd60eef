"""Drive a sampler piece by piece, so that an interrupted batch goes on where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress

if TYPE_CHECKING:
    from cg_assets.storage.pieces import PieceStore


class Sampler(Protocol):
    """A simulation cut into pieces of work; `state` and `restore` make it resumable bit for bit."""

    n_chunks: int

    def next_chunk(self) -> Frames | None:
        """Do the next piece of work: its frames, or None for a piece that keeps none (burn-in, deposition)."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything needed to go on exactly from here."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a stored state."""
        ...

    def snapshots(self) -> Frames | None:
        """Some frames with all atoms, where frames leave out those of the solvent; else None."""
        ...

    def summary(self) -> dict[str, Any]:
        """What is known after the last piece: kinetic temperature with error, bias, sampled time, steps."""
        ...


def run_sampler(sampler: Sampler, pieces: PieceStore, progress: Progress | None = None) -> dict[str, Any]:
    """Do the pieces that are still to do, storing each with the state after it; the caller then finishes the batch.

    Args:
        sampler: a fresh sampler of the plan that the pieces are tagged with.
        pieces: where the pieces lie; those of a killed run are kept and not sampled again.
        progress: called after each piece.

    Returns:
        The sampler's summary.

    Raises:
        StorageError: another process works on this batch, or the disk is full.
        SamplingError: the stored state does not fit the sampler.
    """
    done, state = pieces.resume()
    try:
        if state is not None:
            sampler.restore(state)
        if progress and done:
            progress(done, sampler.n_chunks, "pieces")
        for number in range(done, sampler.n_chunks):
            frames = sampler.next_chunk()
            pieces.append(frames, sampler.state())
            if progress:
                progress(number + 1, sampler.n_chunks, "pieces")
        return sampler.summary()
    except BaseException:
        pieces.close()  # frees the lock; the pieces stay for the next run
        raise
