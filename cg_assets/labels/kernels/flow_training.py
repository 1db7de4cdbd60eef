"""Flow matching: the velocity field of a flow kernel, learned from configurations alone (arXiv 2506.19628).

The loss is the mean square of v(t, y) + noise ξ at y = R + (1 - t) noise ξ, in units of the noise: its minimum over all
fields is the mean of the noise at given y, and the part of the noise that y does not determine stays in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.labels.kernels.flow_network import RESIDUAL_NOISE, FlowConfig, at_temperature, build_flow
from cg_assets.labels.kernels.kernel import centred
from cg_assets.training.data import held_out_mask
from cg_assets.training.training_run import TrainingResult, TrainingRun, torch_device

if TYPE_CHECKING:
    from cg_assets.core.settings import Training
    from cg_assets.labels.kernels.flow_network import CoordinateFlow, DistanceFlow

CHECKPOINT_VERSION = 1
_HELD_OUT_BATCH = 2048
_HELD_OUT_SAMPLES = 20_000
"""Noised configurations, at least, that the held-out loss is the mean of; always the same."""


def train_flow(
    config: FlowConfig,
    training: Training,
    positions: NDArray,
    group: NDArray[np.int64],
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    temperature: NDArray[np.float64] | None = None,
) -> TrainingResult:
    """Fit the velocity field that `config` describes; new noise is drawn for each frame in each epoch.

    Learning rate, early stopping, seeds and checkpoints are those of `cg_assets.training.loop.train`.

    Args:
        config: of `cg_assets.labels.kernels.flow_network.build_flow`.
        training: epochs, batch size, learning rate, patience, held-out fraction.
        positions: `(n_frames, n_beads, dimension)` configurations of the density to be learned [nm or reduced].
        group: `(n_frames,)` frames of one group are never split between training and held-out.
        seed: of the split, the initial weights, the order of frames and the noise.
        device: `cpu` or `cuda`.
        progress: called with the finished epochs.
        checkpoint: file that is rewritten after each epoch, and from which training resumes if it exists.
        on_epoch: called with each epoch's record.
        temperature: `(n_frames,)` of the configurations, each one of `temperatures` of the config; needed where that
            lists several.

    Returns:
        The field; losses are without unit, 1 for a field of zero.

    Raises:
        TrainingError: the frames cannot train, the checkpoint belongs to another training, or training diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    run = _FlowMatching(config, training, positions, group, seed, torch_device(device), temperature)
    return run.complete(checkpoint, on_epoch, progress)


def flow_at(flow: DistanceFlow | CoordinateFlow, temperature: float) -> DistanceFlow | CoordinateFlow:
    """The flow of configurations at one temperature [K or reduced].

    Raises:
        TrainingError: it has not learned from configurations at this temperature.
    """
    try:
        return at_temperature(flow, temperature)
    except ValueError as error:
        raise TrainingError(str(error)) from None


def _rungs(
    config: FlowConfig, temperature: NDArray[np.float64] | None, held_out: NDArray[np.bool_]
) -> NDArray[np.int64] | None:
    """Number of the temperature of each configuration; None for a flow of one.

    Raises:
        TrainingError: a temperature is not one of the flow's, or no configuration for training has one of these.
    """
    known = np.array(config.get("temperatures", []))
    if len(known) < 2:
        return None
    if temperature is None:
        raise TrainingError(f"a flow of {len(known)} temperatures needs those of its configurations")
    rungs = np.searchsorted(known, temperature).clip(max=len(known) - 1)
    if (other := temperature[known[rungs] != temperature]).size:
        raise TrainingError(f"a configuration is at temperature {other[0]:g}, which is none of the flow's")
    if len(missing := np.setdiff1d(known, temperature[~held_out])):
        raise TrainingError(f"no configuration is at temperature {missing[0]:g}; sample it, or leave it out")
    return rungs


def _chosen(rungs: NDArray[np.int64] | None, mask: NDArray[np.bool_]) -> Tensor | None:
    return None if rungs is None else torch.as_tensor(rungs[mask])


class _FlowMatching(TrainingRun):
    checkpoint_version = CHECKPOINT_VERSION
    counted = "epochs of the flow"

    def __init__(
        self,
        config: FlowConfig,
        training: Training,
        positions: NDArray,
        group: NDArray[np.int64],
        seed: int,
        device: torch.device,
        temperature: NDArray[np.float64] | None,
    ) -> None:
        if not np.isfinite(positions).all():
            raise TrainingError("positions are not finite; find the broken batch with its schema check")
        held_out = held_out_mask(group, training.held_out_fraction, seed)
        frames = centred(positions).astype(np.float32)
        generator = torch.Generator().manual_seed(seed)
        self.kept, self.held_out = torch.as_tensor(frames[~held_out]), torch.as_tensor(frames[held_out])
        rungs = _rungs(config, temperature, held_out)
        self.kept_rungs, self.held_out_rungs = (_chosen(rungs, mask) for mask in (~held_out, held_out))
        try:
            module = build_flow(config, generator)
            module.fit_statistics(self.kept, self.kept_rungs)
        except ValueError as error:
            raise TrainingError(f"this flow does not fit the data: {error}") from error
        known = b"" if rungs is None else rungs.tobytes()
        content = hashlib.sha256(frames.tobytes() + np.ascontiguousarray(group).tobytes() + known).hexdigest()
        identity = [config, training.model_dump(mode="json"), content, seed]
        super().__init__(module, training, generator, device, (len(self.kept), len(self.held_out)), identity)
        self.kept = self.kept.to(device)
        self.kept_rungs = None if self.kept_rungs is None else self.kept_rungs.to(device)

    def train_epoch(self, number: int) -> tuple[float, float]:
        total = 0.0
        for rows in self.batches(number):
            rungs = None if self.kept_rungs is None else self.kept_rungs[rows]
            loss = self._loss(self.kept[rows], rungs, self.generator)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows)
        training_loss, held_out_loss = total / self.n_training, self.held_out_loss()
        if not (math.isfinite(training_loss) and training_loss < 10.0):
            raise TrainingError(
                f"training of the flow diverged in epoch {number} (loss {training_loss:.4g}, where a field of zero has "
                f"1); lower its training.learning_rate (now {self.training.learning_rate})"
            )
        return training_loss, held_out_loss

    def _loss(self, clean: Tensor, rungs: Tensor | None, generator: torch.Generator) -> Tensor:
        noise = self.module.noise
        time = torch.rand(len(clean), generator=generator)
        pushed, left = (torch.randn(clean.shape, generator=generator).to(clean) for _ in range(2))
        place = clean + (noise * (1.0 - time)).to(clean)[:, None, None] * pushed + RESIDUAL_NOISE * noise * left
        return (self.module(time.to(clean), place, rungs) / noise + pushed).square().mean()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        generator = torch.Generator().manual_seed(0)
        total, repeats = 0.0, math.ceil(_HELD_OUT_SAMPLES / len(self.held_out))
        for _ in range(repeats):
            for rows in torch.arange(len(self.held_out)).split(_HELD_OUT_BATCH):
                rungs = None if self.held_out_rungs is None else self.held_out_rungs[rows].to(self.device)
                total += float(self._loss(self.held_out[rows].to(self.device), rungs, generator)) * len(rows)
        return total / len(self.held_out) / repeats
