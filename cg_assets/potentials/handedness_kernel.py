"""Walls that keep the hand of chiral centres, compiled for sixteen replicas at once (`cg_assets.potentials.lanes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.base import Kernel
from cg_assets.potentials.lanes import any_below, compiled, get, increase, larger, spread

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
def _leg(positions: Any, bead: Any, corner: Any) -> Any:
    return (
        get(positions, 3 * bead) - get(positions, 3 * corner),
        get(positions, 3 * bead + 1) - get(positions, 3 * corner + 1),
        get(positions, 3 * bead + 2) - get(positions, 3 * corner + 2),
    )


@compiled
def _push(forces: Any, bead: Any, corner: Any, strength: Any, x: Any, y: Any, z: Any) -> None:
    """Add a force along a vector to a bead, and take it from the corner."""
    increase(forces, 3 * bead, strength * x)
    increase(forces, 3 * bead + 1, strength * y)
    increase(forces, 3 * bead + 2, strength * z)
    increase(forces, 3 * corner, _ZERO - strength * x)
    increase(forces, 3 * corner + 1, _ZERO - strength * y)
    increase(forces, 3 * corner + 2, _ZERO - strength * z)


@compiled
def _add_walls(positions: Any, energies: Any, forces: Any, walls: Any) -> None:
    """See `LaneEngine`."""
    for block in range(len(positions)):
        points, pulls, total = positions[block], forces[block], spread(_ZERO)
        for wall in range(len(walls.fours)):
            corner, one, two, three = walls.fours[wall]
            ax, ay, az = _leg(points, one, corner)
            bx, by, bz = _leg(points, two, corner)
            cx, cy, cz = _leg(points, three, corner)
            x, y, z = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
            volume = ax * x + ay * y + az * z
            size, low = larger(volume, _ZERO - volume), walls.lows[wall]
            if not any_below(size, low):
                continue
            below = larger(low - size, spread(_ZERO))
            slope = below * walls.stiffnesses[wall]
            total = total + slope * below * _HALF
            strength = slope * volume / larger(size, spread(_TINY))
            _push(pulls, one, corner, strength, x, y, z)
            _push(pulls, two, corner, strength, cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax)
            _push(pulls, three, corner, strength, ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
        increase(energies[block], 0, total)
