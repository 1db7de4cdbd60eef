"""Replica exchange in temperature between rows of a batch: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from cg_assets.simulation.settings import Tempering


class TemperatureExchange:
    """Ladders of temperatures: row i of a batch is rung i modulo their number, of ladder i divided by it.

    A row keeps its temperature; configurations move. Neighbours, the pairs that begin at even and at odd rungs in
    turn, exchange theirs with probability min(1, exp[(1/kT_1 - 1/kT_2)(U_1 - U_2)]).

    Attributes:
        levels: `(rungs,)` k_B T of each rung [kJ/mol or reduced].
        every: steps between two attempts.
        tried: `(rungs - 1,)` attempts of each pair of neighbours.
        accepted: `(rungs - 1,)` those that succeeded.
    """

    def __init__(self, tempering: Tempering, thermal_energy: float, n_rows: int, timestep: float) -> None:
        """Set up the ladders.

        Args:
            tempering: temperatures, from that of `thermal_energy` up, and pace.
            thermal_energy: k_B T of the lowest rung [kJ/mol or reduced].
            n_rows: rows of the batch, a multiple of the rungs.
            timestep: [ps or reduced].
        """
        temperatures = torch.tensor(tempering.temperatures, dtype=torch.float64)
        self.levels = thermal_energy * temperatures / temperatures[0]
        self.every = max(1, round(tempering.pace / timestep))
        self.rungs = len(temperatures)
        self._ladders, self._attempts = n_rows // self.rungs, 0
        self.tried = np.zeros(self.rungs - 1, dtype=np.int64)
        self.accepted = np.zeros(self.rungs - 1, dtype=np.int64)

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Accepted part of the attempts of each pair of neighbours."""
        return tuple(float(item) for item in self.accepted / np.maximum(self.tried, 1))

    def attempt(self, energy: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
        """Which row each row takes its configuration from, `(r,)`.

        Args:
            energy: `(r,)` potential energy of rows, whole ladders [kJ/mol or reduced].
            alive: `(r,)` numbers of the rows in the batch as it began.
            generator: source of random numbers.
        """
        ladder = alive[:: self.rungs] // self.rungs
        parity, self._attempts = self._attempts % 2, self._attempts + 1
        draws = torch.rand((self._ladders, self.rungs), generator=generator, device=energy.device)[ladder]
        energies = energy.double().reshape(-1, self.rungs)
        source = torch.arange(self.rungs, device=energy.device).repeat(len(energies), 1)
        for low in range(parity, self.rungs - 1, 2):
            steeper = 1.0 / self.levels[low] - 1.0 / self.levels[low + 1]
            gain = float(steeper) * (energies[:, low] - energies[:, low + 1])
            accepted = draws[:, low] < gain.clamp(max=0.0).exp()
            self.tried[low] += len(accepted)
            self.accepted[low] += int(accepted.sum())
            source[accepted, low], source[accepted, low + 1] = low + 1, low
        first = torch.arange(len(energies), device=energy.device)[:, None] * self.rungs
        return (source + first).flatten()
