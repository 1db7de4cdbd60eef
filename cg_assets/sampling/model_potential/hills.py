"""Well-tempered metadynamics on the CG coordinate of a model potential: the grid to which all walkers add hills."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.fixed import GridBias, slope_matrix
from cg_assets.sampling.model_potential.vector_maths import compiled, exp32
from cg_assets.sampling.model_potential.walkers import GridTable

NODES_PER_WIDTH = 5
"""Grid nodes per standard deviation of a hill."""


class HillGrid:
    """A bias on a grid that grows by Gaussian hills of well-tempered height.

    Barducci, Bussi and Parrinello 2008, doi:10.1103/PhysRevLett.100.020603: a hill at s has the height
    h exp(-V(s) / ((gamma - 1) kT)), V being the bias before any hill of this time. Hills of all walkers add up: for n
    walkers a height of h/n fills a landscape as one walker does with h.

    Attributes:
        variable: name of the coordinate.
        nodes: `(n,)` positions of the grid nodes.
        values: `(n,)` bias energy at the nodes [reduced].
    """

    def __init__(
        self, variable: str, limits: tuple[float, float], height: float, width: float, tempering: float
    ) -> None:
        """Start from no bias.

        Args:
            variable: name of the coordinate.
            limits: ends of the grid; no bias force acts outside.
            height: height of a hill where no bias is yet.
            width: standard deviation of a hill.
            tempering: (gamma - 1) kT, with gamma the bias factor.
        """
        self.variable = variable
        size = max(4, math.ceil((limits[1] - limits[0]) * NODES_PER_WIDTH / width) + 1)
        self.nodes = GridBias.nodes(limits, False, size)
        self.values = np.zeros(size)
        self._spacing = float(self.nodes[1] - self.nodes[0])
        self._slopes = slope_matrix(size, False)
        self._height, self._width, self._tempering = height, width, tempering

    def deposit(self, coordinate: NDArray[np.float64]) -> None:
        """Add one hill for each walker at its coordinate `(n,)`; a walker outside the grid adds none."""
        slopes = self._slopes @ self.values
        _add_hills(
            self.values,
            slopes,
            coordinate,
            float(self.nodes[0]),
            self._spacing,
            self._height,
            self._width,
            self._tempering,
        )

    def table(self) -> GridTable:
        """The bias force for the compiled dynamics."""
        return GridTable.from_nodes(self.values, self._slopes @ self.values, float(self.nodes[0]), self._spacing)

    def bias(self) -> GridBias:
        """The bias as it is now."""
        return GridBias([self.variable], [(float(self.nodes[0]), float(self.nodes[-1]))], [False], self.values)


@compiled
def _add_hills(values, slopes, coordinate, low, spacing, height, width, tempering):  # noqa: ANN001, ANN202
    """Add Gaussians, cut where they fall below 1e-8, to the node values; heights from the spline before the call."""
    n_nodes = values.size
    reach = 6.0 * width / spacing
    scale = np.float32(spacing / width)
    minus_half = np.float32(-0.5)
    added = np.zeros(n_nodes, np.float32)
    heights = np.zeros(coordinate.size, np.float32)
    for i in range(coordinate.size):
        u = (coordinate[i] - low) / spacing
        if not (u >= 0.0 and u <= n_nodes - 1):
            continue
        cell = min(int(u), n_nodes - 2)
        t = u - cell
        energy = values[cell] * (1.0 + 2.0 * t) * (1.0 - t) ** 2 + values[cell + 1] * t * t * (3.0 - 2.0 * t)
        energy += slopes[cell] * t * (1.0 - t) ** 2 + slopes[cell + 1] * t * t * (t - 1.0)
        heights[i] = height * math.exp(-energy / tempering)
        first, last = max(0, math.ceil(u - reach)), min(n_nodes - 1, math.floor(u + reach))
        for node in range(first, last + 1):
            distance = np.float32(node - u) * scale
            added[node] += heights[i] * exp32(minus_half * distance * distance)
    for node in range(n_nodes):
        values[node] += added[node]
