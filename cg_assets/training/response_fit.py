"""One call from a table of response labels to a potential, solved for or trained, and its errors on held-out frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress
from cg_assets.mapping.beads import Beads
from cg_assets.training.data import held_out_mask
from cg_assets.training.response import (
    ENERGY_WEIGHT,
    Deviation,
    ResponseData,
    ResponseWeights,
    deviations,
    method,
    method_dependence,
    predicted,
)
from cg_assets.training.setup import potential_config
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.train import train
from cg_assets.training.training_run import TrainingResult
from cg_assets.training.unconstrained import with_product_labels, without_errors

if TYPE_CHECKING:
    from cg_assets.potentials.thermal.dependent import ThermalConfig
    from cg_assets.potentials.thermal.temperature import DependenceConfig
    from cg_assets.training.settings import ResponsePotential

HELD_OUT = 0.2
"""Part of the CG frames on which splines are tested; the registered ones are then solved from all frames."""


@dataclass(frozen=True)
class ResponseTraining(TrainingResult):
    """A potential from response labels.

    Attributes:
        held_out: temperature [K] to the deviations from labels of held-out frames, all rows of all quantities; those
            from ordinary dynamics alone include the noise, which is not known.
        least_heat_capacity: smallest C_W of any row [kJ/mol/K]; below 0 W is not concave in temperature there.
        noise_known: whether there are labels at fixed beads, which give the noise of all.
    """

    held_out: dict[float, dict[str, Deviation]]
    least_heat_capacity: float
    noise_known: bool


def response_config(settings: ResponsePotential, beads: Beads) -> ThermalConfig:
    """The config from which the potential of a specification is built."""
    training = settings.network.own_training
    config = potential_config(settings.network, beads, 0 if training is None else training.committee)
    dependence = cast("DependenceConfig", settings.temperature_dependence.model_dump(mode="json", exclude_none=True))
    return {**config, "temperature_dependence": method_dependence(settings.method, dependence)}


def fit_response(
    settings: ResponsePotential,
    config: ThermalConfig,
    targets: ThermalTargets | None,
    unconstrained: ThermalTargets | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ResponseTraining:
    """Fit the potential that a specification describes.

    Args:
        settings: method, form, network, seed.
        config: of the potential (`response_config`).
        targets: all labels at fixed beads, some of which test the potential; None where there are none.
        unconstrained: labels of ordinary dynamics, learnt as well, or alone.
        device: `cpu` or `cuda`; splines are always solved on the CPU.
        progress: called with the finished epochs, or CG frames.
        checkpoint: file of an unfinished training; splines need none.
        on_epoch: called with each record of the history.

    Raises:
        TrainingError: the data cannot train this potential, or training diverged.
    """
    seed, number = settings.seed, 0 if targets is None else int(targets.frame.max()) + 1
    parts = [part for part in (targets, unconstrained) if part is not None]
    if settings.method == "product_response":
        if unconstrained is None:
            raise TrainingError("method product_response learns from ordinary dynamics; give unconstrained frames")
        number, parts = 0, [with_products(config, unconstrained, seed)]
    data = method(settings.method, ThermalTargets.concatenate(parts), config["temperature_dependence"]).data
    plan = settings.network.own_training
    result = train(config, plan, data, seed, device, progress, checkpoint, on_epoch)
    frame = data.targets.frame
    judged: Any = result.module
    if plan is not None:
        apart = data.held_out(plan.held_out_fraction, seed)
    else:  # it was solved from all rows; what is judged is solved without some
        fixed = np.full(len(frame), True) if targets is None else frame < number
        apart = np.zeros(len(fixed), dtype=bool)
        if fixed.any():
            apart[fixed] = held_out_mask(frame[fixed], HELD_OUT, seed)
        judged = train(config, plan, data.select(~apart), seed).module
    if targets is None:
        judge = without_errors(data.targets.select(apart))
    else:
        judge = targets.select(np.isin(targets.frame, np.unique(frame[apart]))) if number else targets
    by_temperature = {
        float(kelvin): deviations(judged, judge.select(judge.temperature == kelvin))
        for kelvin in np.unique(judge.temperature)
    }
    potential: Any = result.module
    capacity = float(predicted(potential, judge if targets is None else targets)["heat_capacity"].min())
    return ResponseTraining(
        **vars(result), held_out=by_temperature, least_heat_capacity=capacity, noise_known=targets is not None
    )


def with_products(config: ThermalConfig, targets: ThermalTargets, seed: int) -> ThermalTargets:
    """Give frames of ordinary dynamics labels of F_1: each half from a potential fitted to the other half.

    Args:
        config: of the splines; its dependence on temperature must give mean energies at the temperature of the rows.
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
        teacher: Any = train(config, None, ResponseData(targets.select(half != number), weights), seed).module
        found = predicted(teacher, mine)
        parts.append(with_product_labels(mine, found["forces"], found["mean_energy"]))
    return ThermalTargets.concatenate(parts)
