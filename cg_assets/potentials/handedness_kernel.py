"""Walls that keep the hand of chiral centres, compiled for sixteen replicas at once (`cg_assets.potentials.lanes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.base import Kernel
from cg_assets.potentials.lanes import any_below, compiled, difference, increase, larger, pull, spread

if TYPE_CHECKING:
    from cg_assets.potentials.handedness import HandednessWalls

_ZERO, _HALF, _TINY = (np.float32(value) for value in (0.0, 0.5, 1e-30))


class _Walls(NamedTuple):
    """Sets of four beads `(w, 4)`, least sizes of their volumes `(w,)` and stiffnesses `(w,)` [kJ/mol/nm^6]."""

    fours: NDArray[np.int64]
    lows: NDArray[np.float32]
    stiffnesses: NDArray[np.float32]


def handedness_kernel(walls: HandednessWalls) -> Kernel:
    """The kernel of walls in single precision."""
    active = walls.volume_stiffness.cpu().numpy() > 0
    stiffnesses = (walls.thermal_energy * walls.volume_stiffness.cpu().numpy()[active]).astype(np.float32)
    return Kernel(
        _add_walls, _Walls(walls.fours.cpu().numpy()[active], walls.volume_low.cpu().numpy()[active], stiffnesses)
    )


@compiled
def _add_walls(positions: Any, energies: Any, forces: Any, walls: Any) -> None:
    """See `LaneEngine`."""
    for block in range(len(positions)):
        points, pulls, total = positions[block], forces[block], spread(_ZERO)
        for wall in range(len(walls.fours)):
            corner, one, two, three = walls.fours[wall]
            ax, ay, az = difference(points, one, corner)
            bx, by, bz = difference(points, two, corner)
            cx, cy, cz = difference(points, three, corner)
            x, y, z = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
            volume = ax * x + ay * y + az * z
            size, low = larger(volume, _ZERO - volume), walls.lows[wall]
            if not any_below(size, low):
                continue
            below = larger(low - size, spread(_ZERO))
            slope = below * walls.stiffnesses[wall]
            total = total + slope * below * _HALF
            strength = slope * volume / larger(size, spread(_TINY))
            pull(pulls, corner, one, strength, x, y, z)
            pull(pulls, corner, two, strength, cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax)
            pull(pulls, corner, three, strength, ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
        increase(energies[block], 0, total)
