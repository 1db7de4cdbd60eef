"""Keep a system up to date: the next batch of data, and what must be rebuilt because its data changed.

What is out of date follows from the files alone. Each records the versions of the data it was made from, so nothing
depends on how, when or by whom they were made, and an interrupted refresh resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from cg_assets.assets import stages_of
from cg_assets.assets.soundness import Failures, Soundness, explained, key_of, place_of
from cg_assets.assets.stage import Batches
from cg_assets.core.errors import SamplingError, StorageError
from cg_assets.orchestration.automation import FIRST_BATCH
from cg_assets.registry.models import RegisteredModel
from cg_assets.registry.reconciliation import fault_of, models_named
from cg_assets.storage.parquet import FileInfo
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import SystemSpec

_TRIES = 3
"""Batches that may fail their checks, one after the other, before no more are added."""


class Part(NamedTuple):
    """The data of one stage: of one batch, or (None) of a stage without batches."""

    stage: str
    batch: str | None


@dataclass(frozen=True)
class PlannedRun:
    """Stages that one run makes for one batch (None: stages without batches only)."""

    batch: str | None
    stages: list[str]


@dataclass(frozen=True)
class RefreshPlan:
    """What a refresh does.

    Attributes:
        added: name of the new batch; None where unfinished work is finished first, or none is to be added.
        runs: to be done in this order.
        reasons: why each part is made; parts that follow from others are left out.
        note: why no batch is added, where that is not because of unfinished work.
        left_out: samples of another specification, and what has changed since.
        failed: whether that is because a training, or batch after batch, failed its checks.
    """

    added: str | None
    runs: list[PlannedRun]
    reasons: dict[Part, str]
    note: str = ""
    left_out: dict[Part, str] = field(default_factory=dict)
    failed: bool = False


def next_batch_name(known: Iterable[str]) -> str:
    """The name after the last that is a number, as wide as that; the first batch where there is none."""
    numbered = [name for name in known if name.isascii() and name.isdigit()]
    if not numbered:
        return FIRST_BATCH
    last = max(numbered, key=int)
    return str(int(last) + 1).zfill(len(last))


def known_models(store: ParquetStore, system: SystemSpec) -> dict[str, RegisteredModel]:
    """What MLflow has of the models of a system and others; nothing where no file of the system names one.

    Raises:
        TrackingError: MLflow has none of the models that the files name, or does not answer.
    """
    named = set()
    for stage in stages_of(system):
        with suppress(StorageError):  # not there yet, or damaged: it is made
            facts = {} if stage.batched else store.describe(system.name, stage.name).metadata.extra
            named |= {facts["registered_model"]} if "registered_model" in facts else set()
    return models_named(named) if named else {}


def plan_refresh(
    store: ParquetStore,
    system: SystemSpec,
    batches: Iterable[str],
    add: str | None = None,
    models: Mapping[str, RegisteredModel] | None = None,
    used: Iterable[str] = (),
) -> RefreshPlan:
    """Plan a refresh: finish what is not finished, else add a batch; then everything that follows from it.

    None is added after a training that failed its checks, since the next one would only add to data that are not
    learned, nor where the last three batches failed theirs.

    Args:
        store: the data.
        system: the system.
        batches: names of the batches that are known.
        add: name of the batch to work on, also again, whatever is unfinished; by default the next, when nothing is.
        models: what MLflow has (`known_models`): whatever it lacks is made again; None where that is not asked for.
        used: names of batches that were there once, which no new one gets.

    Raises:
        SamplingError: there are no files to import for the batch that was named.
    """
    graph = _Graph(store, system, add, models)
    known = sorted({*batches, *graph.batches_with_data()})
    planned = graph.out_of_date(known)
    left = graph.left_out
    if add is None and planned and set(known) - {part.batch for part in left}:
        return RefreshPlan(None, graph.runs(planned), _roots(planned), left_out=left)
    if add is None and (failed := graph.failed_trainings() | graph.failed_batches(known)):
        note = f"{explained(failed)}; change its data or settings, or name the batch to add (--batch)"
        return RefreshPlan(None, [], {}, note, left, failed=True)
    name = next_batch_name({*known, *used, *graph.named_batches()}) if add is None else add
    try:
        system.look_for_files(name)
    except SamplingError as error:
        if add is not None:
            raise
        return RefreshPlan(None, graph.runs(planned), _roots(planned), str(error), left)
    planned = graph.out_of_date(sorted({*known, name}))
    return RefreshPlan(None if name in known else name, graph.runs(planned), _roots(planned), left_out=left)


def plan_run(
    store: ParquetStore, system: SystemSpec, batch: str, models: Mapping[str, RegisteredModel] | None = None
) -> dict[Part, str]:
    """What a run for one batch has to make, and why (empty where it follows from others that are made).

    Other batches are not made, but stages without batches are made of them, too, where this one must not be read.

    Args:
        store: the data.
        system: the system.
        batch: to be sampled, again where its specification has changed.
        models: as in `plan_refresh`.
    """
    graph = _Graph(store, system, batch, models)
    return graph.out_of_date(sorted({batch, *graph.batches_with_data()}), only=batch)


def _roots(planned: dict[Part, str]) -> dict[Part, str]:
    return {part: reason for part, reason in planned.items() if reason}


class _ReadOnce(ParquetStore):
    """A store whose files do not change while a refresh is planned: the metadata of each are read once."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._told: dict[tuple[str, str, str | None], FileInfo] = {}

    def describe(self, system: str, stage: str, batch: str | None = None) -> FileInfo:
        key = (system, stage, batch)
        if key not in self._told:
            self._told[key] = super().describe(*key)
        return self._told[key]


class _Graph:
    """The stages of a system with the state of their files."""

    def __init__(
        self,
        store: ParquetStore,
        system: SystemSpec,
        again: str | None = None,
        models: Mapping[str, RegisteredModel] | None = None,
    ) -> None:
        self.store, self.system, self._again, self._models = _ReadOnce(store.home), system, again, models
        self.soundness = Soundness(self.store, system)
        self._unsound: dict[Part, bool] = {}
        self.stages = {stage.name: stage for stage in stages_of(system)}
        self.batched = {name for name, stage in self.stages.items() if stage.batched}
        parents = {name: sorted(read.stage for read in stage.reads) for name, stage in self.stages.items()}
        self.parents = {stage: parents[stage] for stage in TopologicalSorter(parents).static_order()}

    def batches_with_data(self) -> set[str]:
        stored = {batch for stage in self.batched for batch in self.store.batches(self.system.name, stage)}
        return stored | self._pruned_batches

    def named_batches(self) -> set[str]:
        """Batches from which something was made, be they there or not."""
        found = set()
        for stage in self.stages.keys() - self.batched:
            with suppress(StorageError):
                keys = self.store.describe(self.system.name, stage).metadata.upstream_data_versions
                found |= {key.split("/")[2] for key in keys if key.count("/") == 2}
        return found

    def out_of_date(self, batches: list[str], only: str | None = None) -> dict[Part, str]:
        """Parts to be made, parents first, and why (empty where they follow from others that are made).

        Args:
            batches: names of all that may be read.
            only: the one that is made; all where None.
        """
        planned: dict[Part, str] = {}
        usable: set[Part] = set()
        for stage in self.parents:
            for batch in batches if stage in self.batched else [None]:
                part = Part(stage, batch)
                sources = {parent: self._parts_of(parent, batch, batches) for parent in self.parents[stage]}
                if part in self.left_out or not all(usable & set(parts) for parts in sources.values()):
                    continue  # it is, or would read, data whose checks failed or of another specification
                reason = self._fault(part)
                if reason or any(source in planned for parts in sources.values() for source in parts):
                    if only is not None and batch not in (only, None):
                        continue
                    planned[part] = reason
                if part in planned or not self.is_unsound(part):
                    usable.add(part)
        return planned

    def failed_trainings(self) -> Failures:
        """Parts without batches that failed a blocking check of their own."""
        found: Failures = {}
        for stage in sorted(self.stages.keys() - self.batched):
            if self.is_unsound(part := Part(stage, None)) and not self._changed(part):
                key = key_of(self.system, stage, None)
                found |= {name: checks for name, checks in self.soundness.faults(stage).items() if name == key}
        return found

    def failed_batches(self, batches: list[str]) -> Failures:
        """The last few batches of a stage if all of them failed a blocking check: another one would fail, too."""
        found: Failures = {}
        for stage in sorted(self.batched):
            last = [
                Part(stage, batch)
                for batch in batches[-_TRIES:]
                if self.store.file(self.system.name, stage, batch).is_file()
            ]
            if len(last) == _TRIES and all(self.is_unsound(part) and not self._changed(part) for part in last):
                for part in last:
                    found |= self.soundness.faults(*part)
        return found

    def runs(self, planned: dict[Part, str]) -> list[PlannedRun]:
        """As few runs as there can be: one run works on one batch, and nothing before all that it is made of."""
        waiting, runs = list(planned), []
        batches = sorted({part.batch for part in planned if part.batch})
        while waiting:
            unmade = set(waiting)
            batch = next((part.batch for part in waiting if part.batch), None)
            taken: set[Part] = set()
            for part in waiting:
                sources = {
                    source
                    for parent in self.parents[part.stage]
                    for source in self._parts_of(parent, part.batch, batches)
                }
                if part.batch in (batch, None) and not (sources & unmade) - taken:
                    taken.add(part)
            runs.append(PlannedRun(batch, [part.stage for part in waiting if part in taken]))
            waiting = [part for part in waiting if part not in taken]
        return runs

    def _parts_of(self, stage: str, batch: str | None, batches: list[str]) -> list[Part]:
        """What of a parent stage is read for a batch, or (None) by a stage without batches."""
        if stage not in self.batched:
            return [Part(stage, None)]
        return [Part(stage, item) for item in (batches if batch is None else [batch])]

    def _fault(self, part: Part) -> str:
        """What is wrong with a part as it lies on the disk; nothing where it is up to date."""
        name = self.system.name
        if self.store.is_pruned(name, *part):
            return ""
        if not self.store.file(name, *part).is_file():
            return "not made yet"
        try:
            metadata = self.store.describe(name, *part).metadata
        except StorageError:
            return "damaged"
        if self._models is not None and part.batch is None and (lacking := fault_of(metadata.extra, self._models)):
            return lacking
        recorded = metadata.upstream_data_versions
        # Some files name data that are no parents in the graph: an adaptive plan reads the proposal of its last batch.
        ours = {key: version for key, version in recorded.items() if key.split("/")[1] in self.parents[part.stage]}
        for key, version in ours.items():
            if self._version(key) != version:
                return f"{key} changed"
            if self.is_unsound(Part(*place_of(key))):
                return f"{key} failed its checks"
        for parent in self._pooled(part.stage) if part.batch is None else []:
            parts = [Part(parent, batch) for batch in self.store.batches(name, parent)]
            sound = [part for part in parts if not self.is_unsound(part) and not self._changed(part)]
            new = [f"{name}/{parent}/{part.batch}" for part in sound]
            if unknown := [key for key in new if key not in recorded]:
                return f"{unknown[0]} is new"
        return self._changed(part)

    def _pooled(self, stage: str) -> list[str]:
        """Stages of which a stage without batches reads every sound batch."""
        return sorted(read.stage for read in self.stages[stage].reads if read.batches is Batches.ALL)

    def _version(self, key: str) -> str | None:
        try:
            return self.store.upstream(key)[key]
        except StorageError:
            return None

    def is_unsound(self, part: Part) -> bool:
        """Whether a part, if it is there, must not be read: it failed a blocking check or was removed for it."""
        if part not in self._unsound:
            try:
                self._unsound[part] = bool(self.soundness.faults(*part))
            except StorageError:  # damaged or not there: it is made, if it was not removed
                self._unsound[part] = self.store.is_pruned(self.system.name, *part)
        return self._unsound[part]

    def _changed(self, part: Part) -> str:
        """Why a part is of another model than the present one; empty where it is not, is damaged, or is not there."""
        try:
            return self.soundness.changed(*part)
        except StorageError:
            return ""

    @cached_property
    def left_out(self) -> dict[Part, str]:
        """Batches of another specification that are not made again, unless one is asked for by name."""
        kept = sorted(stage for stage in self.batched if not self.stages[stage].made_again)
        parts = [Part(stage, batch) for stage in kept for batch in self.store.batches(self.system.name, stage)]
        found = {part: self._changed(part) for part in parts if part.batch != self._again}
        return {part: changed for part, changed in found.items() if changed}

    @cached_property
    def _pruned_batches(self) -> set[str]:
        """Batches of which a file was removed because its checks failed."""
        return {batch for stage in self.batched for batch in self.store.pruned(self.system.name, stage)}
