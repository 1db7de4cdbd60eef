"""Temperature-dependent potentials: exact gradients, symmetries, boxes, statistics, storage; over every type."""

import itertools
import math

import numpy as np
import pytest
import torch

from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal.engine import ListEngine
from cg_assets.potentials.thermal_splines.module import FADE, cubic_splines
from cg_assets.simulation.engine import engine_of
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

BOX = torch.tensor([1.15, 1.2, 1.3], dtype=torch.float64)
SETTINGS = {
    "spline": {
        "pair_cutoff": 0.55,
        "pair_functions": 10,
        "triple_cutoff": 0.45,
        "triple_functions": 3,
        "triple_degree": 3,
    },
    "tensor_network": {
        "cutoff": 0.55,
        "soft_cutoff": 0.5,
        "features": 12,
        "sensitivities": 6,
        "layers": 2,
        "tensor_order": 2,
    },
}
FORMS = [
    {"form": "constant_heat_capacity", "origin": 420.0},
    {"form": "taylor_inverse_temperature", "origin": 420.0, "order": 1},
    {"form": "anchored", "anchors": [300.0, 450.0, 650.0]},
]


def lattice(frames, seed=0, spread=0.04, per_edge=3):
    """Beads on a jittered grid that fills the box."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(per_edge)] * 3, indexing="ij"), dim=3).reshape(-1, 3)
    noise = torch.randn(frames, len(grid), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (grid + 0.5) * BOX / per_edge + spread * noise


def potential(kind, form=FORMS[0], **changes):
    """A potential with random weights, statistics of lattices, in float64."""
    config = {"type": kind, "bead_types": [0] * 27, "temperature_dependence": form} | SETTINGS[kind] | changes
    generator = torch.Generator().manual_seed(3)
    module = build_potential(config, generator).double()
    module.fit_statistics(lattice(20, seed=9), BOX, torch.tensor([50.0]))
    if kind == "spline":
        module.coefficients.copy_(torch.randn(module.coefficients.shape, generator=generator).double())
    return module


@pytest.fixture(autouse=True)
def _no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(params=list(SETTINGS))
def kind(request):
    return request.param


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["form"])
def test_forces_are_gradients_at_every_temperature(kind, form):
    module = potential(kind, form)
    positions, temperature = lattice(3), torch.tensor([280.0, 420.0, 690.0], dtype=torch.float64)
    energy, forces = module.energy_and_forces(positions, temperature, BOX)
    assert energy.shape == (3,)
    step = 1e-5
    for bead, axis in ((0, 0), (13, 1), (26, 2)):
        shift = torch.zeros_like(positions)
        shift[:, bead, axis] = step
        ahead, behind = (module(positions + sign * shift, temperature, BOX) for sign in (1, -1))
        difference = (behind - ahead) / (2 * step)
        torch.testing.assert_close(difference, forces[:, bead, axis], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(forces.sum(dim=1), torch.zeros(3, 3).double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["form"])
def test_response_is_the_derivative_by_temperature(kind, form):
    module = potential(kind, form)
    positions, temperature = lattice(2, seed=1), torch.tensor([310.0, 560.0], dtype=torch.float64)
    response = module.response(positions, temperature, BOX)
    step = 0.05
    warm, cold = (module.energy_and_forces(positions, temperature + sign * step, BOX) for sign in (1, -1))
    size = response.first_order.abs().max()
    assert float(((warm[1] - cold[1]) / (2 * step) - response.first_order).abs().max() / size) < 1e-6
    second = (warm[1] - 2 * response.forces + cold[1]) / step**2
    assert float((second - response.second_order).abs().max()) < 1e-4 * float(size) / 100 + 1e-6
    slope = (warm[0] - cold[0]) / (2 * step)
    torch.testing.assert_close(response.mean_energy, response.energy - temperature * slope, rtol=1e-6, atol=1e-4)
    hot, cool = (module.response(positions, temperature + sign * step, BOX).mean_energy for sign in (1, -1))
    torch.testing.assert_close((hot - cool) / (2 * step), response.heat_capacity, rtol=1e-5, atol=1e-6)


def test_symmetries(kind):
    """Permutation, translation, whole box edges, and rotation without a box."""
    module = potential(kind)
    positions = lattice(2, seed=2)
    energy, forces = module.energy_and_forces(positions, 350.0, BOX)
    order = torch.randperm(27, generator=torch.Generator().manual_seed(0))
    permuted = module.energy_and_forces(positions[:, order], 350.0, BOX)
    torch.testing.assert_close(permuted[0], energy, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(permuted[1], forces[:, order], rtol=1e-8, atol=1e-7)
    images = torch.randint(-2, 3, positions.shape, generator=torch.Generator().manual_seed(1)) * BOX
    moved = module.energy_and_forces(positions + images + 0.3, 350.0, BOX)
    torch.testing.assert_close(moved[0], energy, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(moved[1], forces, rtol=1e-7, atol=1e-6)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)).double()).Q
    alone, turned = (module.energy_and_forces(points, 350.0) for points in (positions, positions @ turn))
    torch.testing.assert_close(turned[0], alone[0], rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(turned[1], alone[1] @ turn, rtol=1e-7, atol=1e-6)
    endless = module.energy_and_forces(positions, 350.0, torch.full((3,), math.inf))
    torch.testing.assert_close(endless, alone)


def test_temperatures_are_those_of_each_frame(kind):
    module = potential(kind)
    positions, temperature = lattice(3), torch.tensor([300.0, 450.0, 600.0])
    energy, forces = module.energy_and_forces(positions, temperature, BOX)
    for row, kelvin in enumerate(temperature):
        alone = module.energy_and_forces(positions[row : row + 1], float(kelvin), BOX)
        torch.testing.assert_close(alone[0], energy[row : row + 1])
        torch.testing.assert_close(alone[1], forces[row : row + 1])
    with pytest.raises(ValueError, match="give `temperature`"):
        module.energy_and_forces(positions, box=BOX)


def test_energy_ends_smoothly_at_the_cutoff(kind):
    """A pair that leaves the cutoff takes no jump of the force with it."""
    module = potential(kind)
    module.n_beads = 2
    if kind == "tensor_network":
        module.kinds = module.kinds[:2]
    distance = module.cutoff + torch.tensor([-1e-3, -1e-4, 1e-4]).double()
    positions = torch.zeros(3, 2, 3).double()
    positions[:, 1, 0] = distance
    _, forces = module.energy_and_forces(positions, 400.0)
    assert float(forces[2].abs().max()) == 0.0  # both potentials end there
    assert float(forces[1].abs().max()) < 0.2 * float(forces[0].abs().max()) + 1e-12


def test_beads_are_kept_apart_below_the_data(kind):
    module = potential(kind)
    positions = lattice(1)
    reach = []
    for distance in (0.12, 0.1, 0.08, 0.06):
        close = positions.clone()
        close[0, 1] = close[0, 0] + torch.tensor([distance, 0.0, 0.0])
        reach.append(float(module.energy_and_forces(close, 400.0, BOX)[1][0, 1, 0]))
    assert reach[0] > 1e4
    assert all(later > 5 * earlier for earlier, later in itertools.pairwise(reach)), reach


def test_cutoff_beyond_half_the_box_is_refused(kind):
    with pytest.raises(ValueError, match="beyond half the smallest box edge"):
        potential(kind).energy_and_forces(lattice(1), 400.0, torch.tensor([1.0, 1.2, 1.2]))


def test_constants_add_energy_and_no_force(kind):
    module, positions = potential(kind, FORMS[1]), lattice(2)
    before = module.response(positions, 500.0, BOX)
    module.add_constants(torch.tensor([2.0, -3.0]))
    after = module.response(positions, 500.0, BOX)
    assert torch.equal(after.forces, before.forces)
    # s_0 = 1, s_1 = 1 - T_0/T
    added = 27 * (2.0 - 3.0 * (1 - 420.0 / 500.0))
    torch.testing.assert_close(after.energy - before.energy, torch.full((2,), added).double())


def test_network_of_constant_heat_capacity_is_concave_in_temperature():
    """Whatever the weights: C >= 0 at any configuration."""
    module = potential("tensor_network")
    module.readout.mul_(30.0)
    assert float(module.response(lattice(5, spread=0.1), 350.0, BOX).heat_capacity.min()) >= 0.0


def test_network_knows_kinds_of_beads():
    """Exchanging two beads of different kinds changes the energy; of the same kind it does not."""
    kinds = [0] * 14 + [1] * 13
    module = potential("tensor_network", FORMS[1], bead_types=kinds)
    module.type_energies.normal_(generator=torch.Generator().manual_seed(0))
    positions = lattice(1)
    energy = module(positions, 400.0, BOX)
    for one, two in ((0, 1), (0, 20)):
        swapped = positions.clone()
        swapped[:, [one, two]] = positions[:, [two, one]]
        same = torch.allclose(module(swapped, 400.0, BOX), energy, rtol=1e-10)
        assert same == (kinds[one] == kinds[two])


def test_design_of_splines_gives_their_forces():
    """The hand-written gradients of all basis functions, which coefficients are solved from, against autograd."""
    module = potential("spline")
    positions = lattice(2, seed=5)
    positions[1, 1] = positions[1, 0] + torch.tensor([0.2, 0.1, 0.0])  # below the least distance
    temperature = torch.tensor([300.0, 600.0])
    functions, designs, prior = module.force_functions(positions, BOX)
    weights = module.dependence.coefficients(temperature)[0] @ module.coefficients
    energy, forces = module.energy_and_forces(positions, temperature, BOX)
    torch.testing.assert_close((designs * weights[:, None, None]).sum(dim=3) + prior, forces, rtol=1e-9, atol=1e-8)
    difference = energy - (functions * weights).sum(dim=1)
    assert float(difference[0]) == pytest.approx(0.0, abs=1e-2)  # the prior is weak within the data


def test_triples_are_sums_over_triples():
    """The moments against the triple loop."""
    module = potential("spline")
    positions = lattice(1, seed=6)
    gap = positions[0, :, None] - positions[0, None]
    gap = gap - BOX * torch.round(gap / BOX)
    distance = gap.norm(dim=2)
    direct = torch.zeros(module.n_functions - 1 - module.pair_functions, dtype=torch.float64).reshape(-1, 4)
    value = lambda r: cubic_splines(r[None], module.low, module.triple_cutoff, module.triple_functions)[0][0]  # noqa: E731
    for i in range(27):
        near = [j for j in range(27) if j != i and distance[i, j] < module.triple_cutoff]
        for j in near:
            for k in near:
                if j == k:
                    continue
                x = float(gap[i, j] @ gap[i, k] / distance[i, j] / distance[i, k])
                polynomials = torch.tensor([1.0, x, 1.5 * x * x - 0.5, 2.5 * x**3 - 1.5 * x], dtype=torch.float64)
                products = torch.outer(value(distance[i, j]), value(distance[i, k]))
                a, b = module.couple.T
                direct += 0.5 * products[a, b][:, None] * polynomials
    functions = module.force_functions(positions, BOX)[0][0]
    torch.testing.assert_close(functions[1 + module.pair_functions :], direct.flatten(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "mystery"}, "must be one of"),
        ({"bead_types": [0, 1]}, "one type only"),
        ({"bead_types": [0]}, "at least 2"),
        ({"pair_functions": 3}, "at least 4"),
        ({"triple_degree": 9}, "at most 6"),
        ({**SETTINGS["tensor_network"], "type": "tensor_network", "tensor_order": 3}, "0, 1 or 2"),
        ({**SETTINGS["tensor_network"], "type": "tensor_network", "soft_cutoff": 0.6}, "at most the cutoff"),
    ],
)
def test_wrong_configs_are_explained(changes, message):
    config = {"type": "spline", "bead_types": [0, 0], "temperature_dependence": FORMS[0]} | SETTINGS["spline"]
    with pytest.raises(ValueError, match=message):
        build_potential(config | changes)


def test_data_without_neighbours_cannot_set_statistics():
    module = build_potential(
        {"type": "spline", "bead_types": [0, 0], "temperature_dependence": FORMS[0]} | SETTINGS["spline"]
    )
    apart = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0]]])
    with pytest.raises(ValueError, match="no two beads come closer"):
        module.fit_statistics(apart, None, torch.ones(1))


def test_engines_take_each_axis_of_a_box_by_itself(kind):
    """A slab that is open along x; a box that is not periodic at all gives other forces."""
    module, places, slab = potential(kind), lattice(3), BOX.clone()
    slab[0] = torch.inf
    energy, forces = module.energy_and_forces(places, 400.0, slab)
    largest = float(forces.abs().max())
    assert float((module.energy_and_forces(places, 400.0)[1] - forces).abs().max()) > 0.01 * largest
    found = engine_of(module.float(), 400.0, slab.numpy())(places)
    torch.testing.assert_close(found[0], energy, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found[1], forces, rtol=0, atol=1e-5 * largest)


def test_engines_refuse_other_beads_and_do_not_hide_lost_ones(kind):
    engine, places = engine_of(potential(kind).float(), 400.0, BOX.numpy()), lattice(3)
    for wrong in (places[:, :26], torch.cat([places, places[:, :1]], dim=1)):
        with pytest.raises(ValueError, match="this potential needs"):
            engine(wrong)
    before = engine(places)
    places[1, 4, 2] = torch.nan
    energy, forces = engine(places)
    assert energy.isnan().tolist() == [False, True, False]
    assert forces.isnan().any(dim=2).nonzero().tolist() == [[1, 4]]
    torch.testing.assert_close((energy[::2], forces[::2]), (before[0][::2], before[1][::2]), rtol=0, atol=0)


def test_many_steps_in_compiled_code_are_steps_one_by_one(kind, monkeypatch):
    """With the same noise and through renewals of the lists, until rounding has grown."""
    settings = CGSimulation(replicas=3, timestep=0.004, friction=2.0, duration=0.4, frame_interval=0.1)
    module = potential(kind).float()
    for weights in (getattr(module, "coefficients", None), getattr(module, "readout", None)):
        if weights is not None:
            weights.data.mul_(0.1)

    def run():
        masses, box = np.full(27, 18.0), BOX.numpy()
        return simulate(module, lattice(3).numpy(), masses, 3.3, settings, 5, temperature=400.0, box=box).frames

    together = run()
    monkeypatch.delattr(ListEngine, "advance")
    one_by_one = run()
    assert float(np.abs(together.positions - lattice(3).numpy()[together.replica]).max()) > 0.05
    np.testing.assert_allclose(together.positions, one_by_one.positions, atol=2e-5)
    np.testing.assert_allclose(together.potential_energy, one_by_one.potential_energy, rtol=1e-4)


def test_triples_do_not_pull_beads_together_where_there_are_no_data():
    """Their slope, continued, would be steeper than the repulsion of pairs."""
    module = potential("spline", bead_types=[0, 0, 0], pair_functions=4, triple_degree=0)
    module.coefficients[:, : 1 + module.pair_functions] = 0.0
    module.prior.zero_()
    low = float(module.low_triple)
    places = torch.zeros(1, 3, 3, dtype=torch.float64)
    places[0, 2, 0] = low - 0.47  # no neighbour of the other one
    forces = []
    for below in (0.0, FADE, 6 * FADE):
        places[0, 1, 0] = low - below
        forces.append(abs(float(module.energy_and_forces(places, 420.0)[1][0, 1, 0])))
    assert forces[0] > 0.1 and forces[1:] == pytest.approx(
        [forces[0] * math.exp(-1), forces[0] * math.exp(-6)], rel=0.02
    )
