"""The stored form of a potential: damage, and what does not belong together."""

import json

import numpy as np
import pytest
import torch

from cg_assets.core.errors import StorageError
from cg_assets.potentials.model_format import load_potential, save_potential
from cg_assets.potentials.settings import build_potential

CONFIGS = {
    "message_passing": {
        "type": "message_passing",
        "bead_types": [0, 1, 2, 1],
        "features": 8,
        "interactions": 2,
        "basis_functions": 3,
        "cutoff": None,
        "thermal_energy": 2.49,
        "system": "four_beads",
        "units": "molar",
    },
    "radial_basis": {
        "type": "radial_basis",
        "range": [-3.0, 3.0],
        "basis_functions": 10,
        "basis_width": 0.5,
        "hidden": [8],
        "thermal_energy": 1.0,
    },
}


def _positions(kind):
    shape = (30, 4, 3) if kind == "message_passing" else (30, 1, 1)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return noise if kind == "radial_basis" else 0.3 * torch.arange(4)[None, :, None] + 0.05 * noise


@pytest.fixture(params=list(CONFIGS))
def stored(request, tmp_path):
    config = CONFIGS[request.param]
    module = build_potential(config, torch.Generator().manual_seed(5))
    positions = _positions(request.param)
    module.fit_statistics(positions)
    save_potential(tmp_path / "model", module, config, {"best_epoch": 3})
    return tmp_path / "model", module, config, positions


def test_damage_is_explained(stored):
    directory = stored[0]
    weights = (directory / "weights.pt").read_bytes()
    (directory / "weights.pt").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(StorageError, match="cannot be read"):
        load_potential(directory)
    (directory / "weights.pt").unlink()
    with pytest.raises(StorageError, match=r"weights\.pt is missing"):
        load_potential(directory)


def test_weights_of_another_network_are_refused(stored):
    directory, _, config, _ = stored
    content = json.loads((directory / "config.json").read_text())
    changed = {"features": 9} if config["type"] == "message_passing" else {"hidden": [9]}
    (directory / "config.json").write_text(json.dumps(content | changed))
    with pytest.raises(StorageError, match="size mismatch"):
        load_potential(directory)
    (directory / "config.json").write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(StorageError, match="format_version is 99"):
        load_potential(directory)


def test_only_plain_json_is_stored(stored, tmp_path):
    _, module, config, _ = stored
    with pytest.raises(StorageError, match="plain JSON"):
        save_potential(tmp_path / "other", module, config, {"array": np.zeros(2)})
