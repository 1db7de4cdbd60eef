"""Replica exchange in temperature: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.errors import SystemSpecError
from cg_assets.sampling.molecule_engine import Arrays, Heat
from cg_assets.sampling.molecule_sampler import MoleculeSampler
from cg_assets.sampling.molecule_worker import EnginePool
from cg_assets.systems.spec import SamplingPlan, SystemSpec
from cg_assets.units import BOLTZMANN


class TemperedSampler(MoleculeSampler):
    """Replicas on ladders of temperatures.

    The replicas of a ladder are numbered one after another. After each stretch of `tempering.pace`, neighbours on the
    ladder, the pairs that begin at even and at odd rungs in turn, exchange their temperatures with probability
    min(1, exp[(1/kT_1 - 1/kT_2)(U_1 - U_2)]), and their velocities are scaled to the new ones. Frames are kept of
    whatever replica is at the lowest rung; their `replica` is the number of the ladder.
    """

    def __init__(
        self, system: SystemSpec, plan: SamplingPlan, seed: int, platform: str | None = None, snapshots: int = 0
    ) -> None:
        """See `MoleculeSampler`."""
        if plan.tempering is None:
            raise SystemSpecError("this plan has no tempering; use MoleculeSampler")
        self._ladder = np.array(plan.tempering.temperatures)
        self._stretch = round(plan.tempering.pace / plan.timestep)
        super().__init__(system, plan, seed, platform, snapshots)
        self._rung = np.arange(plan.replicas) % len(self._ladder)
        self._scale = np.ones(plan.replicas)
        self._exchanges = 0
        self._tried = np.zeros(len(self._ladder) - 1, dtype=np.int64)
        self._accepted = np.zeros(len(self._ladder) - 1, dtype=np.int64)
        # Of each replica: the end of the ladder where it was last (0 bottom, 1 top, -1 none yet), and journeys up.
        self._last_end = np.full(plan.replicas, -1)
        self._journeys = np.zeros(plan.replicas, dtype=np.int64)

    def state(self) -> dict[str, NDArray]:
        """See `MoleculeSampler`."""
        return (
            super().state()
            | {f"ladder_{name}": getattr(self, f"_{name}").copy() for name in _STATE}
            | {"ladder_exchanges": np.array(self._exchanges)}
        )

    def restore(self, state: dict[str, NDArray]) -> None:
        """See `MoleculeSampler`."""
        super().restore(state)
        for name in _STATE:
            setattr(self, f"_{name}", state[f"ladder_{name}"].copy())
        self._exchanges = int(state["ladder_exchanges"])

    def summary(self) -> dict[str, Any]:
        """See `MoleculeSampler`; also the acceptance of each pair of neighbours, and journeys from bottom to top."""
        acceptance = self._accepted / np.maximum(self._tried, 1)
        return super().summary() | {
            "exchange_acceptance": [round(float(item), 4) for item in acceptance],
            "journeys_up_the_ladder": int(self._journeys.sum()),
        }

    def _indivisible(self, kind: str) -> int:
        return {"burn_in": self._stretch, "sample": self._stretch // self._plan.frame_steps}.get(kind, 1)

    def _burn_in(self, pool: EnginePool, n_steps: int) -> None:
        for _ in range(n_steps // self._stretch):
            ends = pool.advance(self._replicas, self._stretch, self._heat())
            self._exchange(ends["potential_energy"])

    def _record(self, pool: EnginePool, n_frames: int, snapshots: list[int]) -> Arrays:
        per_stretch = self._stretch // self._plan.frame_steps
        parts: list[Arrays] = []
        for first in range(0, n_frames, per_stretch):
            wanted = [frame - first for frame in snapshots if first <= frame < first + per_stretch]
            arrays = pool.record(self._replicas, per_stretch, self._plan.frame_steps, wanted, self._heat())
            coldest = np.flatnonzero(self._rung == 0)
            parts.append({name: values[coldest] for name, values in arrays.items()})
            self._exchange(arrays["potential_energy"][:, -1])
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}

    def _heat(self) -> list[Heat]:
        """Temperature of each replica, and the factor for its velocities since the last exchange, used once."""
        heat = [(float(self._ladder[rung]), float(scale)) for rung, scale in zip(self._rung, self._scale, strict=True)]
        self._scale = np.ones(len(self._scale))
        return heat

    def _exchange(self, energy: NDArray[np.float64]) -> None:
        """Try to exchange neighbours on each ladder; energies `(n_replicas,)` [kJ/mol]."""
        generator = np.random.default_rng([self._derived_seed(2), self._exchanges])
        inverse, size = 1.0 / (BOLTZMANN * self._ladder), len(self._ladder)
        for ladder in range(0, len(self._rung), size):
            members = np.arange(ladder, ladder + size)
            at = members[np.argsort(self._rung[members])]  # the replica at each rung
            for low in range(self._exchanges % 2, size - 1, 2):
                one, two = at[low], at[low + 1]
                gain = (inverse[low] - inverse[low + 1]) * (energy[one] - energy[two])
                self._tried[low] += 1
                if generator.random() < math.exp(min(0.0, gain)):
                    self._accepted[low] += 1
                    self._rung[one], self._rung[two] = low + 1, low
                    factor = math.sqrt(self._ladder[low + 1] / self._ladder[low])
                    self._scale[one], self._scale[two] = factor, 1.0 / factor
        self._exchanges += 1
        self._journeys += (self._rung == size - 1) & (self._last_end == 0)
        self._last_end[self._rung == 0] = 0
        self._last_end[self._rung == size - 1] = 1


_STATE = ("rung", "scale", "tried", "accepted", "last_end", "journeys")
