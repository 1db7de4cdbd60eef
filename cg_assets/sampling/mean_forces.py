"""Mean forces at fixed beads: each label is an average over the other atoms, as in mean force matching."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.analysis.estimates import Estimate
from cg_assets.analysis.noise import ConditionalNoise, conditional_noise
from cg_assets.errors import SamplingError
from cg_assets.frames import Frames
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.maps import build_map
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.conditional import FixedBeads
from cg_assets.sampling.platforms import seconds_per_step, thread_limit
from cg_assets.systems.builders import build_molecule
from cg_assets.systems.spec import MeanForcePlan, SamplingPlan, SystemSpec
from cg_assets.units import unit

_PIECE_SECONDS = 30.0
_MAX_PIECES = 90


class MeanForceSampler:
    """Labels averaged over dynamics of the other atoms with the beads held, a configuration after another.

    The labels are those of mean force matching (arXiv 2602.14531): unbiased, as single forces are, with a variance that
    falls with the length of the average. Each configuration is independent, so a run goes on after any of them.

    Attributes:
        n_chunks: number of pieces of work.
    """

    def __init__(
        self,
        system: SystemSpec,
        mean_force: MeanForcePlan,
        source: SamplingPlan,
        whole: Frames,
        force_map: ForceMap,
        seed: int,
    ) -> None:
        """Choose the configurations; nothing is simulated yet.

        Args:
            system: a molecule.
            mean_force: how many configurations, and how long each is sampled.
            source: the plan that the configurations come from, of which timestep and friction are taken.
            whole: its frames with all atoms.
            force_map: a valid force map.
            seed: seed of velocities and noise.

        Raises:
            SamplingError: there are fewer frames than configurations.
        """
        if len(whole) < mean_force.configurations:
            raise SamplingError(
                f"{system.name}: {mean_force.configurations} configurations are wanted, but {mean_force.of} kept only "
                f"{len(whole)} frames with all atoms; sample the batch again"
            )
        self._chosen = whole.select(_evenly(whole, mean_force.configurations))
        self._system, self._plan, self._force_map, self._seed = system, mean_force, force_map, seed
        molecule = build_molecule(system)
        self._stored = molecule.stored
        self._beads = FixedBeads(
            system, build_map(system), self._chosen.positions, source.timestep, source.friction, seed
        )
        steps = (mean_force.relaxation + mean_force.duration) / source.timestep
        seconds = steps * seconds_per_step(molecule.n_atoms, molecule.box is not None)
        per_piece = max(_PIECE_SECONDS / seconds, mean_force.configurations / _MAX_PIECES)
        n_processes = thread_limit()
        self._per_piece = math.ceil(per_piece / n_processes) * n_processes
        self.n_chunks = math.ceil(mean_force.configurations / self._per_piece)
        self._next = 0
        n_beads = len(force_map.matrix)
        self._done = {
            "mean_force": np.zeros((0, n_beads, 3)),
            "variance": np.zeros((0, n_beads)),
            "effective": np.zeros(0),
        }

    def next_chunk(self) -> Frames:
        """CG frames of the next configurations: beads, mean forces and their variance.

        Raises:
            SamplingError: the dynamics blew up.
            StopIteration: every piece is done.
        """
        if self._next >= self.n_chunks:
            raise StopIteration("every configuration is done")
        first = self._next * self._per_piece
        some = list(range(first, min(first + self._per_piece, len(self._chosen))))
        plan = self._plan
        labels = self._force_map.matrix @ self._beads.forces(some, plan.relaxation, plan.samples, plan.interval)
        noise = conditional_noise(labels)
        new = {
            "mean_force": noise.mean_force,
            "variance": noise.mean_force_variance,
            "effective": np.full(len(some), noise.effective_samples),
        }
        self._done = {name: np.concatenate([values, new[name]]) for name, values in self._done.items()}
        self._next += 1
        if self._next == self.n_chunks:
            self.close()
        chosen = self._chosen.select(np.array(some))
        atoms = replace(chosen, positions=chosen.positions[:, self._stored])
        return replace(
            map_frames(self._system, atoms, self._force_map),
            forces=noise.mean_force.astype(np.float32),
            force_variance=noise.mean_force_variance.astype(np.float32),
        )

    def state(self) -> dict[str, NDArray]:
        """How far it is, and the labels so far."""
        return {"next": np.array(self._next), "per_piece": np.array(self._per_piece)} | self._done

    def restore(self, state: dict[str, NDArray]) -> None:
        """Go on after the last stored piece, in pieces of the same size."""
        self._next, self._per_piece = int(state["next"]), int(state["per_piece"])
        self.n_chunks = math.ceil(len(self._chosen) / self._per_piece)
        self._done = {name: state[name] for name in self._done}

    def snapshots(self) -> None:
        """None: the configurations are those of another stage."""

    def summary(self) -> dict[str, Any]:
        """Simulated time [ps], and the noise of the labels as a ConditionalNoise: that of the means."""
        variance, effective = self._done["variance"], float(self._done["effective"].mean())
        count, per_configuration = len(variance), variance.mean(axis=1)
        known = count > 1
        noise = ConditionalNoise(
            noise_floor=Estimate(
                float(per_configuration.mean()),
                float(per_configuration.std(ddof=1)) / math.sqrt(count) if known else math.nan,
                f"({unit('force', self._system.units)})²",
            ),
            bead_noise_floor=variance.mean(axis=0),
            bead_standard_error=variance.std(axis=0, ddof=1) / math.sqrt(count) if known else variance[0] * math.nan,
            mean_force=self._done["mean_force"],
            mean_force_variance=variance,
            autocorrelation_time=self._plan.samples / (2.0 * effective),
            effective_samples=effective,
            resolved=effective > 2.0,
        )
        return {"sampled_time": self._plan.total_time, "noise": noise}

    def close(self) -> None:
        """End the worker processes."""
        self._beads.close()


def _evenly(frames: Frames, number: int) -> NDArray[np.int64]:
    """Indices of some frames, as many of each replica and evenly spread over its time."""
    replicas = np.unique(frames.replica)
    chosen = []
    for rank, replica in enumerate(replicas):
        run = np.flatnonzero(frames.replica == replica)
        run = run[np.argsort(frames.time[run], kind="stable")]
        share = number // len(replicas) + (rank < number % len(replicas))
        chosen.append(run[(np.arange(1, share + 1) * len(run)) // max(1, share) - 1])
    return np.concatenate(chosen)
