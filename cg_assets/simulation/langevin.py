"""Langevin dynamics of beads with a trained potential, all replicas in one batch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cg_assets.core.errors import DeviceError, ExplosionError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.replica_exchange import ReplicaExchange
from cg_assets.potentials.base import Potential
from cg_assets.simulation.engine import engine_of

if TYPE_CHECKING:
    from cg_assets.simulation.settings import CGSimulation

EXPLODED_ENERGY = 4000.0
"""Energy above the median start [k_B T] at which a replica counts as exploded: 10,000 kJ/mol at 300 K."""

LARGE_SYSTEM = 64
"""Number of beads from which on the energy of an explosion grows with their number."""

EXPLODED_TEMPERATURE = 100.0 / 3.0
"""Kinetic temperature over the thermostat's at which a replica counts as exploded: 10,000 K at 300 K."""

CHECK_STEPS = 50
"""Steps between two searches for exploded replicas."""


class BatchedBias(Protocol):
    """A bias potential on the beads; `cg_assets.biases.bead_bias` makes one."""

    def energy_and_forces(self, positions: Tensor, replica: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` and forces `(r, n, d)` for positions `(r, n, d)` of the replicas numbered in `replica`."""
        ...


@dataclass(frozen=True)
class CGTrajectory:
    """What a simulation of beads gave.

    Attributes:
        frames: frames in order of time, each holding the replicas that were alive; positions [nm or reduced],
            potential_energy of the network and, under a bias, bias_energy. An isolated molecule's centre of mass is
            moved to the origin at each frame; in a box positions are never wrapped, so that they show diffusion.
        frame_temperatures: `(n_frames,)` kinetic temperature of the half-step velocities at each of `frames`, in units
            of `temperature`.
        replica_temperatures: `(n_replicas,)` kinetic temperature of the half-step velocities, mean over frames, in
            units of `temperature`; NaN for replicas that exploded.
        kinetic_temperature: mean over replicas that did not explode (NaN when all did).
        kinetic_temperature_error: standard error from the spread of replicas (NaN for fewer than two).
        exploded: `(n_replicas,)` whether each replica exploded; its frames up to then are kept in `frames` and left
            out of `stable_frames`. Under tempering, one number for each ladder, here and in all other arrays.
        explosion_time: `(n_replicas,)` when, counted from the start of burn-in [ps or reduced]; NaN for the stable.
        steps_per_second: integration steps a second, each of all replicas.
        replica_steps_per_second: steps of single replicas a second.
        exchange_acceptance: mean chance of the exchanges between neighbours on the ladder of temperatures.
    """

    frames: Frames
    frame_temperatures: NDArray[np.float64]
    replica_temperatures: NDArray[np.float64]
    kinetic_temperature: float
    kinetic_temperature_error: float
    exploded: NDArray[np.bool_]
    explosion_time: NDArray[np.float64]
    steps_per_second: float
    replica_steps_per_second: float
    exchange_acceptance: tuple[float, ...] = ()

    @property
    def stable_frames(self) -> Frames:
        """Frames of replicas that never exploded."""
        return self.frames.select(~self.exploded[self.frames.replica])


@torch.no_grad()
def simulate(
    potential: Potential,
    initial_positions: ArrayLike,
    masses: ArrayLike,
    thermal_energy: float,
    settings: CGSimulation,
    seed: int,
    bias: BatchedBias | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    temperature: float | None = None,
    start: ArrayLike | None = None,
    box: ArrayLike | None = None,
) -> CGTrajectory:
    """Run BAOAB Langevin dynamics (B. Leimkuhler and C. Matthews, J. Chem. Phys. 138, 174102 (2013)).

    Configurations sampled by BAOAB are exact for harmonic forces at any stable time step. A replica whose energy or
    kinetic temperature leaves all bounds (`EXPLODED_ENERGY`, `EXPLODED_TEMPERATURE`) or is not a number is taken out
    and reported; the others are not affected.

    Under tempering, replicas are dealt out to ladders of temperatures one after another; neighbours on a ladder
    exchange their configurations now and then, frames are of the lowest temperature, and a replica that explodes takes
    its ladder with it.

    Args:
        potential: moved to the device.
        initial_positions: `(n_replicas, n_beads, d)`, one start per replica [nm or reduced].
        masses: `(n_beads,)` [amu or reduced].
        thermal_energy: k_B T of the thermostat [kJ/mol or reduced].
        settings: time step, friction, burn-in, duration, frame interval, tempering; `settings.replicas` is not read
            here.
        seed: of the first velocities and the noise; the same seed gives the same trajectory on a CPU.
        bias: bias whose forces are added and whose energy is recorded.
        progress: called with the finished steps.
        device: `cpu` or `cuda`.
        temperature: written into the frames, and at which potentials that depend on it are taken [K];
            `thermal_energy` where None (reduced units).
        start: `(n_replicas,)` number of the start state of each replica, written into the frames; 0, 1, ... if None.
        box: `(3,)` edges of the periodic box [nm].

    Raises:
        SamplingError: shapes do not agree, starts are not finite, or the potential does not fit temperature or box.
        ExplosionError: every replica exploded before the first frame.
        DeviceError: `cuda` was asked for and is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device is cuda and torch finds no GPU; set CG_DEVICE=cpu or install a CUDA build of torch")
    where = torch.device(device)
    run = _Run(potential, initial_positions, masses, thermal_energy, settings, seed, bias, where, temperature, box)
    return run.go(
        round(settings.duration / settings.timestep),
        thermal_energy if temperature is None else temperature,
        np.arange(len(run.exploded)) if start is None else np.asarray(start),
        progress,
    )


class _Run:
    """State of a simulation; `alive` numbers the replicas that still move."""

    def __init__(
        self,
        potential: Potential,
        initial_positions: ArrayLike,
        masses: ArrayLike,
        thermal_energy: float,
        settings: CGSimulation,
        seed: int,
        bias: BatchedBias | None,
        device: torch.device,
        temperature: float | None,
        box: ArrayLike | None,
    ) -> None:
        starts = np.array(initial_positions, dtype=np.float32)
        weights = np.array(masses, dtype=np.float32)
        if starts.ndim != 3 or not len(starts) or weights.shape != starts.shape[1:2]:
            raise SamplingError(
                f"starts {starts.shape} must be (n_replicas, n_beads, d) and masses {weights.shape} (n_beads,)"
            )
        if not np.isfinite(starts).all() or not (weights > 0).all():
            raise SamplingError("starts must be finite and masses positive; check the frames that starts came from")
        self.bias, self.settings, self.device = bias, settings, device
        self.engine = engine_of(potential.to(device), temperature, box, device)
        self.advance = getattr(self.engine, "advance", None) if bias is None else None
        self.thermal_energy = thermal_energy
        self.box = None if box is None else torch.as_tensor(np.array(box, dtype=np.float32)).to(device)
        self.masses = torch.as_tensor(weights).to(device)[:, None]
        self.generator = torch.Generator(device).manual_seed(seed)
        self.positions = torch.as_tensor(starts).to(device)
        self.exchange = None
        level: Tensor | float = thermal_energy
        if settings.tempering is not None:
            temperatures = np.array(settings.tempering.temperatures)
            levels, ladders = thermal_energy * temperatures / temperatures[0], len(starts) // len(temperatures)
            self.exchange = ReplicaExchange(levels, ladders, seed)
            self.exchange_steps = max(1, round(settings.tempering.pace / settings.timestep))
            level = torch.as_tensor(levels).float().to(device).repeat(ladders)[:, None, None]
        self.rungs = 1 if self.exchange is None else self.exchange.n_rungs
        self.level = level
        self.spread = (level / self.masses).sqrt()
        self.velocities = self.spread * self._noise(len(starts))
        self.alive = torch.arange(len(starts), device=device)
        self.exploded = np.zeros(len(starts), dtype=bool)
        self.explosion_time = np.full(len(starts), np.nan)
        self._evaluate()
        self.median_energy = float(self.energy.nanmedian())

    def _noise(self, count: int) -> Tensor:
        shape = (count, *self.positions.shape[1:])
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _evaluate(self) -> None:
        self.energy, self.forces = self.engine(self.positions)
        self.bias_energy = None
        if self.bias is not None:
            self.bias_energy, forces = self.bias.energy_and_forces(self.positions, self.alive)
            self.forces = self.forces + forces.to(self.forces)

    def go(self, steps: int, temperature: float, start: NDArray, progress: Progress | None) -> CGTrajectory:
        """Burn in, then run and take frames."""
        settings, replicas = self.settings, len(self.exploded)
        frame_steps = max(1, round(settings.frame_interval / settings.timestep))
        burn_in = round(settings.burn_in / settings.timestep)
        if steps < frame_steps:
            raise SamplingError(
                f"duration {steps * settings.timestep:g} is shorter than frame_interval {settings.frame_interval:g}"
            )
        kinetic = np.zeros(replicas)
        measures, scale = [], temperature / self.thermal_energy
        parts, started, moved, frame, step = [], time.perf_counter(), 0, 0, 0
        paces = [CHECK_STEPS, 1000] + ([] if self.exchange is None else [self.exchange_steps])
        while step < burn_in + steps:
            past = step - burn_in
            ends = [step + pace - step % pace for pace in paces] + [burn_in + steps]
            ends.append(burn_in + frame_steps * (max(past, 0) // frame_steps + 1))
            count = min(ends) - step
            measured = self._steps(count)
            step += count
            moved += count * len(self.alive)
            taken = step > burn_in and (step - burn_in) % frame_steps == 0
            if taken or step % CHECK_STEPS == 0:
                measured = self._remove_exploded(measured, step * settings.timestep)
                if not len(self.alive):
                    break
            if taken:
                frame += 1
                self._centre()
                parts.append(self._frame(frame * frame_steps * settings.timestep, temperature, start))
                kinetic[self.alive.cpu().numpy()] += measured.cpu().numpy()
                measures.append(measured[:: self.rungs].cpu().numpy().astype(np.float64) * scale)
            if self.exchange is not None and step % self.exchange_steps == 0:
                self._exchange(self.exchange)
            if progress is not None and (step % 1000 == 0 or step == burn_in + steps):
                progress(step, burn_in + steps, "steps")
        seconds = time.perf_counter() - started
        if not parts:
            raise ExplosionError(
                f"all {replicas} replicas exploded before the first frame; train on more frames or longer, or lower "
                f"cg_simulation.timestep (now {settings.timestep})"
            )
        temperatures = (kinetic / max(frame, 1) * scale)[:: self.rungs]
        exploded = self.exploded[:: self.rungs]
        temperatures[exploded] = np.nan
        stable = temperatures[~exploded]
        count = len(stable)
        return CGTrajectory(
            frames=Frames.concatenate(parts),
            frame_temperatures=np.concatenate(measures),
            replica_temperatures=temperatures,
            kinetic_temperature=float(stable.mean()) if count else math.nan,
            kinetic_temperature_error=float(stable.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan,
            exploded=exploded,
            explosion_time=self.explosion_time[:: self.rungs],
            steps_per_second=step / seconds,
            replica_steps_per_second=moved / seconds,
            exchange_acceptance=() if self.exchange is None else tuple(self.exchange.acceptance.tolist()),
        )

    def _steps(self, count: int) -> Tensor:
        """So many steps; gives what the last of them measured."""
        if self.device.type == "cpu":
            return self._compiled_steps(count)
        for _ in range(count):
            measured = self._step()
        return measured

    def _step(self) -> Tensor:
        """One BAOAB step; gives k_B T of each replica from the half-step velocities, exact for harmonic forces."""
        timestep = self.settings.timestep
        keep = math.exp(-self.settings.friction * timestep)
        kick = 0.5 * timestep / self.masses
        self.velocities = torch.addcmul(self.velocities, kick, self.forces)
        measured = (self.masses * self.velocities.square()).mean(dim=(1, 2))
        self.positions = self.positions.add(self.velocities, alpha=0.5 * timestep)
        noise = self._noise(len(self.exploded))
        noise = noise if len(self.alive) == len(noise) else noise[self.alive]
        self.velocities = torch.addcmul(keep * self.velocities, math.sqrt(1.0 - keep * keep) * self.spread, noise)
        self.positions = self.positions.add(self.velocities, alpha=0.5 * timestep)
        self._evaluate()
        self.velocities = torch.addcmul(self.velocities, kick, self.forces)
        return measured

    def _compiled_steps(self, count: int) -> Tensor:
        """So many steps on a CPU, in place."""
        from cg_assets.core.baoab import Motion, drift, kick

        timestep, masses = self.settings.timestep, self.masses.numpy()[:, 0]
        keep = math.exp(-self.settings.friction * timestep)
        spread = math.sqrt(1.0 - keep * keep) * self.spread.numpy()[..., 0].reshape(-1, len(masses))
        heat = torch.empty(len(self.alive))
        motion = Motion(
            *(self.positions.numpy(), self.velocities.numpy(), self._rows(), masses, self.alive.numpy()),
            *(spread.astype(np.float32), np.float32(keep), np.float32(0.5 * timestep), heat.numpy()),
        )
        noise = torch.randn((count, len(self.exploded), *self.positions.shape[1:]), generator=self.generator).numpy()
        if self.advance is not None:
            self.energy, self.forces = self.advance(motion, noise), torch.from_numpy(motion.forces)
            return heat
        for own in noise:
            kick(motion)
            drift(motion, own)
            self._evaluate()
            motion = motion._replace(forces=self._rows())
            kick(motion)
        return heat

    def _rows(self) -> NDArray[np.float32]:
        """Forces in order of memory."""
        return np.ascontiguousarray(self.forces.numpy(), np.float32)

    def _remove_exploded(self, measured: Tensor, now: float) -> Tensor:
        level = self.level if isinstance(self.level, float) else self.level[:, 0, 0]
        values: Any = (self.energy, self.positions, measured, torch.as_tensor(level))
        if self.device.type == "cpu":  # numpy, because torch takes 5 µs for each operation
            values = [value.numpy() for value in values]
        energy, positions, heat, level = values
        bound = EXPLODED_ENERGY * self.thermal_energy * max(1.0, positions.shape[1] / LARGE_SYSTEM)
        with np.errstate(all="ignore"):
            finite = (abs(positions) < math.inf).reshape(len(positions), -1).all(1)
            calm = (abs(energy - self.median_energy) < bound) & finite & (heat < EXPLODED_TEMPERATURE * level)
        calm = torch.as_tensor(calm)
        if bool(calm.all()):
            return measured
        if self.rungs > 1:
            calm = calm.reshape(-1, self.rungs).all(dim=1).repeat_interleave(self.rungs)
            self.spread, self.level = self.spread[calm], self.level[calm]  # type: ignore[index]
        lost = self.alive[~calm].cpu().numpy()
        self.exploded[lost] = True
        self.explosion_time[lost] = now
        self.alive, self.positions, self.velocities = self.alive[calm], self.positions[calm], self.velocities[calm]
        self.energy, self.forces = self.energy[calm], self.forces[calm]
        self.bias_energy = None if self.bias_energy is None else self.bias_energy[calm]
        return measured[calm]

    def _exchange(self, exchange: ReplicaExchange) -> None:
        """Exchange configurations on each ladder; velocities are scaled to the temperature that they come to."""
        energy = self.energy.double().reshape(-1, self.rungs).cpu().numpy()
        rungs = exchange.attempt(energy, self.alive[:: self.rungs].cpu().numpy() // self.rungs)
        first = np.arange(0, len(self.energy), self.rungs)[:, None]
        source = torch.as_tensor((first + rungs).ravel()).to(self.device)
        self.positions, self.energy, self.forces = self.positions[source], self.energy[source], self.forces[source]
        self.velocities = self.velocities[source] * (self.spread / self.spread[source])

    def _centre(self) -> None:
        """Move isolated molecules back to the origin: float32 positions stay exact however far they diffuse."""
        if self.box is None and self.positions.shape[1] > 1 and self.positions.shape[2] == 3:
            center = (self.masses * self.positions).sum(dim=1, keepdim=True) / self.masses.sum()
            self.positions = self.positions - center

    def _frame(self, now: float, temperature: float, start: NDArray) -> Frames:
        """Frames of all replicas, under tempering of those at the lowest rung, whose number is their ladder's."""
        coldest = slice(None, None, self.rungs)
        alive = self.alive[coldest].cpu().numpy()
        count = len(alive)
        edges = None if self.box is None else np.tile(self.box.cpu().numpy(), (count, 1))
        return Frames(
            positions=self.positions[coldest].cpu().numpy().copy(),
            time=np.full(count, now),
            replica=(alive // self.rungs).astype(np.int32),
            temperature=np.full(count, float(temperature)),
            start=start[alive].astype(np.int32),
            probe=np.zeros(count, dtype=bool),
            potential_energy=self.energy[coldest].cpu().numpy().astype(np.float64),
            bias_energy=None if self.bias_energy is None else self.bias_energy.cpu().numpy().astype(np.float64),
            box=edges,
        )
