"""Ladders of temperatures that replicas climb: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999).

At each exchange neighbours are tried again and again, which costs nothing beside the dynamics, until replicas are where
their energies let them be, whatever rung they came from (Chodera and Shirts, J. Chem. Phys. 135, 194110 (2011)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.units import BOLTZMANN
from cg_assets.sampling.molecule.engine import Heat

_SWEEPS = 8
"""Trials of all neighbours at an exchange, for each rung: diffusion over n rungs takes some n² of them."""


class TemperatureLadders:
    """Which replica is at which temperature, for any number of ladders side by side.

    The replicas of a ladder are numbered one after another. Neighbours on a ladder, the pairs that begin at even and at
    odd rungs in turn, take either order with its Boltzmann probability, many times over: exchanged with probability
    1/(1 + exp(-x)), x = (1/kT_1 - 1/kT_2)(U_1 - U_2). (Where most exchanges are accepted, min(1, exp x) would only
    carry replicas around.) Velocities are scaled to the new temperatures.

    Attributes:
        temperatures: `(n_rungs,)` of a ladder, rising [K].
        rung: `(n_replicas,)` where each replica is.
        journeys: `(n_replicas,)` journeys of each from the bottom to the top.
    """

    def __init__(self, temperatures: Sequence[float] | NDArray[np.float64], n_ladders: int, seed: int) -> None:
        """Replicas begin at their own rungs.

        Args:
            temperatures: of a ladder, rising [K].
            n_ladders: how many ladders; each has as many replicas as temperatures.
            seed: seed of the exchanges.
        """
        self.temperatures = np.array(temperatures, dtype=np.float64)
        self._seed, size = seed, len(self.temperatures)
        self.rung = np.arange(n_ladders * size) % size
        self._scale = np.ones(n_ladders * size)
        self._exchanges = 0
        self._tried = np.zeros(size - 1, dtype=np.int64)
        self._accepted = np.zeros(size - 1)
        # Of each replica: the end of the ladder where it was last (0 bottom, 1 top, -1 none yet), and journeys up.
        self._last_end = np.full(n_ladders * size, -1)
        self.journeys = np.zeros(n_ladders * size, dtype=np.int64)

    @property
    def acceptance(self) -> NDArray[np.float64]:
        """`(n_rungs - 1,)` mean of min(1, exp x) over the first trials of each pair of neighbours."""
        return self._accepted / np.maximum(self._tried, 1)

    def heat(self) -> list[Heat]:
        """Temperature of each replica, and the factor for its velocities since the last exchange, used once."""
        pairs = zip(self.rung, self._scale, strict=True)
        heat = [(float(self.temperatures[rung]), float(scale)) for rung, scale in pairs]
        self._scale = np.ones(len(self._scale))
        return heat

    def exchange(self, energy: NDArray[np.float64]) -> None:
        """Exchange temperatures on each ladder; energies `(n_replicas,)` [kJ/mol]."""
        generator = np.random.default_rng([self._seed, self._exchanges])
        inverse, size = 1.0 / (BOLTZMANN * self.temperatures), len(self.temperatures)
        before = self.temperatures[self.rung]
        chances = generator.random((len(self.rung) // size, _SWEEPS * size, size - 1))
        for ladder, trials in enumerate(chances):
            members = np.arange(ladder * size, (ladder + 1) * size)
            at = members[np.argsort(self.rung[members])].tolist()  # the replica at each rung
            for sweep, draws in enumerate(trials.tolist()):
                for low in range((self._exchanges + sweep) % 2, size - 1, 2):
                    one, two = at[low], at[low + 1]
                    gain = (inverse[low] - inverse[low + 1]) * (energy[one] - energy[two])
                    chance = math.exp(min(0.0, gain))
                    if draws[low] * (1.0 + math.exp(-abs(gain))) < chance:
                        at[low], at[low + 1] = two, one
                    if sweep < 2:
                        self._tried[low] += 1
                        self._accepted[low] += chance
            self.rung[at] = np.arange(size)
        self._scale *= np.sqrt(self.temperatures[self.rung] / before)
        self._exchanges += 1
        self.journeys += (self.rung == size - 1) & (self._last_end == 0)
        self._last_end[self.rung == 0] = 0
        self._last_end[self.rung == size - 1] = 1

    def state(self) -> dict[str, NDArray]:
        """Everything needed to go on exactly from here."""
        return {name: np.array(getattr(self, attribute)) for name, attribute in _STATE.items()}

    def restore(self, state: dict[str, NDArray]) -> None:
        """Go on from a stored state."""
        for name, attribute in _STATE.items():
            setattr(self, attribute, state[name].copy())
        self._exchanges = int(state["ladder_exchanges"])


_STATE = {
    "ladder_rung": "rung",
    "ladder_scale": "_scale",
    "ladder_tried": "_tried",
    "ladder_accepted": "_accepted",
    "ladder_last_end": "_last_end",
    "ladder_journeys": "journeys",
    "ladder_exchanges": "_exchanges",
}
"""Name in a stored state to attribute."""
