"""What a stage is: what it reads, what it makes, and the checks on it. Plain Python, without Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cg_assets.core.checks import Check, Verdict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from cg_assets.assets.work import Work
    from cg_assets.core.frames import Frames
    from cg_assets.storage.parquet import Mark
    from cg_assets.storage.pieces import PieceStore
    from cg_assets.storage.schemas import FileMetadata
    from cg_assets.storage.store import ParquetStore


class Batches(Enum):
    """Which batches of another stage a stage reads."""

    SAME = "its own batch"
    ALL = "every sound batch; a new one makes it out of date"
    CHOSEN = "those chosen elsewhere, for example by the potential that it evaluates"
    NONE = "the other stage has no batches"


@dataclass(frozen=True)
class Read:
    """Another stage of the same system that a stage reads."""

    stage: str
    batches: Batches


@dataclass(frozen=True)
class Figure:
    """A figure on the page of an asset."""

    png: bytes
    title: str

    @property
    def file(self) -> str:
        """Name of the file in which it is kept."""
        return f"{self.title.replace(' ', '_')}.png"


Report = dict[str, Any]
"""Contents of the page of an asset by name: figures, tables (lists of rows), numbers and text."""


@dataclass(frozen=True)
class Stored:
    """A file that is written but not visible yet."""

    path: Path

    def frames(self) -> Frames:
        """All its frames."""
        from cg_assets.storage.dataset import read_frames

        return read_frames([self.path])

    def facts(self) -> dict[str, Any]:
        """The facts in its metadata."""
        from cg_assets.storage.parquet import describe

        return describe(self.path).metadata.extra


class Content(Protocol):
    """The content of a stage's file."""

    def write(self, store: ParquetStore, metadata: FileMetadata, batch: str | None, mark: Mark | None) -> None:
        """Write the file; it becomes visible with its mark."""
        ...


@dataclass(frozen=True)
class FrameContent:
    """Frames in memory."""

    frames: Frames

    def write(self, store: ParquetStore, metadata: FileMetadata, batch: str | None, mark: Mark | None) -> None:
        """Write the frames."""
        store.write_frames(self.frames, metadata, batch, mark)


@dataclass(frozen=True)
class PieceContent:
    """The finished pieces of a batch, each of which is shown to `watch` on its way into the file."""

    pieces: PieceStore
    watch: Callable[[Frames], None] | None = None

    def write(self, store: ParquetStore, metadata: FileMetadata, batch: str | None, mark: Mark | None) -> None:
        """Join the pieces."""
        self.pieces.finish(metadata, mark, self.watch)


@dataclass(frozen=True)
class TableContent:
    """Columns of a table, with the units of those that have one."""

    columns: Mapping[str, ArrayLike]
    units: Mapping[str, str] | None = None

    def write(self, store: ParquetStore, metadata: FileMetadata, batch: str | None, mark: Mark | None) -> None:
        """Write the table."""
        store.write_table(self.columns, metadata, batch, self.units, mark)


def _no_verdicts(stored: Stored) -> list[Verdict]:
    return []


def _no_report(verdicts: Sequence[Verdict]) -> Report:
    return {}


@dataclass(frozen=True)
class Product:
    """What a stage made from its inputs.

    Attributes:
        content: of its file.
        facts: for the metadata of the file.
        judge: its verdicts on the file as it can be read back, or on what was written, before it is visible.
        report: for its page; called with the verdicts when the file is there.
        seed: of its random numbers; None for that of the batch.
        bead_types: name of each bead, where the file holds beads.
        map_hash: hash of their CG map.
        version: data version; empty for the hash of the content.
    """

    content: Content
    facts: Mapping[str, Any] = field(default_factory=dict)
    judge: Callable[[Stored], list[Verdict]] = _no_verdicts
    report: Callable[[Sequence[Verdict]], Report] = _no_report
    seed: int | None = None
    bead_types: Sequence[str] | None = None
    map_hash: str = ""
    version: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage of a system: `[system, name]` in Dagster, one file (of each batch) in the home folder.

    Attributes:
        name: of the stage.
        description: what it holds, in a sentence or two.
        make: makes it from its inputs.
        reads: the stages that it reads.
        checks: the checks on it.
        batched: whether each batch has a file of its own.
        raw: whether its batches are new data, which can become stale with age.
        gpu: whether it asks for a GPU.
        kinds: labels of its tools on its page.
        code_version: changes when the same inputs give another result.
        sections: parts of the specification that it depends on, besides those of the stages that it reads.
        made_again: whether a refresh makes its batches of another specification again; else it leaves them out, since
            the next batch costs as much and overwrites nothing.
    """

    name: str
    description: str
    make: Callable[[Work], Product]
    reads: tuple[Read, ...] = ()
    checks: tuple[Check, ...] = ()
    batched: bool = False
    raw: bool = False
    gpu: bool = False
    kinds: frozenset[str] = frozenset({"parquet"})
    code_version: str = "1"
    sections: tuple[str, ...] = ("specification",)
    made_again: bool = True
