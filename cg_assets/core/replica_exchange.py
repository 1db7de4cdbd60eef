"""Replica exchange in temperature: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999).

At each exchange neighbours are tried many times, which costs nothing next to the dynamics, until configurations are
where their energies let them be, whatever rung they came from (Chodera and Shirts, J. Chem. Phys. 135, 194110 (2011)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, PositiveFloat, field_validator

from cg_assets.core.settings import Fault, Scope, Strict, rising
from cg_assets.core.units import BOLTZMANN

FloatArray = NDArray[np.float64]
Heat = tuple[float, float]
"""Temperature of a replica's thermostat [K], and a factor for its velocities before the next steps."""

_SWEEPS = 8
"""Trials of all neighbours at an exchange, for each rung: diffusion over n rungs takes some n² of them."""


class Tempering(Strict):
    """Replica exchange in temperature: replicas climb a ladder of temperatures and come back over barriers."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    temperatures: list[PositiveFloat] = Field(min_length=2)
    """The ladder, rising from the temperature of the system, at which frames are kept [K]."""
    pace: PositiveFloat
    """Time between two attempts to exchange neighbours on the ladder [ps]."""

    _rises = field_validator("temperatures")(rising)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A ladder that begins at another temperature than that of the system."""
        if self.temperatures[0] != scope.temperature:
            yield Fault(
                "temperatures",
                f"begins with {self.temperatures[0]}; it must begin with the temperature of the system, "
                f"{scope.temperature}",
            )


class ReplicaExchange:
    """Exchange of configurations between the rungs of any number of ladders.

    Neighbours on a ladder, the pairs that begin at even and at odd rungs in turn, take either order with its Boltzmann
    probability, many times over: exchanged with probability 1/(1 + exp(-x)), x = (1/kT_1 - 1/kT_2)(U_1 - U_2). (Where
    most exchanges are accepted, min(1, exp x) would only carry configurations around.)

    Attributes:
        n_rungs: of a ladder.
    """

    def __init__(self, levels: ArrayLike, n_ladders: int, seed: int) -> None:
        """Set up the ladders.

        Args:
            levels: `(n_rungs,)` k_B T of the rungs, rising [kJ/mol or reduced].
            n_ladders: how many ladders.
            seed: seed of the exchanges.
        """
        self._inverse = 1.0 / np.asarray(levels, dtype=np.float64)
        self.n_rungs, self._n_ladders, self._seed = len(self._inverse), n_ladders, seed
        self._exchanges = 0
        self._tried = np.zeros(self.n_rungs - 1, dtype=np.int64)
        self._accepted = np.zeros(self.n_rungs - 1)

    @property
    def acceptance(self) -> FloatArray:
        """`(n_rungs - 1,)` mean of min(1, exp x) over the first trials of each pair of neighbours."""
        return self._accepted / np.maximum(self._tried, 1)

    def attempt(self, energy: ArrayLike, ladders: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Exchange configurations.

        Args:
            energy: `(n, n_rungs)` energy of the configuration at each rung [kJ/mol or reduced].
            ladders: `(n,)` numbers of these ladders; all where None.

        Returns:
            `(n, n_rungs)` the rung from which each rung takes its configuration.
        """
        values, size = np.asarray(energy, dtype=np.float64), self.n_rungs
        generator = np.random.default_rng([self._seed, self._exchanges])
        draws = generator.random((self._n_ladders, _SWEEPS * size, size - 1))
        draws = draws if ladders is None else draws[ladders]
        source = np.tile(np.arange(size), (len(values), 1))
        for sweep in range(_SWEEPS * size):
            low = np.arange((self._exchanges + sweep) % 2, size - 1, 2)
            one, two = source[:, low], source[:, low + 1]
            steeper = self._inverse[low] - self._inverse[low + 1]
            gain = steeper * (np.take_along_axis(values, one, 1) - np.take_along_axis(values, two, 1))
            chance = np.exp(np.minimum(0.0, gain))
            exchanged = draws[:, sweep, low] * (1.0 + np.exp(-np.abs(gain))) < chance
            source[:, low], source[:, low + 1] = np.where(exchanged, two, one), np.where(exchanged, one, two)
            if sweep < 2:
                self._tried[low] += len(values)
                self._accepted[low] += chance.sum(axis=0)
        self._exchanges += 1
        return source

    def state(self) -> dict[str, NDArray]:
        """Everything needed to resume exactly from here."""
        return {"exchanges": np.array(self._exchanges), "tried": self._tried.copy(), "accepted": self._accepted.copy()}

    def restore(self, state: dict[str, NDArray]) -> None:
        """Resume from a stored state."""
        self._exchanges = int(state["exchanges"])
        self._tried, self._accepted = state["tried"].copy(), state["accepted"].copy()


class TemperatureLadders:
    """Which replica is at which temperature, for any number of ladders side by side.

    The replicas of a ladder are numbered one after another. Replicas move from rung to rung (`ReplicaExchange`); their
    velocities are scaled to the new temperatures.

    Attributes:
        temperatures: `(n_rungs,)` of a ladder, rising [K].
        rung: `(n_replicas,)` where each replica is.
        journeys: `(n_replicas,)` journeys of each from the bottom to the top.
    """

    def __init__(self, temperatures: Sequence[float], n_ladders: int, seed: int) -> None:
        """Replicas begin at their own rungs.

        Args:
            temperatures: of a ladder, rising [K].
            n_ladders: how many ladders; each has as many replicas as temperatures.
            seed: seed of the exchanges.
        """
        self.temperatures = np.array(temperatures, dtype=np.float64)
        self._exchange = ReplicaExchange(BOLTZMANN * self.temperatures, n_ladders, seed)
        size = len(self.temperatures)
        self.rung = np.arange(n_ladders * size) % size
        self._scale = np.ones(n_ladders * size)
        # Of each replica: the end of the ladder where it was last (0 bottom, 1 top, -1 none yet), and journeys up.
        self._last_end = np.full(n_ladders * size, -1)
        self.journeys = np.zeros(n_ladders * size, dtype=np.int64)

    @property
    def acceptance(self) -> FloatArray:
        """`(n_rungs - 1,)` see `ReplicaExchange`."""
        return self._exchange.acceptance

    def heat(self) -> list[Heat]:
        """Temperature of each replica, and the factor for its velocities since the last exchange, used once."""
        pairs = zip(self.rung, self._scale, strict=True)
        heat = [(float(self.temperatures[rung]), float(scale)) for rung, scale in pairs]
        self._scale = np.ones(len(self._scale))
        return heat

    def replicas_at_rungs(self) -> NDArray[np.int64]:
        """`(n_ladders, n_rungs)` which replica is at each rung of each ladder."""
        size = len(self.temperatures)
        return np.arange(0, len(self.rung), size)[:, None] + np.argsort(self.rung.reshape(-1, size), axis=1)

    def exchange(self, energy: FloatArray) -> None:
        """Exchange temperatures on each ladder; energies `(n_replicas,)` [kJ/mol]."""
        size, before, at = len(self.temperatures), self.temperatures[self.rung], self.replicas_at_rungs()
        at = np.take_along_axis(at, self._exchange.attempt(energy[at]), 1)
        self.rung[at] = np.arange(size)
        self._scale *= np.sqrt(self.temperatures[self.rung] / before)
        self.journeys += (self.rung == size - 1) & (self._last_end == 0)
        self._last_end[self.rung == 0] = 0
        self._last_end[self.rung == size - 1] = 1

    def state(self) -> dict[str, NDArray]:
        """Everything needed to resume exactly from here."""
        own = {"rung": self.rung, "scale": self._scale, "last_end": self._last_end, "journeys": self.journeys}
        return {f"ladder_{name}": np.array(values) for name, values in (own | self._exchange.state()).items()}

    def restore(self, state: dict[str, NDArray]) -> None:
        """Resume from a stored state."""
        own = {name.removeprefix("ladder_"): values for name, values in state.items() if name.startswith("ladder_")}
        self.rung, self._scale = own["rung"].copy(), own["scale"].copy()
        self._last_end, self.journeys = own["last_end"].copy(), own["journeys"].copy()
        self._exchange.restore(own)
