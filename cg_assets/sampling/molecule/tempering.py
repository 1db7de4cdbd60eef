"""Replica exchange in temperature: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.sampling.molecule.engine import Arrays
from cg_assets.sampling.molecule.sampler import MoleculeSampler
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems.spec import SystemSpec


class TemperedSampler(MoleculeSampler):
    """Replicas on ladders of temperatures.

    After each stretch of `tempering.pace` neighbours on the ladder may exchange (see `TemperatureLadders`). Frames are
    kept of whatever replica is at the lowest rung; their `replica` is the number of the ladder.
    """

    def __init__(
        self, system: SystemSpec, plan: SamplingPlan, seed: int, platform: str | None = None, snapshots: int = 0
    ) -> None:
        """See `MoleculeSampler`."""
        if plan.tempering is None:
            raise SystemSpecError("this plan has no tempering; use MoleculeSampler")
        self._stretch = round(plan.tempering.pace / plan.timestep)
        super().__init__(system, plan, seed, platform, snapshots)
        temperatures = plan.tempering.temperatures
        self._ladders = TemperatureLadders(temperatures, plan.replicas // len(temperatures), self._derived_seed(2))

    def state(self) -> dict[str, NDArray]:
        """See `MoleculeSampler`."""
        return super().state() | self._ladders.state()

    def restore(self, state: dict[str, NDArray]) -> None:
        """See `MoleculeSampler`."""
        super().restore(state)
        self._ladders.restore(state)

    def summary(self) -> dict[str, Any]:
        """See `MoleculeSampler`; also the acceptance of each pair of neighbours, and journeys from bottom to top."""
        return super().summary() | {
            "exchange_acceptance": [round(float(item), 4) for item in self._ladders.acceptance],
            "journeys_up_the_ladder": int(self._ladders.journeys.sum()),
        }

    def _indivisible(self, kind: str) -> int:
        return {"burn_in": self._stretch, "sample": self._stretch // self._plan.frame_steps}.get(kind, 1)

    def _burn_in(self, pool: EnginePool, n_steps: int) -> None:
        for _ in range(n_steps // self._stretch):
            ends = pool.advance(self._replicas, self._stretch, self._ladders.heat())
            self._ladders.exchange(ends["potential_energy"])

    def _record(self, pool: EnginePool, n_frames: int, snapshots: list[int]) -> Arrays:
        per_stretch = self._stretch // self._plan.frame_steps
        parts: list[Arrays] = []
        for first in range(0, n_frames, per_stretch):
            wanted = [frame - first for frame in snapshots if first <= frame < first + per_stretch]
            arrays = pool.record(self._replicas, per_stretch, self._plan.frame_steps, wanted, self._ladders.heat())
            coldest = np.flatnonzero(self._ladders.rung == 0)
            parts.append({name: values[coldest] for name, values in arrays.items()})
            self._ladders.exchange(arrays["potential_energy"][:, -1])
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
