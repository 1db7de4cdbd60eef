"""The data that a potential learns from: positions, force labels, and which frames belong together."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import FEW_REPLICAS, time_blocks

if TYPE_CHECKING:
    from cg_assets.potentials.base import Labels
    from cg_assets.training.thermal_targets import ThermalTargets
    from cg_assets.training.training_run import Descent

Learnt = Literal["forces", "energies", "products"]
"""What a potential at all temperatures learns from frames, each with what stands before it."""
BLOCKS_PER_REPLICA = 10
"""Contiguous stretches of time into which each replica is cut; a stretch is trained on or held out as a whole."""


def drawn_rows(count: int, n_frames: int, seed: int) -> NDArray[np.int64]:
    """Numbers of `n_frames` of `count` frames, drawn at random without replacement and sorted.

    Raises:
        TrainingError: there are fewer frames than asked for.
    """
    if n_frames > count:
        raise TrainingError(
            f"{n_frames} frames were asked for and {count} exist; sample more batches or lower `frames`"
        )
    return np.sort(np.random.default_rng(seed).choice(count, n_frames, replace=False))


def correlated_groups(batches: Sequence[Frames], blocks: int = BLOCKS_PER_REPLICA) -> NDArray[np.int64]:
    """The stretch of time that each frame of all batches is of; each replica (and window) has `blocks` in a row.

    Frames of all rungs of a ladder at one time are of one stretch.
    """
    groups, offset = [], 0
    for frames in batches:
        window = np.zeros(len(frames), np.int64) if frames.window is None else frames.window.astype(np.int64)
        replica = frames.replica.astype(np.int64)
        _, run = np.unique(window * (replica.max(initial=0) + 1) + replica, return_inverse=True)
        moments, at = np.unique(np.stack([run, frames.time], axis=1), axis=0, return_inverse=True)
        groups.append(offset + run * blocks + time_blocks(moments[:, 0], moments[:, 1], blocks)[at.ravel()])
        offset += (int(run.max(initial=-1)) + 1) * blocks
    return np.concatenate(groups)


def held_out_mask(group: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Frames to hold out: whole groups, drawn at random until the fraction is reached.

    Raises:
        TrainingError: there are fewer than two groups.
    """
    groups, counts = np.unique(group, return_counts=True)
    if len(groups) < 2:
        raise TrainingError(
            f"all {len(group)} frames belong to one group, so none can be held out; give each frame its replica and "
            "time, or sample more than one replica"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    reached = np.cumsum(counts[order])
    last = int(np.searchsorted(reached, fraction * len(group)))
    return np.isin(group, groups[order[: min(last + 1, len(groups) - 1)]])


class TrainingSet(ABC):
    """What a potential learns from: rows of labels, of which whole groups are held out."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def select(self, index: NDArray) -> Self:
        """The rows picked by an index or mask."""

    @abstractmethod
    def groups(self) -> NDArray[np.int64]:
        """`(n_rows,)` which rows are correlated; those of one group are never divided."""

    @abstractmethod
    def resample(self, seed: int | Sequence[int]) -> Self:
        """A bootstrap sample (Efron, Ann. Stat. 7, 1 (1979)): as many independent clusters, drawn with replacement."""

    @abstractmethod
    def labels(self, held_out: NDArray[np.bool_] | None = None) -> Labels:
        """All rows as a potential is solved from them."""

    @abstractmethod
    def hash(self) -> str:
        """Hash of the content."""

    @abstractmethod
    def descent(self) -> type[Descent]:
        """How a potential descends along the loss of these labels."""

    def completed(self, teach: Callable[[TrainingSet, int], Any], seed: int) -> TrainingSet:
        """These labels with those that only a trained potential can make.

        Args:
            teach: trains a potential on a part of the data, which has a number.
            seed: of the parts.
        """
        return self

    def held_out(self, fraction: float, seed: int) -> NDArray[np.bool_]:
        """Rows to hold out: whole groups, drawn at random until the fraction is reached.

        Raises:
            TrainingError: there are fewer than two groups.
        """
        return held_out_mask(self.groups(), fraction, seed)


@dataclass(frozen=True)
class TrainingData(TrainingSet):
    """Frames with force labels.

    Attributes:
        positions: `(n_frames, n_beads, dimension)` float32 [nm or reduced].
        forces: force labels, same shape [kJ/mol/nm or reduced].
        group: `(n_frames,)` int64; frames of one group are correlated and never split between training and held-out.
        box: `(n_frames, 3)` float32 edges of the periodic box, or None.
        run: `(n_frames,)` int64 the replica of the batch that a frame comes from; None where that is not known.
        noise_floor: least possible loss of these labels [force unit]^2; None where that is not known.
        temperature: `(n_frames,)` float64 [K]; None where all are of one, which a potential need not be given.
        energy: `(n_frames,)` float64 potential energy of the atoms without a bias [kJ/mol]; NaN, or None for all, where
            not known.
        first_order: labels of dF/dT, shape of the forces [kJ/mol/nm/K]; NaN, or None for all, where there are none
            (`completed`).
        noise: `(n_frames,)` variance of a component of a force label [force unit]^2, where labels of several sources
            are learnt; None where it is proportional to T.
        response_noise: that of a label of dF/dT; None where they are products of one source.
        learns: what a potential W(R, T) learns: forces alone; forces and energies; these and labels of dF/dT, products
            of what a potential that has not seen a frame leaves over of both.
    """

    positions: NDArray[np.float32]
    forces: NDArray[np.float32]
    group: NDArray[np.int64]
    box: NDArray[np.float32] | None = None
    run: NDArray[np.int64] | None = None
    noise_floor: float | None = None
    temperature: NDArray[np.float64] | None = None
    energy: NDArray[np.float64] | None = None
    first_order: NDArray[np.float32] | None = None
    noise: NDArray[np.float64] | None = None
    response_noise: NDArray[np.float64] | None = None
    learns: Learnt = "forces"

    @property
    def learns_energies(self) -> bool:
        """Whether energies are more than the source of constants."""
        return self.learns != "forces"

    def __post_init__(self) -> None:
        """Refuse data that cannot train.

        Raises:
            TrainingError: shapes differ, a value is not finite, no frame is left, or energies are missing.
        """
        if self.learns_energies and self.energy is None:
            raise TrainingError(f"frames have no energies, but {self.learns} are to be learnt; sample with energies")
        if self.positions.ndim != 3 or not len(self.positions):
            raise TrainingError(f"positions have shape {self.positions.shape}; training needs (n_frames, n_beads, d)")
        if self.forces.shape != self.positions.shape or len(self.group) != len(self.positions):
            raise TrainingError(
                f"positions {self.positions.shape}, forces {self.forces.shape} and group {self.group.shape} disagree"
            )
        for name in ("positions", "forces"):
            broken = ~np.isfinite(getattr(self, name)).all(axis=(1, 2))
            if broken.any():
                first = int(np.flatnonzero(broken)[0])
                raise TrainingError(
                    f"{name} of {int(broken.sum())} frames are not finite, first of frame {first}; find the broken "
                    "batch with its schema check and sample it again"
                )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @staticmethod
    def from_frames(
        batches: Sequence[Frames],
        blocks_per_replica: int = BLOCKS_PER_REPLICA,
        noise_floor: float | None = None,
        every_temperature: bool = False,
        learns: Learnt = "forces",
        noise: Sequence[NDArray[np.float64]] | None = None,
    ) -> TrainingData:
        """Join the labelled frames of some batches; frames of probe replicas are left out.

        Groups are (batch, window, replica, time block), the blocks being equal stretches of each replica's time. Frames
        of all rungs of a ladder at a time are of one group.

        Args:
            batches: labelled frames.
            blocks_per_replica: number of blocks.
            noise_floor: least possible loss [force unit]^2.
            every_temperature: takes frames at several temperatures, with these and with their energies.
            learns: what is learnt.
            noise: variance of the force labels of each batch, where these are of several sources [force unit]^2.

        Raises:
            TrainingError: a batch has no forces, or frames are at different temperatures.
        """
        parts = []
        for index, frames in enumerate(batches):
            if frames.forces is None:
                raise TrainingError(f"batch {index} of {len(batches)} carries no force labels")
            parts.append(frames.select(~frames.probe))
        kelvin = np.unique(np.concatenate([frames.temperature for frames in parts]))
        if len(kelvin) > 1 and not every_temperature:
            raise TrainingError(
                f"frames are at {len(kelvin)} temperatures, {kelvin[0]:g} to {kelvin[-1]:g}, and these labels are of "
                "one; take those of one with `Frames.at_temperature`"
            )
        group = correlated_groups(parts, blocks_per_replica)
        boxes = [frames.box for frames in parts if frames.box is not None]
        energies = [frames.potential_energy for frames in parts]
        if noise is not None:  # some of several sources may have none
            energies = [
                np.full(len(part), np.nan) if part.potential_energy is None else part.potential_energy for part in parts
            ]
        known = [item for item in energies if item is not None]
        thermal = every_temperature and len(known) == len(parts)
        return TrainingData(
            positions=np.concatenate([frames.positions for frames in parts]),
            forces=np.concatenate([frames.forces for frames in parts if frames.forces is not None]),
            group=group,
            box=np.concatenate(boxes) if len(boxes) == len(parts) else None,
            run=group // blocks_per_replica,
            noise_floor=noise_floor,
            temperature=np.concatenate([frames.temperature for frames in parts]) if every_temperature else None,
            energy=np.concatenate(known).astype(np.float64) if thermal else None,
            noise=None
            if noise is None
            else np.concatenate([of[~frames.probe] for of, frames in zip(noise, batches, strict=True)]),
            learns=learns,
        )

    @staticmethod
    def from_targets(targets: ThermalTargets, learns: Learnt = "forces") -> TrainingData:
        """Labels at fixed beads: mean forces, their derivative by temperature and mean energies, with their noise."""
        return TrainingData(
            positions=targets.positions.astype(np.float32),
            forces=targets.forces.astype(np.float32),
            group=targets.frame,
            temperature=targets.temperature,
            energy=targets.mean_energy,
            first_order=targets.first_order.astype(np.float32),
            noise=targets.force_noise,
            response_noise=(targets.first_order_error**2).mean(axis=(1, 2)),
            learns=learns,
        )

    def joined(self, other: TrainingData) -> TrainingData:
        """These and others of the same beads, whose groups stay apart; NaN is what only one of them has."""
        found: dict[str, Any] = {}
        for name in ("positions", "forces", "temperature", "energy", "first_order", "noise", "response_noise"):
            one, two = getattr(self, name), getattr(other, name)
            like = two if one is None else one
            if like is not None:
                blank = [np.full((len(part), *like.shape[1:]), np.nan, like.dtype) for part in (self, other)]
                pairs = zip((one, two), blank, strict=True)
                found[name] = np.concatenate([empty if values is None else values for values, empty in pairs])
        group = np.concatenate([self.group, self.group.max(initial=-1) + 1 + other.group])
        return replace(self, **found, group=group, run=None, box=None)

    def select(self, index: NDArray) -> TrainingData:
        """The frames picked by an index or mask."""
        names = "box", "run", "temperature", "energy", "first_order", "noise", "response_noise"
        known = {name: getattr(self, name) for name in names}
        picked: Any = {name: None if values is None else values[index] for name, values in known.items()}
        return replace(
            self, positions=self.positions[index], forces=self.forces[index], group=self.group[index], **picked
        )

    def groups(self) -> NDArray[np.int64]:
        """The groups of the frames."""
        return self.group

    def labels(self, held_out: NDArray[np.bool_] | None = None) -> Labels:
        """Positions, forces and boxes; temperatures and energies of frames at several temperatures."""
        import torch

        from cg_assets.potentials.base import Labels

        return Labels(
            temperature=None if self.temperature is None else torch.as_tensor(self.temperature),
            values={} if self.energy is None else {"mean_energy": torch.as_tensor(self.energy)},
            positions=torch.as_tensor(self.positions),
            forces=torch.as_tensor(self.forces),
            box=None if self.box is None else torch.as_tensor(self.box),
            held_out=None if held_out is None else torch.as_tensor(held_out),
        )

    def descent(self) -> type[Descent]:
        """Force matching."""
        from cg_assets.training.loop import ForceMatching

        return ForceMatching

    def completed(self, teach: Callable[[TrainingSet, int], Any], seed: int) -> TrainingData:
        """With labels of dF/dT where products are learnt: those of each half from a potential of the other.

        Halves are of whole groups. See `cg_assets.training.unconstrained`.
        """
        if self.learns != "products" or self.energy is None or self.temperature is None:
            return self
        from cg_assets.training.unconstrained import force_products

        groups, member = np.unique(self.group, return_inverse=True)
        half = (np.random.default_rng([seed, 2]).permutation(len(groups)) % 2)[member]
        labels = np.full_like(self.forces, np.nan) if self.first_order is None else self.first_order.copy()
        wanted = np.isfinite(self.energy) & np.isnan(labels).any(axis=(1, 2))
        for number in (0, 1):
            mine = half == number
            teacher = teach(replace(self.select(~mine), learns="energies"), number + 1)
            labels[mine & wanted] = force_products(teacher, self.select(mine & wanted).labels())
        return replace(self, first_order=labels, response_noise=self._product_noise(labels, wanted))

    def _product_noise(self, labels: NDArray, made: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Variance of labels of dF/dT, of the products that were made their mean square at a temperature: noise."""
        if self.noise is None or self.temperature is None:
            return None
        noise = np.full(len(self), np.nan) if self.response_noise is None else self.response_noise.copy()
        for kelvin in np.unique(self.temperature[made]):
            here = made & (self.temperature == kelvin)
            noise[here] = np.mean(labels[here].astype(np.float64) ** 2)
        return noise

    def draw(self, n_frames: int, seed: int) -> TrainingData:
        """`n_frames` frames drawn at random without replacement, in their old order.

        Raises:
            TrainingError: there are fewer frames than asked for.
        """
        return self.select(drawn_rows(len(self), n_frames, seed))

    def resample(self, seed: int | Sequence[int]) -> TrainingData:
        """A bootstrap sample (Efron, Ann. Stat. 7, 1 (1979)): as many independent clusters, drawn with replacement.

        Clusters are the replicas, or the groups where replicas are few or not known. One that is drawn twice is there
        twice; its frames keep their group.
        """
        many = self.run is not None and len(np.unique(self.run)) >= FEW_REPLICAS
        cluster = self.run if many and self.run is not None else self.group
        clusters, member = np.unique(cluster, return_inverse=True)
        drawn = np.random.default_rng(seed).integers(len(clusters), size=len(clusters))
        times = np.bincount(drawn, minlength=len(clusters))
        return self.select(np.repeat(np.arange(len(self)), times[member]))

    def split(self, held_out_fraction: float, seed: int) -> tuple[TrainingData, TrainingData]:
        """Training and held-out frames: whole groups, drawn at random until the fraction is reached.

        Raises:
            TrainingError: there are fewer than two groups.
        """
        held_out = self.held_out(held_out_fraction, seed)
        return self.select(~held_out), self.select(held_out)

    def hash(self) -> str:
        """Hash of the content."""
        digest = hashlib.sha256(self.learns.encode() if self.learns_energies else b"")
        about = self.box, self.temperature, self.energy, self.noise, self.response_noise
        for array in (self.positions, self.forces, self.group, *about):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]
