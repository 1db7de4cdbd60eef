"""The engine of a potential at the conditions of a simulation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from cg_assets.core.errors import SamplingError
from cg_assets.potentials.base import Engine, Potential


def engine_of(
    potential: Potential, temperature: float | None, box: ArrayLike | None, device: torch.device | None = None
) -> Engine:
    """Energy `(r,)` and forces `(r, n, d)` of positions `(r, n, d)`, by the potential's fastest method.

    Args:
        potential: on the device.
        temperature: [K].
        box: edges `(3,)` of the periodic box [nm], or None.
        device: of the positions; the CPU where None.

    Raises:
        SamplingError: a condition is missing or does not suit the potential.
    """
    edges = None if box is None else np.array(box, dtype=np.float64)
    try:
        return potential.engine(temperature, edges, device or torch.device("cpu"))
    except ValueError as error:
        raise SamplingError(f"this potential cannot be simulated: {error}") from error
