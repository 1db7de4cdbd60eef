"""The contract of potentials, over every member of the family: gradient, symmetries, storage, conditions, resuming."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import toys.polynomial
import toys.springs
from test_networks import MOLECULE, PRIOR
from test_training import _one_dimensional, _three_beads
from thermal_models import CONFIG as SPLINES
from thermal_models import EDGE, known_potential, labels, liquid

from cg_assets.core.settings import Training
from cg_assets.potentials.base import EVALUATION_BATCH, differentiated
from cg_assets.potentials.model_format import load_potential, save_potential
from cg_assets.potentials.settings import PotentialSettings, build_potential
from cg_assets.registry.shipping import shipment_of
from cg_assets.simulation.engine import engine_of
from cg_assets.training.data import TrainingData
from cg_assets.training.response import ResponseData
from cg_assets.training.train import train

BEADS = {"type": "message_passing", "features": 8, "interactions": 2, "basis_functions": 3, "thermal_energy": 2.5}
TAYLOR = {"form": "taylor_temperature", "origin": 350.0}
ANCHORED = {"form": "anchored", "anchors": [300.0, 400.0]}
CHAIN = [[0, 1], [1, 2], [2, 3], [3, 4]]
UNLIKE = BEADS | {"bead_types": [0, 1, 2, 3, 4], "bonds": CHAIN, "bead_masses": [12.0] * 5}
RADIAL = {"type": "radial_basis", "range": [-3.5, 3.5], "basis_functions": 12, "basis_width": 0.6, "hidden": [8]}
TENSORS = {
    **{"type": "tensor_network", "bead_types": [0] * 27, "cutoff": 0.58, "soft_cutoff": 0.5, "features": 6},
    **{"sensitivities": 4, "layers": 1, "tensor_order": 2},
    "temperature_dependence": SPLINES["temperature_dependence"],
}


@dataclass(frozen=True)
class Case:
    """A config, configurations that suit it, and the conditions that it needs."""

    config: dict
    positions: np.ndarray
    conditions: dict = field(default_factory=dict)
    engine_error: float = 1e-9
    """Of the fastest way to evaluate it, in parts of the largest value."""

    def potential(self):
        """In double precision, with statistics of its configurations and weights that are not zero."""
        generator = torch.Generator().manual_seed(3)
        potential = build_potential(self.config, generator).double()
        size, box = torch.tensor([60.0]), self.conditions.get("box")
        potential.fit_statistics(torch.as_tensor(self.positions), box, size)
        for name, value in potential.state_dict().items():
            if name.endswith(("coefficients", "series", "constant", "readout")):
                value.copy_(torch.randn(value.shape, generator=generator))
        return potential.requires_grad_(False)

    def frames(self, count=6):
        """Some of the configurations."""
        return torch.as_tensor(self.positions[:count])


def _beads(count=400):
    noise = np.random.default_rng(0).standard_normal((count, 5, 3))
    return MOLECULE.numpy() + 0.01 * noise


ONE = np.random.default_rng(1).uniform(-3, 3, (300, 1, 1))
BOX = {"box": torch.full((3,), 1.3, dtype=torch.float64)}
WARM = {"temperature": 380.0, "box": torch.full((3,), EDGE, dtype=torch.float64)}
CASES = {
    "radial_basis": Case(RADIAL | {"thermal_energy": 1.5}, ONE),
    "committee": Case(RADIAL | {"thermal_energy": 1.5, "committee": 3}, ONE),
    "spline_surface": Case(
        {"type": "spline_surface", "range": {"x": [-4, 4], "y": [-4, 4]}, "spacing": 0.8, "thermal_energy": 1.5},
        np.random.default_rng(2).uniform(-3, 3, (300, 2, 1)),
    ),
    "message_passing": Case(BEADS | {"bead_types": [0, 1, 0, 1, 1]}, _beads()),
    "message_passing in a box": Case(
        BEADS | {"bead_types": [0, 1, 0, 1, 1], "cutoff": 0.4, "periodic": True}, _beads(), BOX
    ),
    "sum of network, walls, series and prior": Case(
        UNLIKE | {"torsions": [[0, 1, 2, 3]], "torsion_order": 2, "prior": PRIOR}, _beads()
    ),
    "message_passing at all temperatures in a box": Case(
        BEADS | {"bead_types": [0, 1, 0, 1, 1], "cutoff": 0.4, "periodic": True, "temperature_dependence": ANCHORED},
        _beads(),
        BOX | {"temperature": 380.0},
    ),
    "sum of network, walls and prior at all temperatures": Case(
        UNLIKE | {"temperature_dependence": TAYLOR, "prior": PRIOR}, _beads(), {"temperature": 380.0}
    ),
    "thermal_curve": Case(
        {
            **{"type": "thermal_curve", "range": [-3.5, 3.5], "spacing": 0.5},
            "temperature_dependence": {"form": "constant_heat_capacity", "origin": 1.2},
        },
        ONE,
        {"temperature": 1.5},
    ),
    # Triples in single precision.
    "spline": Case(SPLINES | {"periodic": True}, liquid(20), WARM, engine_error=5e-7),
    "tensor_network": Case(TENSORS | {"periodic": True}, liquid(20), WARM),
    "toy_polynomial": Case({"type": "toy_polynomial", "order": 5, "range": [-3, 3], "thermal_energy": 1.5}, ONE),
    "toy_springs": Case(
        {"type": "toy_springs", "bead_types": [0, 0, 0]}, np.random.default_rng(3).normal(size=(20, 3, 3))
    ),
}


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def test_every_member_of_the_family_has_a_case():
    assert {case.config["type"] for case in CASES.values()} == set(PotentialSettings.members())
    assert toys.polynomial and toys.springs


def test_forces_are_the_gradient_of_the_energy(case):
    """Against automatic differentiation of the energy, and against differences of 1e-5."""
    potential, positions = case.potential(), case.frames()
    energy, forces = potential.energy_and_forces(positions, **case.conditions)
    exact_energy, exact = differentiated(potential, positions, **case.conditions)
    scale = float(exact.detach().abs().max())
    torch.testing.assert_close(energy, exact_energy.detach(), rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(forces.detach(), exact.detach(), rtol=1e-8, atol=1e-8 * scale)
    shift = torch.zeros_like(positions)
    shift[:, 0, 0] = 1e-5
    ahead, behind = (potential(positions + sign * shift, **case.conditions) for sign in (1, -1))
    torch.testing.assert_close((behind - ahead) / 2e-5, forces[:, 0, 0].detach(), rtol=1e-4, atol=1e-5 * scale + 1e-6)


def strained(potential, frames, conditions, strain):
    """Energies after a strain of the beads, and of the box with them."""
    grown = torch.eye(3, dtype=torch.float64) + strain
    box = {name: value * grown.diagonal() for name, value in conditions.items() if name == "box"}
    return potential(frames @ grown.T, **conditions | box)


def test_the_virial_is_the_change_of_energy_with_the_box(case):
    """Against differences: of the edges, and of shears in a box so wide that no pair crosses its faces."""
    potential, frames = case.potential(), case.frames()
    if potential.dimension != 3:
        with pytest.raises(ValueError, match="has no virial in CG coordinates"):
            potential.virial(frames, **case.conditions)
        return
    wide, crossing = dict(case.conditions), frames.clone()
    if "box" in wide:
        crossing[:, 0] += wide["box"]
        wide["box"] = 20.0 * wide["box"]
    stretches, shears = [(0, 0), (1, 1), (2, 2)], [(0, 1), (1, 0), (2, 1)]
    for places, conditions, axes in ((crossing, case.conditions, stretches), (frames, wide, shears)):
        virial = potential.virial(places, **conditions)
        assert virial.shape == (6, 3, 3) and not virial.requires_grad
        for axis, other in axes:
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[axis, other] = 1e-6
            change = strained(potential, places, conditions, -strain) - strained(potential, places, conditions, strain)
            scale = float(virial.abs().max())
            torch.testing.assert_close(virial[:, axis, other], change / 2e-6, rtol=1e-4, atol=1e-5 * scale)


def test_a_potential_without_a_virial_in_a_box_says_so_by_name():
    case = CASES["sum of network, walls, series and prior"]
    box = torch.full((3,), 3.0, dtype=torch.float64)
    with pytest.raises(ValueError, match="ChainPrior has no virial in a periodic box"):
        case.potential()["prior"].virial(case.frames(), box=box)


def test_long_batches_are_the_frames_one_by_one(case):
    potential = case.potential()
    count = EVALUATION_BATCH + 3
    positions = torch.as_tensor(np.resize(case.positions, (count, *case.positions.shape[1:])))
    with torch.no_grad():
        energy, forces = potential.energy_and_forces(positions, **case.conditions)
        for row in (0, count - 1):
            alone = potential.energy_and_forces(positions[row : row + 1], **case.conditions)
            torch.testing.assert_close(alone, (energy[row : row + 1], forces[row : row + 1]), rtol=1e-9, atol=1e-8)
        nothing = potential.predictions(positions[:0], **case.conditions)
    assert nothing["forces"].shape == (0, *positions.shape[1:]) and nothing["energy"].shape == (0,)


def test_moving_and_turning_all_beads_changes_nothing(case):
    """Of several beads in space; what tells left from right is not reflected."""
    potential, positions = case.potential(), case.frames()
    if potential.dimension != 3 or case.config["type"] == "toy_springs":
        pytest.skip("an external potential")
    energy, forces = potential.energy_and_forces(positions, **case.conditions)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()).Q
    turn = turn * torch.linalg.det(turn) if not case.conditions else torch.eye(3).double()[[1, 2, 0]]
    moved = potential.energy_and_forces(positions @ turn.T + 0.4, **case.conditions)
    scale = float(forces.abs().max())
    torch.testing.assert_close(moved[0], energy, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(moved[1], forces @ turn.T, rtol=1e-7, atol=1e-8 * scale)


def test_what_is_missing_or_wrong_is_refused_by_name(case):
    potential, positions = case.potential(), case.frames()
    assert potential.conditions == set(case.conditions)
    for name in potential.conditions:
        rest = {other: value for other, value in case.conditions.items() if other != name}
        for ask in (potential, potential.energy_and_forces, potential.predictions):
            with pytest.raises(ValueError, match=f"give `{name}`"):
                ask(positions, **rest)
        with pytest.raises(ValueError, match=f"give `{name}`"):
            potential.engine(**rest)
    with pytest.raises(ValueError, match="this potential needs"):
        potential.energy_and_forces(torch.zeros(2, 7, 2), **case.conditions)


def test_the_engine_is_the_potential(case):
    potential, positions = case.potential(), case.frames()
    with torch.no_grad():
        found = engine_of(potential, case.conditions.get("temperature"), case.conditions.get("box"))(positions)
        exact = potential.energy_and_forces(positions, **case.conditions)
    for mine, theirs in zip(found, exact, strict=True):
        error = case.engine_error * float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=max(1e-8, error))


def test_stored_and_read_it_is_the_same(case, tmp_path):
    potential = case.potential().float()
    save_potential(tmp_path / "model", potential, case.config, {"best_epoch": 3})
    again, config = load_potential(tmp_path / "model")
    assert {name: config[name] for name in case.config} == json.loads(json.dumps(case.config))
    assert config["metadata"] == {"best_epoch": 3}
    positions = case.frames().float()
    conditions = {name: torch.as_tensor(value).float() for name, value in case.conditions.items()}
    with torch.no_grad():
        mine, theirs = (each.predictions(positions, **conditions) for each in (potential, again))
    stored = {name: value.dtype for name, value in potential.state_dict().items()}
    if all(dtype == again.state_dict()[name].dtype for name, dtype in stored.items()):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    else:  # in single precision for this test alone
        torch.testing.assert_close(mine["forces"], theirs["forces"], rtol=1e-3, atol=1e-2)


ELSEWHERE = """
import importlib, json, sys
sys.modules["cg_assets"] = sys.modules["toys"] = None
import numpy, torch
for number, (code, config) in enumerate(json.load(open("cases.json"))):
    build, kind = (getattr(importlib.import_module(code[name].split(":")[0]), code[name].split(":")[1])
                   for name in ("build", "kind"))
    potential = build(kind, config)
    given = torch.load(f"given-{number}.pt", weights_only=True)
    potential.load_state_dict(given["weights"])
    answer = potential.predictions(given["positions"], **given["conditions"])
    torch.save({name: value.detach() for name, value in answer.items()}, f"found-{number}.pt")
"""


def test_all_run_where_the_package_is_not_installed(tmp_path):
    asked, answers = [], []
    for number, case in enumerate(CASES.values()):
        potential, positions = build_potential(case.config).requires_grad_(False), case.frames().float()
        potential.fit_statistics(torch.as_tensor(case.positions), case.conditions.get("box"), torch.tensor([60.0]))
        _, code = shipment_of(case.config).copy(tmp_path)
        asked.append((code, case.config))
        conditions = {name: torch.as_tensor(value) for name, value in case.conditions.items()}
        given = {"weights": potential.state_dict(), "positions": positions, "conditions": conditions}
        torch.save(given, tmp_path / f"given-{number}.pt")
        answers.append(potential.predictions(positions, **conditions))
    (tmp_path / "cases.json").write_text(json.dumps(asked))
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True, timeout=300)
    for number, answer in enumerate(answers):
        found = torch.load(tmp_path / f"found-{number}.pt", weights_only=True)
        assert set(found) == set(answer)
        for name, value in answer.items():
            torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-5)


class _StoppedError(Exception):
    pass


def _plane(count, seed):
    positions = np.random.default_rng(seed).uniform(-3, 3, (count, 2, 1)).astype(np.float32)
    return TrainingData(positions, -positions, np.arange(count) // 10)


TRAINED = {
    "radial_basis": (CASES["radial_basis"].config, lambda: _one_dimensional(400, 3), 2),
    "committee": (CASES["committee"].config, lambda: _one_dimensional(400, 3), 2),
    "spline_surface": (CASES["spline_surface"].config, lambda: _plane(400, 3), 1),
    "message_passing": (BEADS | {"bead_types": [0, 1, 2]}, lambda: _three_beads(400, 3), 2),
    "message_passing at all temperatures": (
        BEADS | {"bead_types": [0, 1, 2], "temperature_dependence": TAYLOR},
        lambda: replace(_three_beads(400, 3), temperature=np.tile([300.0, 400.0], 200), energy=np.arange(400.0)),
        2,
    ),
    "tensor_network": (TENSORS, lambda: ResponseData(labels(known_potential(), 8, [300.0, 550.0], noise=0.2)), 2),
}


@pytest.mark.parametrize("name", list(TRAINED))
def test_an_interrupted_training_ends_at_the_same_weights(name, tmp_path):
    config, data, stop = TRAINED[name]
    training = Training(epochs=3, batch_size=32, learning_rate=0.005, committee=config.get("committee", 0))
    whole = train(config, training, data(), seed=4).module.state_dict()

    def interrupt(record):
        if record["epoch"] == stop:
            raise _StoppedError

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(_StoppedError):
        train(config, training, data(), seed=4, checkpoint=checkpoint, on_epoch=interrupt)
    again = train(config, training, data(), seed=4, checkpoint=checkpoint).module.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
