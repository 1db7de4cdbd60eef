"""One call that trains any potential: what can descend descends, and what is linear is solved for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.potentials.composite import Committee
from cg_assets.potentials.settings import build_potential
from cg_assets.training.data import TrainingSet
from cg_assets.training.training_run import TrainingResult, TrainingRun, take_statistics, torch_device

if TYPE_CHECKING:
    from cg_assets.core.settings import Training
    from cg_assets.potentials.base import Potential, PotentialConfig


def train(
    config: PotentialConfig,
    training: Training | None,
    data: TrainingSet,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> TrainingResult:
    """Fit the potential that `config` describes, and the networks of its committee, if `training` asks for one.

    A potential with weights to descend along does so: the learning rate rises over the first 100 steps and falls by a
    cosine to zero at the last epoch; training stops early after `training.patience` epochs without a better held-out
    loss. Then whatever is linear is solved for (`Potential.solve`); a potential that is linear as a whole is solved
    from all data at once. On a CPU the same seed gives the same weights, and an interrupted training that resumes
    from its checkpoint gives the weights of an uninterrupted one, bit for bit (for the same number of threads).

    Each further network of a committee is trained in the same way, from other initial weights, on a bootstrap sample
    of the data. The result is that of the potential, its module a `Committee`.

    Args:
        config: of the potential (`cg_assets.potentials.settings.build_potential`); `bonds`, pairs of beads, where the
            beads form a molecule, and `bead_masses` [amu] where it has torsions.
        training: epochs, batch size, learning rate, patience, held-out fraction; None for what is solved as a whole.
        data: labels.
        seed: of the split, the initial weights and the order of frames.
        device: `cpu` or `cuda`; what is solved as a whole is solved on the CPU.
        progress: called with the finished epochs, or frames.
        checkpoint: file that is rewritten after each epoch, and from which training resumes if it exists; each network
            of a committee has one of its own next to it.
        on_epoch: called with each epoch's record, for tracking; records of epochs finished before an interruption
            are not repeated.

    Raises:
        TrainingError: the data cannot train this potential, the checkpoint belongs to another training, or training
            diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    members = 0 if training is None else training.committee
    single = cast("PotentialConfig", {name: value for name, value in config.items() if name != "committee"})

    def one(number: int, data: TrainingSet, on_epoch: Callable[[dict[str, float]], None] | None) -> TrainingResult:
        told = _counting(progress, number, members, training)
        return _train_one(single, training, data, seed + number, device, told, _stored(checkpoint, number), on_epoch)

    data = data.completed(lambda part, number: one(members + number, part, None).module, seed)
    result = one(0, data, on_epoch)
    numbers = range(1, members + 1)
    networks = [one(number, data.resample([seed, number]), None).module for number in numbers]
    for number in range(1, members + 3):  # two of halves of the data
        if path := _stored(checkpoint, number):
            path.unlink(missing_ok=True)
    if not members:
        return result
    return replace(result, module=Committee(result.module, networks).requires_grad_(False).eval())


def _stored(checkpoint: Path | None, number: int) -> Path | None:
    """Where one network of several keeps its state."""
    if checkpoint is None or not number:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")


def _counting(progress: Progress | None, number: int, members: int, training: Training | None) -> Progress | None:
    """Progress of one network of a committee, counted over the epochs of all; that of a further one is its own."""
    if progress is None or training is None or not 0 < members >= number:
        return progress
    total = (members + 1) * training.epochs

    def tell(done: int, of: int, counted: str) -> None:
        if counted == TrainingRun.counted:
            done, of = number * training.epochs + done, total
        progress(done, of, counted)

    return tell


def _train_one(
    config: PotentialConfig,
    training: Training | None,
    data: TrainingSet,
    seed: int,
    device: str,
    progress: Progress | None,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> TrainingResult:
    """`train` without a committee."""
    generator = torch.Generator().manual_seed(seed)
    try:
        potential = build_potential(config, generator)
    except ValueError as error:
        raise TrainingError(f"this potential cannot be built: {error}") from error
    if potential.is_solved:
        return _solved(potential, data, seed, progress, on_epoch)
    if training is None:
        raise TrainingError(f"a potential of type {config['type']} descends; give it settings of a training")
    run = data.descent()(potential, config, training, data, seed, generator, torch_device(device))
    return run.complete(checkpoint, on_epoch, progress)


def _solved(
    potential: Potential,
    data: TrainingSet,
    seed: int,
    progress: Progress | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> TrainingResult:
    """A potential that is linear as a whole, solved from all data; its history is one record."""
    started = time.perf_counter()
    take_statistics(potential, data)
    try:
        facts = potential.solve(replace(data.labels(), seed=seed, progress=progress))
    except ValueError as error:
        raise TrainingError(f"this potential cannot be solved for: {error}") from error
    record: dict[str, Any] = {"epoch": 1, **facts}
    if on_epoch is not None:
        on_epoch(record)
    rows, seconds = len(data), time.perf_counter() - started
    potential.requires_grad_(False).eval()
    return TrainingResult(potential, [record], 1, facts["held_out_loss"], rows / seconds, rows, rows)
