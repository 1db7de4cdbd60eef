"""Dynamics of a liquid at several temperatures: the reference of CG models, and frames to hold fixed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import Heat
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.liquids.liquid import Liquid
from cg_assets.sampling.molecule.engine import EngineSettings
from cg_assets.sampling.molecule.platforms import choose_platform, seconds_per_step
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.piecewise import DynamicsSummary, EngineSampler, Piece, cut
from cg_assets.sampling.settings import SamplingPlan

_PIECE_SECONDS = 15.0
_MAX_PIECES = 90
_MELTING = 4.0
"""Time at the highest temperature in which the lattice of the start melts [ps]."""
_MINIMIZER_STEPS = 200
_BURN_IN_FRICTION = 2.0
"""[1/ps]; a plan's own friction may be too weak to cool what has been melted."""


class LiquidSampler(EngineSampler[DynamicsSummary]):
    """Replicas at several temperatures.

    Frames hold beads: their positions, not wrapped into the box, the forces on the molecules, and the potential energy
    of the atoms. `start` is 0; `replica` i is at temperature i modulo their number.
    """

    def __init__(
        self,
        liquid: Liquid,
        temperatures: Sequence[float],
        plan: SamplingPlan,
        seed: int,
        snapshots: int = 0,
        platform: str | None = None,
    ) -> None:
        """Prepare the replicas; nothing is simulated yet.

        Args:
            liquid: molecules in a box.
            temperatures: of the replicas, in turn [K].
            plan: replicas and times.
            seed: seed of starts, velocities and noise.
            snapshots: frames with all atoms to keep as well, equally many from each replica.
            platform: OpenMM platform; None for the fastest.

        Raises:
            DeviceError: the platform asked for is not there.
        """
        self._liquid, self._plan = liquid, plan
        self._system = liquid.free_system()
        self._temperatures = np.array(temperatures)[np.arange(plan.replicas) % len(temperatures)]
        total = plan.frames_per_replica
        each = min(total, math.ceil(snapshots / plan.replicas))
        self._snapshot_frames = (np.arange(1, each + 1) * total) // max(1, each) - 1
        step_seconds = plan.replicas * seconds_per_step(liquid.n_sites, liquid.box is not None)
        total_seconds = step_seconds * (_MELTING + plan.burn_in + plan.duration) / plan.timestep
        longest = max(_PIECE_SECONDS, total_seconds / _MAX_PIECES)
        pieces = [Piece("start", 0)]
        for kind, amount, seconds in (
            ("burn_in", round(plan.burn_in / plan.timestep), step_seconds),
            ("sample", total, step_seconds * plan.frame_interval / plan.timestep),
        ):
            pieces += cut(kind, amount, math.ceil(amount * seconds / longest))
        own = choose_platform(liquid.n_sites, liquid.box is not None, platform)
        super().__init__(pieces, seed, own, plan.replicas, total_seconds)
        self._frames_done = 0
        self._snapshots = np.zeros((plan.replicas, 0, liquid.n_sites, 3), dtype=np.float32)
        self._kinetic = np.zeros((plan.replicas, 0))
        self._pool_samples = False

    def _do(self, piece: Piece) -> Frames | None:
        pool = self._engines()
        if piece.kind == "start":
            hottest = float(self._temperatures.max())
            pool.create({replica: self._start(replica) for replica in self._replicas}, self._seed)
            melting = round(_MELTING / self._plan.timestep)
            pool.advance(self._replicas, melting, [(hottest, 1.0)] * len(self._replicas))
        elif piece.kind == "burn_in":
            pool.advance(self._replicas, piece.amount, self._heat())
        else:
            return self._sample(pool, piece.amount)
        return None

    def state(self) -> dict[str, NDArray]:
        """OpenMM checkpoints of all replicas, and what snapshots and summary need."""
        own = {"frames_done": np.array(self._frames_done), "snapshots": self._snapshots, "kinetic": self._kinetic}
        return super().state() | own

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue from a stored state; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._frames_done = int(state["frames_done"])
        self._snapshots, self._kinetic = state["snapshots"].copy(), state["kinetic"].copy()

    def snapshots(self) -> Frames | None:
        """Frames with all sites, replica after replica, evenly spread over the time of each; None where none are kept.

        Their `temperature` is that of the run that they come from.
        """
        n_times = self._snapshots.shape[1]
        if not n_times:
            return None
        times = (self._snapshot_frames[:n_times] + 1) * self._plan.frame_interval
        return self._frames(times, positions=self._snapshots)

    def summary(self) -> DynamicsSummary:
        """Summary after the last piece."""
        plan, found = self._plan, {}
        for temperature in np.unique(self._temperatures).tolist():
            series = self._kinetic[self._temperatures == temperature]
            blocks = np.concatenate([part.mean(axis=1) for part in np.array_split(series, min(10, series.shape[1]), 1)])
            error = blocks.std(ddof=1) / math.sqrt(len(blocks)) if len(blocks) > 1 else math.nan
            found[temperature] = Estimate(float(blocks.mean()), float(error), "K")
        time = plan.replicas * (_MELTING + plan.burn_in + plan.duration)
        return DynamicsSummary(found, None, time, round(time / plan.timestep), self.platform)

    def _sample(self, pool: EnginePool, n_frames: int) -> Frames:
        plan, first, n = self._plan, self._frames_done, self._liquid.n_molecules
        inside = self._snapshot_frames[(self._snapshot_frames >= first) & (self._snapshot_frames < first + n_frames)]
        steps = round(plan.frame_interval / plan.timestep)
        arrays = pool.record(self._replicas, n_frames, steps, (inside - first).tolist(), self._heat())
        self._snapshots = np.concatenate([self._snapshots, arrays["snapshots"]], axis=1)
        kinetic = arrays["kinetic_energy"] / (0.5 * BOLTZMANN * self._liquid.n_degrees_of_freedom)
        self._kinetic = np.concatenate([self._kinetic, kinetic], axis=1)
        self._frames_done += n_frames
        shape = (len(self._replicas), n_frames, n, -1, 3)
        forces = arrays["forces"].reshape(shape).sum(axis=3, dtype=np.float64)
        return self._frames(
            (first + 1 + np.arange(n_frames)) * plan.frame_interval,
            positions=self._liquid.beads(arrays["positions"]).astype(np.float32),
            forces=forces.astype(np.float32),
            potential_energy=arrays["potential_energy"],
        )

    def _frames(self, times: NDArray, **columns: NDArray) -> Frames:
        box, temperature = self._liquid.box, self._temperatures
        return Frames.of_replicas(times, self._replicas, temperature=temperature, box=box, **columns)

    def _heat(self) -> list[Heat]:
        return [(float(temperature), 1.0) for temperature in self._temperatures]

    def _start(self, replica: int) -> NDArray[np.float64]:
        """Sites of a lattice of turned molecules, without overlaps [nm]."""
        import openmm

        platform = openmm.Platform.getPlatformByName(self.platform)
        context = openmm.Context(self._system, openmm.VerletIntegrator(0.001), platform, self._properties)
        context.setPositions(self._liquid.lattice(self._derived_seed(replica)))
        context.computeVirtualSites()
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, _MINIMIZER_STEPS)
        return np.asarray(context.getState(positions=True).getPositions(asNumpy=True)._value)

    def _engines(self) -> EnginePool:
        """Engines with the friction of the plan or of the burn-in; replicas pass from one to the other."""
        sampling, checkpoints = self._pieces[self._next].kind == "sample", None
        if self._pool is not None and sampling != self._pool_samples:
            checkpoints = self._pool.checkpoints()
            self.close()
        self._pool_samples = sampling
        pool = super()._engines()
        if checkpoints is not None:
            pool.load(checkpoints)
        return pool

    def _engine_settings(self) -> EngineSettings:
        import openmm

        return EngineSettings(
            system_xml=openmm.XmlSerializer.serialize(self._system),
            platform=self.platform,
            properties=self._properties,
            temperature=float(self._temperatures.max()),
            friction=self._plan.friction if self._pool_samples else _BURN_IN_FRICTION,
            timestep=self._plan.timestep,
            n_degrees_of_freedom=self._liquid.n_degrees_of_freedom,
            variables=AtomVariables({}, [], self._liquid.box).to_json(),
            stored=list(range(self._liquid.n_sites)),
        )

    def _identity(self) -> str:
        return f"{len(self._replicas)} replicas of {self._liquid.n_sites} sites on {self.platform}, seed {self._seed}"
