"""Networks: symmetries, exact forces, confinement outside the data, cutoff and periodic box."""

import math
from functools import partial

import pytest
import torch

from cg_assets.potentials.base import EVALUATION_BATCH, differentiated
from cg_assets.potentials.composite import Sum
from cg_assets.potentials.settings import build_potential

BOX = 1.3
THERMAL_ENERGY = 2.5
MOLECULE = torch.tensor(
    [[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.34, 0.16, 0.05], [0.36, 0.24, 0.18]], dtype=torch.float64
)
PRIOR = {
    "bonds": [[0, 1, 0.15, 4000.0], [1, 2, 0.15, 6000.0]],
    "angles": [[0, 1, 2, 12.0, 20.0, -8.0, 5.0], [1, 2, 3, 12.0, 15.0, 30.0, 23.0]],
    "dihedrals": [[0, 1, 2, 3, 0.5, -1.0, 0.3, 0.2], [4, 3, 2, 1, 0.1, 0.7, -0.4, 0.1]],
    "repulsion": [[0, 4, 0.3], [1, 4, 0.2]],
}
CASES = {
    "unique, one interaction": ({"bead_types": [4, 2, 7, 1, 0], "interactions": 1}, None),
    "unique, two": ({"bead_types": [0, 1, 2, 3, 4], "interactions": 2}, None),
    "unique, three": ({"bead_types": [0, 1, 2, 3, 4], "interactions": 3}, None),
    "unique, prior": ({"bead_types": [0, 1, 2, 3, 4], "interactions": 2, "prior": PRIOR}, None),
    "two types": ({"bead_types": [0, 1, 0, 1, 1], "interactions": 2}, None),
    "one type": ({"bead_types": [6, 6, 6, 6, 6], "interactions": 2}, None),
    "cutoff": ({"bead_types": [0, 1, 0, 1, 1], "interactions": 2, "cutoff": 0.31}, None),
    "unique, cutoff": ({"bead_types": [0, 1, 2, 3, 4], "interactions": 2, "cutoff": 0.31}, None),
    "box": ({"bead_types": [0, 1, 0, 1, 1], "interactions": 2, "cutoff": 0.4}, torch.tensor([BOX, BOX, BOX])),
}


def _frames(count, seed=0, spread=0.01):
    noise = torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return MOLECULE + spread * noise


def _config(**changes):
    defaults = {"type": "message_passing", "features": 16, "basis_functions": 4, "cutoff": None}
    return defaults | {"thermal_energy": THERMAL_ENERGY} | changes


def _network(changes, box=None):
    module = build_potential(_config(**changes), torch.Generator().manual_seed(3)).double()
    module.fit_statistics(_frames(400), box)
    return module


def parts_of(module):
    return module.parts if isinstance(module, Sum) else {"network": module}


def _random_rotation(seed):
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(matrix).Q


@pytest.fixture(params=list(CASES))
def case(request):
    changes, box = CASES[request.param]
    return _network(changes, box), box


def _wide_frames():
    # partly inside the data, partly beyond its walls
    return torch.cat([_frames(6, 1), _frames(6, 2, spread=0.03)])


def test_forces_are_the_exact_gradient(case):
    module, box = case
    positions = _wide_frames()
    energy, forces = module.energy_and_forces(positions, box=box)
    reference_energy, reference = differentiated(module, positions, box=box)
    torch.testing.assert_close(energy, reference_energy, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(forces, reference, rtol=1e-10, atol=1e-9)
    step = 1e-6
    for bead, axis in ((0, 0), (2, 1), (4, 2)):
        shift = torch.zeros_like(positions)
        shift[:, bead, axis] = step
        slope = (module(positions + shift, box=box) - module(positions - shift, box=box)) / (2 * step)
        torch.testing.assert_close(-slope, forces[:, bead, axis], rtol=1e-5, atol=1e-4)


def test_fast_single_precision_path_equals_autograd(case):
    module, box = case
    module = module.float().requires_grad_(False)
    positions = _frames(EVALUATION_BATCH + 9).float()
    with torch.no_grad():
        energy, forces = module.energy_and_forces(positions, box=box)
    reference_energy, reference = differentiated(module, positions, box=box)
    scale = float(reference.square().mean().sqrt())
    assert float((forces - reference).abs().max()) < 1e-5 * scale
    assert float((energy - reference_energy).abs().max()) < 1e-5 * float(reference_energy.abs().max())


def test_weight_gradients_of_a_force_loss_equal_autograd(case):
    module, box = case
    positions, labels = _frames(8), 100 * _frames(8, seed=5)
    gradients = []
    for evaluate in (module.energy_and_forces, partial(differentiated, module)):
        module.zero_grad()
        _, forces = evaluate(positions, box=box)
        (forces - labels).square().mean().backward()
        gradients.append({name: value.grad.clone() for name, value in module.named_parameters()})
    for name, value in gradients[0].items():
        scale = float(gradients[1][name].abs().max()) + 1e-9
        assert float((value - gradients[1][name]).abs().max()) < 1e-9 * scale, name


def test_invariance_to_rotation_reflection_and_translation(case):
    module, box = case
    positions = _frames(5)
    energy, forces = module.energy_and_forces(positions, box=box)
    shifted = module.energy_and_forces(positions + torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64), box=box)
    torch.testing.assert_close(shifted[0], energy, rtol=1e-10, atol=1e-10)
    turn = _random_rotation(1) if box is None else torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    # The dihedrals of a prior distinguish left from right.
    for matrix in (turn * torch.linalg.det(turn),) if "prior" in parts_of(module) else (turn, -turn):
        turned = module.energy_and_forces(positions @ matrix.T, box=box)
        torch.testing.assert_close(turned[0], energy, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(turned[1], forces @ matrix.T, rtol=1e-8, atol=1e-8)


def test_dihedrals_of_a_prior_tell_left_from_right():
    module = _network(CASES["unique, prior"][0])
    positions = _frames(5)
    odd = (module(positions) - module(-positions)).detach()
    expected = module["prior"](positions) - module["prior"](-positions)
    torch.testing.assert_close(odd, expected, rtol=1e-10, atol=1e-10)
    assert float(odd.abs().min()) > 0.1


@pytest.mark.parametrize("name", ["two types", "one type", "cutoff", "box"])
def test_invariance_to_exchange_of_like_beads(name):
    changes, box = CASES[name]
    module = _network(changes, box)
    positions = _frames(5)
    energy, forces = module.energy_and_forces(positions, box=box)
    for order in ([2, 1, 0, 3, 4], [0, 4, 2, 1, 3]):
        exchanged = module.energy_and_forces(positions[:, order], box=box)
        torch.testing.assert_close(exchanged[0], energy, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(exchanged[1], forces[:, order], rtol=1e-8, atol=1e-8)


def test_unlike_beads_are_told_apart():
    module = _network({"bead_types": [0, 1, 2, 3, 4], "interactions": 2})
    positions = _frames(5)
    with torch.no_grad():
        difference = module(positions[:, [2, 1, 0, 3, 4]]) - module(positions)
    assert float(difference.abs().min()) > 1e-3


def test_periodic_images_are_the_same_configuration():
    changes, box = CASES["box"]
    module = _network(changes, box)
    positions = _frames(4)
    moved = positions.clone()
    moved[:, 1] += torch.tensor([BOX, 0, -2 * BOX], dtype=torch.float64)
    energy, forces = module.energy_and_forces(positions, box=box)
    again = module.energy_and_forces(moved, box=box.double().repeat(4, 1))
    torch.testing.assert_close(again[0], energy, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(again[1], forces, rtol=1e-5, atol=1e-5)


def test_too_long_cutoff_is_refused():
    module = build_potential(_config(bead_types=[0, 1, 0, 1, 1], interactions=1, cutoff=0.7))
    with pytest.raises(ValueError, match="beyond half the smallest box edge"):
        module(_frames(2).float(), box=torch.tensor([BOX, BOX, BOX]))
    module = build_potential(_config(bead_types=[0, 1, 0, 1, 1], interactions=1))
    with pytest.raises(ValueError, match="cutoff None"):
        module(_frames(2).float(), box=torch.tensor([BOX, BOX, BOX]))


def test_separate_molecules_add_up_under_a_cutoff():
    settings = {"interactions": 2, "cutoff": 0.6}
    small = build_potential(_config(bead_types=[0, 1, 0, 1, 1], **settings), torch.Generator().manual_seed(1)).double()
    pair = build_potential(_config(bead_types=[0, 1, 0, 1, 1] * 2, **settings)).double()
    apart = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    first, second = _frames(50), _frames(50, seed=2)
    together = torch.cat([first, second + apart], dim=1)
    pair.fit_statistics(together)
    small.load_state_dict(pair.state_dict())
    torch.testing.assert_close(pair(together), small(first) + small(second), rtol=1e-10, atol=1e-10)


def test_energy_and_forces_vanish_smoothly_at_the_cutoff():
    module = build_potential(_config(bead_types=[0, 0], interactions=1, cutoff=0.5)).double()
    distance = torch.linspace(0.2, 0.6, 400, dtype=torch.float64)
    positions = torch.zeros(400, 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = distance
    module.fit_statistics(positions)
    energy, forces = module.energy_and_forces(positions)
    beyond = distance >= 0.5
    assert float(forces[beyond].abs().max()) == 0.0
    assert float((energy[beyond] - energy[-1]).abs().max()) == 0.0
    near = (distance > 0.495) & ~beyond
    assert float(forces[near].abs().max()) < 1e-2 * float(forces.abs().max())


def test_confinement_beyond_the_data():
    module = _network({"bead_types": [0, 1, 2, 3, 4], "interactions": 2})
    stretched = MOLECULE.repeat(3, 1, 1)
    stretched[:, 4, 0] += torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    energy, forces = module.energy_and_forces(stretched)
    assert (energy.diff() > 100).all()
    assert (forces[:, 4, 0] < -100).all()
    squeezed = MOLECULE[None].clone()
    squeezed[:, 1] = squeezed[:, 0] + torch.tensor([0.01, 0.0, 0.0], dtype=torch.float64)
    assert float(module.energy_and_forces(squeezed)[1][0, 1, 0]) > 100


def test_handed_centres_cannot_be_inverted():
    # four corners around the first bead, as a stereocentre
    centre = torch.tensor([[0, 0, 0], [0.1, 0.1, 0.1], [-0.1, -0.1, 0.1], [-0.1, 0.1, -0.1]], dtype=torch.float64) * 1.0
    noise = 0.004 * torch.randn(500, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = build_potential(_config(bead_types=[0, 1, 2, 3], interactions=1)).double()
    module.fit_statistics(centre + noise)
    assert int((module["handedness"].volume_stiffness > 0).sum()) == 1
    flat = centre.repeat(3, 1, 1)
    flat[:, 0] += torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None] * centre[1:].mean(dim=0)
    wall, forces = module["handedness"].energy_and_forces(flat)
    assert float(wall[0]) == 0.0
    assert float(wall[2]) > float(wall[1]) > 10 * THERMAL_ENERGY
    mirrored = module["handedness"].energy_and_forces(-flat)
    torch.testing.assert_close(mirrored[0], wall)
    torch.testing.assert_close(mirrored[1], -forces)
    _, reference = differentiated(module, flat[:2])
    torch.testing.assert_close(module.energy_and_forces(flat[:2])[1].detach(), reference, rtol=1e-9, atol=1e-9)


def test_beads_that_bend_nearly_flat_are_no_handed_centre():
    """A volume of one sign with a mean of eight standard deviations, but with a tail to zero."""
    centre = torch.tensor([[0, 0, 0], [0.1, 0.1, 0.1], [-0.1, -0.1, 0.1], [-0.1, 0.1, -0.1]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    frames = centre + 0.002 * torch.randn(500, 4, 3, generator=generator, dtype=torch.float64)
    module = build_potential(_config(bead_types=[0, 1, 2, 3], interactions=1)).double()
    module.fit_statistics(frames)
    assert int((module["handedness"].volume_stiffness > 0).sum()) == 1
    frames[:3, 0] += 0.9 * centre[1:].mean(dim=0)
    module.fit_statistics(frames)
    assert int((module["handedness"].volume_stiffness > 0).sum()) == 0


def test_walls_are_absent_inside_the_data():
    module = _network({"bead_types": [0, 1, 2, 3, 4], "interactions": 1})
    distances = module["network"]._distances(_frames(400), None)[1]
    assert float(module["network"]._walls(distances)[0].abs().max()) < 1e-12


def _radial(**changes):
    config = {"type": "radial_basis", "range": [-2.0, 2.0], "basis_functions": 20, "basis_width": 0.4}
    return build_potential(config | {"hidden": [16, 16], "thermal_energy": 1.5} | changes).double()


def test_radial_basis_forces_and_continuation():
    module = _radial()
    module.fit_statistics(torch.linspace(-1.5, 1.2, 50, dtype=torch.float64)[:, None, None])
    x = torch.linspace(-3, 3, 301, dtype=torch.float64)[:, None, None]
    _, forces = module.energy_and_forces(x)
    _, reference = differentiated(module, x)
    torch.testing.assert_close(forces, reference, rtol=1e-10, atol=1e-10)
    step = 1e-6
    torch.testing.assert_close(
        (module(x - step) - module(x + step)) / (2 * step), forces[:, 0, 0], rtol=1e-4, atol=1e-4
    )
    for edge, side in ((-1.5, -1), (1.2, 1)):
        ends = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)[:, None, None]
        values, slopes = module.energy_and_forces(ends)
        assert float(values.diff().abs().detach()) < 1e-6
        assert float(slopes.diff(dim=0).abs().max()) < 1e-5
        outside = (side * (x[:, 0, 0] - edge)) > 1.0
        assert (side * forces[outside, 0, 0] < 0).all()
    assert math.isclose(float(module.low), -1.5)
    assert math.isclose(float(module.high), 1.2, rel_tol=1e-6)


def test_radial_basis_refuses_other_shapes():
    with pytest.raises(ValueError, match="n_frames, 1, 1"):
        _radial()(torch.zeros(3, 2, 3))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "mystery", "thermal_energy": 1.0}, "must be one of"),
        (_config(bead_types=[0, 1], interactions=1) | {"thermal_energy": 0}, "positive number"),
        (_config(bead_types=[0], interactions=1), "at least 2"),
        (_config(bead_types=[0, 1], interactions=0), "at least 1"),
        (_config(bead_types=[0, 1], interactions=1, prior={"bonds": [[0, 1, 0.3, -4.0]]}), "negative force constant"),
    ],
)
def test_wrong_configs_are_explained(config, message):
    with pytest.raises(ValueError, match=message):
        build_potential(config)


def test_frozen_data_cannot_set_statistics():
    module = build_potential(_config(bead_types=[0, 1, 2, 3, 4], interactions=1))
    with pytest.raises(ValueError, match="never change"):
        module.fit_statistics(MOLECULE.float().repeat(10, 1, 1))


def test_same_seed_same_weights():
    config = _config(bead_types=[0, 1, 2], interactions=2)
    one, two = (build_potential(config, torch.Generator().manual_seed(7)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build_potential(config, torch.Generator().manual_seed(8)).state_dict()
    assert not torch.equal(one["first"], other["first"])
