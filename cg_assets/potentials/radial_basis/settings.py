"""Settings of `RadialBasis`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator

from cg_assets.core.errors import TrainingError
from cg_assets.core.settings import Fault, Range, Scope, Size, rising_limits
from cg_assets.potentials.settings import PotentialSettings

if TYPE_CHECKING:
    from cg_assets.potentials.settings import PotentialClass


class RadialBasisSettings(PotentialSettings):
    """One-dimensional PMF: Gaussian basis functions of the CG coordinate and a small dense network."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    type: Literal["radial_basis"]
    range: Range
    """Interval of the CG coordinate that the basis functions cover."""
    basis_functions: Size = 100
    """Gaussians, evenly spread over the range."""
    basis_width: PositiveFloat
    """Of each Gaussian [reduced length]."""
    hidden: list[Size] = Field(default_factory=lambda: [128, 128])
    """Units of each hidden layer."""

    _rises = field_validator("range")(rising_limits)

    @classmethod
    def potential(cls) -> PotentialClass:
        """`RadialBasis`."""
        from cg_assets.potentials.radial_basis.module import RadialBasis

        return RadialBasis

    @property
    def domain(self) -> tuple[float, float]:
        """The range."""
        return self.range

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """More than one CG coordinate, functions that are all alike or do not touch."""
        if len(scope.variables) != 1:
            yield Fault("type", f"is radial_basis, which is for one CG coordinate, not {len(scope.variables)}")
        low, high = self.range
        least = (high - low) / max(self.basis_functions - 1, 1) / 2
        if not least <= self.basis_width <= high - low:
            yield Fault(
                "basis_width",
                f"is {self.basis_width:g}; give at least half the distance of the {self.basis_functions} functions, "
                f"{least:.3g}, so that they overlap, and at most their range, {high - low:g}",
            )

    def refuse(self, positions: NDArray[np.float32]) -> None:
        """Refuse frames outside the range, where the potential is a wall.

        Raises:
            TrainingError: there are such frames.
        """
        low, high = self.range
        least, most = float(positions.min()), float(positions.max())
        if least < low or most > high:
            raise TrainingError(
                f"network.range is [{low:g}, {high:g}], but the frames reach from {least:.3g} to {most:.3g}; widen it"
            )
