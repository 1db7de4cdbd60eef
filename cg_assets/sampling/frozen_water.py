"""Sample the orientations of rigid water at fixed beads, p(r | R; T), at all temperatures of a ladder together.

Dense water with frozen centres is glassy in its orientations, so replicas exchange temperatures at fixed beads.
Every frame is sampled by independent runs from orientations that were lost at twice the highest temperature.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.mapping.water import Water
from cg_assets.sampling.molecule.engine import Arrays, EngineSettings
from cg_assets.sampling.molecule.platforms import choose_platform, process_count, seconds_per_step
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.settings import ConditionalSampling

FloatArray = NDArray[np.float64]

_PIECE_SECONDS = 30.0
_MAX_PIECES = 200
_FORGETTING = 2.0
"""Time at twice the highest temperature, in which orientations are forgotten that a run began with [ps]."""


@dataclass(frozen=True)
class _Piece:
    """A piece of work: some stretches between exchanges, of which samples are kept or not."""

    frame: int
    begins: bool
    stretches: int


class FrozenWaterSampler:
    """Samples of a batch of CG frames, one frame after another; a `Sampler` that goes on after any piece.

    The rows that it makes are samples: `start` is the number of the CG frame, `replica` that of the run, `temperature`
    the rung of the ladder, `time` counts from the end of the relaxation. Positions are the fixed beads, forces those on
    the molecules, `potential_energy` that of the atoms.

    Attributes:
        platform: name of the OpenMM platform.
        n_chunks: number of pieces of work.
    """

    def __init__(
        self,
        water: Water,
        plan: ConditionalSampling,
        starts: NDArray,
        seed: int,
        platform: str | None = None,
    ) -> None:
        """Prepare the frames; nothing is simulated yet.

        Args:
            water: the molecules.
            plan: temperatures, runs and times; `frames` is not read.
            starts: `(n_frames, n_sites, 3)` sites of free molecules, of which the beads are held [nm].
            seed: seed of velocities, noise and exchanges.
            platform: OpenMM platform; None for the fastest.

        Raises:
            SamplingError: the starts do not have the sites of the water.
            DeviceError: the platform asked for is not there.
        """
        self._starts = np.asarray(starts, dtype=np.float64)
        if self._starts.shape[1:] != (water.n_sites, 3):
            raise SamplingError(
                f"frames to hold the beads of have shape {self._starts.shape[1:]}, the water ({water.n_sites}, 3); "
                "sample the reference again"
            )
        self._water, self._plan, self._seed = water, plan, seed
        self._beads = water.beads(self._starts)
        self._system = water.frozen_system()
        self._n_particles = self._system.getNumParticles()
        self.platform, self._properties = choose_platform(self._n_particles, water.box is not None, platform)
        self._replicas = list(range(plan.runs * len(plan.temperatures)))
        self._steps = round(plan.pace / plan.timestep)
        self._per_stretch = round(plan.pace / plan.interval)
        self._pieces = self._plan_pieces()
        self.n_chunks = len(self._pieces)
        self._next = self._stretches_done = 0
        self._ladders = self._new_ladders(0)
        self._pool: EnginePool | None = None
        self._heat_ratio: list[float] = []
        self._drift = 0.0
        self._acceptance: list[FloatArray] = []
        self._journeys = 0

    # ----------------------------------------------------------------------------------- the Sampler protocol

    def next_chunk(self) -> Frames | None:
        """Do the next piece of work.

        Raises:
            SamplingError: the simulation blew up.
            StopIteration: every piece is done.
        """
        if self._next >= self.n_chunks:
            raise StopIteration("every piece of this plan is done")
        piece = self._pieces[self._next]
        pool = self._engines()
        frames = None
        if piece.begins:
            self._begin(pool, piece)
        else:
            parts = [self._stretch(pool, piece.frame) for _ in range(piece.stretches)]
            frames = Frames.concatenate(parts)
        self._next += 1
        last_of_frame = self._next == self.n_chunks or self._pieces[self._next].frame != piece.frame
        if last_of_frame:
            self._acceptance.append(self._ladders.acceptance)
            self._journeys += int(self._ladders.journeys.sum())
        if self._next == self.n_chunks:
            self.close()
        return frames

    def state(self) -> dict[str, NDArray]:
        """Checkpoints of the present frame's replicas, its ladders, and what the summary needs."""
        arrays: dict[str, NDArray] = {
            "next": np.array(self._next),
            "stretches_done": np.array(self._stretches_done),
            "identity": np.frombuffer(self._identity().encode(), np.uint8),
            "heat_ratio": np.array(self._heat_ratio),
            "drift": np.array(self._drift),
            "acceptance": np.array(self._acceptance).reshape(-1, len(self._plan.temperatures) - 1),
            "journeys": np.array(self._journeys),
        }
        if self._inside_a_frame():
            arrays |= self._ladders.state()
            for replica, checkpoint in self._engines().checkpoints().items():
                arrays[f"checkpoint_{replica}"] = np.frombuffer(checkpoint, np.uint8)
        return arrays

    def restore(self, state: dict[str, NDArray]) -> None:
        """Go on from a stored state.

        Raises:
            SamplingError: the state belongs to another platform or number of replicas.
        """
        identity = state["identity"].tobytes().decode()
        if identity != self._identity():
            raise SamplingError(
                f"the stored state is of {identity}, this run is {self._identity()}; delete the checkpoint to start "
                "again"
            )
        self._next, self._stretches_done = int(state["next"]), int(state["stretches_done"])
        self._heat_ratio, self._drift = state["heat_ratio"].tolist(), float(state["drift"])
        self._acceptance, self._journeys = list(state["acceptance"]), int(state["journeys"])
        if self._inside_a_frame():
            self._ladders = self._new_ladders(self._pieces[self._next].frame)
            self._ladders.restore(state)
            self._engines().load({item: state[f"checkpoint_{item}"].tobytes() for item in self._replicas})

    def snapshots(self) -> None:
        """None: the atoms at fixed beads are not kept."""

    def summary(self) -> dict[str, Any]:
        """What is known after the last piece.

        Returns:
            `rotational_temperature_ratio` (an Estimate: kinetic temperature of the rotations over that of the
            thermostat), `largest_drift` of a bead [nm], `exchange_acceptance` of each pair of neighbours,
            `journeys_up_the_ladder`, `sampled_time` [ps], `platform`.
        """
        ratio = np.array(self._heat_ratio)
        blocks = np.array([part.mean() for part in np.array_split(ratio, min(20, len(ratio)))])
        error = blocks.std(ddof=1) / math.sqrt(len(blocks)) if len(blocks) > 1 else math.nan
        return {
            "rotational_temperature_ratio": Estimate(float(ratio.mean()), float(error)),
            "largest_drift": self._drift,
            "exchange_acceptance": np.mean(self._acceptance, axis=0).round(4).tolist(),
            "journeys_up_the_ladder": self._journeys,
            "sampled_time": len(self._starts) * self._plan.time_each,
            "platform": self.platform,
        }

    def close(self) -> None:
        """End the worker processes; the sampler can go on from its state only."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # ----------------------------------------------------------------------------------- pieces of work

    def _plan_pieces(self) -> list[_Piece]:
        """Cut the plan into pieces; depends on the plan and the molecules only."""
        plan = self._plan
        second_per_step = seconds_per_step(self._n_particles, self._water.box is not None)
        stretch_seconds = len(self._replicas) * self._steps * second_per_step
        kept, relaxing = round(plan.duration / plan.pace), round(plan.relaxation / plan.pace)
        total = len(self._starts) * (kept + relaxing) * stretch_seconds
        self._total_seconds = total
        n_pieces = math.ceil(kept * stretch_seconds / max(_PIECE_SECONDS, total / _MAX_PIECES))
        edges = [kept * index // n_pieces for index in range(n_pieces + 1)]
        pieces = []
        for frame in range(len(self._starts)):
            pieces.append(_Piece(frame, True, relaxing))
            pieces += [_Piece(frame, False, high - low) for low, high in itertools.pairwise(edges)]
        return pieces

    def _inside_a_frame(self) -> bool:
        return 0 < self._next < self.n_chunks and not self._pieces[self._next].begins

    def _begin(self, pool: EnginePool, piece: _Piece) -> None:
        """Start the replicas of a frame, let them forget their orientations, and bring the ladders to equilibrium."""
        plan, start = self._plan, self._water.frozen_positions(self._starts[piece.frame])
        pool.create(dict.fromkeys(self._replicas, start), self._derived_seed(1, piece.frame))
        hot = 2.0 * plan.temperatures[-1]
        pool.advance(self._replicas, round(_FORGETTING / plan.timestep), [(hot, 1.0)] * len(self._replicas))
        self._ladders, self._stretches_done = self._new_ladders(piece.frame), 0
        for _ in range(piece.stretches):
            ends = pool.advance(self._replicas, self._steps, self._ladders.heat())
            self._ladders.exchange(ends["potential_energy"])

    def _stretch(self, pool: EnginePool, frame: int) -> Frames:
        """Samples between two exchanges, then the exchange."""
        plan, n_rungs = self._plan, len(self._plan.temperatures)
        arrays = pool.record(
            self._replicas, self._per_stretch, round(plan.interval / plan.timestep), heat=self._ladders.heat()
        )
        temperature = self._ladders.temperatures[self._ladders.rung]
        thermal = 0.5 * BOLTZMANN * temperature * 3 * self._water.n_molecules
        self._heat_ratio.append(float((arrays["kinetic_energy"] / thermal[:, None]).mean()))
        self._measure_drift(arrays, frame)
        forces = arrays["forces"].reshape(*arrays["forces"].shape[:2], self._water.n_molecules, -1, 3)
        rows = self._per_stretch * len(self._replicas)
        times = (self._stretches_done * self._per_stretch + 1 + np.arange(self._per_stretch)) * plan.interval
        box = self._water.box
        frames = Frames(
            positions=np.repeat(self._beads[frame][None].astype(np.float32), rows, axis=0),
            time=np.tile(times, len(self._replicas)),
            replica=np.repeat(np.array(self._replicas, dtype=np.int32) // n_rungs, self._per_stretch),
            temperature=np.repeat(temperature, self._per_stretch),
            start=np.full(rows, frame, dtype=np.int32),
            probe=np.zeros(rows, dtype=bool),
            forces=forces.sum(axis=3, dtype=np.float64).astype(np.float32).reshape(rows, -1, 3),
            potential_energy=arrays["potential_energy"].reshape(-1),
            box=None if box is None else np.full((rows, 3), box, dtype=np.float32),
        )
        self._stretches_done += 1
        self._ladders.exchange(arrays["potential_energy"][:, -1])
        return frames

    def _measure_drift(self, arrays: Arrays, frame: int) -> None:
        held = arrays["positions"][:, -1].reshape(len(self._replicas), self._water.n_molecules, -1, 3)[:, :, 0]
        moved = held.astype(np.float64) - self._beads[frame]
        if self._water.box is not None:
            moved -= self._water.box * np.round(moved / self._water.box)
        moved -= moved.mean(axis=1, keepdims=True)  # frames of an isolated cluster are stored about its centre
        self._drift = max(self._drift, float(np.sqrt((moved**2).sum(axis=-1)).max()))

    def _new_ladders(self, frame: int) -> TemperatureLadders:
        return TemperatureLadders(self._plan.temperatures, self._plan.runs, self._derived_seed(2, frame))

    def _engines(self) -> EnginePool:
        if self._pool is None:
            import openmm

            processes = process_count(self.platform, len(self._replicas), self._total_seconds)
            settings = EngineSettings(
                system_xml=openmm.XmlSerializer.serialize(self._system),
                platform=self.platform,
                properties=self._properties,
                temperature=self._plan.temperatures[-1],
                friction=self._plan.friction,
                timestep=self._plan.timestep,
                n_degrees_of_freedom=6 * self._water.n_molecules,
                variables=AtomVariables({}, [], self._water.box).to_json(),
                stored=list(range(self._n_particles)),
            )
            self._pool = EnginePool(settings, len(self._replicas), processes)
        return self._pool

    def _derived_seed(self, *keys: int) -> int:
        return int(np.random.SeedSequence([self._seed, *keys]).generate_state(1)[0])

    def _identity(self) -> str:
        return f"{len(self._starts)} frames of {self._n_particles} particles on {self.platform}, seed {self._seed}"


def choose_starts(snapshots: Frames, number: int) -> Frames:
    """Frames to hold the beads of: as many of each replica, hence of each temperature, as may be.

    Args:
        snapshots: frames with all sites; their `temperature` is that of the run that they come from.
        number: how many.

    Raises:
        SamplingError: there are fewer.
    """
    if len(snapshots) < number:
        raise SamplingError(
            f"{number} frames are wanted, but the reference kept only {len(snapshots)}; sample it again"
        )
    order = np.lexsort((snapshots.replica, snapshots.time))
    return snapshots.select(order[:number])
