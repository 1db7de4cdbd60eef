"""Mean forces at fixed beads: each label is an average over the other atoms, as in mean force matching."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import ConditionalNoise, conditional_noise, noise_of_labels
from cg_assets.labels.quality import squared_force_unit
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.conditional import FixedBeads
from cg_assets.sampling.molecule.platforms import seconds_per_step
from cg_assets.sampling.piecewise import Piece, PiecewiseSampler
from cg_assets.sampling.settings import MeanForcePlan, SamplingPlan

_PIECE_SECONDS = 30.0
_MAX_PIECES = 90
_LEAST_PIECE = 16
"""Configurations in a piece, at least, for many processes to share. Pieces must not depend on the machine: the variance
of the labels rests on the correlation time of a piece."""


@dataclass(frozen=True)
class MeanForceSummary:
    """What is known of finished mean forces.

    Attributes:
        sampled_time: of all configurations [ps].
        noise: of the means.
    """

    sampled_time: float
    noise: ConditionalNoise


class MeanForceSampler(PiecewiseSampler[MeanForceSummary]):
    """Labels averaged over dynamics of the other atoms with the beads held, a configuration after another.

    The labels are those of mean force matching (arXiv 2602.14531): unbiased, as single forces are, with a variance that
    falls with the length of the average. Each configuration is independent, so a run can resume after any of them.
    """

    def __init__(
        self,
        molecule: MoleculeModel,
        beads: Beads,
        mean_force: MeanForcePlan,
        source: SamplingPlan,
        whole: Frames,
        force_map: ForceMap,
        seed: int,
    ) -> None:
        """Choose the configurations; nothing is simulated yet.

        Args:
            molecule: the molecule.
            beads: its beads.
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
                f"{beads.name}: {mean_force.configurations} configurations are needed, but {mean_force.of} kept only "
                f"{len(whole)} frames with all atoms; sample the batch again"
            )
        self._chosen = whole.select(_evenly(whole, mean_force.configurations))
        self._beads, self._plan, self._force_map, self._stored = beads, mean_force, force_map, molecule.stored
        steps = mean_force.time_each / source.timestep
        seconds = steps * seconds_per_step(molecule.n_atoms, molecule.box is not None)
        number = mean_force.configurations
        per_piece = math.ceil(max(_PIECE_SECONDS / seconds, number / _MAX_PIECES, _LEAST_PIECE))
        pieces = [
            Piece("configurations", min(per_piece, number - first), first) for first in range(0, number, per_piece)
        ]
        super().__init__(pieces, seed)
        starts = self._chosen.positions
        self._fixed = FixedBeads(molecule, beads, starts, source.timestep, source.friction, seed)
        n_beads = len(force_map.matrix)
        self._done = {
            "mean_force": np.zeros((0, n_beads, 3)),
            "variance": np.zeros((0, n_beads)),
            "effective": np.zeros(0),
        }

    def _do(self, piece: Piece) -> Frames:
        """CG frames of the next configurations: beads, mean forces and their variance."""
        some, plan = list(range(piece.part, piece.part + piece.amount)), self._plan
        labels = self._force_map.matrix @ self._fixed.forces(some, plan.relaxation, plan.samples, plan.interval)
        noise = conditional_noise(labels)
        new = {
            "mean_force": noise.mean_force,
            "variance": noise.mean_force_variance,
            "effective": np.full(len(some), noise.effective_samples),
        }
        self._done = {name: np.concatenate([values, new[name]]) for name, values in self._done.items()}
        chosen = self._chosen.select(np.array(some))
        atoms = replace(chosen, positions=chosen.positions[:, self._stored])
        return replace(
            map_frames(self._beads, atoms, self._force_map),
            forces=noise.mean_force.astype(np.float32),
            force_variance=noise.mean_force_variance.astype(np.float32),
        )

    def _identity(self) -> str:
        plan = self._plan.model_dump(mode="json")
        return f"mean forces of system {self._beads.name}, seed {self._seed}, plan {plan}"

    def state(self) -> dict[str, NDArray]:
        """The number of finished configurations, and their labels."""
        return super().state() | self._done

    def restore(self, state: dict[str, NDArray]) -> None:
        """Continue after the last stored piece; errors as of `PiecewiseSampler`."""
        super().restore(state)
        self._done = {name: state[name] for name in self._done}

    def summary(self) -> MeanForceSummary:
        """What is known after the last piece."""
        variance, effective = self._done["variance"], float(self._done["effective"].mean())
        unit = squared_force_unit(self._beads.units)
        noise = noise_of_labels(variance, self._done["mean_force"], variance, effective, unit)
        return MeanForceSummary(self._plan.configurations * self._plan.time_each, noise)

    def close(self) -> None:
        """End the worker processes."""
        self._fixed.close()


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
