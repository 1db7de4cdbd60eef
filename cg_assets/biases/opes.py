"""On-the-fly probability enhanced sampling (OPES): the bias follows a running estimate of the probability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from cg_assets.biases.base import FloatArray
from cg_assets.biases.deposited import DepositedBias, DepositedGrid
from cg_assets.core.settings import Fault, Scope

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads


class OpesBias(DepositedBias):
    """On-the-fly probability enhanced sampling: the bias follows a running estimate of the probability."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    type: Literal["opes"]
    barrier: PositiveFloat
    """Highest barrier to be crossed [kJ/mol]: the bias goes no deeper, and its bias factor is barrier / kT."""

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Barriers that thermal motion crosses, and what is wrong with variables."""
        if not self.barrier > scope.thermal_energy:
            yield Fault(
                "barrier",
                f"{self.barrier} kJ/mol is not above kT ({scope.thermal_energy:.3g} kJ/mol); no bias is needed then",
            )
        yield from super().faults(scope)

    def grid(self, beads: Beads) -> OpesGrid:
        """No kernel yet: the bias is -barrier everywhere."""
        return OpesGrid(beads, self)


class OpesGrid(DepositedGrid):
    """On-the-fly probability enhanced sampling with kernels of fixed width.

    Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), eqs. 8-10: with the kernel estimate P(s) of the
    unbiased probability, in which a walker's kernel weighs exp(V/kT), V(s) = (1 - 1/gamma) kT log(P(s)/Z + epsilon),
    where Z is the mean of P over the region explored, gamma = barrier/kT and epsilon = exp(-gamma/(1 - 1/gamma)). P is
    kept on the grid, so kernels need not be merged. A node counts as explored when a kernel was laid within one width.
    """

    def __init__(self, beads: Beads, bias: OpesBias) -> None:
        """No kernel yet."""
        super().__init__(beads, bias)
        self._thermal_energy = beads.thermal_energy
        self._prefactor = self._thermal_energy - self._thermal_energy**2 / bias.barrier
        self._epsilon = math.exp(-bias.barrier / self._prefactor)
        self._density = np.zeros_like(self.values)
        self._explored = np.zeros(self.values.shape, dtype=bool)
        self._update()

    def deposit(self, points: FloatArray, energies: FloatArray) -> None:
        """Add a kernel for each walker and update the bias."""
        for point, energy in zip(points, energies, strict=True):
            kernel = self._gaussian(point)
            self._density += math.exp(energy / self._thermal_energy) * kernel
            self._explored |= kernel > math.exp(-0.5)
        self._update()

    def state(self) -> dict[str, NDArray]:
        """Arrays for `restore`."""
        return {"density": self._density.copy(), "explored": self._explored.copy()}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Restore a stored state."""
        self._density, self._explored = state["density"].copy(), state["explored"].copy()
        self._update()

    def _update(self) -> None:
        mean = self._density[self._explored].mean() if self._explored.any() else 1.0
        self.values = self._prefactor * np.log(self._density / mean + self._epsilon)
