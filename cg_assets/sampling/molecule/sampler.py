"""Sample a molecule with OpenMM: unbiased, under a fixed bias, or under one that walkers build and that is frozen."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases import BiasFunction
from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.molecule.engine import Arrays, EngineSettings
from cg_assets.sampling.molecule.platforms import choose_platform, seconds_per_step
from cg_assets.sampling.molecule.starts import StartFinder, preparation_time
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.piecewise import DynamicsSummary, EngineSampler, Piece, cut
from cg_assets.sampling.settings import Probe, SamplingPlan

_PIECE_SECONDS = 15.0
_MAX_PIECES = 90
_TEMPERATURE_BLOCKS = 10
_SNAPSHOTS = 32
"""Frames of which all atoms are kept, at least, where others keep those of the molecules with beads only."""


class MoleculeSampler(EngineSampler[DynamicsSummary]):
    """Langevin dynamics of the replicas of one sampling plan.

    The integrator is OpenMM's LangevinMiddleIntegrator (Zhang et al., J. Phys. Chem. A 123, 6056 (2019)). The bias is
    in a force group of its own; stored forces and potential energies come from the other group, so they are unbiased.
    Frames hold the atoms of the molecules that carry beads, not their solvent; the positions of an isolated molecule
    are relative to its centre of mass. A frame's `time` counts from the end of the burn-in. Probe replicas follow the
    others in number; their `start` counts on after the plan's starts.

    With tempering, neighbours on a ladder of temperatures may exchange after each stretch of `tempering.pace` (see
    `TemperatureLadders`); frames are kept of whatever replica is at the lowest rung, or at each rung where the plan
    keeps all of them. Their `replica` is the number of the ladder, their `temperature` that of the rung.

    Results depend on the seed and the platform, not on the number of processes: `CG_ASSETS_THREADS`, else one per core
    that this process may use. On the Reference platform they are the same bit for bit.

    Attributes:
        molecule: the built molecule.
    """

    def __init__(
        self,
        molecule: MoleculeModel,
        beads: Beads,
        plan: SamplingPlan,
        seed: int,
        platform: str | None = None,
        snapshots: int = 0,
    ) -> None:
        """Read the plan; nothing is simulated yet.

        Args:
            molecule: what to simulate.
            beads: its beads, at whose temperature.
            plan: what to sample.
            seed: seed of starts, velocities and noise.
            platform: OpenMM platform; None for the fastest.
            snapshots: how many frames with all atoms `snapshots` should hold at least.

        Raises:
            SystemSpecError: the plan does not fit a molecule.
            DeviceError: the platform asked for is not there.
        """
        if plan.starts == "equilibrium":
            raise SystemSpecError("starts: equilibrium is for model potentials; a molecule has start states, or [{}]")
        self._beads, self._plan, self.molecule = beads, plan, molecule
        self._variables = AtomVariables.of(beads.collective_variables, molecule, beads.cg_map)
        probe = plan.probe or Probe.model_construct(replicas=0, starts=[])
        n_replicas = plan.replicas + probe.replicas
        self._starts = [*plan.starts, *probe.starts]
        self._start_of = [plan.start_of(replica) for replica in range(plan.replicas)]
        self._start_of += [len(plan.starts) + replica % len(probe.starts) for replica in range(probe.replicas)]
        self._windows = plan.window_of(np.arange(n_replicas))
        deposited = plan.bias.deposited if plan.bias is not None else None
        self._grid = None if deposited is None else deposited.grid(beads)
        self._fixed = None if plan.bias is None or deposited else plan.bias.function(beads)
        pieces, seconds = self._cut_plan(n_replicas)
        own = choose_platform(molecule.n_atoms, molecule.box is not None, platform)
        super().__init__(pieces, seed, own, n_replicas, seconds)
        self._walkers = self._replicas[: plan.replicas]
        self._kept = self._replicas[: plan.kept_replicas] + self._replicas[plan.replicas :]
        self._ladders, self._temperatures = None, [beads.temperature]
        if plan.tempering is not None:
            temperatures = plan.tempering.temperatures
            self._ladders = TemperatureLadders(temperatures, plan.kept_replicas, self._derived_seed(2))
            self._temperatures = temperatures[: plan.kept_rungs]
        self._kinetic = np.zeros((len(self._kept) * plan.kept_rungs, _temperature_blocks(plan)))
        self._frames_done = 0
        self._snapshots: list[Arrays] = []
        self._snapshot_frames = self._choose_snapshots(max(_SNAPSHOTS, snapshots))

    def _do(self, piece: Piece) -> Frames | None:
        pool = self._engines()
        match piece.kind:
            case "start":
                pool.create(dict(enumerate(self._find_starts())), self._seed)
            case "deposit":
                self._deposit(pool, piece.amount)
            case "burn_in":
                self._burn_in(pool, piece.amount)
            case "sample":
                return self._sample(pool, piece.amount)
        return None

    def state(self) -> dict[str, NDArray]:
        """OpenMM checkpoints of all replicas, the bias grid, the ladders and the counters."""
        arrays = super().state() | {"frames_done": np.array(self._frames_done), "kinetic": self._kinetic.copy()}
        if self._grid is not None:
            arrays |= {f"grid_{name}": values for name, values in self._grid.state().items()}
        if self._ladders is not None:
            arrays |= self._ladders.state()
        if self._snapshots:
            arrays |= {f"snapshot_{name}": values for name, values in self._all_snapshots().items()}
        return arrays

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue from a stored state; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._frames_done = int(state["frames_done"])
        self._kinetic = state["kinetic"].copy()
        whole = {name: values for name, values in state.items() if name.startswith("snapshot_")}
        if whole:
            self._snapshots = [{name.removeprefix("snapshot_"): values for name, values in whole.items()}]
        if self._ladders is not None:
            self._ladders.restore(state)
        if self._grid is not None:
            self._grid.restore({name.removeprefix("grid_"): values for name, values in state.items()})
            if self._under_way():
                self._engines().set_grid(self._grid.values)

    def summary(self) -> DynamicsSummary:
        """What is known after the last piece."""
        bias, ladders = self._bias(), self._ladders
        return DynamicsSummary(
            kinetic={kelvin: self._kinetic_temperature(rung) for rung, kelvin in enumerate(self._temperatures)},
            bias=bias.definition() if bias else None,
            sampled_time=self._plan.total_time + preparation_time(self._plan),
            steps=round(self._plan.total_time / self._plan.timestep),
            platform=self.platform,
            exchange_acceptance=[] if ladders is None else ladders.acceptance.round(4).tolist(),
            journeys_up_the_ladder=0 if ladders is None else int(ladders.journeys.sum()),
        )

    def snapshots(self) -> Frames | None:
        """Some frames of the plan's replicas with all atoms, evenly spread in time; None where every frame has them."""
        if not self._snapshots:
            return None
        walkers, whole = self._walkers[: self._plan.kept_replicas], self._all_snapshots()
        taken = self._snapshot_frames[: whole["positions"].shape[1]]
        return Frames.of_replicas(
            (taken + 1) * self._plan.frame_interval,
            walkers,
            temperature=self._beads.temperature,
            start=np.array(self._start_of)[walkers],
            window=None if self._windows is None else self._windows[walkers],
            box=self.molecule.box,
            **{name: values[walkers] for name, values in whole.items()},
        )

    # ----------------------------------------------------------------------------------- pieces of work

    def _cut_plan(self, n_replicas: int) -> tuple[list[Piece], float]:
        """Pieces, and seconds of all but the burn-in on one core; they depend on the plan and the molecule only."""
        plan, molecule = self._plan, self.molecule
        second_per_step = seconds_per_step(molecule.n_atoms, molecule.box is not None)
        hill = plan.replicas * plan.hill_steps * second_per_step
        frame = n_replicas * plan.frame_steps * second_per_step
        stages = [
            ("deposit", plan.n_hills, plan.n_hills * hill, 1),
            ("burn_in", plan.burn_in_steps, n_replicas * plan.burn_in_steps * second_per_step, self._stretch),
            (
                "sample",
                plan.frames_per_replica,
                plan.frames_per_replica * frame,
                self._stretch // plan.frame_steps or 1,
            ),
        ]
        # The length of a piece follows from the rest alone: frames of data sets that exist keep their pieces.
        total = sum(seconds for kind, _, seconds, _ in stages if kind != "burn_in")
        longest = max(_PIECE_SECONDS, total / _MAX_PIECES)
        pieces = [Piece("start", 0)]
        for kind, amount, seconds, unit in stages:
            pieces += cut(kind, amount, math.ceil(seconds / longest), unit)
        return pieces, total

    @property
    def _stretch(self) -> int:
        """Steps between two exchanges; 1 without tempering."""
        tempering = self._plan.tempering
        return 1 if tempering is None else round(tempering.pace / self._plan.timestep)

    def _find_starts(self) -> list[NDArray[np.float64]]:
        """Positions at the start of each replica."""
        finder = StartFinder(
            self.molecule,
            self._variables,
            self.platform,
            self._properties,
            self._beads.temperature,
            self._plan.timestep,
        )
        starts: dict[int, NDArray[np.float64]] = {}
        found: dict[tuple[int, int], NDArray[np.float64]] = {}
        windows = [0] * len(self._replicas) if self._windows is None else self._windows.tolist()
        for replica in self._replicas:
            start = self._start_of[replica]
            if start not in starts:
                starts[start] = finder.reach(self._starts[start], self._derived_seed(1, start, 0))
            key = (start, windows[replica])
            if key not in found:
                center = self._fixed.center(key[1]) if self._fixed else {}
                found[key] = finder.reach(center, self._derived_seed(1, *key) + 1, starts[start])
        return [found[self._start_of[replica], windows[replica]] for replica in self._replicas]

    def _deposit(self, pool: EnginePool, n_hills: int) -> None:
        """Let all walkers build the bias together."""
        grid = self._grid
        if grid is None:
            raise SamplingError("this plan has no bias to deposit")
        columns = [self._variables.names.index(name) for name in grid.names]
        for _ in range(n_hills):
            ends = pool.advance(self._walkers, self._plan.hill_steps)
            grid.deposit(ends["variables"][:, columns], ends["bias_energy"])
            pool.set_grid(grid.values)

    def _burn_in(self, pool: EnginePool, n_steps: int) -> None:
        if self._ladders is None:
            pool.advance(self._replicas, n_steps)
            return
        for _ in range(n_steps // self._stretch):
            ends = pool.advance(self._replicas, self._stretch, self._ladders.heat())
            self._ladders.exchange(ends["potential_energy"])

    def _record(self, pool: EnginePool, n_frames: int, snapshots: list[int]) -> Arrays:
        """Frames `(n_kept, n_frames, ...)` of the replicas that frames are kept of, ladder after ladder."""
        frame_steps = self._plan.frame_steps
        if self._ladders is None:
            return pool.record(self._replicas, n_frames, frame_steps, snapshots)
        per_stretch = self._stretch // frame_steps
        parts: list[Arrays] = []
        for first in range(0, n_frames, per_stretch):
            wanted = [frame - first for frame in snapshots if first <= frame < first + per_stretch]
            arrays = pool.record(self._replicas, per_stretch, frame_steps, wanted, self._ladders.heat())
            at = self._ladders.replicas_at_rungs()
            kept, coldest = at[:, : self._plan.kept_rungs].ravel(), at[:, 0]
            parts.append({name: values[coldest if name == "snapshots" else kept] for name, values in arrays.items()})
            self._ladders.exchange(arrays["potential_energy"][:, -1])
        return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}

    def _sample(self, pool: EnginePool, n_frames: int) -> Frames:
        first = self._frames_done
        inside = self._snapshot_frames[(self._snapshot_frames >= first) & (self._snapshot_frames < first + n_frames)]
        kept = inside - first
        arrays = self._record(pool, n_frames, kept.tolist())
        blocks = np.arange(first, first + n_frames) * self._kinetic.shape[1] // self._plan.frames_per_replica
        for frame, block in enumerate(blocks):
            self._kinetic[:, block] += arrays["kinetic_energy"][:, frame]
        self._frames_done += n_frames
        whole = {"positions": arrays.pop("snapshots")}
        if "bias_energy" in arrays:
            whole["bias_energy"] = arrays["bias_energy"][:, kept]
        if len(kept):
            self._snapshots.append(whole)
        return self._frames(arrays, first, n_frames)

    def _choose_snapshots(self, number: int) -> NDArray[np.int64]:
        """Numbers of the frames of each replica of which all atoms are kept; none where every frame holds them."""
        if len(self.molecule.stored) == self.molecule.n_atoms:
            return np.zeros(0, dtype=np.int64)
        total = self._plan.frames_per_replica
        wanted = min(total, math.ceil(number / self._plan.kept_replicas))
        return (np.arange(1, wanted + 1) * total) // wanted - 1

    def _all_snapshots(self) -> Arrays:
        """Frames with all atoms so far, `(n_replicas, n_times, ...)`."""
        return {name: np.concatenate([part[name] for part in self._snapshots], axis=1) for name in self._snapshots[0]}

    def _frames(self, arrays: Arrays, first: int, n_frames: int) -> Frames:
        """One block of frames, replica after replica."""
        names = ("positions", "forces", "potential_energy", *(["bias_energy"] if "bias_energy" in arrays else []))
        kept = np.repeat(self._kept, len(self._temperatures))
        frames = Frames.of_replicas(
            (np.arange(first, first + n_frames) + 1) * self._plan.frame_interval,
            kept,
            temperature=np.tile(self._temperatures, len(self._kept)),
            start=np.array(self._start_of)[kept],
            probe=kept >= self._plan.replicas,
            window=self._windows,
            box=self.molecule.box,
            **{name: arrays[name] for name in names},
        )
        columns = arrays["variables"].reshape(len(frames), -1).T
        return replace(frames, collective_variables=dict(zip(self._variables.names, columns.copy(), strict=True)))

    # ----------------------------------------------------------------------------------- helpers

    def _engine_settings(self) -> EngineSettings:
        import openmm

        openmm_system = openmm.XmlSerializer.clone(self.molecule.system)
        parameters: list[dict[str, float]] = []
        if self._fixed is not None:
            for force in self._fixed.openmm_forces(self._variables):
                openmm_system.addForce(force)
            if self._windows is not None:
                parameters = [self._fixed.openmm_parameters(window) for window in self._windows.tolist()]
        return EngineSettings(
            system_xml=openmm.XmlSerializer.serialize(openmm_system),
            platform=self.platform,
            properties=self._properties,
            temperature=self._beads.temperature,
            friction=self._plan.friction,
            timestep=self._plan.timestep,
            n_degrees_of_freedom=self.molecule.n_degrees_of_freedom,
            variables=self._variables.to_json(),
            stored=self.molecule.stored.tolist(),
            grid=self._grid.bias().definition() if self._grid is not None else None,
            biased=self._plan.bias is not None,
            replica_parameters=parameters,
        )

    def _identity(self) -> str:
        plan = json.dumps(self._plan.model_dump(mode="json"), sort_keys=True)
        kept = f", {len(self._snapshot_frames)} snapshots" if len(self._snapshot_frames) else ""
        burn_in = sum(piece.kind == "burn_in" for piece in self._pieces)
        kept += f", burn-in in {burn_in} pieces" if burn_in > 1 else ""
        beads = self._beads
        return (
            f"system {beads.name} ({beads.cg_map.hash}, {beads.temperature} K), seed {self._seed}, platform "
            f"{self.platform}, plan {plan}{kept}"
        )

    def _bias(self) -> BiasFunction | None:
        """The bias as it is now."""
        return self._grid.bias() if self._grid is not None else self._fixed

    def _kinetic_temperature(self, rung: int) -> Estimate:
        """Kinetic temperature at a rung [K], its error from blocks of time of the independent replicas or ladders."""
        kinetic, kelvin = self._kinetic[rung :: len(self._temperatures)], self._temperatures[rung]
        n_frames, n_blocks = self._plan.frames_per_replica, kinetic.shape[1]
        counts = np.bincount(np.arange(n_frames) * n_blocks // n_frames, minlength=n_blocks)
        factor = 2.0 / (self.molecule.n_degrees_of_freedom * BOLTZMANN)
        blocks = (factor * kinetic / counts).ravel()
        if len(blocks) > 1:
            return Estimate(float(blocks.mean()), float(blocks.std(ddof=1) / math.sqrt(len(blocks))), "K")
        # A single short block: the kinetic energy forgets itself within 1/(2 friction).
        independent = max(1.0, self._plan.duration * self._plan.friction)
        spread = kelvin * math.sqrt(2.0 / self.molecule.n_degrees_of_freedom / independent)
        return Estimate(float(blocks[0]), spread, "K")


def _temperature_blocks(plan: SamplingPlan) -> int:
    """Blocks of time per replica, each at least ten times the memory 1/(2 friction) of the kinetic energy."""
    longest = int(plan.duration * 2.0 * plan.friction / 10.0)
    return max(1, min(_TEMPERATURE_BLOCKS, longest, plan.frames_per_replica))
