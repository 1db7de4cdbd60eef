"""One call from a table of response labels to a potential, solved for or trained, and its errors on held-out frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.potentials.settings import TensorNetwork
from cg_assets.training.data import held_out_mask
from cg_assets.training.response import (
    ENERGY_WEIGHT,
    Deviation,
    ResponseWeights,
    deviations,
    method,
    method_dependence,
    predictions,
)
from cg_assets.training.response_loop import train_response
from cg_assets.training.spline_fit import fit_splines
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.training_run import TrainingResult
from cg_assets.training.unconstrained import with_product_labels

if TYPE_CHECKING:
    from cg_assets.training.settings import ResponsePotential

HELD_OUT = 0.2
"""Part of the CG frames on which splines are judged; the registered ones are then solved from all frames."""


@dataclass(frozen=True)
class ResponseTraining(TrainingResult):
    """A potential from response labels.

    Attributes:
        held_out: temperature [K] to the deviations from labels of held-out frames, all rows of all quantities.
        least_heat_capacity: smallest C_W of any row [kJ/mol/K]; below 0 W is not concave in temperature there.
    """

    held_out: dict[float, dict[str, Deviation]]
    least_heat_capacity: float


def potential_config(settings: ResponsePotential, n_beads: int) -> dict[str, Any]:
    """The config from which the potential of a specification is built."""
    dependence = settings.temperature_dependence.model_dump(mode="json", exclude_none=True)
    network = settings.network.model_dump(mode="json", exclude={"training"})
    if network["type"] == "spline" and network["triple_cutoff"] is None:
        network["triple_functions"] = 0
    found = method_dependence(settings.method, dependence)
    return network | {"bead_types": [0] * n_beads, "temperature_dependence": found}


def fit_response(
    settings: ResponsePotential,
    targets: ThermalTargets,
    unconstrained: ThermalTargets | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> ResponseTraining:
    """Fit the potential that a specification describes.

    Args:
        settings: method, form, network, seed.
        targets: all labels at fixed beads, on some of which the potential is judged.
        unconstrained: labels of ordinary dynamics, which are learnt beside them.
        device: `cpu` or `cuda`; splines are always solved on the CPU.
        progress: told of epochs, or of CG frames.
        checkpoint: file of an unfinished training; splines need none.
        on_epoch: called with each record of the history.

    Raises:
        TrainingError: the data cannot train this potential, or training diverged.
    """
    config = potential_config(settings, targets.n_beads)
    seed, number = settings.seed, int(targets.frame.max()) + 1
    parts = [targets] if unconstrained is None else [targets, unconstrained]
    if settings.method == "product_response":
        if unconstrained is None:
            raise TrainingError("method product_response learns from ordinary dynamics; give unconstrained frames")
        number, parts = 0, [with_products(config, unconstrained, seed)]
    way = method(settings.method, ThermalTargets.concatenate(parts), config["temperature_dependence"])
    if isinstance(settings.network, TensorNetwork):
        plan = settings.network.training
        apart = held_out_mask(way.targets.frame, plan.held_out_fraction, seed)
        result = train_response(config, plan, way.targets, seed, way.weights, device, progress, checkpoint, on_epoch)
        judged: Any = result.module
    else:
        started = time.perf_counter()
        fixed = way.targets.frame < number
        apart = np.zeros(len(fixed), dtype=bool)
        if fixed.any():
            apart[fixed] = held_out_mask(way.targets.frame[fixed], HELD_OUT, seed)
        judged = fit_splines(config, way.targets.select(~apart), way.weights, seed).module
        fit = fit_splines(config, way.targets, way.weights, seed, progress)
        record = {"epoch": 1, "held_out_loss": fit.held_out_loss, "noise_floor": fit.noise_floor}
        record |= {f"strength_{order}": strength for order, strength in enumerate(fit.strengths)}
        if on_epoch is not None:
            on_epoch(record)
        speed = len(way.targets) / (time.perf_counter() - started)
        rows = len(way.targets)
        result = TrainingResult(fit.module, [record], 1, fit.held_out_loss, speed, rows, rows)
    frames = np.unique(way.targets.frame[apart])
    judge = targets.select(np.isin(targets.frame, frames)) if number else targets
    by_temperature = {
        float(kelvin): deviations(judged, judge.select(judge.temperature == kelvin))
        for kelvin in np.unique(targets.temperature)
    }
    potential: Any = result.module
    with torch.no_grad():
        capacity = [
            potential.response(
                torch.as_tensor(targets.positions[rows], dtype=torch.float32),
                torch.as_tensor(targets.temperature[rows]),
                torch.as_tensor(targets.box[rows], dtype=torch.float32),
            ).heat_capacity.min()
            for rows in np.array_split(np.arange(len(targets)), max(1, len(targets) // 32))
        ]
    return ResponseTraining(**vars(result), held_out=by_temperature, least_heat_capacity=float(min(capacity)))


def with_products(config: dict[str, Any], targets: ThermalTargets, seed: int) -> ThermalTargets:
    """Give frames of ordinary dynamics labels of F_1: each half by forces and energies that the other half taught.

    Args:
        config: of the splines; its dependence on temperature must know mean energies at the temperature of the rows.
        targets: of `cg_assets.training.unconstrained.unconstrained_targets`.
        seed: of the halves.

    Returns:
        The labels, in another order.
    """
    half = np.random.default_rng(seed).permutation(len(targets)) % 2
    parts = []
    for number in (0, 1):
        mine = targets.select(half == number)
        weights = ResponseWeights(first_order=0, second_order=0, mean_energy=ENERGY_WEIGHT)
        teacher = fit_splines(config, targets.select(half != number), weights, seed)
        found = predictions(teacher.module, mine)
        parts.append(with_product_labels(mine, found.forces, found.mean_energy))
    return ThermalTargets.concatenate(parts)
