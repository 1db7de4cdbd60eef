"""One configuration of beads after the other, as other engines ask for it, each in the box that it comes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Engine, Potential
from cg_assets.simulation.engine import engine_of

ROUNDING = 1e-9
"""Largest component of a box vector across its axis that is no tilt, in units of its length."""


class BeadEnergy:
    """Energy, forces and virial of a potential; can be copied and pickled."""

    def __init__(self, potential: Potential, temperature: float | None = None) -> None:
        """Take a potential.

        Args:
            potential: in nm and kJ/mol, as `cg_assets.use.export.read_model` gives it.
            temperature: at which a potential that depends on temperature is taken [K].

        Raises:
            SamplingError: the beads have no places in space.
        """
        if potential.dimension not in (0, 3):
            raise SamplingError(
                f"this potential is of {potential.n_beads} CG coordinate(s), not of beads in space; other engines "
                "cannot take it, simulate it with cg_assets.simulate (docs/tutorials/own_surface.md shows it)"
            )
        self.potential, self.temperature = potential, temperature
        self._engine: tuple[tuple[float, ...] | None, Engine] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the engine, which is made again."""
        return self.__dict__ | {"_engine": None}

    def __call__(self, positions: ArrayLike, box: ArrayLike | None = None) -> tuple[float, NDArray[np.float64]]:
        """Energy [kJ/mol] and forces `(n, 3)` [kJ/mol/nm].

        Args:
            positions: `(n, 3)` [nm].
            box: `(3,)` edges of the periodic box [nm], or None.

        Raises:
            SamplingError: the potential does not fit the box, or needs one, or a temperature.
        """
        engine = self.fit(box)
        with torch.no_grad():
            energy, forces = engine(self._points(positions))
        return float(energy[0]), forces[0].double().numpy()

    def fit(self, box: ArrayLike | None) -> Engine:
        """The engine in a box.

        Raises:
            SamplingError: the potential does not fit the box, or needs one, or a temperature.
        """
        edges = None if box is None else tuple(np.asarray(box, dtype=float).tolist())
        if self._engine is None or self._engine[0] != edges:
            self._engine = edges, engine_of(self.potential, self.temperature, edges)
        return self._engine[1]

    def virial(self, positions: ArrayLike, box: ArrayLike | None = None) -> NDArray[np.float64]:
        """Virial `(3, 3)` [kJ/mol].

        Args:
            positions: `(n, 3)` [nm].
            box: `(3,)` edges of the periodic box [nm], or None.

        Raises:
            SamplingError: the potential has no virial.
        """
        edges = None if box is None else torch.as_tensor(np.array(box, dtype=float))
        try:
            return self.potential.virial(self._points(positions), self.temperature, edges)[0].double().numpy()
        except ValueError as error:
            raise SamplingError(f"no pressure: {error}; simulate at constant volume") from error

    def _points(self, positions: ArrayLike) -> torch.Tensor:
        return torch.as_tensor(np.array(positions, dtype=float)[None]).to(self.potential.precision)


def edges_of_vectors(vectors: ArrayLike) -> NDArray[np.float64]:
    """Edges `(3,)` of the box with vectors `(3, 3)`, in their unit.

    Raises:
        SamplingError: the box is not rectangular.
    """
    rows = np.asarray(vectors, dtype=float)
    edges = rows.diagonal()
    if np.abs(rows - np.diag(edges)).max() > ROUNDING * np.abs(edges).max():
        raise SamplingError(
            f"box vectors {rows.tolist()}: the potential is for rectangular boxes; give vectors along x, y and z"
        )
    return edges.copy()
