"""What is simulated: the family of models that a specification may name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.family import Family
from cg_assets.core.units import UnitSystem
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable

if TYPE_CHECKING:
    from cg_assets.sampling.model_potential.landscape import Landscape
    from cg_assets.sampling.piecewise import PiecewiseSampler


class Model(Family, family="model"):
    """What is simulated.

    Attributes:
        units: `molar` or `reduced`.
    """

    units: ClassVar[UnitSystem] = "molar"

    @property
    def simulated_box(self) -> float | None:
        """Edge of the periodic box of the atoms [nm]; None without one."""
        return None

    @property
    def bead_box(self) -> float | None:
        """Edge of the periodic box of the beads [nm]; None where they are one molecule, isolated or solvated."""
        return None

    @property
    def is_simulated(self) -> bool:
        """Whether there is all that a simulation of the atoms needs."""
        return True

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """Names of a model potential's coordinates; none of molecules."""
        return ()

    def files(self, folder: Path) -> list[Path]:
        """The files that the model is read from, given the folder of the system's file."""
        return []

    def landscape(self, beads: Beads) -> Landscape:
        """The potential energy as a function of a few coordinates, for exact answers.

        Raises:
            SystemSpecError: there is none.
        """
        raise SystemSpecError(f"{beads.name}: exact quadrature needs model.type model_potential; use long runs instead")

    @abstractmethod
    def sampler(self, structure: Any, beads: Beads, plan: Any, seed: int, snapshots: int = 0) -> PiecewiseSampler[Any]:
        """A sampler of one batch of a plan; nothing is simulated yet.

        Args:
            structure: what `structure` gave.
            beads: its beads.
            plan: what to sample.
            seed: seed of the batch.
            snapshots: frames with all atoms to keep at least, where frames leave some out.

        Raises:
            SystemSpecError: the plan does not fit.
            SamplingError: the simulation cannot be set up.
        """

    @abstractmethod
    def structure(self, mapping: Any, variables: Mapping[str, CollectiveVariable], folder: Path) -> Any:
        """What the beads are made of, with `stored_constraints`: what `mapping.cg_map` takes.

        Args:
            mapping: settings of the beads, of the kind that fits the model.
            variables: the collective variables.
            folder: against which paths are read.

        Raises:
            SystemSpecError: an atom that is named does not exist, or the model cannot be built.
        """
