"""Settings of the forms that potentials have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cg_assets.core.family import Family
from cg_assets.core.settings import Fault, Name, Scope, Strict, Training, rising, rising_limits

MOST_SPLINES = 5000
"""Coefficients of a spline surface, at most: their normal equations are dense."""


class Network(Family, family="network"):
    """The form of a potential at one temperature."""

    @property
    def chain_prior(self) -> ChainPrior | None:
        """Force field that the network corrects; None without one."""
        return None


class RadialBasisNetwork(Network):
    """One-dimensional PMF: Gaussian basis functions of the CG coordinate and a small dense network."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    type: Literal["radial_basis"]
    range: tuple[float, float]
    """Interval of the CG coordinate that the basis functions cover."""
    basis_functions: PositiveInt = 100
    basis_width: PositiveFloat
    hidden: list[PositiveInt] = Field(default_factory=lambda: [128, 128])

    _rises = field_validator("range")(rising_limits)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """More than one CG coordinate."""
        if len(scope.variables) != 1:
            yield Fault("type", f"is radial_basis, which is for one CG coordinate, not {len(scope.variables)}")


class SplineSurfaceNetwork(Network):
    """PMF of two CG coordinates: products of cubic B-splines, solved exactly by least squares."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    type: Literal["spline_surface"]
    range: dict[Name, tuple[float, float]]
    """Interval of each CG coordinate that the splines cover."""
    spacing: PositiveFloat
    """Distance of their knots."""

    @model_validator(mode="after")
    def _not_too_fine(self) -> SplineSurfaceNetwork:
        knots = 1.0
        for low, high in (rising_limits(limits) for limits in self.range.values()):
            knots *= (high - low) / self.spacing + 3.0
        if knots > MOST_SPLINES:
            raise ValueError(f"spacing {self.spacing} makes {knots:.0f} splines, more than {MOST_SPLINES}; raise it")
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Another number of CG coordinates than two, or limits of others."""
        if len(scope.variables) != 2:
            yield Fault("type", f"is spline_surface, which is for two CG coordinates, not {len(scope.variables)}")
        elif tuple(self.range) != scope.variables:
            yield Fault("range", f"is {self.range}; give the limits of {' and '.join(scope.variables)} by name")


class ChainPrior(Strict):
    """Terms of a classical force field, fitted to the training configurations (docs/training.md)."""

    terms: list[Literal["bonds", "angles", "dihedrals", "repulsion"]] = Field(
        default=["bonds", "angles", "dihedrals", "repulsion"]
    )
    """Harmonic bonds, polynomials in the cosines of angles, Fourier series of dihedrals, (sigma/r)^6 of pairs more than
    three bonds apart."""
    dihedral_order: int = Field(default=3, ge=1, le=8)
    """Order of the Fourier series."""

    @field_validator("terms")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) < len(value):
            raise ValueError(f"{value} must name at least one term, and each once; leave prior out for none")
        return value


class MessagePassingNetwork(Network):
    """Many-body potential of beads by message passing over bead distances."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    type: Literal["message_passing"]
    features: PositiveInt = 32
    interactions: PositiveInt = 2
    basis_functions: PositiveInt = 4
    cutoff: PositiveFloat | None = None
    """Largest bead distance that interacts [nm]; null for all pairs."""
    torsion_order: int = Field(default=6, ge=0, le=12)
    """Order of the Fourier series in those collective variables that are torsions about bonds of beads. After training
    it makes the potential's PMF of them that of the labels, for which replicas of 5 ps are simulated; 0 for none."""
    prior: ChainPrior | None = None
    """A force field of the chain that the network corrects; null for the network alone."""

    @property
    def chain_prior(self) -> ChainPrior | None:
        """The prior."""
        return self.prior

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """What does not fit a box of beads."""
        if scope.box is None:
            return
        half = f"half the box ({scope.box / 2} nm)"
        if self.prior is not None:
            yield Fault("prior", "is for the beads of one molecule, not for a box of beads; leave it out")
        if self.cutoff is None:
            yield Fault("cutoff", f"is null, but the beads are in a periodic box; give at most {half}")
        elif self.cutoff > scope.box / 2:
            yield Fault("cutoff", f"{self.cutoff} nm is beyond {half}; lower it")


class ThermalNetwork(Family, family="thermal network"):
    """The form of a potential W(R, T)."""

    learns_unconstrained: ClassVar[bool] = False
    """Whether it learns from forces and energies of frames whose beads are free, too."""

    @property
    @abstractmethod
    def reach(self) -> float:
        """Distance beyond which beads do not interact [nm]."""

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A cutoff beyond half the box."""
        if scope.box is not None and self.reach > scope.box / 2:
            yield Fault(
                "",
                f"has a cutoff of {self.reach} nm, beyond half the box ({scope.box / 2:.4f} nm), where neighbours "
                "would be lost; lower it",
            )


class Splines(ThermalNetwork):
    """Cubic splines of pairs and triples, solved for: the fast form."""

    learns_unconstrained: ClassVar[bool] = True

    type: Literal["spline"]
    pair_cutoff: PositiveFloat
    """[nm], at most half the box, as all cutoffs."""
    pair_functions: int = Field(default=20, ge=4)
    triple_cutoff: PositiveFloat | None = None
    """[nm]; null for pairs alone."""
    triple_functions: PositiveInt = 5
    triple_degree: int = Field(default=4, ge=0, le=6)
    """Degree of the Legendre polynomials in the cosine of the angle."""

    @property
    def reach(self) -> float:
        """The longer of the two cutoffs [nm]."""
        return max(self.pair_cutoff, self.triple_cutoff or 0.0)


class TensorNetwork(ThermalNetwork):
    """HIP-NN-TS, the message-passing form, trained by descent."""

    type: Literal["tensor_network"]
    cutoff: PositiveFloat
    soft_cutoff: PositiveFloat
    """Centre of the last sensitivity [nm], at most the cutoff."""
    features: PositiveInt = 64
    sensitivities: int = Field(default=20, ge=2)
    layers: int = Field(default=3, ge=0)
    tensor_order: int = Field(default=2, ge=0, le=2)
    training: Training

    @property
    def reach(self) -> float:
        """The cutoff [nm]."""
        return self.cutoff

    @model_validator(mode="after")
    def _soft(self) -> TensorNetwork:
        if self.soft_cutoff > self.cutoff:
            raise ValueError(f"soft_cutoff {self.soft_cutoff} is beyond the cutoff {self.cutoff}; lower it")
        return self


class TemperatureForm(Strict):
    """How a potential depends on temperature (docs/thermal_potentials.md)."""

    form: Literal["taylor_temperature", "taylor_inverse_temperature", "constant_heat_capacity", "anchored"]
    origin: PositiveFloat | None = None
    """T_0 of the first three forms [K], best in the middle of the range."""
    order: int = Field(default=2, ge=0, le=2)
    anchors: list[PositiveFloat] = Field(default_factory=list)
    """Temperatures between which `anchored` interpolates [K]."""

    _rises = field_validator("anchors")(rising)

    @property
    def middle(self) -> float:
        """T_0; of anchors, the one in the middle [K]."""
        return self.origin or self.anchors[len(self.anchors) // 2]

    @model_validator(mode="after")
    def _of_form(self) -> TemperatureForm:
        if self.form == "anchored" and (len(self.anchors) < 2 or self.origin is not None):
            raise ValueError("the form anchored needs at least two anchors, and no origin")
        if self.form != "anchored" and (self.origin is None or self.anchors):
            raise ValueError(f"the form {self.form} needs an origin, and no anchors")
        return self
