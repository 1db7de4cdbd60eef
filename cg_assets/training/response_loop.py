"""The message-passing potential from response labels: descent along the loss of `cg_assets.training.response`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.potentials.thermal import build_potential
from cg_assets.training.data import held_out_mask
from cg_assets.training.response import ResponseWeights, fit_constants, label_weights
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.training_run import TrainingResult, TrainingRun, torch_device

if TYPE_CHECKING:
    from cg_assets.core.settings import Training

CHECKPOINT_VERSION = 1
CLIP_NORM = 1.0
"""Longest gradient of the loss in units of the labels' own mean square, which is where an untrained network is."""
_ROWS_AT_ONCE = 32


def train_response(
    config: dict[str, Any],
    training: Training,
    targets: ThermalTargets,
    seed: int,
    weights: ResponseWeights | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Fit the network that `config` describes; whole CG frames are held out, with all of their temperatures.

    Args:
        config: of a `TensorNetwork`.
        training: epochs, batch size (rows), learning rate, patience, held-out fraction.
        targets: labels.
        seed: of the split, the initial weights and the order of rows.
        weights: of the terms of the loss; all orders of the response where None.
        device: `cpu` or `cuda`.
        progress: told the finished epochs.
        checkpoint: file that is rewritten after each epoch, and from which training goes on if it exists.
        on_epoch: called with each epoch's record.

    Returns:
        Losses are in (kJ/mol/nm)²; each record has the `noise_floor` of the held-out labels.

    Raises:
        TrainingError: the data cannot train this network, the checkpoint belongs to another training, or training
            diverged.
        DeviceError: `cuda` was asked for and is not there.
    """
    run = _ResponseMatching(config, training, targets, seed, weights or ResponseWeights(), torch_device(device))
    return run.complete(checkpoint, on_epoch, progress)


class _Rows:
    """Rows as tensors on the device, with the weight of each label."""

    def __init__(self, targets: ThermalTargets, weights: dict[str, np.ndarray], device: torch.device) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        self.positions, self.box = tensor(targets.positions), tensor(targets.box)
        self.temperature = torch.as_tensor(targets.temperature, device=device)
        self.labels = {name: tensor(getattr(targets, name)) for name in weights}
        self.weights = {name: tensor(len(targets) * values) for name, values in weights.items()}
        self.noise_floor = float(
            sum((values * getattr(targets, f"{name}_error") ** 2).sum() for name, values in weights.items())
        )

    def __len__(self) -> int:
        return len(self.positions)


class _ResponseMatching(TrainingRun):
    checkpoint_version = CHECKPOINT_VERSION

    def __init__(
        self,
        config: dict[str, Any],
        training: Training,
        targets: ThermalTargets,
        seed: int,
        weights: ResponseWeights,
        device: torch.device,
    ) -> None:
        held_out = held_out_mask(targets.frame, training.held_out_fraction, seed)
        self.targets = targets
        kept, apart = targets.select(~held_out), targets.select(held_out)
        generator = torch.Generator().manual_seed(seed)
        try:
            module = build_potential(config, generator)
            size = float(np.abs(kept.forces).mean())
            module.fit_statistics(torch.as_tensor(kept.positions), torch.as_tensor(kept.box), size)
        except ValueError as error:
            raise TrainingError(f"this network does not fit the data: {error}") from error
        if not any(weight.requires_grad for weight in module.parameters()):
            raise TrainingError(f"type is {config['type']!r}, which is solved for, not trained; use fit_splines")
        fit_constants(module, kept)
        origin = module.dependence.origin
        parts = []
        for part in (kept, apart):
            of_labels = label_weights(part, weights, origin)
            parts.append(_Rows(part, of_labels, device))
        self.kept, self.apart = parts
        self.scale = float(
            sum(
                (values * getattr(kept, name) ** 2).sum()
                for name, values in label_weights(kept, weights, origin).items()
            )
        )
        digest = hashlib.sha256()
        for array in targets.columns().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        identity = [config, training.model_dump(mode="json"), digest.hexdigest(), seed, vars(weights)]
        facts = {"noise_floor": self.apart.noise_floor}
        super().__init__(module, training, generator, device, (len(kept), len(apart)), identity, facts)

    def _loss(self, part: _Rows, rows: Tensor) -> Tensor:
        """Mean loss of rows."""
        response = self.module.response(part.positions[rows], part.temperature[rows], part.box[rows])
        loss = part.positions.new_zeros(())
        for name, labels in part.labels.items():
            loss = loss + (part.weights[name][rows] * (getattr(response, name) - labels[rows]).square()).sum()
        return loss / len(rows)

    def train_epoch(self, number: int) -> tuple[float, float]:
        total = 0.0
        for rows in self.batches(number):
            loss = self._loss(self.kept, rows) / self.scale
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), CLIP_NORM)
            self.optimizer.step()
            total += float(loss.detach()) * self.scale * len(rows)
        training_loss, held_out_loss = total / len(self.kept), self.held_out_loss()
        if not (math.isfinite(training_loss) and math.isfinite(held_out_loss)):
            raise TrainingError(
                f"training diverged in epoch {number}: training loss {training_loss:.4g}, held-out loss "
                f"{held_out_loss:.4g}; lower training.learning_rate (now {self.training.learning_rate})"
            )
        return training_loss, held_out_loss

    @torch.no_grad()
    def held_out_loss(self) -> float:
        parts = torch.arange(len(self.apart), device=self.device).split(_ROWS_AT_ONCE)
        return sum(float(self._loss(self.apart, rows)) * len(rows) for rows in parts) / len(self.apart)

    def take_best(self) -> None:
        """Then set the constants of the energies, which forces do not determine."""
        super().take_best()
        fit_constants(self.module, self.targets)
