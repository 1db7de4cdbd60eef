"""Drive a sampler piece by piece, so that an interrupted batch goes on where it stopped."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from cg_assets.frames import Frames


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

    def summary(self) -> dict[str, Any]:
        """What is known after the last piece: kinetic temperature with error, bias, sampled time, steps."""
        ...
