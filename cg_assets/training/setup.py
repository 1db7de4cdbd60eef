"""From settings and beads to a training: the config of a potential, its prior and its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.mapping.beads import Beads
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.training.data import TrainingData, TrainingSet, drawn_rows
from cg_assets.training.priors import PriorFit, fit_prior

if TYPE_CHECKING:
    from cg_assets.potentials.base import PotentialConfig


def potential_config(settings: PotentialSettings, beads: Beads, committee: int = 0) -> PotentialConfig:
    """The config from which `build_potential` makes a potential, with facts for users of the model.

    Args:
        settings: the form of the potential.
        beads: of the system.
        committee: number of further networks.
    """
    return settings.config(beads) | ({"committee": committee} if committee else {})


def fitted_prior(settings: PotentialSettings, beads: Beads, positions: NDArray) -> PriorFit | None:
    """The prior of a potential on these configurations `(n_frames, n_beads, 3)` [nm]; None where it has none.

    Raises:
        TrainingError: it cannot be fitted to them.
    """
    if settings.chain_prior is None:
        return None
    return fit_prior(positions, beads.cg_map.bonds, beads.cg_map.bead_names, settings.chain_prior)


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
) -> TrainingSet:
    """The frames that a potential learns from: all of its batches, or some drawn at random.

    A potential that depends on temperature learns the labels of that dependence, too.

    Args:
        settings: the form of the potential.
        batches: labelled CG frames of each batch.
        n_frames: how many to draw; None for all.
        seed: of the draw.
        noise_floor: least possible loss of these labels [force unit]^2, where it is known.

    Raises:
        TrainingError: there are fewer frames than asked for, they cannot train, or the potential cannot describe them.
    """
    data: TrainingSet
    if settings.needs_temperature:
        from cg_assets.training.response import ResponseData
        from cg_assets.training.unconstrained import product_targets

        data = ResponseData(product_targets(batches))
    else:
        data = TrainingData.from_frames(batches, noise_floor=noise_floor)
    for frames in batches:
        settings.refuse(frames.positions[~frames.probe])
    return data if n_frames is None else data.select(drawn_rows(len(data), n_frames, seed))
