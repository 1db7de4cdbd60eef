"""Carry out a stage: read its inputs, make it, check it, keep it with its provenance. Plain Python, without Dagster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cg_assets.assets.soundness import FAILED, RECIPE, Failures, Recipes, Soundness, key_of, names_of_failed, place_of
from cg_assets.assets.stage import Content, Figure, Product, Report, Stage, Stored
from cg_assets.core.checks import Verdict
from cg_assets.core.errors import StorageError
from cg_assets.storage.atomic import atomic_file
from cg_assets.storage.parquet import FileInfo
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec, seed_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.registry.tracking import ModelTracking
    from cg_assets.sampling.piecewise import PiecewiseSampler
    from cg_assets.storage.pieces import PieceStore

Summary = TypeVar("Summary")
Held = TypeVar("Held")
_WAIT_SECONDS = 30.0
"""Time for another process to finish the same work: the step of a run that was killed, for example."""


def snapshot_stage(stage: str) -> str:
    """The stage of the few frames with all atoms of samples that leave the solvent out."""
    return f"{stage}_snapshots"


class Inputs:
    """The data of a system that a stage reads; it remembers the version of each file that it was given.

    It gives none of another specification, or that failed a blocking check, or that were made of such data.
    """

    def __init__(self, store: ParquetStore, system: SystemSpec, log: Callable[[str], None] | None = None) -> None:
        """The inputs from a store; nothing is read yet. `log` is told of batches that are left out."""
        self.store, self.system, self._log = store, system, log
        self.versions: dict[str, str] = {}
        self.soundness = Soundness(store, system)

    def info(self, stage: str, batch: str | None = None) -> FileInfo:
        """The metadata of a file, whose version becomes part of the provenance."""
        return self._noted(stage, batch, self.peek(stage, batch))

    def _noted(self, stage: str, batch: str | None, info: FileInfo) -> FileInfo:
        """The metadata of a file that was opened, if it is still the one that was opened before.

        Raises:
            StorageError: another process made it again meanwhile.
        """
        key = key_of(self.system, stage, batch)
        if info.content_hash != self.peek(stage, batch).content_hash:
            raise StorageError(f"{key}: was made again by another process meanwhile; run this stage again")
        self.versions[key] = info.content_hash
        return info

    def peek(self, stage: str, batch: str | None = None) -> FileInfo:
        """The metadata of a file that is not part of the product's provenance.

        Raises:
            StorageError: the file is missing or damaged, or it is unsound.
        """
        if why := self.soundness.why_not(stage, batch):
            key = key_of(self.system, stage, batch)
            raise StorageError(f"{why}: {key} must not be used; change its data or settings and make it again")
        return self.soundness.info(stage, batch)

    @property
    def failures(self) -> Failures:
        """Checks failed by what was read, or by what that was made of, which do not forbid reading it."""
        found: Failures = {}
        for key in self.versions:
            found |= self.soundness.failures(*place_of(key))
        return found

    def facts(self, stage: str, batch: str | None = None) -> dict[str, Any]:
        """The facts in the metadata of a file."""
        return self.info(stage, batch).metadata.extra

    def sound(self, stage: str, batches: list[str] | None = None) -> list[str]:
        """Sound batches of a stage, of these or (None) of all.

        Raises:
            StorageError: there is none.
        """
        known = self.store.batches(self.system.name, stage) if batches is None else batches
        unsound = {batch: why for batch in known if (why := self.soundness.why_not(stage, batch))}
        if sound := [batch for batch in known if batch not in unsound]:
            if self._log is not None and unsound:
                self._log(f"left out: {'; '.join(unsound.values())}")
            return sound
        why = "; ".join(unsound.values()) or "no data"
        raise StorageError(f"{self.system.name}/{stage}: no usable batch: {why}; sample with another plan or batch")

    def frames(self, stage: str, batch: str | None = None, every_temperature: bool = False) -> Frames:
        """The frames of a stage or of one of its batches, of those from a ladder the ones at the system's temperature.

        Args:
            stage: which.
            batch: of which batch.
            every_temperature: gives the frames of all rungs of a ladder.
        """
        from cg_assets.storage.dataset import FrameDataset

        dataset = FrameDataset(self.store.file(self.system.name, stage, batch))
        self._noted(stage, batch, dataset.infos[0])
        return dataset.read() if every_temperature else self.system.at_own_temperature(dataset.read())

    def table(self, stage: str, batch: str | None = None) -> dict[str, NDArray]:
        """The columns of a table."""
        from cg_assets.storage.parquet import read_described, table_arrays

        table, info = read_described(self.store.file(self.system.name, stage, batch))
        self._noted(stage, batch, info)
        return table_arrays(table)

    def has(self, stage: str, batch: str | None = None) -> bool:
        """Whether a file is there."""
        return self.store.file(self.system.name, stage, batch).is_file()


@dataclass
class Work:
    """What a stage is carried out with.

    Attributes:
        stage: which one.
        system: of which system.
        store: the home folder's files.
        batch: name of the batch; None for a stage without batches.
        run_id: of the run that carries it out.
        log: for messages.
        progress: called during long work.
        open_tracking: opens MLflow.
        lease: holds a compute device until the block ends.
        device: description of the device that was used.
    """

    stage: Stage
    system: SystemSpec
    store: ParquetStore
    batch: str | None
    run_id: str
    log: logging.Logger
    progress: Progress
    open_tracking: Callable[[], ModelTracking]
    lease: Callable[[], AbstractContextManager[Any]]
    device: str = "CPU"
    inputs: Inputs = field(init=False)
    recipe: dict[str, str] = field(init=False)
    _held: ExitStack = field(init=False, default_factory=ExitStack)

    def __post_init__(self) -> None:
        """Nothing is read yet; the recipe is that of now."""
        self.inputs = Inputs(self.store, self.system, self.log.info)
        self.recipe = Recipes(self.system).of(self.stage)

    @property
    def seed(self) -> int:
        """The seed of the batch: the same system, stage and batch always have the same one."""
        return seed_of(self.system.name, self.stage.name, self.batch or "0000")

    @contextmanager
    def leased(self) -> Iterator[str]:
        """Torch's name of a device that is held until the block ends."""
        with self.lease() as device:
            self.device = device.description
            yield device.torch_name

    def sample(
        self, identity: str, sampler: Callable[[], PiecewiseSampler[Summary]], seed: int | None
    ) -> tuple[PieceStore, PiecewiseSampler[Summary], Summary]:
        """Run a sampler, or what is left of it where an earlier run was interrupted.

        Args:
            identity: what determines the pieces besides recipe and inputs; pieces of another identity are dropped.
            sampler: makes it, once the batch is locked.
            seed: of its random numbers.

        Returns:
            The pieces, whose lock is held until the stage is carried out; the sampler; its summary.
        """
        from cg_assets.sampling.piecewise import run_sampler

        whole = f"{sorted(self.recipe.items())}{sorted(self.inputs.versions.items())}{identity}"
        place = self.system.name, self.stage.name, self.batch
        pieces = self.hold(self.store.pieces(*place, whole, seed, self.stage.code_version))
        made = sampler()
        return pieces, made, run_sampler(made, pieces, self.progress)

    def keep(
        self,
        content: Content,
        *,
        stage: str = "",
        batch: str | None = None,
        seed: int | None = None,
        bead_types: Sequence[str] | None = None,
        map_hash: str = "",
        facts: Mapping[str, Any] | None = None,
        upstream: Mapping[str, str] | None = None,
        judge: Callable[[Stored], Iterable[Verdict]] | None = None,
    ) -> list[Verdict]:
        """Write a file with its provenance and verdicts, and show it in the catalogue.

        Args:
            content: of the file.
            stage: whose file it is; empty for the stage that is carried out.
            batch: which batch of it.
            seed: of its random numbers.
            bead_types: name of each bead or atom.
            map_hash: hash of the CG map.
            facts: for its metadata.
            upstream: versions of what it was made of; None for all inputs.
            judge: its verdicts; the file becomes visible together with the names of the checks that it failed.

        Returns:
            The verdicts.
        """
        from cg_assets.storage.catalogue import record

        verdicts: list[Verdict] = []

        def mark(path: Path) -> dict[str, list[str]]:
            verdicts.extend(judge(Stored(path)) if judge is not None else [])
            failed = names_of_failed(verdicts)
            return {FAILED: failed} if failed else {}

        self._check_recipe()
        name = stage or self.stage.name
        metadata = FileMetadata(
            system=self.system.name,
            stage=name,
            units=self.system.units,
            bead_types=None if bead_types is None else list(bead_types),
            map_hash=map_hash or None,
            seed=seed,
            code_version=self.stage.code_version,
            upstream_data_versions=dict(self.inputs.versions if upstream is None else upstream),
            dagster_run_id=self.run_id,
            variable_units=self.system.variable_units,
            extra={"specification": self.system.content_hash, RECIPE: self.recipe} | dict(facts or {}),
        )
        if stage:
            self.store.file(self.system.name, name, batch)  # what it replaces, also on an object store
        content.write(self.store, metadata, batch, mark)
        record(self.store.home, self.store.path(self.system.name, name, batch))
        return verdicts

    def hold(self, held: AbstractContextManager[Held]) -> Held:
        """Enter a context that lasts until the stage is carried out."""
        return self._held.enter_context(held)

    def _check_recipe(self) -> None:
        if Recipes(self.system).of(self.stage) != self.recipe:
            raise StorageError(
                f"{self.system.name}/{self.stage.name}: a file that the specification names changed meanwhile; "
                "run it again"
            )

    def close(self) -> None:
        """Release the locks and the device."""
        self._held.close()


@dataclass(frozen=True)
class Done:
    """A stage that has been carried out.

    Attributes:
        verdicts: of its checks.
        report: for its page.
        version: data version.
        info: metadata of its file.
    """

    verdicts: list[Verdict]
    report: Report
    version: str
    info: FileInfo


def _keep_figures(work: Work, report: Report) -> None:
    """Keep the figures of a report as PNG files, in place of those of an earlier batch or run."""
    folder = work.store.figure_folder(work.system.name, work.stage.name)
    figures = {item.file: item.png for item in report.values() if isinstance(item, Figure)}
    for path in folder.glob("*.png"):
        if path.name not in figures:
            path.unlink()
    for name, png in figures.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(png)


def carry_out(work: Work) -> Done:
    """Make a stage, check it and keep it; nothing is visible before it is checked.

    Raises:
        CgAssetsError: the inputs are missing or unsound, or the work fails; the message names the remedy.
    """
    started, place = time.monotonic(), (work.system.name, work.stage.name, work.batch)
    try:
        work.hold(work.store.lock(*place, _WAIT_SECONDS))
        work.store.file(*place)  # what it replaces, also on an object store
        product: Product = work.stage.make(work)
        verdicts = work.keep(
            product.content,
            batch=work.batch,
            seed=product.seed,
            bead_types=product.bead_types,
            map_hash=product.map_hash,
            facts=product.facts,
            judge=product.judge,
        )
        info, seconds = work.store.describe(*place), round(time.monotonic() - started, 2)
        report = product.report(verdicts)
        _keep_figures(work, report)
    finally:
        work.close()
    shown = report | {"seconds": seconds, "device": work.device}
    return Done(verdicts, shown, product.version or info.content_hash, info)
