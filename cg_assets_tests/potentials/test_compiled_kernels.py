"""Compiled kernels: energies, forces and gradients by weights of the potential in double precision, in every lane."""

import numpy as np
import pytest
import torch
from test_potentials import BEADS, CASES, CHAIN, Case, _beads

from cg_assets.core.settings import Training
from cg_assets.potentials.handedness import HandednessWalls
from cg_assets.potentials.lanes import LANES, LaneEngine
from cg_assets.potentials.message_passing import compiled_training
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.torsions.torques import BondTorques
from cg_assets.simulation.engine import engine_of
from cg_assets.training.data import TrainingData
from cg_assets.training.loop import ForceMatching

COMPILED = {name: case for name, case in CASES.items() if case.config["type"] == "message_passing"}
COMPILED |= {
    "one interaction, odd sizes": Case(
        BEADS | {"bead_types": [0, 1, 2, 3, 4], "features": 5, "interactions": 1, "basis_functions": 2}, _beads()
    ),
    "three interactions within a cutoff": Case(
        BEADS | {"bead_types": [0, 0, 1, 1, 2], "features": 12, "interactions": 3, "cutoff": 0.3}, _beads()
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_forces_are_those_of_the_potential(name):
    """To 1e-5 of the largest force, far from the data, too, where walls act; 21 replicas do not fill their lanes."""
    case = COMPILED[name]
    potential, generator = case.potential(), torch.Generator().manual_seed(4)
    positions = case.frames(21).clone()
    positions[::2] += 0.02 * torch.randn(positions[::2].shape, generator=generator).double()
    with torch.no_grad():
        energy, forces = potential.energy_and_forces(positions, **case.conditions)
        engine = engine_of(potential.float(), case.conditions.get("temperature"), case.conditions.get("box"))
        assert isinstance(engine, LaneEngine)
        found = engine(positions)
        alone = engine(positions[:1])
    largest = float(forces.abs().max())
    torch.testing.assert_close(found[1], forces, rtol=0, atol=1e-5 * largest)
    torch.testing.assert_close(found[0], energy, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(alone, (found[0][:1], found[1][:1]), rtol=0, atol=0)


def test_a_box_that_is_infinite_along_an_axis_has_no_images_there():
    """A chain across the faces of the other two, against the same pairs without any box."""
    case = COMPILED["message_passing in a box"]
    potential, positions = case.potential(), case.frames(21).clone()
    edges = torch.tensor([1.3, 1.3, torch.inf], dtype=torch.float64)
    positions[..., 2] *= 3.0  # beyond half of 1.3 nm
    wide = torch.tensor([1.3, 1.3, 1000.0], dtype=torch.float64)
    energy, forces = potential.energy_and_forces(positions, box=wide)
    found = potential.energy_and_forces(positions, box=edges)
    torch.testing.assert_close(found, (energy, forces), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(potential.virial(positions, box=edges), potential.virial(positions, box=wide))
    compiled = engine_of(potential.float(), None, edges.numpy())(positions)
    torch.testing.assert_close(compiled[1], forces, rtol=0, atol=1e-5 * float(forces.abs().max()))


def test_walls_of_handed_centres_are_compiled():
    """Of all sets of four of five beads; some frames lie beyond their walls, some far from them."""
    positions = torch.as_tensor(_beads())
    walls = HandednessWalls(5, 2.5)
    walls.volume_low.fill_(2e-4)
    walls.volume_stiffness.copy_(torch.linspace(0, 9e8, 5))
    energy, forces = walls.double().evaluate(positions)
    assert energy.min() == 0 and energy.max() > 1
    found = LaneEngine(walls.float().kernels(None, None))(positions)
    torch.testing.assert_close(found[1], forces, rtol=0, atol=1e-5 * float(forces.abs().max()))
    torch.testing.assert_close(found[0], energy, rtol=1e-5, atol=1e-4)


def test_a_replica_that_is_not_a_number_leaves_the_others_as_they_are():
    case = COMPILED["sum of network, walls, series and prior"]
    engine, positions = engine_of(case.potential().float(), None, None), case.frames(LANES)
    before = engine(positions)
    broken = positions.clone()
    broken[3, 1] = np.nan
    after = engine(broken)
    others = np.arange(LANES) != 3
    torch.testing.assert_close(
        (after[0][others], after[1][others]), (before[0][others], before[1][others]), rtol=0, atol=0
    )
    assert after[0][3].isnan() and after[1][3].isnan().any()
    assert [len(part) for part in engine(positions[:0])] == [0, 0]


def _gradients(case, potential, pull, push):
    """Gradients by the weights of a loss of forces, torques and energies."""
    positions, box = case.frames(len(pull)).to(potential.precision), case.conditions.get("box")
    thermal = "temperature" in case.conditions
    temperature = torch.linspace(310, 390, len(pull), dtype=torch.float64) if thermal else None
    energy, forces = potential.requires_grad_(True).energy_and_forces(positions, temperature, box)
    left, torques = forces - pull.to(forces), BondTorques(5, CHAIN)
    torques.sides = torques.sides.to(forces)
    loss = left.square().sum() + 30 * torques(positions, left).square().sum() + (push.to(energy) * energy).sum()
    if thermal:
        forces, energy = potential.forces_and_mean_energy(positions, temperature, box)
        loss = loss + (forces * pull.to(forces)).sum() + (push.to(energy) * energy).sum()
    potential.zero_grad()
    loss.backward()
    return {name: weight.grad.double().clone() for name, weight in potential.named_parameters()}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_gradients_are_those_of_the_potential(name, monkeypatch):
    """By each weight to 1e-5 of its largest; of forces, torques and energies, at one temperature or at many."""
    case, generator, calls = COMPILED[name], torch.Generator().manual_seed(5), []
    add_gradient = compiled_training.add_gradient
    monkeypatch.setattr(compiled_training, "add_gradient", lambda *parts: calls.append(add_gradient(*parts)))
    potential = case.potential()
    pull = 50 * torch.randn(21, 5, 3, generator=generator, dtype=torch.float64)
    push = torch.randn(21, generator=generator, dtype=torch.float64)
    exact = _gradients(case, potential, pull, push)
    assert not calls
    found = _gradients(case, potential.float(), pull, push)
    assert len(calls) == (2 if "temperature" in case.conditions else 1)
    for weight, gradient in exact.items():
        torch.testing.assert_close(found[weight], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", COMPILED)
def test_positions_of_another_molecule_are_refused_before_they_reach_compiled_code(name):
    """Four beads, six beads and two dimensions for a potential of five beads."""
    case = COMPILED[name]
    potential, conditions = case.potential().float().requires_grad_(True), case.conditions
    five = case.frames(3).float()
    for wrong in (five[:, :4], torch.cat([five, five[:, :1]], dim=1), five[:, :, :2]):
        with torch.no_grad(), pytest.raises(ValueError, match=r"this potential needs \(n_frames, 5, 3\)"):
            potential.evaluate(wrong, **conditions)


def test_a_gradient_whose_memory_is_in_use_again_is_refused():
    """After a second forward the memory of the first holds other numbers."""
    case = COMPILED["message_passing"]
    potential = case.potential().float().requires_grad_(True)
    frames = case.frames(40).float()
    loss = potential.evaluate(frames[:20])[1].square().sum()
    loss.backward(retain_graph=True)
    potential.evaluate(frames[20:])
    with pytest.raises(RuntimeError, match="evaluate again"):
        loss.backward()


def test_training_in_one_box_is_compiled(monkeypatch):
    """One box for all frames, and boxes that differ in their last digit, which eager torch trains: the same losses."""
    calls, counts, losses = [], [], []
    add_gradient = compiled_training.add_gradient
    monkeypatch.setattr(compiled_training, "add_gradient", lambda *parts: calls.append(add_gradient(*parts)))
    case, generator = COMPILED["message_passing in a box"], np.random.default_rng(6)
    positions = case.positions[:120].astype(np.float32)
    forces = generator.normal(0, 50, positions.shape).astype(np.float32)
    box = np.full((120, 3), 1.3, np.float32)
    for edges in (box, box + 1e-6 * (np.arange(120) % 2)[:, None]):
        potential = build_potential(case.config, torch.Generator().manual_seed(3))
        potential.fit_statistics(torch.as_tensor(positions), torch.as_tensor(box[0]))
        data = TrainingData(positions, forces, np.arange(120) // 10, box=edges.astype(np.float32))
        given = (
            Training(epochs=1, batch_size=32, learning_rate=0.01),
            data,
            0,
            torch.Generator().manual_seed(0),
            torch.device("cpu"),
        )
        losses.append(ForceMatching(potential, case.config, *given).train_epoch(1))
        counts.append(len(calls))
    assert 0 < counts[0] == counts[1], "eager torch trains the second"
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
