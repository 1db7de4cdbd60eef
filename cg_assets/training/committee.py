"""A potential and its committee: further networks on resampled data, whose scatter is the potential's uncertainty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.core.progress import Progress
from cg_assets.potentials.networks import Committee
from cg_assets.training.data import TrainingData
from cg_assets.training.loop import train
from cg_assets.training.training_run import TrainingResult, TrainingRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from cg_assets.core.settings import Training


def train_with_committee(
    config: dict[str, Any],
    training: Training,
    data: TrainingData,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    noise_floor: float | None = None,
) -> TrainingResult:
    """Fit a potential (`train`) and the networks of its committee, if `training` asks for one.

    Each further network is trained in the same way, from other initial weights, on a bootstrap sample of the data. The
    result is that of the potential, its module a `Committee`.

    Arguments and errors are those of `train`; each network has its own checkpoint, beside `checkpoint`.
    """
    members = training.committee
    single = {name: value for name, value in config.items() if name != "committee"}

    def told(number: int) -> Progress | None:
        if progress is None:
            return None
        total = (members + 1) * training.epochs

        def tell(done: int, of: int, counted: str) -> None:
            if counted == TrainingRun.counted:
                done, of = number * training.epochs + done, total
            progress(done, of, counted)

        return tell

    def stored(number: int) -> Path | None:
        return checkpoint and checkpoint.with_name(f"{checkpoint.stem}-{number}{checkpoint.suffix}")

    result = train(
        single,
        training,
        data,
        seed,
        device=device,
        progress=told(0),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        noise_floor=noise_floor,
    )
    if not members:
        return result
    networks = [
        train(
            single,
            training,
            data.resample([seed, number]),
            seed + number,
            device=device,
            progress=told(number),
            checkpoint=stored(number),
        ).module
        for number in range(1, members + 1)
    ]
    for number in range(1, members + 1):
        if path := stored(number):
            path.unlink(missing_ok=True)
    return replace(result, module=Committee(result.module, networks).requires_grad_(False).eval())
