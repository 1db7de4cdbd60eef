"""A trained potential as a plain function of arrays, and the hash of its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.frames import Frames

if TYPE_CHECKING:
    import torch

    from cg_assets.potentials.base import Potential

_BLOCK, _BOXES = 4096, 64
"""Frames that are evaluated at once: of a few beads, and of a box full of them."""


def energy_function(
    potential: Potential, temperature: float | None = None, box: ArrayLike | None = None
) -> Callable[[NDArray], NDArray[np.float64]]:
    """The energy of a potential: positions `(n_frames, n_beads, dimension)` to `(n_frames,)` [kJ/mol or reduced].

    Args:
        potential: evaluated in single precision.
        temperature: of all frames [K], where it depends on that.
        box: `(3,)` edges of the periodic box of all frames [nm], where it is for one.
    """
    import torch

    device = next(potential.buffers()).device
    edges = None if box is None else torch.as_tensor(np.asarray(box, dtype=np.float64)).to(device)

    def energy(positions: NDArray) -> NDArray[np.float64]:
        points = torch.as_tensor(np.asarray(positions, dtype=np.float32))
        with torch.no_grad():
            parts = [potential(part.to(device), temperature, edges) for part in points.split(_BLOCK)]
        return torch.cat(parts).double().cpu().numpy()

    return energy


def committee_energies(
    potential: Potential, temperature: float | None = None, box: ArrayLike | None = None
) -> list[Callable[[NDArray], NDArray[np.float64]]]:
    """The energy of each member of a potential's committee, as `energy_function`; none where it has no committee."""
    return [energy_function(member, temperature, box) for member in potential.members]


def thermodynamics(module: Any) -> Callable[[Frames], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Of a potential W(R, T): frames at one temperature, in their boxes, to U_W [kJ/mol] and C_W [kJ/mol/K] of each."""
    import torch

    def energies(frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = []
        at_once = _BLOCK if frames.box is None else _BOXES
        for rows in np.array_split(np.arange(len(frames)), math.ceil(len(frames) / at_once)):
            positions = torch.as_tensor(frames.positions[rows])
            box = None if frames.box is None else torch.as_tensor(frames.box[rows])
            _, energy, capacity = module.leading.energies(positions, float(frames.temperature[0]), box)
            found.append(torch.stack([energy, capacity]).double().cpu().numpy())
        energy, capacity = np.concatenate(found, axis=1)
        return energy, capacity

    return energies


def weights_hash(module: torch.nn.Module) -> str:
    """Hash of all weights, which names the content of a trained potential."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
