"""Descent along the loss of response labels (`cg_assets.potentials.thermal.loss`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cg_assets.core.errors import TrainingError
from cg_assets.potentials.base import Potential, PotentialConfig
from cg_assets.potentials.thermal.loss import label_weights
from cg_assets.training.response import ResponseData
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.training_run import Descent

if TYPE_CHECKING:
    from cg_assets.core.settings import Training

CHECKPOINT_VERSION = 1
CLIP_NORM = 1.0
"""Longest gradient of the loss in units of the labels' own mean square, which is where an untrained network is."""
_ROWS_AT_ONCE = 32


class _Rows:
    """Rows as tensors on the device, with the weight of each label."""

    def __init__(self, targets: ThermalTargets, weights: dict[str, np.ndarray], device: torch.device) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        self.positions = tensor(targets.positions)
        self.box = None if targets.edges is None else tensor(targets.edges)
        self.temperature = torch.as_tensor(targets.temperature, device=device)
        self.labels = {name: tensor(getattr(targets, name)) for name in weights}
        self.weights = {name: tensor(len(targets) * values) for name, values in weights.items()}
        self.noise_floor = float(
            sum((values * getattr(targets, f"{name}_error") ** 2).sum() for name, values in weights.items())
        )

    def __len__(self) -> int:
        return len(self.positions)


class ResponseMatching(Descent):
    """Whole CG frames are held out, with all of their temperatures; losses are in (kJ/mol/nm)²."""

    checkpoint_version = CHECKPOINT_VERSION

    def __init__(
        self,
        potential: Potential,
        config: PotentialConfig,
        training: Training,
        data: ResponseData,
        seed: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Begin; arguments are those of `Descent`.

        Args:
            potential: a `TemperatureDependent` one with its initial weights.
            config: of the potential.
            training: how to train; a batch is of rows.
            data: labels.
            seed: of the split.
            generator: which has drawn the weights.
            device: where to train.

        Raises:
            TrainingError: the data cannot train this potential.
        """
        super().__init__(potential, config, training, data, seed, generator, device)
        self.module.solve(self.kept.labels())
        origin = self.module.dependence.origin
        weights = [label_weights(part.labels(), origin) for part in (self.kept, self.apart)]
        self.rows, self.held_out = (
            _Rows(part.targets, of_labels, device)
            for part, of_labels in zip((self.kept, self.apart), weights, strict=True)
        )
        kept = self.kept.targets
        self.scale = float(sum((values * getattr(kept, name) ** 2).sum() for name, values in weights[0].items()))
        self.facts = {"noise_floor": self.held_out.noise_floor}

    def _loss(self, part: _Rows, rows: Tensor) -> Tensor:
        """Mean loss of rows."""
        box = None if part.box is None else part.box[rows]
        response = self.module.response(part.positions[rows], part.temperature[rows], box)
        loss = part.positions.new_zeros(())
        for name, labels in part.labels.items():
            loss = loss + (part.weights[name][rows] * (getattr(response, name) - labels[rows]).square()).sum()
        return loss / len(rows)

    def train_epoch(self, number: int) -> tuple[float, float]:
        """Train once over all rows; training and held-out loss.

        Raises:
            TrainingError: training diverged.
        """
        total = 0.0
        for rows in self.batches(number):
            loss = self._loss(self.rows, rows) / self.scale
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), CLIP_NORM)
            self.optimizer.step()
            total += float(loss.detach()) * self.scale * len(rows)
        training_loss, held_out_loss = total / len(self.rows), self.held_out_loss()
        if not (math.isfinite(training_loss) and math.isfinite(held_out_loss)):
            raise TrainingError(
                f"training diverged in epoch {number}: training loss {training_loss:.4g}, held-out loss "
                f"{held_out_loss:.4g}; lower training.learning_rate (now {self.training.learning_rate})"
            )
        return training_loss, held_out_loss

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Of the present weights."""
        parts = torch.arange(len(self.held_out), device=self.device).split(_ROWS_AT_ONCE)
        return sum(float(self._loss(self.held_out, rows)) * len(rows) for rows in parts) / len(self.held_out)
