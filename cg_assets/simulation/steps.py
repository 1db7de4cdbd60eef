"""The parts of a BAOAB step between two evaluations of the forces, compiled for a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from cg_assets.core.compilation import kept
from cg_assets.core.single_precision import FLAGS

_compiled = kept(fastmath=FLAGS, error_model="numpy")


@_compiled
def kick(velocities: Any, forces: Any, masses: Any, half: Any) -> None:
    """Accelerate velocities `(r, n, d)` by forces for half a time step; masses `(n,)`."""
    for replica in range(len(velocities)):
        for bead in range(len(masses)):
            share = half / masses[bead]
            for axis in range(velocities.shape[2]):
                velocities[replica, bead, axis] += share * forces[replica, bead, axis]


@_compiled
def drift(
    positions: Any, velocities: Any, masses: Any, noise: Any, rows: Any, spread: Any, keep: Any, half: Any, heat: Any
) -> None:
    """Move half a step, let friction and noise act, and move again.

    Args:
        positions: `(r, n, d)`, changed.
        velocities: `(r, n, d)`, changed.
        masses: `(n,)`.
        noise: `(m, n, d)` standard normal numbers of all replicas.
        rows: `(r,)` number of each replica in `noise`.
        spread: `(r or 1, n)` standard deviation of what is added to the velocities.
        keep: the part of the velocities that friction leaves.
        half: half a time step.
        heat: `(r,)` where k_B T of each replica goes, from the velocities before the friction.
    """
    for replica in range(len(velocities)):
        total, own = np.float32(0.0), replica % len(spread)
        for bead in range(len(masses)):
            mass, size = masses[bead], spread[own, bead]
            for axis in range(velocities.shape[2]):
                velocity, place = velocities[replica, bead, axis], positions[replica, bead, axis]
                total += mass * velocity * velocity
                place += half * velocity
                velocity = keep * velocity + size * noise[rows[replica], bead, axis]
                velocities[replica, bead, axis] = velocity
                positions[replica, bead, axis] = place + half * velocity
        heat[replica] = total / np.float32(velocities.shape[1] * velocities.shape[2])
