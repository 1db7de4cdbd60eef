"""Nearest images in any cell, and molecules kept together."""

import itertools

import numpy as np
import pytest

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.images import MoleculesTogether, nearest_image

SQRT2, SQRT3 = np.sqrt(2), np.sqrt(3)
CELLS = {
    "rectangular": np.diag([3.0, 4.0, 5.0]),
    "dodecahedron": 4 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, SQRT2 / 2]]),
    "octahedron": 4 * np.array([[1, 0, 0], [1 / 3, 2 * SQRT2 / 3, 0], [-1 / 3, SQRT2 / 3, np.sqrt(6) / 3]]),
    "triclinic": np.array([[3.0, 0, 0], [1.4, 3.2, 0], [-1.2, 1.3, 3.5]]),
}


def together(positions, groups, box, molecules=None, start=0):
    molecules = molecules or MoleculesTogether(groups)
    boxes = np.repeat(box[None], len(positions), axis=0)
    return molecules.apply(positions, boxes, start + np.arange(len(positions)), "run.xtc")


@pytest.mark.parametrize("cell", CELLS)
def test_nearest_images_are_those_of_a_wide_search(cell):
    box = CELLS[cell]
    steps = np.random.default_rng(0).uniform(-8, 8, (500, 3))
    wide = np.array(list(itertools.product(range(-6, 7), repeat=3))) @ box
    shortest = np.linalg.norm(steps[:, None] + wide, axis=2).min(axis=1)
    found = nearest_image(steps, box)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), shortest, atol=1e-12)
    np.testing.assert_allclose((found - steps) @ np.linalg.inv(box) % 1 % 0.9999999999, 0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_chains_that_drift_through_the_box_keep_their_distance(cell):
    """Three chains, each whole at a random image."""
    rng, box = np.random.default_rng(1), CELLS[cell]
    chains = np.stack(
        [np.arange(4)[:, None] * [0.1, 0, 0] + place for place in ([0, 0, 0], [0, 0.9, 0], [0, 1.5, 0.5])]
    )
    groups = np.repeat(np.arange(3), 4)
    drift = np.cumsum(rng.normal(scale=0.5, size=(60, 1, 3)), axis=0)
    true = chains.reshape(12, 3) + drift + 0.02 * rng.normal(size=(60, 12, 3))
    shifts = rng.integers(-2, 3, (60, 3, 3)) @ box
    found = together(true + shifts[:, groups], groups, box)
    difference = found - true
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-9)


def drifting(cell, ends=(0.3, 0.53), n_frames=40):
    """Two chains, the second of which goes from near the first through the place between two of its images."""
    box = CELLS[cell]
    way = np.linspace(*ends, n_frames)[:, None, None] * box[0]
    chain = np.arange(3)[:, None] * [0.0, 0.0, 0.1] + np.zeros((n_frames, 1, 1))
    return np.concatenate([chain, chain + way], axis=1), np.repeat([0, 1], 3), box


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("block", [1, 7, 40])
def test_the_frame_before_decides_between_two_images_whatever_the_blocks(cell, block):
    true, groups, box = drifting(cell)
    shifts = np.random.default_rng(2).integers(-2, 3, (40, 2, 3)) @ box
    whole, molecules = true + shifts[:, groups], MoleculesTogether(groups)
    parts = [together(whole[k : k + block], groups, box, molecules, k) for k in range(0, 40, block)]
    difference = np.concatenate(parts) - true
    clear = np.linspace(0.3, 0.53, 40) < 0.52  # then one image is nearer by a tenth again
    np.testing.assert_allclose((difference - difference[:, :1])[clear], 0, atol=1e-9)
    assert molecules.last == pytest.approx(np.array([[0, 0, 0], parts[-1][-1, 3] - parts[-1][-1, 0]]))


def test_a_molecule_between_two_images_is_ambiguous_without_the_frame_before():
    true, groups, box = drifting("rectangular", (0.3, 0.497))
    words = r"run\.xtc: frame 7: molecule 2 has two images 1\.49 and 1\.51 nm"
    with pytest.raises(SamplingError, match=words):
        together(true[-1:], groups, box, start=7)
    far = true[[0, 0]]
    far[1, 3:] += [0.59, 1.5, 0.0]
    with pytest.raises(SamplingError, match="frame 1: molecule 2 has two images"):  # it moved too far to tell
        together(far, groups, box)
    assert together(true[:1], groups, box) == pytest.approx(true[:1])


def test_one_molecule_stays_where_it_is():
    positions = np.random.default_rng(0).normal(size=(3, 5, 3))
    assert together(positions, np.zeros(5, int), np.zeros((3, 3))) is positions
