"""Samples of the atoms at fixed beads of one CG frame, at one or several temperatures."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import autocorrelation_time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ConditionalSamples:
    """Potential energies and bead forces at fixed beads, drawn from p(r | R; T).

    Attributes:
        temperature: `(n_samples,)` temperature of each [K].
        energy: `(n_samples,)` potential energy u of the atoms [kJ/mol].
        forces: `(n_samples, n_beads, 3)` force labels f, whose conditional mean is the mean force [kJ/mol/nm].
        run: `(n_samples,)` number of the independent run that each comes from.
        time: `(n_samples,)` time within the run [ps]; one sample for each time and temperature.
    """

    temperature: FloatArray
    energy: FloatArray
    forces: FloatArray
    run: NDArray[np.int64]
    time: FloatArray

    def __post_init__(self) -> None:
        """Refuse arrays of different length.

        Raises:
            ValueError: one of the arrays does not fit.
        """
        if np.ndim(self.forces) != 3:
            raise ValueError(f"forces must have shape (n_samples, n_beads, 3), not {np.shape(self.forces)}")
        for item in fields(self):
            if len(getattr(self, item.name)) != len(self.energy):
                raise ValueError(f"{item.name} has {len(getattr(self, item.name))} samples, energy {len(self.energy)}")

    @classmethod
    def of_frame(cls, frames: Frames, number: int) -> ConditionalSamples:
        """The samples of one CG frame among the rows of `FixedBeadLadders`.

        Raises:
            ValueError: there are none, or the rows have no forces or energies.
        """
        if frames.forces is None or frames.potential_energy is None:
            raise ValueError("conditional samples need forces and potential energies")
        rows = np.flatnonzero(frames.start == number)
        if not len(rows):
            raise ValueError(f"there are no samples of CG frame {number}")
        return cls(
            temperature=frames.temperature[rows],
            energy=frames.potential_energy[rows],
            forces=frames.forces[rows].astype(np.float64),
            run=frames.replica[rows].astype(np.int64),
            time=frames.time[rows],
        )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.energy)

    def select(self, index: NDArray) -> ConditionalSamples:
        """The samples picked by an index or boolean mask."""
        return ConditionalSamples(**{item.name: getattr(self, item.name)[index] for item in fields(self)})

    @property
    def ladder(self) -> FloatArray:
        """The temperatures that were sampled, rising [K]."""
        return np.unique(self.temperature)

    def blocks(self, n_blocks: int) -> NDArray[np.int64]:
        """Number of the block `(n_samples,)` of each sample: stretches of time of each run, all temperatures together.

        Runs that exchange temperatures carry correlations from one temperature to the next, so a block holds a stretch
        of time of the whole ladder.

        Args:
            n_blocks: blocks in all, as even a share of each run as may be.
        """
        runs, member = np.unique(self.run, return_inverse=True)
        pieces = max(1, n_blocks // len(runs))
        block = np.empty(len(self), dtype=np.int64)
        for number in range(len(runs)):
            mask = member == number
            moments, rank = np.unique(self.time[mask], return_inverse=True)
            block[mask] = number * pieces + rank * pieces // len(moments)
        return block

    def statistical_inefficiency(self) -> FloatArray:
        """`(n_temperatures,)` samples that are worth one independent sample at each temperature, from the energies."""
        inefficiency = []
        for temperature in self.ladder:
            at = self.select(self.temperature == temperature)
            series = [at.energy[at.run == run][np.argsort(at.time[at.run == run])] for run in np.unique(at.run)]
            inefficiency.append(2.0 * autocorrelation_time(series))
        return np.array(inefficiency)
