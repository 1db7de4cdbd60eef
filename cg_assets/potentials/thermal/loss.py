"""The loss of a potential W(R, T): its labels and their weights.

The loss in units of force is w_0 |dF|² + w_1 T_0² |dF_1|² + w_2 (T_0²/2)² |dF_2|² + w_u |dU|²/(n l²): mean forces,
their first and second derivative by temperature at fixed beads, and mean energies of the atoms (l = `ENERGY_LENGTH`,
n beads). Each of these squares is weighted by its inverse variance, from the label's own error and from what no
potential of the kind can fit (`misfit`, the same for all labels of a quantity), relative to the mean weight of the
forces. The least possible loss is the noise floor of the labels; only loss minus floor measures a potential.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cg_assets.potentials.base import Labels

ENERGY_LENGTH = 0.1
"""Length that makes forces of energies [nm]."""
QUANTITIES = ("forces", "first_order", "second_order", "mean_energy")
"""Labels of a potential W(R, T) [kJ/mol/nm, .../K, .../K², kJ/mol]."""


def label_weights(
    labels: Labels, origin: float, misfit: Mapping[str, float] | None = None
) -> dict[str, NDArray[np.float64]]:
    """What the squared deviation of each label is multiplied with in the loss, for the quantities that count.

    Args:
        labels: with errors and an emphasis of each quantity, 0 for those that do not count.
        origin: T_0 [K].
        misfit: variance of each quantity that is not noise and cannot be fitted [its unit²]; none where None.

    Returns:
        Of each quantity an array of the shape of its labels, 0 where a label is not known; the loss is the sum over
        all labels of all quantities.
    """
    scales = {
        "forces": 1.0,
        "first_order": origin**2,
        "second_order": (0.5 * origin**2) ** 2,
        "mean_energy": 1.0 / (labels.positions.shape[1] * ENERGY_LENGTH**2),
    }
    found = {}
    for quantity in QUANTITIES:
        if not labels.emphasis.get(quantity):
            continue
        variance = labels.errors[quantity].numpy() ** 2 + (misfit or {}).get(quantity, 0.0)
        known = np.isfinite(variance)
        if not known.any():
            continue
        if not variance[known].max() > 0:
            variance = np.where(known, 1.0 / scales[quantity], np.inf)
        found[quantity] = 1.0 / np.maximum(variance, 1e-6 * variance[known].mean())
    unit = next(iter(found.values())).mean()
    return {name: labels.emphasis[name] * values / (unit * values.size) for name, values in found.items()}
