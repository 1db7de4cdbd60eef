"""A trained potential as a plain function of arrays, and the hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_BLOCK = 4096


def energy_function(module: torch.nn.Module) -> Callable[[NDArray], NDArray[np.float64]]:
    """The energy of a potential: positions `(n_frames, n_beads, dimension)` to `(n_frames,)` [kJ/mol or reduced]."""
    import torch

    device = next(module.buffers()).device

    def energy(positions: NDArray) -> NDArray[np.float64]:
        with torch.no_grad():
            parts = [
                module(torch.as_tensor(np.asarray(positions[first : first + _BLOCK], dtype=np.float32)).to(device))
                for first in range(0, len(positions), _BLOCK)
            ]
        return torch.cat(parts).double().cpu().numpy()

    return energy


def committee_energies(module: torch.nn.Module) -> list[Callable[[NDArray], NDArray[np.float64]]]:
    """The energy of each member of a potential's committee; none where it has no committee."""
    return [energy_function(member) for member in getattr(module, "members", [])]


def weights_hash(module: torch.nn.Module) -> str:
    """Hash of all weights, which names the content of a trained potential."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
