"""Local distributions of beads none of which are bonded."""

import numpy as np
import pytest

from cg_assets.core.statistics.local_geometry import local_geometry


@pytest.mark.parametrize(("number", "pairs"), [(2, 1), (4, 6), (30, 29)])
def test_beads_without_bonds_are_compared_by_the_distances_of_pairs(number, pairs):
    rng = np.random.default_rng(0)
    places = np.arange(number)[:, None] * [0.5, 0.0, 0.0]
    data, alike, wider = (places + width * rng.normal(size=(4000, number, 3)) for width in (0.03, 0.03, 0.06))
    names = [f"b{bead}" for bead in range(number)]
    same, other = (local_geometry(frames, data, [], names) for frames in (alike, wider))
    assert same.kinds == ("pair distance",) * pairs
    assert same.names[0] == "b0 - b1"
    assert same.largest("pair distance") < 0.01
    assert other.divergence.min() > 0.05
    assert len(other.rows()) == 1
