"""From settings and beads to a training: the config of a potential, its prior and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.units import thermal_energy
from cg_assets.mapping.beads import Beads
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.potentials.thermal.temperature import TemperatureDependence
from cg_assets.training.data import Learnt, TrainingData, TrainingSet, drawn_rows
from cg_assets.training.priors import PriorFit, fit_prior

if TYPE_CHECKING:
    from cg_assets.potentials.base import PotentialConfig
    from cg_assets.potentials.thermal.dependent import ThermalConfig
    from cg_assets.potentials.thermal.temperature import DependenceConfig
    from cg_assets.training.thermal_targets import ThermalTargets


def potential_config(
    settings: PotentialSettings,
    beads: Beads,
    committee: int = 0,
    batches: Sequence[Frames] = (),
    learns: Learnt = "forces",
    targets: ThermalTargets | None = None,
) -> PotentialConfig:
    """The config from which `build_potential` makes a potential, with facts for users of the model.

    A potential that could depend on temperature does not where it learns nothing but forces at one temperature. With
    energies or products at one temperature it is linear in T: W = U - T S.

    Args:
        settings: the form of the potential.
        beads: of the system.
        committee: number of further networks.
        batches: labelled frames that it learns from.
        learns: what it learns from them.
        targets: labels at fixed beads that it learns from, too: of forces and of their derivative by temperature.

    Raises:
        TrainingError: the form has more terms than these frames determine.
    """
    config = settings.config(beads) | ({"committee": committee} if committee else {})
    known = [frames.temperature for frames in batches] + ([] if targets is None else [targets.temperature])
    kelvin, learns = np.unique(np.concatenate(known or [np.empty(0)])), "products" if targets is not None else learns
    if settings.needs_temperature and len(kelvin) == 1 and batches[0].first_order is None:
        form: DependenceConfig = {
            "form": "taylor_temperature",
            "origin": float(kelvin[0]),
            "order": int(learns != "forces"),
        }
        energy = thermal_energy(float(kelvin[0]), beads.units)
        config = cast("PotentialConfig", {**config, "temperature_dependence": form, "thermal_energy": energy})
    elif settings.needs_temperature and len(kelvin):
        _refuse_undetermined(cast("ThermalConfig", config)["temperature_dependence"], kelvin, batches, learns)
    return config


def _refuse_undetermined(
    form: DependenceConfig, kelvin: NDArray[np.float64], batches: Sequence[Frames], learns: Learnt
) -> None:
    """Refuse a form with more terms than labels at some temperatures [K] determine, which could be anything between.

    Forces give sum_k s_k W_k at each temperature, energies and products its slope, too, and labels of the response
    also its curvature.

    Raises:
        TrainingError: it has.
    """
    dependence, orders = TemperatureDependence(form), 2 if learns != "forces" else 1
    orders = 3 if any(frames.first_order is not None for frames in batches) else orders
    known = dependence.coefficients(torch.as_tensor(kelvin)).numpy()[:orders]
    rows = known * (kelvin ** np.arange(orders)[:, None])[:, :, None]
    rank = int(np.linalg.matrix_rank(rows.reshape(-1, dependence.n_terms), rtol=1e-6))
    if rank < dependence.n_terms:
        raise TrainingError(
            f"network.temperature_dependence has {dependence.n_terms} terms, of which frames at "
            f"{', '.join(f'{item:g}' for item in kelvin)} K determine {rank}; lower its order, choose anchors among "
            "these temperatures, or learn from more of them"
        )


def fitted_prior(settings: PotentialSettings, beads: Beads, batches: Sequence[Frames]) -> PriorFit | None:
    """The prior of a potential on the configurations of labelled frames; None where it has none.

    Raises:
        TrainingError: it cannot be fitted to them.
    """
    if settings.chain_prior is None:
        return None
    positions, _ = prior_positions(settings, batches)
    return fit_prior(positions, beads.cg_map.bonds, beads.cg_map.bead_names, settings.chain_prior)


def prior_positions(settings: PotentialSettings, batches: Sequence[Frames]) -> tuple[NDArray[np.float32], float]:
    """Configurations of label frames that a prior is fitted to, and their temperature.

    Of a potential at all temperatures they are those nearest to T_0: its prior is part of W_0. One fitted at each
    temperature would have the cooperative melting of a chain in each of its terms: their sum has a many times too large
    dW/dT, which forces are too noisy to correct.
    """
    positions = np.concatenate([part.positions[~part.probe] for part in batches])
    kelvin = np.concatenate([part.temperature[~part.probe] for part in batches])
    if settings.thermal_form is None:
        return positions, float(kelvin[0])
    nearest = kelvin[np.abs(kelvin - settings.thermal_form.middle).argmin()]
    return positions[kelvin == nearest], float(nearest)


def drawn_frames(frames: Frames, n_frames: int | None, seed: int) -> Frames:
    """Those of a potential's label frames that `training_data` draws; probe replicas are left out."""
    frames = frames.select(~frames.probe)
    return frames if n_frames is None else frames.select(drawn_rows(len(frames), n_frames, seed))


def training_data(
    settings: PotentialSettings,
    batches: list[Frames],
    n_frames: int | None,
    seed: int,
    noise_floor: float | None = None,
    learns: Learnt = "forces",
    noise: Sequence[NDArray[np.float64]] | None = None,
    targets: ThermalTargets | None = None,
) -> TrainingSet:
    """The frames that a potential learns from: all of its batches, or some drawn at random.

    A potential that depends on temperature learns the labels of that dependence, too, or forces at all temperatures.

    Args:
        settings: the form of the potential.
        batches: labelled CG frames of each batch.
        n_frames: how many to draw; None for all.
        seed: of the draw.
        noise_floor: least possible loss of these labels [force unit]^2, where it is known.
        learns: what a potential at all temperatures learns from frames without labels of their own.
        noise: variance of the force labels of each batch, where these are of several sources [force unit]^2.
        targets: labels at fixed beads that are learnt, too.

    Raises:
        TrainingError: there are fewer frames than asked for, they cannot train, or the potential cannot describe them.
    """
    data: TrainingSet
    labelled = any(frames.first_order is not None for frames in batches)
    if settings.needs_responses or (settings.needs_temperature and labelled):
        from cg_assets.training.response import ResponseData
        from cg_assets.training.unconstrained import product_targets

        data = ResponseData(product_targets(batches))
    else:
        thermal = settings.needs_temperature
        data = TrainingData.from_frames(
            batches, noise_floor=noise_floor, every_temperature=thermal, learns=learns, noise=noise
        )
        data = data if targets is None else data.joined(TrainingData.from_targets(targets, learns))
    for frames in batches:
        settings.refuse(frames.positions[~frames.probe])
    return data if n_frames is None else data.select(drawn_rows(len(data), n_frames, seed))
