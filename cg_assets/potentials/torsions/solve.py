"""Solves a Fourier series in torsions from the torques of labels and of the potential that it is a part of."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from cg_assets.potentials.base import Potential
from cg_assets.potentials.torsions.series import TorsionSeries
from cg_assets.potentials.torsions.torques import SlopeEquations
from cg_assets.potentials.torsions.variates import TorsionTorques

_BATCH = 1024


@torch.no_grad()
def solve_torsions(
    series: TorsionSeries,
    whole: Potential,
    frames: Iterable[tuple[Tensor, Tensor]],
    torques: TorsionTorques,
    own_frames: Callable[[], Tensor],
) -> None:
    """Set the series of a trained potential, so that its PMF of the torsions is that of the labels' torques.

    The PMF of a potential is that of its torques over its own ensemble, whose stiff coordinates, and with them torques,
    are distributed slightly differently from those of the data. As a series in torsions changes nothing at given
    torsions, it makes up for all of the difference at once. Where there are few labels, the PMF stays as the potential
    has it over the data.

    Frames must be those of an equilibrium at given torsions: under any bias of the torsions, but of nothing else.

    Args:
        series: replaced.
        whole: the potential that it is a part of.
        frames: parts of the data: positions [nm] and labels [kJ/mol/nm], both `(f, n_beads, 3)`.
        torques: of the torsions.
        own_frames: gives positions `(f, n_beads, 3)` of the potential's own ensemble at torsions of the data
            (`cg_assets.training.own_ensemble`).
    """
    series.series.zero_()
    wanted, found = (SlopeEquations(series.modes, torques.n_variates) for _ in range(2))
    before = SlopeEquations(series.modes)  # over the data, variates of the potential have a mean
    for positions, labels in frames:
        for place, label in zip(positions.split(_BATCH), labels.split(_BATCH), strict=True):
            phase = series.phases(place)
            wanted.add(phase, *torques(place, label))
            before.add(phase, torques.turns_of(place, whole.energy_and_forces(place)[1]))
    series.series.copy_(-wanted.solve(mean=before.solve()))  # with it, a PMF that was already right would be flat
    for place in own_frames().split(_BATCH):
        found.add(series.phases(place), *torques(place, whole.energy_and_forces(place)[1]))
    series.series.copy_(-found.solve())
