"""Mean forces at fixed beads: each label is an average over the other atoms, as in mean force matching."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import conditional_noise, noise_of_labels
from cg_assets.labels.quality import squared_force_unit
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.conditional import FixedBeads
from cg_assets.sampling.molecule.platforms import seconds_per_step
from cg_assets.sampling.settings import MeanForcePlan, SamplingPlan
from cg_assets.systems.spec import SystemSpec

_PIECE_SECONDS = 30.0
_MAX_PIECES = 90
_LEAST_PIECE = 16
"""Configurations in a piece, at least, for many processes to share. Pieces must not depend on the machine: the variance
of the labels rests on the correlation time of a piece."""


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
        self._system, self._plan, self._force_map = system, mean_force, force_map
        molecule = system.structure()
        self._stored = molecule.stored
        self._beads = FixedBeads(
            system, system.beads().cg_map, self._chosen.positions, source.timestep, source.friction, seed
        )
        steps = mean_force.time_each / source.timestep
        seconds = steps * seconds_per_step(molecule.n_atoms, molecule.box is not None)
        self._per_piece = math.ceil(
            max(_PIECE_SECONDS / seconds, mean_force.configurations / _MAX_PIECES, _LEAST_PIECE)
        )
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
            map_frames(self._system.beads(), atoms, self._force_map),
            forces=noise.mean_force.astype(np.float32),
            force_variance=noise.mean_force_variance.astype(np.float32),
        )

    def state(self) -> dict[str, NDArray]:
        """How far it is, and the labels so far."""
        return {"next": np.array(self._next)} | self._done

    def restore(self, state: dict[str, NDArray]) -> None:
        """Go on after the last stored piece."""
        self._next = int(state["next"])
        self._done = {name: state[name] for name in self._done}

    def snapshots(self) -> None:
        """None: the configurations are those of another stage."""

    def summary(self) -> dict[str, Any]:
        """Simulated time [ps], and the noise of the labels as a ConditionalNoise: that of the means."""
        variance, effective = self._done["variance"], float(self._done["effective"].mean())
        tau, unit = self._plan.samples / (2.0 * effective), squared_force_unit(self._system.units)
        noise = noise_of_labels(variance, self._done["mean_force"], variance, tau, effective, unit)
        return {"sampled_time": self._plan.configurations * self._plan.time_each, "noise": noise}

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
