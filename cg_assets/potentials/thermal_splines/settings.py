"""Settings of `SplinePotential`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat

from cg_assets.core.settings import LIQUIDS, Size
from cg_assets.potentials.settings import PotentialSettings

if TYPE_CHECKING:
    from cg_assets.potentials.settings import PotentialClass


class ThermalSplineSettings(PotentialSettings):
    """Cubic splines of pairs and triples, solved for: the fast form."""

    goes_with: ClassVar[tuple[str, ...]] = LIQUIDS
    needs_responses: ClassVar[bool] = True
    learns_unconstrained: ClassVar[bool] = True

    type: Literal["spline"]
    pair_cutoff: PositiveFloat
    """[nm], at most half the box, as all cutoffs."""
    pair_functions: int = Field(default=20, ge=4, le=10_000)
    """Splines in the distance of a pair."""
    triple_cutoff: PositiveFloat | None = None
    """[nm]; null for pairs alone."""
    triple_functions: Size = 5
    """Splines in each distance, and functions of the angle, of a triple."""
    triple_degree: int = Field(default=4, ge=0, le=6)
    """Degree of the Legendre polynomials in the cosine of the angle."""

    @classmethod
    def potential(cls) -> PotentialClass:
        """`SplinePotential`."""
        from cg_assets.potentials.thermal_splines.module import SplinePotential

        return SplinePotential

    @property
    def reach(self) -> float:
        """The longer of the two cutoffs [nm]."""
        return max(self.pair_cutoff, self.triple_cutoff or 0.0)
