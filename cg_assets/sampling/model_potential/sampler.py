"""Sampling plans of model potentials: unbiased, static bias, umbrella windows, metadynamics, and probe replicas."""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases import BiasFunction
from cg_assets.core.errors import SamplingError
from cg_assets.core.expressions import parse_expression
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import unit
from cg_assets.mapping.beads import Beads
from cg_assets.sampling.model_potential.model import ModelPotential
from cg_assets.sampling.model_potential.walkers import GridTable, Walkers
from cg_assets.sampling.piecewise import DynamicsSummary, Piece, PiecewiseSampler, cut
from cg_assets.sampling.settings import SamplingPlan

WALKER_STEPS_PER_PIECE = 2.0e8
"""Work of one piece: two to four seconds of a core."""
FRAMES_PER_PIECE = 500_000
"""Frames that one piece returns at most, as long as the number of pieces allows it."""
MAX_PIECES = 90
CHECK_STEPS = 250
"""Steps between two looks at whether a walker has left."""
LOST = 10.0
"""A walker is lost when it is this many widths of the domain outside the domain."""
FEW_WALKERS, TIME_BLOCKS = 16, 20
"""Fewer walkers than this report their kinetic temperature in blocks of time, for its error bar."""

FloatArray = NDArray[np.float64]


class ModelPotentialSampler(PiecewiseSampler[DynamicsSummary]):
    """BAOAB Langevin dynamics of many walkers on a model potential, piece by piece.

    The main replicas deposit hills first, where the plan asks for metadynamics; the bias is then frozen, probe replicas
    join, all burn in, and frames are taken. Time counts from the end of the burn-in. Each walker's random numbers
    depend on the seed, its index and its step only, so the frames do not depend on how the work is cut.
    """

    def __init__(self, model: ModelPotential, beads: Beads, plan: SamplingPlan, seed: int) -> None:
        """Read the plan; nothing is computed yet.

        Args:
            model: the potential.
            beads: its CG coordinates.
            plan: what to sample.
            seed: seed of starts, velocities and noise.

        Raises:
            SamplingError: the plan's bias does not fit.
        """
        super().__init__(cut_plan(plan), seed)
        self._beads, self._plan, self._mass = beads, plan, model.mass
        self._landscape = model.landscape(beads)
        lower, upper = self._landscape.lower, self._landscape.upper
        self._bounds = (lower - LOST * (upper - lower))[:, None], (upper + LOST * (upper - lower))[:, None]
        self._n_main = plan.replicas
        self._n_probe = plan.probe.replicas if plan.probe else 0
        deposited = plan.bias.deposited if plan.bias is not None else None
        self._hills = None if deposited is None else deposited.grid(beads)
        self._fixed = None if plan.bias is None or deposited else plan.bias.function(beads)
        self._formula = None if self._fixed is None else self._fixed.formula()
        self._steps_taken = 0
        self._frames_taken = 0
        self._walkers: list[Walkers] = []
        self._start = np.zeros(0, dtype=np.int32)
        blocks = min(TIME_BLOCKS, plan.frames_per_replica) if self._n_main < FEW_WALKERS else 1
        self._kinetic = np.zeros((blocks, self._n_main))
        self._kinetic_frames = np.zeros(blocks, dtype=np.int64)

    # ------------------------------------------------------------------------------------ pieces

    def _do(self, piece: Piece) -> Frames | None:
        if not self._walkers:
            points, self._start = self._starting_points()
            self._place(points)
        match piece.kind:
            case "deposition":
                self._deposit(piece.amount)
            case "burn_in":
                self._advance(self._walkers, piece.amount)
            case "frames":
                return self._take_frames(piece.amount)
        return None

    def _identity(self) -> str:
        plan = json.dumps(self._plan.model_dump(mode="json"), sort_keys=True)
        return f"system {self._beads.name}, seed {self._seed}, plan {plan}"

    def state(self) -> dict[str, NDArray]:
        """Walkers, the bias grid and the counters."""
        state = super().state() | {
            "counters": np.array([self._steps_taken, self._frames_taken]),
            "start": self._start,
            "kinetic": self._kinetic,
            "kinetic_frames": self._kinetic_frames,
        }
        if self._hills:
            state |= {f"grid_{name}": values for name, values in self._hills.state().items()}
        for i, group in enumerate(self._walkers):
            state |= {f"position_{i}": group.position, f"velocity_{i}": group.velocity}
        return {name: value.copy() for name, value in state.items()}

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue from a stored state; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._steps_taken, self._frames_taken = (int(value) for value in state["counters"])
        self._start = state["start"].astype(np.int32)
        self._kinetic, self._kinetic_frames = state["kinetic"].copy(), state["kinetic_frames"].copy()
        if self._hills:
            self._hills.restore({name.removeprefix("grid_"): values for name, values in state.items()})
        self._walkers = []
        if "position_0" in state:
            groups = [self._n_main, self._n_probe] if self._n_probe else [self._n_main]
            self._place([np.zeros((n, self._landscape.dimension)) for n in groups])
            for i, group in enumerate(self._walkers):
                group.position[:] = state[f"position_{i}"]
                group.velocity[:] = state[f"velocity_{i}"]

    def summary(self) -> DynamicsSummary:
        """What is known after the last piece; the error of the temperature comes from replicas, of few from blocks.

        Raises:
            SamplingError: pieces are missing.
        """
        if self._next < self.n_chunks:
            raise SamplingError(f"the plan is not finished: {self._next} of {self.n_chunks} pieces are done")
        samples = self._kinetic / self._kinetic_frames[:, None]
        error = math.sqrt(2.0 / self._landscape.dimension) * self._beads.temperature  # of one velocity
        if samples.size > 1:
            error = float(samples.std(ddof=1)) / math.sqrt(samples.size)
        bias = self._bias()
        return DynamicsSummary(
            kinetic={self._beads.temperature: Estimate(float(samples.mean()), error, unit("temperature", "reduced"))},
            bias=bias.definition() if bias else None,
            sampled_time=self._plan.total_time,
            steps=round(self._plan.total_time / self._plan.timestep),
        )

    # ------------------------------------------------------------------------------------ starts

    def _starting_points(self) -> tuple[list[FloatArray], NDArray[np.int32]]:
        """Points of main and probe replicas, and the start index of every replica."""
        plan, names = self._plan, self._landscape.names
        if plan.starts == "equilibrium":
            from cg_assets.sampling.model_potential.basins import basin_labels

            points = self._equilibrium_points()
            start: NDArray = basin_labels(self._landscape, points)
            n_starts = int(start.max()) + 1
        else:
            listed = np.array([[entry[name] for name in names] for entry in plan.starts])
            start = plan.start_of(np.arange(self._n_main))
            points, n_starts = listed[start], len(listed)
        groups = [points]
        if plan.probe:
            listed = np.array([[entry[name] for name in names] for entry in plan.probe.starts])
            probe = np.arange(self._n_probe) % len(listed)
            groups.append(listed[probe])
            start = np.concatenate([start, n_starts + probe])
        return groups, start.astype(np.int32)

    def _equilibrium_points(self) -> FloatArray:
        """Independent draws of the density under a static bias, in each window, or without bias."""
        from cg_assets.sampling.model_potential.quadrature import equilibrium_draws

        rng, formula = np.random.default_rng([self._seed, 1]), self._formula
        if formula is None:
            return equilibrium_draws(self._landscape, self._n_main, rng)
        parsed = parse_expression(formula.text)
        window = np.arange(self._n_main) % self._plan.windows
        points = np.zeros((self._n_main, self._landscape.dimension))
        for number in range(self._plan.windows):
            here, parameters = window == number, formula.in_window(number)
            points[here] = equilibrium_draws(
                self._landscape, int(here.sum()), rng, bias=lambda values, own=parameters: parsed.evaluate(values | own)
            )
        return points

    def _place(self, groups: list[FloatArray]) -> None:
        """Create the walkers of main and probe replicas."""
        plan, first = self._plan, 0
        self._walkers = []
        for points in groups:
            group = Walkers(
                self._landscape,
                points,
                mass=self._mass,
                thermal_energy=self._beads.thermal_energy,
                timestep=plan.timestep,
                friction=plan.friction,
                seed=self._seed,
                first_index=first,
                bias=self._formula,
                window=plan.window_of(np.arange(first, first + len(points))),
                table=self._table(),
            )
            self._walkers.append(group)
            first += len(points)

    def _table(self) -> GridTable | None:
        return GridTable.of(self._hills.spline(), self._hills.spacing[0]) if self._hills else None

    def _bias(self) -> BiasFunction | None:
        """The bias as it is now."""
        return self._hills.bias() if self._hills else self._fixed

    # ------------------------------------------------------------------------------------ dynamics

    def _advance(self, walkers: list[Walkers], n_steps: int) -> list[FloatArray]:
        """Take steps; returns the mean kinetic temperature of each walker, per group."""
        means = [np.zeros(group.n) for group in walkers]
        for first in range(0, n_steps, CHECK_STEPS):
            steps = min(CHECK_STEPS, n_steps - first)
            for group, mean in zip(walkers, means, strict=True):
                mean += group.advance(self._steps_taken, steps) * (steps / n_steps)
            self._steps_taken += steps
            for group in walkers:
                self._refuse_lost(group)
        return means

    def _refuse_lost(self, group: Walkers) -> None:
        lower, upper = self._bounds
        inside = ((group.position > lower) & (group.position < upper)).all(axis=0)
        if not inside.all():
            lost = group.position[:, np.flatnonzero(~inside)[0]]
            where = ", ".join(f"{n} = {v:.4g}" for n, v in zip(self._landscape.names, lost, strict=True))
            raise SamplingError(
                f"a walker of {self._beads.name} left the potential within {self._steps_taken} steps ({where}): "
                f"timestep {self._plan.timestep} is too long, or nothing confines the walker; lower timestep (try "
                f"{self._plan.timestep / 4:g}), or add a confining term to model.expression"
            )

    def _deposit(self, n_hills: int) -> None:
        main, hills = self._walkers[0], self._hills
        if hills is None:
            raise SamplingError("this plan has no bias to deposit")
        for _ in range(n_hills):
            self._advance([main], self._plan.hill_steps)
            points = self._landscape.coordinate(main.points())[:, None]
            points = points[hills.inside(points)]
            hills.deposit(points, hills.energies(points))
            main.set_grid(GridTable.of(hills.spline(), hills.spacing[0]))
        for group in self._walkers[1:]:
            group.set_grid(GridTable.of(hills.spline(), hills.spacing[0]))

    def _take_frames(self, n_frames: int) -> Frames:
        """Frames of all replicas, those of one time together."""
        dimension, plan = self._landscape.dimension, self._plan
        n_all = self._n_main + self._n_probe
        points = np.empty((n_frames, n_all, dimension), dtype=np.float32)
        for i in range(n_frames):
            kinetic = self._advance(self._walkers, plan.frame_steps)[0]
            block = self._frames_taken * len(self._kinetic) // plan.frames_per_replica
            self._kinetic[block] += kinetic
            self._kinetic_frames[block] += 1
            self._frames_taken += 1
            points[i, : self._n_main] = self._walkers[0].points()
            if self._n_probe:
                points[i, self._n_main :] = self._walkers[1].points()
        times = np.arange(self._frames_taken - n_frames + 1, self._frames_taken + 1) * np.float64(plan.frame_interval)
        return self._frames_at(points.reshape(-1, dimension), times)

    def _frames_at(self, points: NDArray[np.float32], times: FloatArray) -> Frames:
        """Energies, forces and CG coordinate, in double precision, at the stored single-precision positions."""
        n_all, n_times = self._n_main + self._n_probe, len(times)
        energy, forces = self._landscape.energy_and_forces(points)
        if not np.isfinite(forces).all():
            bad = points[np.flatnonzero(~np.isfinite(forces).all(axis=1))[0]]
            raise SamplingError(
                f"model.expression has no finite force at {bad.tolist()}; correct it or confine the walker"
            )
        coordinate = self._landscape.coordinate(points)
        bias = self._bias()
        replica = np.tile(np.arange(n_all, dtype=np.int32), n_times)
        window = self._plan.window_of(replica)
        return Frames(
            positions=points[:, None, :],
            time=np.repeat(times, n_all),
            replica=replica,
            temperature=np.full(len(points), self._beads.temperature),
            start=np.tile(self._start, n_times),
            probe=replica >= self._n_main,
            forces=forces.astype(np.float32)[:, None, :],
            window=window,
            bias_energy=bias.energy({self._landscape.variable: coordinate}, window) if bias else None,
            potential_energy=energy,
            collective_variables={
                name: (points @ row).astype(np.float32)
                for name, row in zip(self._beads.variable_names, self._beads.cg_map.matrix, strict=True)
            },
        )


def cut_plan(plan: SamplingPlan) -> list[Piece]:
    """Cut a plan into fewer than 100 pieces of a few seconds each, longer where the plan is long."""
    n_main = plan.replicas
    n_all = n_main + (plan.probe.replicas if plan.probe else 0)
    hill_work = n_main * plan.hill_steps
    frame_work = n_all * plan.frame_steps
    total = plan.n_hills * hill_work + n_all * plan.burn_in_steps + plan.frames_per_replica * frame_work
    work = max(WALKER_STEPS_PER_PIECE, total / (MAX_PIECES / 2))
    frames = max(min(work / frame_work, FRAMES_PER_PIECE / n_all), plan.frames_per_replica / (MAX_PIECES / 2))
    stages = [("deposition", plan.n_hills, work / max(1, hill_work)), ("burn_in", plan.burn_in_steps, work / n_all)]
    stages.append(("frames", plan.frames_per_replica, frames))
    return [
        piece for kind, amount, largest in stages for piece in cut(kind, amount, math.ceil(amount / max(1.0, largest)))
    ]
