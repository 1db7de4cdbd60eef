"""A bias on the beads of a CG simulation, for all its replicas at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.base import bias_from_definition
from cg_assets.core.errors import SamplingError
from cg_assets.mapping.beads import Beads

if TYPE_CHECKING:
    from torch import Tensor


class BeadBias:
    """Energy and forces of a bias for a batch of replicas, in float64.

    In windows, replica i is in window i modulo their number.
    """

    def __init__(self, beads: Beads, definition: Mapping[str, Any], device: str = "cpu") -> None:
        """The bias that a definition describes.

        Args:
            beads: what it acts on.
            definition: of the bias (`BiasFunction.definition`).
            device: where positions are.

        Raises:
            SamplingError: the definition cannot be used, or names a collective variable that the beads lack.
        """
        import torch

        self._beads, function = beads, bias_from_definition(definition)
        self._names, self._n_windows = function.collective_variables, function.n_windows
        self._windowed = function.windowed
        if unknown := sorted(set(self._names) - set(beads.variable_names)):
            raise SamplingError(f"the bias needs {unknown}; system {beads.name} has {beads.variable_names}")
        self._function = function.in_torch(device)
        self._sites = {name: torch.tensor(beads.sites_of(name), device=device) for name in self._names}

    def energy_and_forces(self, positions: Tensor, replica: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(r,)` and forces `(r, n, d)` of positions `(r, n, d)`.

        Args:
            positions: of whole molecules, any float type.
            replica: `(r,)` number of each replica, 0, 1, ... where None; matters to windows only.
        """
        import torch

        points = positions.double()
        measured = {name: self._beads.measure(points, name) for name in self._names}
        window = None
        if self._windowed:
            numbers = torch.arange(len(positions)) if replica is None else replica
            window = numbers % self._n_windows
        energy, slopes = self._function({name: values for name, (values, _) in measured.items()}, window)
        forces = torch.zeros_like(points)
        for name, (_, gradients) in measured.items():
            forces.index_add_(1, self._sites[name], slopes[name][:, None, None] * gradients, alpha=-1)
        return energy, forces


def bias_forces(
    beads: Beads, bias: Mapping[str, Any] | None, positions: NDArray, window: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy `(f,)` and forces `(f, n, d)` of a bias at positions `(f, n, d)`; zero without one.

    Args:
        beads: what it acts on.
        bias: its definition; None for none.
        positions: of whole molecules.
        window: `(f,)` umbrella window of each frame, where the bias has some.

    Raises:
        SamplingError: as `BeadBias`.
    """
    if bias is None:
        return np.zeros(len(positions)), np.zeros(positions.shape)
    import torch

    number = None if window is None else torch.as_tensor(window)
    energy, forces = BeadBias(beads, bias).energy_and_forces(torch.tensor(positions), number)
    return energy.numpy(), forces.numpy()
