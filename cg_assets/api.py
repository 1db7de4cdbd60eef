"""For scripts and notebooks: each stage of a system on data in memory, without Dagster, MLflow or a home folder.

`run` alone is the pipeline. The others do the science of one stage each, from the settings of the system's file:
`sample`, `label`, `train`, `simulate`, `evaluate` (see the scripts in `examples/`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.systems import SystemSpec, load_system, name_of

if TYPE_CHECKING:
    from cg_assets.evaluation.evaluation import Evaluation
    from cg_assets.evaluation.reference import Reference
    from cg_assets.potentials.base import Potential
    from cg_assets.simulation.run import CGSimulationResult

__all__ = ["Frames", "Samples", "evaluate", "label", "load_model", "load_system", "run", "sample", "simulate", "train"]


@dataclass(frozen=True)
class Samples:
    """Frames, and what they were sampled under.

    Attributes:
        frames: of atoms, or of beads with their labels.
        bias: definition of the frozen bias; None without one.
    """

    frames: Frames
    bias: Mapping[str, Any] | None = None


def run(name: str, batch: str | None = None, stages: list[str] | None = None) -> bool:
    """Run the pipeline of a system in the home folder, as `cg-assets run`; whether every step succeeded.

    Raises:
        CgAssetsError: the system, a stage or the batch name is wrong; nothing has been run.
    """
    from cg_assets.operations.runs import Outcome, run_system

    return run_system(name_of(name), batch, stages) is not Outcome.FAILED


def sample(
    system: SystemSpec,
    plan: str = "unbiased",
    seed: int = 0,
    progress: Progress | None = None,
    every_temperature: bool = False,
) -> Samples:
    """Sample a plan of a system: atomistic frames with their unbiased forces.

    Args:
        system: a system of `load_system`.
        plan: `unbiased`, `biased`, or the name of a further one.
        seed: of all random numbers; the same seed gives the same frames.
        progress: called after each piece of work.
        every_temperature: gives the frames of all rungs of a ladder that keeps them, not only those at the system's
            temperature, the only ones that `train` takes.

    Raises:
        SystemSpecError: there is no such plan.
        SamplingError: the simulation cannot be set up, or it blew up.
    """
    plans = system.sampling.by_name()
    if plan not in plans:
        raise SystemSpecError(f"{system.name}: no plan {plan!r}; there are {', '.join(plans)}")
    sampler = system.sampler(plans[plan], seed)
    blocks = []
    for number in range(sampler.n_chunks):
        blocks.append(sampler.next_chunk())
        if progress is not None:
            progress(number + 1, sampler.n_chunks, "pieces")
    frames = Frames.concatenate([block for block in blocks if block is not None])
    frames = frames if every_temperature else system.at_own_temperature(frames)
    return Samples(frames.select(~frames.probe), sampler.summary().bias)


def label(system: SystemSpec, samples: Samples, source: str | None = None, seed: int = 0) -> Samples:
    """Beads with force labels.

    Args:
        system: the system.
        samples: atomistic frames of `sample`; without forces, where the source needs none.
        source: one of the system's `labels`, such as a kernel, whose flow is trained first; None for mapped forces.
        seed: of the random numbers of the source.

    Raises:
        SystemSpecError: there is no such source, or its flow is that of another one.
        ForceMapError: the frames do not have the atoms of the map, or the force map is not valid.
        TrainingError: the frames cannot be labelled.
    """
    from cg_assets.labels.source import LabelInputs
    from cg_assets.mapping.run import fit_force_map, map_frames

    beads, frames = system.beads(), samples.frames
    mapping = system.mapping
    if frames.forces is None and mapping.needs_frames:
        mapping = mapping.model_copy(update={"force_map": "group"})  # positions alone are mapped
    mapped = map_frames(beads, frames, fit_force_map(mapping, beads, frames))
    if source is None:
        return Samples(mapped, samples.bias)
    if source not in system.labels:
        raise SystemSpecError(f"{system.name}: no labels {source!r}; there are {', '.join(system.labels) or 'none'}")
    settings = system.labels[source]
    model = None
    if settings.model_stage(source):
        model = _trained_flow(system, source, mapped)
    labelled = settings.label(LabelInputs(mapped, beads, samples.bias, seed, model))
    return Samples(labelled.frames, samples.bias)


def _trained_flow(system: SystemSpec, source: str, frames: Frames) -> Any:
    """The flow of a kernel, learned from CG frames."""
    from cg_assets.labels.kernels.flow_training import train_flow
    from cg_assets.labels.kernels.run import flow_config
    from cg_assets.training.data import correlated_groups

    kernel = system.labels[source].own_flow()
    if kernel is None:
        raise SystemSpecError(f"labels.{source} uses the flow of another source; label with that one")
    config = flow_config(system.beads(), kernel.noise, kernel.hidden, frames.temperature)
    groups, settings, kelvin = correlated_groups([frames]), kernel.training, frames.temperature
    return train_flow(config, settings, frames.positions, groups, settings.seed, temperature=kelvin).module


def train(
    system: SystemSpec,
    labelled: Samples,
    seed: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Potential:
    """Fit the system's potential to labelled beads.

    Args:
        system: the system, whose `network` and `training` are used.
        labelled: of `label`.
        seed: of the training; None for that of the file.
        device: `cpu` or `cuda`.
        progress: called with the finished epochs.

    Raises:
        TrainingError: the data cannot train this potential, or training diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    from cg_assets.training import train as training
    from cg_assets.training.setup import fitted_prior, potential_config, training_data

    beads, fit = system.beads(), system.fit
    seed = fit.seed if seed is None else seed
    data = training_data(system.network, [labelled.frames], None, seed)
    config = potential_config(system.network, beads, fit.committee, [labelled.frames])
    if (prior := fitted_prior(system.network, beads, [labelled.frames])) is not None:
        config["prior"] = prior.config()
    return training.train(config, fit, data, seed, device, progress).module


def simulate(
    system: SystemSpec,
    potential: Potential,
    labelled: Samples,
    device: str = "cpu",
    progress: Progress | None = None,
) -> CGSimulationResult:
    """Simulate the beads with a potential, as the system's `cg_simulation` says.

    Args:
        system: the system.
        potential: of `train`.
        labelled: the beads that it was trained on, from which replicas start, and under whose bias an enhanced run is
            made.
        device: `cpu` or `cuda`.
        progress: called during the steps.

    Raises:
        SamplingError: the file asks for an enhanced run, and the samples have no bias.
        ExplosionError: fewer than two replicas stayed stable.
    """
    from cg_assets.simulation.run import run_cg_simulation

    wanted = bool(system.cg_simulation.enhanced_duration)
    if wanted and labelled.bias is None:
        raise SamplingError(
            "cg_simulation.enhanced_duration asks for a run under the bias of the samples, which have none; train on "
            "biased samples, or set it to 0"
        )
    bias = labelled.bias if wanted else None
    settings = system.cg_simulation
    return run_cg_simulation(
        potential,
        system.beads(),
        settings,
        labelled.frames,
        system.simulated_temperatures,
        bias=bias,
        device=device,
        progress=progress,
    )


def evaluate(
    system: SystemSpec,
    potential: Potential,
    simulation: CGSimulationResult,
    labelled: Samples,
    reference: Reference | None = None,
) -> Evaluation:
    """Judge a potential by its simulation, as the system's `evaluation` says.

    Args:
        system: the system.
        potential: of `train`.
        simulation: of `simulate`.
        labelled: the beads that it was trained on; the reference, where `evaluation.reference.type` is data.
        reference: what it is judged against; None to compute it, for which long runs may take hours.

    Returns:
        Every quantity with its error; `rows()` is a table of them.
    """
    from cg_assets.assets.evaluations import judge

    if reference is None:
        with tempfile.TemporaryDirectory() as scratch:
            reference = system.compute_reference(0, Path(scratch), data=labelled.frames)
    truth = labelled.frames if system.cg_simulation.temperatures else None
    return judge(system, potential, reference, simulation.frames, simulation.runs, labelled.frames, truth)


def load_model(model: str) -> Potential:
    """The network of a registered model, ready to evaluate.

    Args:
        model: `NAME`, `NAME@ALIAS` or `NAME/VERSION`, as of `cg-assets lookup`; registered in MLFLOW_TRACKING_URI, by
            default in the home folder.

    Raises:
        TrackingError: there is no such model or version, or MLflow does not answer.
        StorageError: its files are damaged.
    """
    from cg_assets.registry.tracking import ModelTracking
    from cg_assets.settings import installation

    tracking = ModelTracking(installation().tracking_uri, installation().home)
    found = tracking.lookup(model)
    return tracking.load(found.name, str(found.version))[0]
