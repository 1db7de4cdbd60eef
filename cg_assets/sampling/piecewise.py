"""Simulations cut into pieces of work, so that an interrupted batch resumes where it stopped, bit for bit."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.sampling.molecule.platforms import process_count
from cg_assets.sampling.molecule.worker import EnginePool

if TYPE_CHECKING:
    from cg_assets.sampling.molecule.engine import EngineSettings
    from cg_assets.storage.pieces import PieceStore

Summary = TypeVar("Summary")


@dataclass(frozen=True)
class Piece:
    """A piece of work.

    Attributes:
        kind: what is done.
        amount: how much of it: steps, hills, frames, ...
        part: of what, where the work is on one thing after another.
    """

    kind: str
    amount: int
    part: int = 0


def cut(kind: str, amount: int, n_pieces: float, unit: int = 1, part: int = 0) -> list[Piece]:
    """Cut some work into pieces of about equal amounts, whole multiples of a unit; fewer where there are not enough."""
    number = min(amount // unit, max(1, int(n_pieces)))
    edges = [amount // unit * index // number * unit for index in range(number + 1)] if number else []
    return [Piece(kind, high - low, part) for low, high in itertools.pairwise(edges)]


@dataclass(frozen=True)
class DynamicsSummary:
    """What is known of finished dynamics.

    Attributes:
        kinetic: temperature of the thermostat to the kinetic temperature [K or reduced].
        bias: definition of the bias under which frames were taken; None without one.
        sampled_time: of all replicas [ps or reduced].
        steps: of all replicas.
        platform: of OpenMM; empty without it.
        exchange_acceptance: of each pair of neighbouring temperatures; none without replica exchange.
        journeys_up_the_ladder: of all replicas, under replica exchange.
    """

    kinetic: dict[float, Estimate]
    bias: dict[str, Any] | None
    sampled_time: float
    steps: int
    platform: str = ""
    exchange_acceptance: list[float] = field(default_factory=list)
    journeys_up_the_ladder: int = 0

    @property
    def kinetic_temperature(self) -> Estimate:
        """The kinetic temperature; at the lowest temperature where there are several [K or reduced]."""
        return next(iter(self.kinetic.values()))


class PiecewiseSampler(ABC, Generic[Summary]):
    """A simulation that does one piece after another; `state` and `restore` make it resumable bit for bit.

    How the work is cut must follow from what is sampled alone, never from the machine.
    """

    def __init__(self, pieces: Sequence[Piece], seed: int) -> None:
        """Nothing is done yet.

        Args:
            pieces: the work.
            seed: of all random numbers.
        """
        self._pieces, self._seed, self._next = list(pieces), seed, 0

    @property
    def n_chunks(self) -> int:
        """Number of pieces."""
        return len(self._pieces)

    def next_chunk(self) -> Frames | None:
        """Do the next piece of work: its frames, or None for a piece that keeps none (burn-in, deposition).

        Raises:
            SamplingError: the simulation blew up, or cannot be started.
            StopIteration: every piece is done.
        """
        if self._next >= self.n_chunks:
            raise StopIteration("every piece of this plan is done")
        frames = self._do(self._pieces[self._next])
        self._next += 1
        if self._next == self.n_chunks:
            self.close()
        return frames

    @abstractmethod
    def _do(self, piece: Piece) -> Frames | None:
        """Do one piece."""

    @abstractmethod
    def _identity(self) -> str:
        """What a stored state belongs to, in words."""

    def state(self) -> dict[str, NDArray]:
        """Everything needed to resume exactly from here."""
        return {"next": np.array(self._next), "identity": np.frombuffer(self._identity().encode(), np.uint8)}

    def restore(self, state: dict[str, NDArray]) -> None:
        """Resume from a stored state.

        Raises:
            SamplingError: the state belongs to another plan, seed or platform.
        """
        stored = state["identity"].tobytes().decode() if "identity" in state else "unknown"
        if stored != self._identity():
            raise SamplingError(
                f"the stored state is of {stored}, this run is {self._identity()}; delete the checkpoint to start again"
            )
        self._next = int(state["next"])

    def snapshots(self) -> Frames | None:
        """Some frames with all atoms, where frames leave out some of them; else None."""
        return None

    @abstractmethod
    def summary(self) -> Summary:
        """What is known after the last piece."""

    def close(self) -> None:
        """Release its resources; afterwards it can only resume from its state."""

    def _derived_seed(self, *keys: int) -> int:
        return int(np.random.SeedSequence([self._seed, *keys]).generate_state(1)[0])


class EngineSampler(PiecewiseSampler[Summary]):
    """A sampler whose replicas are run by OpenMM, in this process and in others.

    Attributes:
        platform: name of the OpenMM platform.
    """

    def __init__(
        self, pieces: Sequence[Piece], seed: int, platform: tuple[str, dict[str, str]], n_replicas: int, seconds: float
    ) -> None:
        """No engine is started yet.

        Args:
            pieces: the work.
            seed: of all random numbers.
            platform: name of the OpenMM platform, and its properties.
            n_replicas: how many replicas.
            seconds: estimated work of all of them on one core.
        """
        super().__init__(pieces, seed)
        self.platform, self._properties = platform
        self._n_processes = process_count(self.platform, n_replicas, seconds)
        self._replicas = list(range(n_replicas))
        self._pool: EnginePool | None = None

    @abstractmethod
    def _engine_settings(self) -> EngineSettings:
        """Settings of the engines."""

    def _engines(self) -> EnginePool:
        """The engines, started at their first use."""
        if self._pool is None:
            self._pool = EnginePool(self._engine_settings(), len(self._replicas), self._n_processes)
        return self._pool

    def _under_way(self) -> bool:
        """Whether the next piece starts from where replicas are."""
        return 0 < self._next < self.n_chunks

    def state(self) -> dict[str, NDArray]:
        """OpenMM checkpoints of all replicas, and what subclasses need."""
        arrays = super().state()
        if self._under_way():
            for replica, checkpoint in self._engines().checkpoints().items():
                arrays[f"checkpoint_{replica}"] = np.frombuffer(checkpoint, np.uint8)
        return arrays

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue from a stored state; errors as of `PiecewiseSampler`."""
        super().restore(state)
        if self._under_way():
            self._engines().load({item: state[f"checkpoint_{item}"].tobytes() for item in self._replicas})

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def run_sampler(sampler: PiecewiseSampler[Summary], pieces: PieceStore, progress: Progress | None = None) -> Summary:
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
