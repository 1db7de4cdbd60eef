"""Hills of many walkers along one variable, in a compiled loop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.single_precision import compiled, exp32


@compiled
def add_hills(
    values: NDArray[np.float64], places: NDArray[np.float64], heights: NDArray[np.float32], spacing: float, width: float
) -> None:
    """Add Gaussians, cut where they fall below 1e-8, to node values.

    Args:
        values: `(n_nodes,)` float64, changed in place.
        places: `(n,)` centres in units of the node spacing.
        heights: `(n,)` float32.
        spacing: distance of the nodes.
        width: standard deviation of a hill.
    """
    n_nodes = values.size
    reach = 6.0 * width / spacing
    scale, minus_half = np.float32(spacing / width), np.float32(-0.5)
    added = np.zeros(n_nodes, np.float32)
    for i in range(places.size):
        u = places[i]
        first, last = max(0, math.ceil(u - reach)), min(n_nodes - 1, math.floor(u + reach))
        for node in range(first, last + 1):
            distance = np.float32(node - u) * scale
            added[node] += heights[i] * exp32(minus_half * distance * distance)
    for node in range(n_nodes):
        values[node] += added[node]
