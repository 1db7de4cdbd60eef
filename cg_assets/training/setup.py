"""From a system's specification to what the training loop needs."""

from __future__ import annotations

from typing import Any

from cg_assets.frames import Frames
from cg_assets.mapping.maps import build_map
from cg_assets.systems.spec import MessagePassingNetwork, SystemSpec
from cg_assets.training.data import TrainingData


def network_config(system: SystemSpec) -> dict[str, Any]:
    """The config from which `build_potential` makes a system's network, with what users of the model need to know."""
    cg_map = build_map(system)
    config = system.network.model_dump(mode="json") | {
        "thermal_energy": system.thermal_energy,
        "temperature": system.temperature,
        "units": system.units,
        "system": system.name,
        "bead_names": list(cg_map.bead_names),
        "bead_masses": [float(mass) for mass in cg_map.bead_masses],
    }
    if isinstance(system.network, MessagePassingNetwork):
        config["bead_types"] = list(cg_map.bead_types)
    return config


def training_data(batches: list[Frames], n_frames: int | None, seed: int) -> TrainingData:
    """The frames that a potential learns from: all of its batches, or some drawn at random.

    Args:
        batches: labelled CG frames of each batch.
        n_frames: how many to draw; None for all.
        seed: seed of the draw.

    Raises:
        TrainingError: there are fewer frames than asked for, or they cannot train.
    """
    data = TrainingData.from_frames(batches)
    return data if n_frames is None else data.draw(n_frames, seed)
