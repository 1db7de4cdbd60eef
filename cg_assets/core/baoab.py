"""The parts of a BAOAB step between two evaluations of the forces, compiled for a CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.compilation import kept
from cg_assets.core.single_precision import FLAGS

_compiled = kept(fastmath=FLAGS, error_model="numpy")


class Motion(NamedTuple):
    """Replicas that move.

    Attributes:
        positions: `(r, n, d)`, changed.
        velocities: `(r, n, d)`, changed.
        forces: `(r, n, d)`.
        masses: `(n,)`.
        rows: `(r,)` number of each replica in the noise.
        spread: `(r or 1, n)` standard deviation of what is added to the velocities.
        keep: the part of the velocities that friction leaves.
        half: half a time step.
        heat: `(r,)` where k_B T of each replica goes, from the velocities before the friction.
    """

    positions: NDArray[np.float32]
    velocities: NDArray[np.float32]
    forces: NDArray[np.float32]
    masses: NDArray[np.float32]
    rows: NDArray[np.int64]
    spread: NDArray[np.float32]
    keep: np.float32
    half: np.float32
    heat: NDArray[np.float32]

    def of(self, replica: int) -> Motion:
        """One of them."""
        one, own = slice(replica, replica + 1), replica % len(self.spread)
        return self._replace(
            **{name: getattr(self, name)[one] for name in ("positions", "velocities", "forces", "rows", "heat")},
            spread=self.spread[own : own + 1],
        )


@_compiled
def kick(motion: Any) -> None:
    """Accelerate velocities by the forces for half a time step."""
    velocities, forces, masses = motion.velocities, motion.forces, motion.masses
    for replica in range(len(velocities)):
        for bead in range(len(masses)):
            share = motion.half / masses[bead]
            for axis in range(velocities.shape[2]):
                velocities[replica, bead, axis] += share * forces[replica, bead, axis]


@_compiled
def drift(motion: Any, noise: Any) -> None:
    """Move half a step, let friction and noise act, and move again; `noise` `(m, n, d)` is standard normal."""
    positions, velocities, masses, half = motion.positions, motion.velocities, motion.masses, motion.half
    for replica in range(len(velocities)):
        total, own, row = np.float32(0.0), replica % len(motion.spread), motion.rows[replica]
        for bead in range(len(masses)):
            mass, size = masses[bead], motion.spread[own, bead]
            for axis in range(velocities.shape[2]):
                velocity, place = velocities[replica, bead, axis], positions[replica, bead, axis]
                total += mass * velocity * velocity
                place += half * velocity
                velocity = motion.keep * velocity + size * noise[row, bead, axis]
                velocities[replica, bead, axis] = velocity
                positions[replica, bead, axis] = place + half * velocity
        motion.heat[replica] = total / np.float32(velocities.shape[1] * velocities.shape[2])
