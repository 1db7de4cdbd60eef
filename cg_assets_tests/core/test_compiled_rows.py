"""Compiled torsions and splines of torch tensors are those of NumPy."""

import numpy as np
import pytest
import torch

from cg_assets.core.geometry import torsion
from cg_assets.core.splines import GridSpline

RNG = np.random.default_rng(3)


def test_torsions_and_their_gradients():
    positions = RNG.normal(size=(50, 6, 3))
    for sites in ((0, 1, 2, 3), (5, 2, 4, 0)):
        expected = torsion(positions, sites)
        for kind in (torch.float64, torch.float32):
            found = torsion(torch.tensor(positions, dtype=kind), sites)
            tolerance = 1e-12 if kind is torch.float64 else 1e-4
            for mine, theirs in zip(found, expected, strict=True):
                assert np.allclose(mine.numpy(), theirs, rtol=tolerance, atol=tolerance)


def test_positions_not_in_order_of_memory():
    positions = torch.tensor(RNG.normal(size=(3, 4, 7))).permute(2, 1, 0)
    expected = torsion(positions.numpy(), (0, 1, 2, 3))
    assert np.allclose(torsion(positions, (0, 1, 2, 3))[1].numpy(), expected[1])


@pytest.mark.parametrize("periodic", [[False], [True], [False, True], [True, True], [False, False]])
def test_splines_inside_and_beyond_their_limits(periodic):
    limits = [(-1.0, 2.0), (0.0, 3.0)][: len(periodic)]
    spline = GridSpline(limits, periodic, RNG.normal(size=(9, 7)[: len(periodic)]))
    columns = [np.concatenate([RNG.uniform(low - 4.0, high + 4.0, 200), [low, high]]) for low, high in limits]
    expected, slopes = spline(columns)
    found, found_slopes = spline.on("cpu")([torch.tensor(column) for column in columns])
    assert np.allclose(found.numpy(), expected, atol=1e-12)
    for mine, theirs in zip(found_slopes, slopes, strict=True):
        assert np.allclose(mine.numpy(), theirs, atol=1e-11)
