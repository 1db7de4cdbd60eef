"""The family of potentials: the settings of each in a system's file, and the class that it builds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.family import Family
from cg_assets.core.settings import Fault, Scope

if TYPE_CHECKING:
    import torch

    from cg_assets.core.settings import Training
    from cg_assets.mapping.beads import Beads
    from cg_assets.potentials.base import Potential, PotentialConfig
    from cg_assets.potentials.chain_prior.settings import ChainPriorSettings
    from cg_assets.potentials.thermal.settings import TemperatureForm

    PotentialClass = type[Potential]


class PotentialSettings(Family, family="potential"):
    """The form of a potential. A member names its class, and defines its own needs and limits.

    Attributes:
        needs_responses: whether it learns from rows of forces and of their derivatives by temperature.
        learns_unconstrained: whether it learns from forces and energies of frames whose beads are free, too.
    """

    needs_responses: ClassVar[bool] = False
    learns_unconstrained: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def potential(cls) -> PotentialClass:
        """The class that is built."""

    @property
    def needs_temperature(self) -> bool:
        """Whether it is a function of temperature."""
        return self.needs_responses or self.thermal_form is not None

    @property
    def thermal_form(self) -> TemperatureForm | None:
        """How it depends on temperature, where that is a setting of its own and not of what it learns from."""
        return None

    @property
    def reach(self) -> float | None:
        """Distance beyond which beads do not interact [nm]; None where all do."""
        return None

    @property
    def domain(self) -> tuple[float, float] | None:
        """Range of the CG coordinate that a potential of one coordinate is defined on; None of others."""
        return None

    @property
    def chain_prior(self) -> ChainPriorSettings | None:
        """Settings of a force field of the chain that the potential corrects; None without one."""
        return None

    @property
    def own_training(self) -> Training | None:
        """Its own training settings; None where those of the system apply, or where it is solved."""
        return None

    def config(self, beads: Beads) -> PotentialConfig:
        """Plain JSON from which `build_potential` makes it, with facts for users of a registered model.

        Args:
            beads: of the system.
        """
        cg_map = beads.cg_map
        found: dict[str, Any] = self.model_dump(mode="json", exclude={"training", "prior"}) | {
            "units": beads.units,
            "system": beads.name,
            "bead_names": list(cg_map.bead_names),
            "bead_types": list(cg_map.bead_types),
            "bead_masses": [float(mass) for mass in cg_map.bead_masses],
        }
        if not self.needs_temperature:
            found |= {"thermal_energy": beads.thermal_energy, "temperature": beads.temperature}
        return cast("PotentialConfig", found | ({"periodic": True} if beads.box is not None else {}))

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A cutoff beyond half the box."""
        if scope.box is not None and (self.reach or 0.0) > scope.box / 2:
            yield Fault(
                "",
                f"has a cutoff of {self.reach} nm, beyond half the box ({scope.box / 2:.4f} nm), where neighbours "
                "would be lost; lower it",
            )

    def refuse(self, positions: NDArray[np.float32]) -> None:
        """Refuse training configurations `(f, n, d)` that the potential cannot describe.

        Raises:
            TrainingError: the message names the field to change.
        """


def build_potential(config: PotentialConfig, generator: torch.Generator | None = None) -> Potential:
    """Build a potential from its config, before its weights are read or trained.

    Args:
        config: `type`, a member of `PotentialSettings`, and what its class asks for; `committee` makes it a
            `Committee` with this number of further networks. Further keys are ignored.
        generator: of the initial weights; seed 0 where None.

    Raises:
        ValueError: a key is missing or out of range.
    """
    from cg_assets.potentials.composite import build

    return build(potential_class(config), config, generator)


def potential_class(config: PotentialConfig) -> type[Potential]:
    """The class of potentials that a config names.

    Raises:
        ValueError: there is no such type.
    """
    members = PotentialSettings.members()
    if config.get("type") not in members:
        raise ValueError(f"type is {config.get('type')!r}; it must be one of {', '.join(members)}")
    return members[config["type"]].potential()
