"""What several stages read: samples of a batch, pooled labels, the frames that a potential learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.assets.work import Inputs, snapshot_stage
from cg_assets.core.checks import frame_fault
from cg_assets.core.errors import SamplingError, TrainingError
from cg_assets.simulation.settings import CGSimulation
from cg_assets.systems import SystemSpec
from cg_assets.training.settings import TARGETS

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.storage.parquet import FileInfo


@dataclass(frozen=True)
class Source:
    """The sound batches of a stage that a model learns from."""

    batches: list[str]
    infos: list[FileInfo]
    frames: list[Frames]


def read_source(inputs: Inputs, stage: str, every_temperature: bool = False) -> Source:
    """All sound batches of a stage.

    Args:
        inputs: of the stage.
        stage: which.
        every_temperature: gives the frames of all rungs of a ladder.

    Raises:
        StorageError: there is none.
        TrainingError: a number in one is not finite, or absurd.
    """
    batches = inputs.sound(stage)
    infos = [inputs.info(stage, batch) for batch in batches]
    frames = [
        sane(inputs.frames(stage, batch, every_temperature), info.path)
        for batch, info in zip(batches, infos, strict=True)
    ]
    return Source(batches, infos, frames)


def learnt_source(inputs: Inputs, system: SystemSpec, potential: str) -> Source:
    """The frames that a potential learns from, of all of its stages but targets; errors as of `read_source`."""
    settings = system.potentials[potential]
    stages = [stage for stage in settings.stages if stage != TARGETS]
    sources = [read_source(inputs, stage, system.network.needs_temperature) for stage in stages]
    source = Source(
        [batch for one in sources for batch in one.batches],
        [info for one in sources for info in one.infos],
        [part for one in sources for part in one.frames],
    )
    if settings.temperatures is None:
        return source
    known = np.unique(np.concatenate([part.temperature for part in source.frames]))
    if missing := sorted(set(settings.temperatures) - set(known.tolist())):
        raise TrainingError(
            f"{', '.join(stages)} has no frames at {', '.join(f'{kelvin:g}' for kelvin in missing)}, only at "
            f"{', '.join(f'{kelvin:g}' for kelvin in known)}; change temperatures"
        )
    at = [part.select(np.isin(part.temperature, settings.temperatures)) for part in source.frames]
    return replace(source, frames=at)


def sane(frames: Frames, path: Path) -> Frames:
    """Frames of a file, if a potential can learn from all of them.

    Raises:
        TrainingError: a number is not finite, or absurd.
    """
    if fault := frame_fault(frames):
        raise TrainingError(f"{path}: {fault}; make this batch again, or delete it")
    return frames


def read_samples(
    inputs: Inputs, source: str, batch: str | None, every_temperature: bool = False
) -> tuple[Frames, Frames]:
    """A sound batch of samples without probes, and those of its frames that hold all atoms.

    Both are at the temperature of the system unless those of all rungs of a ladder are asked for.

    Raises:
        StorageError: the batch failed its checks.
    """
    (sound,) = inputs.sound(source, [str(batch)])
    samples = inputs.frames(source, sound, every_temperature)
    samples = samples.select(~samples.probe)
    stored = snapshot_stage(source)
    return samples, inputs.frames(stored, sound, every_temperature) if inputs.has(stored, sound) else samples


def pooled_frames(
    inputs: Inputs,
    system: SystemSpec,
    stage: str,
    batches: Sequence[str],
    apart: bool = False,
    every_temperature: bool = False,
) -> Frames:
    """The label frames of these batches as one data set.

    Args:
        inputs: of the stage.
        system: the system.
        stage: of the labels.
        batches: their batches.
        apart: gives groups of umbrella windows that do not touch weights of their own.
        every_temperature: gives the frames of all rungs of a ladder.

    Raises:
        SamplingError: umbrella windows do not touch.
    """
    from cg_assets.biases import bias_from_definition
    from cg_assets.biases.reweighting import pooled_batches

    definitions = [inputs.facts(stage, batch).get("bias") for batch in batches]
    biases = [bias_from_definition(definition) if definition else None for definition in definitions]
    frames = [inputs.frames(stage, batch, every_temperature) for batch in batches]
    try:
        return pooled_batches(frames, system.thermal_energy, biases, apart)
    except SamplingError as error:
        raise SamplingError(f"{system.name}/{stage}, batches {', '.join(batches)}: {error}") from None


def weighted(frames: Frames, bias: Mapping[str, Any] | None, thermal_energy: float) -> Frames:
    """Frames of a batch under a bias (its definition) as `bias_weights` takes them, also from umbrella windows."""
    from cg_assets.biases import bias_from_definition
    from cg_assets.biases.reweighting import pooled_batches

    return pooled_batches([frames], thermal_energy, [bias_from_definition(bias) if bias else None], apart=True)


def training_frames(
    inputs: Inputs, system: SystemSpec, name: str, apart: bool = False, every_temperature: bool = False
) -> Frames:
    """CG frames of the batches that a potential learned from; of all sound ones where it learned from others.

    Arguments as of `pooled_frames`.
    """
    stage = system.data_stage(name)
    learned_from = inputs.peek(f"potential_{name}").metadata.upstream_data_versions
    mine = f"{system.name}/{stage}/"
    batches = [key.removeprefix(mine) for key in learned_from if key.startswith(mine)]
    return pooled_frames(inputs, system, stage, batches or inputs.sound(stage), apart, every_temperature)


def learnt_frames(system: SystemSpec, name: str, frames: Frames) -> Frames:
    """The CG frames that a potential learned from, drawn from those at all of its temperatures as its training does.

    Where it is judged at the temperature of the system alone, only those at that one, if it learned from any there.

    Args:
        system: the system.
        name: of the potential.
        frames: `training_frames` of it, at every temperature where it needs one.
    """
    from cg_assets.training.setup import drawn_frames

    temperatures = system.potentials[name].temperatures
    if temperatures is not None:
        frames = frames.select(np.isin(frames.temperature, temperatures))
    drawn = drawn_frames(frames, *system.drawn(name))
    own = drawn if system.cg_simulation.temperatures else system.at_own_temperature(drawn)
    return own if len(own) else drawn


def reference_frames(inputs: Inputs, system: SystemSpec) -> Frames | None:
    """The frames that are the reference of a system, at all temperatures of its ladder; None where it has others."""
    source = system.reference_data
    if source is None:
        return None
    return pooled_frames(inputs, system, source, inputs.sound(source), every_temperature=bool(system.rungs))


def start_frames(inputs: Inputs, system: SystemSpec, name: str) -> Frames:
    """CG frames that simulations with a potential start from: those it learned from, or some at each temperature.

    Raises:
        StorageError: there are none.
    """
    frames = reference_frames(inputs, system) if system.cg_simulation.temperatures else None
    return training_frames(inputs, system, name, apart=True) if frames is None else frames


def frozen_bias(inputs: Inputs, settings: CGSimulation, labels: str | None) -> Mapping[str, Any] | None:
    """The bias of the enhanced CG run, that of the first biased batch; None where the settings ask for no such run.

    Args:
        inputs: of the stage.
        settings: of the run.
        labels: stage of the biased frames.
    """
    if not settings.enhanced_duration or labels is None:
        return None
    return inputs.facts(labels, inputs.sound(labels)[0])["bias"]


def with_map(system: SystemSpec) -> tuple[list[str], str, dict[str, Any]]:
    """The CG map in the metadata of beads: bead names, hash of the map, facts."""
    cg_map = system.beads().cg_map
    return list(cg_map.bead_names), cg_map.hash, {"cg_map": cg_map.to_json()}
