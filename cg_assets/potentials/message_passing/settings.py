"""Settings of `MessagePassing` and of what is added to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, PositiveFloat, SerializerFunctionWrapHandler, model_serializer

from cg_assets.core.settings import Fault, Scope, Size
from cg_assets.core.units import thermal_energy
from cg_assets.mapping.chains import splitting_bonds
from cg_assets.potentials.chain_prior.settings import ChainPriorSettings
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.potentials.thermal.settings import TemperatureForm

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads
    from cg_assets.potentials.base import PotentialConfig
    from cg_assets.potentials.settings import PotentialClass


class MessagePassingSettings(PotentialSettings):
    """Many-body potential of beads by message passing over bead distances."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    type: Literal["message_passing"]
    features: Size = 32
    """Numbers that describe each bead."""
    interactions: Size = 2
    """Rounds of messages between beads."""
    basis_functions: Size = 4
    """Radial functions of a distance."""
    cutoff: PositiveFloat | None = None
    """Largest bead distance that interacts [nm]; null for all pairs."""
    torsion_order: int = Field(default=6, ge=0, le=12)
    """Order of the Fourier series in those collective variables that are torsions about bonds of beads. After training
    it makes the potential's PMF of them that of the labels, for which replicas of 5 ps are simulated; 0 for none."""
    prior: ChainPriorSettings | None = None
    """A force field of the chain that the network corrects; null for the network alone."""
    temperature_dependence: TemperatureForm | None = None
    """How the network depends on temperature; null for a potential at one temperature."""

    @model_serializer(mode="wrap")
    def _without_null(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without `temperature_dependence` where it is null: trainings from before there was such a field continue."""
        found = plain(self)
        return {name: value for name, value in found.items() if value is not None or name != "temperature_dependence"}

    @property
    def thermal_form(self) -> TemperatureForm | None:
        """Its `temperature_dependence`."""
        return self.temperature_dependence

    @classmethod
    def potential(cls) -> PotentialClass:
        """`MessagePassing`."""
        from cg_assets.potentials.message_passing.module import MessagePassing

        return MessagePassing

    @property
    def reach(self) -> float | None:
        """The cutoff [nm]."""
        return self.cutoff

    @property
    def chain_prior(self) -> ChainPriorSettings | None:
        """The prior."""
        return self.prior

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """What does not fit a box of beads, or several temperatures."""
        if self.temperature_dependence is not None and self.torsion_order:
            yield Fault("torsion_order", f"is {self.torsion_order}, but the series has no temperature; set it to 0")
        if scope.box is None:
            return
        half = f"half the box ({scope.box / 2} nm)"
        if self.prior is not None:
            yield Fault("prior", "is for the beads of one molecule, not for a box of beads; leave it out")
        if self.cutoff is None:
            yield Fault("cutoff", f"is null, but the beads are in a periodic box; give at most {half}")
        elif self.cutoff > scope.box / 2:
            yield Fault("cutoff", f"{self.cutoff} nm is beyond {half}; lower it")

    def config(self, beads: Beads) -> PotentialConfig:
        """Also the bonds of the beads, and the torsions of the series.

        Torsions are those collective variables that turn about a bond which splits the molecule, one for a bond. A
        prior is added where there are configurations to fit it to. With a temperature dependence k_B T is that of T_0.
        """
        cg_map = beads.cg_map
        torsions: dict[tuple[int, ...], list[int]] = {}
        if beads.box is None and self.torsion_order:
            hinges = {tuple(sorted(bond)) for bond, _ in splitting_bonds(cg_map.bonds)}
            for sites in beads.torsions:
                if (bond := tuple(sorted(sites[1:3]))) in hinges:
                    torsions.setdefault(bond, sites)
        bonds = [list(bond) for bond in cg_map.bonds]
        found = {**super().config(beads), "bonds": bonds, "torsions": list(torsions.values())}
        if self.temperature_dependence is not None:
            found["thermal_energy"] = thermal_energy(self.temperature_dependence.middle, beads.units)
        return cast("PotentialConfig", found)
