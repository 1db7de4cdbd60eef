"""The free energy of a molecule's torsions from its force labels alone: no network, no histogram, no weights.

A rigid turn of one side of a bond changes one torsion and leaves the others, and its field has no divergence, so the
mean torque about the bond at given torsions is minus the slope of their PMF, whatever bias of the torsions the frames
were sampled under. A Fourier series is fitted to the torques of all frames by least squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, independent_blocks
from cg_assets.core.units import unit
from cg_assets.mapping.beads import Beads

FloatArray = NDArray[np.float64]

ORDER = 8
"""Highest wave number of the series along each torsion."""
SPREAD = 3.0
"""Prior standard deviation of a coefficient of wave m, times |m| [kT]."""
_POINTS = 3
"""Points along each side of a bin over which its probability is averaged."""
_BATCH = 8192


@dataclass(frozen=True)
class TorqueSurface:
    """A free-energy surface from torques.

    Attributes:
        names: the torsions.
        bins: bins of the probabilities.
        probability: `(*bins.shape)` probability of each bin, summing to 1.
        left_out: `(n_blocks, *bins.shape)` the same without each of the independent blocks of data.
        thermal_energy: kT [kJ/mol].
    """

    names: tuple[str, ...]
    bins: Bins
    probability: FloatArray
    left_out: FloatArray
    thermal_energy: float

    @property
    def free_energy(self) -> FloatArray:
        """-kT ln p of each bin, lowest value 0 [kJ/mol]."""
        energy = -self.thermal_energy * np.log(self.probability)
        return energy - energy.min()

    @property
    def standard_error(self) -> FloatArray:
        """Jackknife standard error of -kT ln p of each bin at fixed normalisation [kJ/mol]."""
        return self.thermal_energy * _scatter(np.log(self.left_out))

    def estimate(self, statistic: Callable[[FloatArray], float], of: str = "") -> Estimate:
        """A statistic of the probabilities with its jackknife error."""
        values = np.array([statistic(probability) for probability in self.left_out])
        return Estimate(float(statistic(self.probability)), float(_scatter(values)), of)

    def basin_free_energy(self, limits: dict[str, tuple[float, float]]) -> Estimate:
        """-kT ln(P / (1 - P)) of the bins whose centres are inside a basin [kJ/mol]."""
        inside = np.ones(self.bins.shape, dtype=bool)
        for axis, (name, centres) in enumerate(zip(self.names, self.bins.centres, strict=True)):
            if name in limits:
                low, high = limits[name]
                shape = [1] * inside.ndim
                shape[axis] = -1
                inside &= ((centres >= low) & (centres < high)).reshape(shape)

        def free_energy(probability: FloatArray) -> float:
            share = float(probability[inside].sum())
            return -self.thermal_energy * math.log(share / (1.0 - share))

        return self.estimate(free_energy, unit("energy", "molar"))


def has_torque_surface(beads: Beads, names: Sequence[str]) -> bool:
    """Whether collective variables are torsions about bonds that split the molecule."""
    if not all(beads.is_periodic(name) for name in names) or beads.box is not None:
        return False
    try:
        _torsions(beads, names)
    except TrainingError:
        return False
    return True


def torque_surface(
    beads: Beads,
    names: Sequence[str],
    batches: Sequence[Frames],
    bins: Bins,
    order: int = ORDER,
    spread: float = SPREAD,
    n_blocks: int = 40,
) -> TorqueSurface:
    """The free energy of torsions from the forces of frames.

    Args:
        beads: of a molecule.
        names: its torsions, about bonds that split it.
        batches: CG frames with force labels; frames under any bias of the torsions may be mixed.
        bins: bins over the whole range of the torsions.
        order: highest wave number along each torsion.
        spread: prior standard deviation of a coefficient of wave m, times |m| [kT].
        n_blocks: number of independent blocks of data at most, for error bars.

    Raises:
        TrainingError: a torsion is not about a bond that splits the molecule in two.
        ValueError: frames have no forces.
    """
    import torch

    from cg_assets.potentials.torsions.series import fourier_modes
    from cg_assets.potentials.torsions.torques import SlopeEquations

    torques, places, signs = _torsions(beads, names)
    numbers = torch.tensor(fourier_modes(len(names), order)).double()
    blocks: list[SlopeEquations] = []
    for frames in batches:
        if frames.forces is None:
            raise ValueError("frames have no forces to integrate; give labelled frames")
        block = independent_blocks(frames.replica, frames.time, max(2, n_blocks // len(batches)))
        angles = np.stack([frames.collective_variables[name] for name in names]).astype(np.float64)
        for number in range(int(block.max()) + 1):
            equations = SlopeEquations(numbers)
            rows = np.flatnonzero(block == number)
            for part in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                positions, forces = (torch.from_numpy(array[part]) for array in (frames.positions, frames.forces))
                torque = torques(positions, forces)[:, places] * signs / beads.thermal_energy
                equations.add(numbers @ torch.from_numpy(angles[:, part]), torque)
            blocks.append(equations)
    total = SlopeEquations(numbers).combined(blocks)
    basis = _basis(numbers.numpy(), bins)
    left_out = [total.combined([block], sign=-1) for block in blocks]
    probability, *others = (_probability(item.solve(spread).numpy(), basis, bins) for item in (total, *left_out))
    return TorqueSurface(tuple(names), bins, probability, np.array(others), beads.thermal_energy)


def _torsions(beads: Beads, names: Sequence[str]) -> tuple:
    """Torques of a molecule's bonds, and for each torsion its bond and the sign that turns it up."""
    import torch

    from cg_assets.potentials.torsions.torques import BondTorques

    cg_map = beads.cg_map
    torques = BondTorques(cg_map.n_beads, cg_map.bonds)
    sites = [beads.sites_of(name) for name in names]
    return torques, *torques.of_torsions(torch.tensor(sites))


def _basis(numbers: FloatArray, bins: Bins) -> FloatArray:
    """Cosines and sines `(2m, n_points)` of all waves at points that fill the bins."""
    axes = []
    for edges in bins.edges:
        inside = (np.arange(_POINTS) + 0.5) / _POINTS
        axes.append((edges[:-1, None] + np.diff(edges)[:, None] * inside).ravel())
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    phase = numbers @ points
    return np.concatenate([np.cos(phase), np.sin(phase)])


def _probability(series: FloatArray, basis: FloatArray, bins: Bins) -> FloatArray:
    """Probability of each bin from the series of the free energy [kT]."""
    energy = series.ravel() @ basis
    weight = np.exp(energy.min() - energy)
    shape = [size for count in bins.shape for size in (count, _POINTS)]
    summed = weight.reshape(shape).sum(axis=tuple(range(1, 2 * len(bins.shape), 2)))
    return summed / summed.sum()


def _scatter(left_out: FloatArray) -> FloatArray:
    """Jackknife standard error from values without each block `(n_blocks, ...)`."""
    n_blocks = len(left_out)
    return np.sqrt((n_blocks - 1) / n_blocks * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
