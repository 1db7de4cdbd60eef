"""Neighbours by cells against all pairs, and the compiled tensor network against automatic differentiation."""

import numpy as np
import pytest
import torch

from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal.neighbours import SKIN, NeighbourLists
from cg_assets.potentials.thermal.pairs import BEADS_IN_CELLS, neighbour_pairs
from cg_assets.simulation.engine import engine_of

BOXES = {
    "one_cell": (1.2, 1.3, 1.2),
    "five_cells": (1.5, 1.6, 1.55),
    "unlike_cells": (1.2, 2.6, 4.0),
    "many_cells": (3.1, 3.3, 3.5),
    "open": None,
}


def beads(count, box, seed=0):
    """Beads at random, some of them several boxes away."""
    generator = np.random.default_rng(seed)
    edges = np.array(box or (4.0, 3.0, 2.0))
    places = generator.random((count, 3)) * edges
    return places + (0 if box is None else edges * generator.integers(-3, 4, (count, 3)))


def all_pairs(places, box, cutoff):
    """Pairs closer than a cutoff, one by one."""
    gaps = places[:, None] - places
    if box is not None:
        gaps -= np.array(box) * np.rint(gaps / np.array(box))
    near = (np.square(gaps).sum(axis=2) < cutoff**2) & ~np.eye(len(places), dtype=bool)
    return near


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_lists_hold_all_neighbours(box):
    places = beads(300, box)
    lists = NeighbourLists(np.zeros(3) if box is None else np.array(box), 0.5)
    *_, starts, listed = lists.of(places[None])[0]
    near = all_pairs(places, box, 0.5 + SKIN)
    expected = [np.flatnonzero(row) for row in near]
    assert starts[-1] == len(listed) == near.sum() > 0
    for bead, neighbours in enumerate(expected):
        np.testing.assert_array_equal(np.sort(listed[starts[bead] : starts[bead + 1]]), neighbours)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.5])
def test_pairs_have_a_cutoff_of_their_own(box, cutoff):
    places = beads(300, box)
    *_, pairs, starts, listed = NeighbourLists(box, cutoff, 0.4).of(places[None])[0]
    near = all_pairs(places, box, 0.4 + SKIN)
    found = np.zeros_like(near)
    np.add.at(found, tuple(pairs.T), True)
    np.testing.assert_array_equal(found | found.T, near)
    assert 2 * len(pairs) == near.sum() > 0
    assert starts[-1] == len(listed) == (all_pairs(places, box, cutoff + SKIN).sum() if cutoff else 0)


def test_lists_are_made_again_when_a_bead_has_moved():
    places, box = beads(100, BOXES["many_cells"]), np.array(BOXES["many_cells"])
    lists = NeighbourLists(box, 0.5)
    before = lists.of(places[None])[0].listed
    places[7] += 0.2 * SKIN
    assert lists.of(places[None])[0].listed is before
    places[7] += 0.2 * SKIN
    assert lists.of(places[None])[0].listed is not before


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_lost_bead_has_no_neighbours_and_harms_no_other(value):
    box = BOXES["many_cells"]
    places = beads(200, box)
    places[5, 1] = value
    for edges in (np.array(box), np.zeros(3)):
        *_, starts, listed = NeighbourLists(edges, 0.5).of(places[None])[0]
        kept = np.delete(places, 5, axis=0)
        expected = all_pairs(kept, box if edges.any() else None, 0.5 + SKIN).sum()
        assert len(listed) - 2 * (starts[6] - starts[5]) == expected
        assert np.isfinite(value) or starts[6] == starts[5]


@pytest.mark.parametrize(
    "box", [BOXES["unlike_cells"], BOXES["many_cells"], BOXES["open"]], ids=["unlike", "many", "open"]
)
def test_pairs_by_cells_are_all_pairs(box):
    places = torch.as_tensor(np.stack([beads(BEADS_IN_CELLS, box, seed) for seed in (1, 2)]))
    edges = None if box is None else torch.tensor(box, dtype=torch.float64)
    pairs = neighbour_pairs(places, edges, 0.4)
    expected = [np.triu(all_pairs(frame.numpy(), box, 0.4)).nonzero() for frame in places]
    first = np.concatenate([one + frame * BEADS_IN_CELLS for frame, (one, _) in enumerate(expected)])
    second = np.concatenate([two + frame * BEADS_IN_CELLS for frame, (_, two) in enumerate(expected)])
    np.testing.assert_array_equal(pairs.first, first)
    np.testing.assert_array_equal(pairs.second, second)


FORMS = [
    {"form": "constant_heat_capacity", "origin": 420.0, "order": 2},
    {"form": "taylor_temperature", "origin": 420.0, "order": 1},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["form"])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("box", [None, 1.9])
def test_the_compiled_tensor_network_is_the_network(form, order, box):
    config = {
        **{"type": "tensor_network", "cutoff": 0.6, "soft_cutoff": 0.5, "features": 12, "sensitivities": 10},
        **{"layers": 2, "tensor_order": order, "bead_types": [0, 1, 1, 0] * 16, "temperature_dependence": form},
        "periodic": box is not None,
    }
    generator = torch.Generator().manual_seed(4)
    network = build_potential(config, generator)
    lattice = 0.475 * torch.cartesian_prod(*[torch.arange(4)] * 3)
    places = (lattice + 0.04 * torch.randn(2, 64, 3, generator=generator)).double()
    edges = None if box is None else torch.full((3,), box, dtype=torch.float64)
    network.fit_statistics(places, edges, torch.tensor([50.0]))
    for weight in (network.type_energies, network.bias, network.first_bias):
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    network.add_constants(torch.arange(network.n_terms).double())
    found = engine_of(network.requires_grad_(False), 330.0, None if box is None else [box] * 3)(places.float())
    with torch.no_grad():
        energy, forces = network.double().energy_and_forces(places, 330.0, edges)
    torch.testing.assert_close(found[0].double(), energy, rtol=1e-5, atol=1e-3)
    scale = float(forces.abs().max())
    assert float((found[1] - forces).abs().max()) < 1e-5 * scale
