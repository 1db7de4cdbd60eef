"""What is simulated: the family of models of a specification."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.family import Family
from cg_assets.core.settings import Fault
from cg_assets.core.units import UnitSystem
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.mapping.ball_and_stick import BallsAndSticks
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.sampling.conditional import ConditionalForces
    from cg_assets.sampling.held_beads import HeldBeads
    from cg_assets.sampling.model_potential.landscape import Landscape
    from cg_assets.sampling.piecewise import PiecewiseSampler
    from cg_assets.sampling.settings import Dynamics


class Model(Family, family="model"):
    """What is simulated.

    Attributes:
        units: `molar` or `reduced`.
        draws_starts: whether it finds start states by itself.
        is_liquid: whether each of many like molecules is a bead. Samples then hold beads, at several temperatures;
            potentials learn how their energy depends on temperature, and are judged by the structure of the liquid.
    """

    units: ClassVar[UnitSystem] = "molar"
    draws_starts: ClassVar[bool] = False
    is_liquid: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What other sections go with it: its type, or that of the model that it extends."""
        return self.type

    @property
    def longest_timestep(self) -> float | None:
        """Longest time step that the fastest motion of the atoms allows [ps]; None where it is not known."""
        return None

    def step_faults(self, beads: Beads, timestep: float) -> Iterator[Fault]:
        """The fault of a step that is too long for a formula; that of molecules is found by `longest_timestep`."""
        return iter(())

    def step_seconds(self, structure: Any, beads: Beads) -> float:
        """Time of a step of one replica here, on one core or GPU, measured or known from experience [s].

        Raises:
            SystemSpecError: no simulation can be set up.
        """
        return math.nan

    def largest_values(self, structure: Any, beads: Beads) -> dict[str, float]:
        """Value of collective variables that bonds do not let them exceed [nm]."""
        return {}

    def start_values(self, structure: Any, beads: Beads) -> dict[str, float]:
        """Value of each collective variable in the structure that dynamics start from, where there is one."""
        return {}

    def balls_and_sticks(self, structure: Any, beads: Beads) -> BallsAndSticks | None:
        """The molecule with its beads as dynamics start; None where there is nothing of atoms to draw."""
        return None

    @property
    def coordinate_limits(self) -> dict[str, tuple[float, float]]:
        """Range of each of a model potential's coordinates, in order; none of molecules."""
        return {}

    @property
    def bead_box(self) -> float | None:
        """Edge of the periodic box of the beads [nm]; None where they are one molecule, isolated or solvated."""
        return None

    def is_solvated(self, mapping: Any, folder: Path) -> bool:
        """Whether the beads are one molecule in a solvent without beads, to which they are isolated."""
        return False

    @property
    def is_simulated(self) -> bool:
        """Whether everything that a simulation of the atoms needs is there."""
        return True

    def files(self, folder: Path) -> list[Path]:
        """The files that the model is read from, given the folder of the system's file."""
        return []

    def landscape(self, beads: Beads) -> Landscape:
        """The potential energy as a function of a few coordinates, for exact answers.

        Raises:
            SystemSpecError: there is none.
        """
        raise SystemSpecError(f"{beads.name}: exact quadrature needs model.type model_potential; use long runs instead")

    def repeated_labels(
        self,
        structure: Any,
        beads: Beads,
        samples: Frames,
        frames: Frames,
        force_maps: Sequence[ForceMap],
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
    ) -> ConditionalForces | None:
        """Force labels at the same bead positions, again and again, for their noise.

        Args:
            structure: what `structure` gave.
            beads: its beads.
            samples: frames with all atoms, from which configurations are drawn.
            frames: CG frames, from which they are drawn where beads are enough.
            force_maps: the maps that make labels.
            dynamics: time step and friction.
            seed: of all random numbers.
            progress: told of finished configurations.

        Returns:
            The labels; None where labels along the one CG coordinate can be binned instead.
        """
        return None

    def hold_fault(self, structure: Any, beads: Beads) -> str:
        """Why beads cannot be held for sampling at all temperatures of a ladder; empty where they can.

        Args:
            structure: what `structure` gave.
            beads: its beads.
        """
        return "needs atoms about fixed beads, which this model does not have"

    def held_beads(
        self, structure: Any, beads: Beads, mapping: Any, samples: Frames | None, starts: Frames
    ) -> HeldBeads:
        """The atoms about fixed beads in some frames.

        Args:
            structure: what `structure` gave.
            beads: its beads.
            mapping: their settings.
            samples: frames that the force map is fitted to; None where `mapping.needs_frames` is false.
            starts: frames with all atoms whose beads are held.

        Raises:
            SamplingError: beads cannot be held, or frames do not have the atoms.
        """
        raise SamplingError(f"{beads.name}: {self.hold_fault(structure, beads)}")

    def measured_box(
        self,
        structure: Any,
        temperature: float,
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
        folder: Path | None = None,
    ) -> Estimate:
        """Edge of the box at atmospheric pressure [nm].

        Args:
            structure: what `structure` gave.
            temperature: [K].
            dynamics: time step and friction.
            seed: of the dynamics and of the barostat.
            progress: called during the run.
            folder: where an interrupted run is kept, and from where it resumes.

        Raises:
            SystemSpecError: it is in no periodic box, or its box is not free.
        """
        raise SystemSpecError("the model is in no periodic box; only in one there is a pressure")

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
