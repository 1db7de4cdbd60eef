"""The stored form of a potential: round trip, damage, and loading where the package is not installed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from cg_assets.core.errors import StorageError
from cg_assets.potentials.model_format import load_potential, save_potential
from cg_assets.potentials.settings import build_potential
from cg_assets.registry.shipping import shipment_of

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


def test_round_trip_is_exact(stored):
    directory, module, config, positions = stored
    again, read = load_potential(directory)
    assert read["metadata"] == {"best_epoch": 3}
    assert {name: read[name] for name in config} == config
    with torch.no_grad():
        for mine, theirs in zip(module.energy_and_forces(positions), again.energy_and_forces(positions), strict=True):
            assert torch.equal(mine, theirs)
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "weights.pt"]


def test_loads_where_the_package_is_not_installed(stored, tmp_path):
    _, module, config, positions = stored
    _, code = shipment_of(config).copy(tmp_path)
    np.save(tmp_path / "positions.npy", positions.numpy())
    script = f"""
import importlib, json, sys
sys.modules["cg_assets"] = None
import numpy, torch
def imported(place):
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
code = {code!r}
module = imported(code["build"])(imported(code["kind"]), json.load(open("model/config.json")))
module.load_state_dict(torch.load("model/weights.pt", weights_only=True))
energy, forces = module.energy_and_forces(torch.tensor(numpy.load("positions.npy")))
numpy.savez("answer.npz", energy=energy.detach().numpy(), forces=forces.detach().numpy())
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    with torch.no_grad():
        energy, forces = module.energy_and_forces(positions)
    answer = np.load(tmp_path / "answer.npz")
    np.testing.assert_allclose(answer["energy"], energy.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(answer["forces"], forces.numpy(), rtol=1e-5, atol=1e-4)


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
