"""Sample the atoms at fixed beads, p(r | R; T), at all temperatures of a ladder together.

Dense water with frozen centres is glassy in its orientations, and side chains of molecules turn slowly, so replicas
exchange temperatures at fixed beads. Every frame is sampled by independent runs, which have forgotten where they
started at twice the highest temperature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.replica_exchange import TemperatureLadders
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.mapping.atom_variables import AtomVariables
from cg_assets.sampling.held_beads import HeldBeads
from cg_assets.sampling.molecule.engine import EngineSettings
from cg_assets.sampling.molecule.platforms import choose_platform, seconds_per_step
from cg_assets.sampling.molecule.worker import EnginePool
from cg_assets.sampling.piecewise import EngineSampler, Piece, cut
from cg_assets.sampling.settings import ConditionalSampling

FloatArray = NDArray[np.float64]

_PIECE_SECONDS = 30.0
_MAX_PIECES = 200
_FORGETTING = 2.0
"""Time at twice the highest temperature in which a run forgets where it started [ps]."""


@dataclass(frozen=True)
class FixedBeadSummary:
    """What is known of finished samples.

    Attributes:
        kinetic_temperature_ratio: kinetic temperature of what moves over that of the thermostat.
        largest_drift: of a bead [nm].
        exchange_acceptance: of each pair of neighbouring temperatures.
        journeys_up_the_ladder: of all replicas.
        sampled_time: of all replicas [ps].
        platform: of OpenMM.
    """

    kinetic_temperature_ratio: Estimate
    largest_drift: float
    exchange_acceptance: list[float]
    journeys_up_the_ladder: int
    sampled_time: float
    platform: str


class FixedBeadLadders(EngineSampler[FixedBeadSummary]):
    """Samples of a batch of CG frames, one frame after another.

    The rows that it makes are samples: `start` is the number of the CG frame, `replica` that of the run, `temperature`
    the rung of the ladder, `time` counts from the end of the relaxation. Positions are the fixed beads, forces their
    labels, `potential_energy` that of the atoms.
    """

    def __init__(
        self,
        held: HeldBeads,
        plan: ConditionalSampling,
        seed: int,
        platform: str | None = None,
    ) -> None:
        """Prepare the frames; nothing is simulated yet.

        Args:
            held: the atoms, and the CG frames whose beads are held.
            plan: temperatures, runs and times; `frames` is not read.
            seed: seed of velocities, noise and exchanges.
            platform: OpenMM platform; None for the fastest.

        Raises:
            DeviceError: the platform asked for is not there.
        """
        self._held, self._plan, self._n_frames = held, plan, len(held.starts)
        self._n_particles, periodic = held.starts.shape[1], held.box is not None
        self._steps = round(plan.pace / plan.timestep)
        self._per_stretch = round(plan.pace / plan.interval)
        n_replicas = plan.runs * len(plan.temperatures)
        kept, relaxing = round(plan.duration / plan.pace), round(plan.relaxation / plan.pace)
        stretch_seconds = n_replicas * self._steps * seconds_per_step(self._n_particles, periodic)
        total_seconds = self._n_frames * (kept + relaxing) * stretch_seconds
        n_pieces = math.ceil(kept * stretch_seconds / max(_PIECE_SECONDS, total_seconds / _MAX_PIECES))
        pieces = []
        for frame in range(self._n_frames):
            pieces += [Piece("begin", relaxing, frame), *cut("sample", kept, n_pieces, part=frame)]
        own = choose_platform(self._n_particles, periodic, platform)
        super().__init__(pieces, seed, own, n_replicas, total_seconds)
        self._stretches_done = 0
        self._ladders = self._new_ladders(0)
        self._heat_ratio: list[float] = []
        self._drift = 0.0
        self._acceptance: list[FloatArray] = []
        self._journeys = 0

    def _do(self, piece: Piece) -> Frames | None:
        pool, frames = self._engines(), None
        if piece.kind == "begin":
            self._begin(pool, piece)
        else:
            frames = Frames.concatenate([self._stretch(pool, piece.part) for _ in range(piece.amount)])
        if self._next + 1 == self.n_chunks or self._pieces[self._next + 1].part != piece.part:
            self._acceptance.append(self._ladders.acceptance)
            self._journeys += int(self._ladders.journeys.sum())
        return frames

    def _under_way(self) -> bool:
        return super()._under_way() and self._pieces[self._next].kind != "begin"

    def state(self) -> dict[str, NDArray]:
        """Checkpoints of the present frame's replicas, its ladders, and what the summary needs."""
        arrays = super().state() | {
            "stretches_done": np.array(self._stretches_done),
            "heat_ratio": np.array(self._heat_ratio),
            "drift": np.array(self._drift),
            "acceptance": np.array(self._acceptance).reshape(-1, len(self._plan.temperatures) - 1),
            "journeys": np.array(self._journeys),
        }
        return arrays | self._ladders.state() if self._under_way() else arrays

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue from a stored state; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._stretches_done = int(state["stretches_done"])
        self._heat_ratio, self._drift = state["heat_ratio"].tolist(), float(state["drift"])
        self._acceptance, self._journeys = list(state["acceptance"]), int(state["journeys"])
        if self._under_way():
            self._ladders = self._new_ladders(self._pieces[self._next].part)
            self._ladders.restore(state)

    def summary(self) -> FixedBeadSummary:
        """Summary after the last piece."""
        ratio = np.array(self._heat_ratio)
        blocks = np.array([part.mean() for part in np.array_split(ratio, min(20, len(ratio)))])
        error = blocks.std(ddof=1) / math.sqrt(len(blocks)) if len(blocks) > 1 else math.nan
        return FixedBeadSummary(
            kinetic_temperature_ratio=Estimate(float(ratio.mean()), float(error)),
            largest_drift=self._drift,
            exchange_acceptance=np.mean(self._acceptance, axis=0).round(4).tolist(),
            journeys_up_the_ladder=self._journeys,
            sampled_time=self._n_frames * self._plan.time_each,
            platform=self.platform,
        )

    def _begin(self, pool: EnginePool, piece: Piece) -> None:
        """Start the replicas of a frame, let them forget where they started, and bring the ladders to equilibrium."""
        plan, start = self._plan, self._held.starts[piece.part]
        pool.create(dict.fromkeys(self._replicas, start), self._derived_seed(1, piece.part))
        hot = 2.0 * plan.temperatures[-1]
        pool.advance(self._replicas, round(_FORGETTING / plan.timestep), [(hot, 1.0)] * len(self._replicas))
        self._ladders, self._stretches_done = self._new_ladders(piece.part), 0
        for _ in range(piece.amount):
            ends = pool.advance(self._replicas, self._steps, self._ladders.heat())
            self._ladders.exchange(ends["potential_energy"])

    def _stretch(self, pool: EnginePool, frame: int) -> Frames:
        """Samples between two exchanges, then the exchange."""
        plan, held, heat = self._plan, self._held, self._ladders.heat()
        arrays = pool.record(self._replicas, self._per_stretch, round(plan.interval / plan.timestep), heat=heat)
        temperature = self._ladders.temperatures[self._ladders.rung]
        thermal = 0.5 * BOLTZMANN * temperature * held.n_degrees_of_freedom
        self._heat_ratio.append(float((arrays["kinetic_energy"] / thermal[:, None]).mean()))
        self._drift = max(self._drift, held.drift(frame, arrays["positions"][:, -1]))
        forces = held.force_map @ arrays["forces"].astype(np.float64)
        frames = Frames.of_replicas(
            (self._stretches_done * self._per_stretch + 1 + np.arange(self._per_stretch)) * plan.interval,
            np.array(self._replicas) // len(plan.temperatures),
            temperature=temperature,
            start=frame,
            box=held.box,
            positions=np.broadcast_to(held.positions[frame].astype(np.float32), forces.shape),
            forces=forces.astype(np.float32),
            potential_energy=arrays["potential_energy"],
        )
        self._stretches_done += 1
        self._ladders.exchange(arrays["potential_energy"][:, -1])
        return frames

    def _new_ladders(self, frame: int) -> TemperatureLadders:
        return TemperatureLadders(self._plan.temperatures, self._plan.runs, self._derived_seed(2, frame))

    def _engine_settings(self) -> EngineSettings:
        import openmm

        held = self._held
        return EngineSettings(
            system_xml=openmm.XmlSerializer.serialize(held.system),
            platform=self.platform,
            properties=self._properties,
            temperature=self._plan.temperatures[-1],
            friction=self._plan.friction,
            timestep=self._plan.timestep,
            n_degrees_of_freedom=held.n_degrees_of_freedom + 3 * len(held.carriers),
            variables=AtomVariables({}, [], held.box).to_json(),
            stored=held.stored.tolist(),
        )

    def _identity(self) -> str:
        return f"{self._n_frames} frames of {self._n_particles} particles on {self.platform}, seed {self._seed}"


def choose_starts(frames: Frames, number: int) -> Frames:
    """Frames whose beads are held: about as many of each replica and temperature, evenly spread in time.

    Args:
        frames: frames with all atoms; their `temperature` is that of the run that they come from.
        number: how many.

    Raises:
        SamplingError: there are fewer.
    """
    if len(frames) < number:
        raise SamplingError(f"{number} frames are needed, but the run kept only {len(frames)}; sample it again")
    times = np.unique(frames.time)
    needed = math.ceil(number * len(times) / len(frames))
    spread = times[(np.arange(1, needed + 1) * len(times)) // needed - 1]
    some = np.flatnonzero(np.isin(frames.time, spread))
    order = np.lexsort((frames.temperature[some], frames.replica[some], frames.time[some]))
    return frames.select(some[order[:number]])
