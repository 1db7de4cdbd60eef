"""The own ensemble of a trained potential, at the torsions of the data."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cg_assets.core.errors import ExplosionError
from cg_assets.core.progress import Progress
from cg_assets.potentials.base import Potential
from cg_assets.potentials.layers import torsion_angles
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

_log = logging.getLogger(__name__)

STIFFNESS = 120.0
"""Of the restraints that hold torsions where a frame has them [k_B T / rad^2]: to within 0.09 rad."""
SETTINGS = CGSimulation(replicas=2000, timestep=0.002, friction=5.0, burn_in=1.0, duration=4.0, frame_interval=0.05)
"""Stiff coordinates forget the data within the burn-in, which is five times the inverse friction [ps].

Of replicas there is one for 50 frames of the data, between `LEAST_REPLICAS` and `SETTINGS.replicas`: a minute of a core
for a molecule of ten beads.
"""
LEAST_REPLICAS = 200


class HeldTorsions:
    """Harmonic restraints of the torsions of each replica to values of its own."""

    def __init__(self, torsions: Tensor, positions: Tensor, stiffness: float) -> None:
        """Hold them where they are.

        Args:
            torsions: `(k, 4)` beads.
            positions: `(r, n_beads, 3)` of each replica [nm].
            stiffness: force constant [kJ/mol/rad^2].
        """
        self.torsions, self.stiffness = torsions, stiffness
        self.angles = torsion_angles(positions.permute(1, 2, 0), torsions)[0]

    def energy_and_forces(self, positions: Tensor, replica: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` [kJ/mol] and forces `(r, n_beads, 3)` of the replicas numbered in `replica`."""
        rows = positions.permute(1, 2, 0)
        angles, gradients = torsion_angles(rows, self.torsions)
        off = (angles - self.angles[:, replica] + math.pi).remainder(2.0 * math.pi) - math.pi
        pull = -self.stiffness * off[:, None, None] * gradients
        forces = torch.zeros_like(rows).index_add(0, self.torsions.flatten(), pull.flatten(0, 1))
        return 0.5 * self.stiffness * off.square().sum(dim=0), forces.permute(2, 0, 1)


def own_ensemble(
    potential: Potential,
    torsions: Tensor,
    positions: Tensor,
    masses: Sequence[float],
    thermal_energy: float,
    seed: int,
    progress: Progress | None = None,
) -> Tensor:
    """Frames that the potential itself makes, from some frames of the data and with their torsions.

    Its stiff coordinates are those of the potential; what moves more slowly than a few ps stays as in the data.
    A restraint that is a function of torsions alone leaves everything else at given torsions distributed as without it.

    Args:
        potential: trained, on the device of the positions.
        torsions: `(k, 4)` beads.
        positions: `(n_frames, n_beads, 3)` of the data [nm].
        masses: `(n_beads,)` [amu].
        thermal_energy: k_B T [kJ/mol].
        seed: of the choice of frames and of the simulation.
        progress: called during the steps.

    Returns:
        `(f, n_beads, 3)` frames of replicas that stayed stable. Where fewer than half of them did, as with a potential
        of too few frames: all frames of the data themselves, and a warning.
    """
    count = min(max(len(positions) // 50, LEAST_REPLICAS), SETTINGS.replicas)
    chosen = np.random.default_rng(seed).permutation(len(positions))[:count]
    starts = positions[torch.from_numpy(np.sort(chosen)).to(positions.device)].float()
    held = HeldTorsions(torsions, starts, STIFFNESS * thermal_energy)
    told = None if progress is None else lambda done, total, _: progress(done, total, "steps for the torsion series")
    try:
        trajectory = simulate(
            potential,
            starts.cpu().numpy(),
            masses,
            thermal_energy,
            SETTINGS,
            seed,
            held,
            progress=told,
            device=positions.device.type,
        )
        stable = int((~trajectory.exploded).sum())
    except ExplosionError:
        stable = 0
    if 2 * stable < len(starts):
        _log.warning(
            "%d of %d replicas of the trained potential stayed stable for %g ps in steps of %g ps; its series in "
            "torsions is solved over the data instead; train it on more frames",
            stable,
            len(starts),
            SETTINGS.burn_in + SETTINGS.duration,
            SETTINGS.timestep,
        )
        return positions
    return torch.from_numpy(trajectory.stable_frames.positions).to(positions)
