"""Settings of a model potential."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from cg_assets.core.expressions import parse_expression
from cg_assets.core.settings import Built, Fact, Fault, Formula, Name, Range, distinct
from cg_assets.core.units import UnitSystem
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.maps import Mapping
from cg_assets.sampling.model import Model

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.sampling.conditional import ConditionalForces
    from cg_assets.sampling.model_potential.landscape import Landscape
    from cg_assets.sampling.model_potential.sampler import ModelPotentialSampler
    from cg_assets.sampling.settings import Dynamics, SamplingPlan


class ModelPotential(Model):
    """An analytic potential energy of a few coordinates, in reduced units (k_B = 1)."""

    draws_starts: ClassVar[bool] = True
    units: ClassVar[UnitSystem] = "reduced"
    stored_constraints: ClassVar[list[tuple[int, int]]] = []

    type: Literal["model_potential"]
    coordinates: list[Name] = Field(min_length=1, max_length=3)
    """Names of the coordinates in the formula."""
    expression: Formula
    """Potential energy as a formula of the coordinates, numbers, pi, + - * / **, parentheses and exp, log, sqrt, sin,
    cos, tan, tanh, abs."""
    domain: dict[Name, Range]
    """Range of each coordinate that holds the Boltzmann weight, as `[-pi, pi]`; used for quadrature and plots."""
    mass: PositiveFloat = 1.0
    """Of each coordinate [reduced mass]."""

    _distinct = field_validator("coordinates")(distinct)

    @model_validator(mode="after")
    def _names_agree(self) -> ModelPotential:
        unknown = parse_expression(self.expression).names - set(self.coordinates)
        if unknown:
            raise ValueError(f"expression uses {sorted(unknown)}; the coordinates are {self.coordinates}")
        if set(self.domain) != set(self.coordinates):
            raise ValueError(f"domain gives {sorted(self.domain)}; it must give each of {self.coordinates}")
        for name, (low, high) in self.domain.items():
            if not low < high:
                raise ValueError(f"domain of {name} is [{low}, {high}]; the first number must be the smaller")
        return self

    def step_faults(self, beads: Beads, timestep: float) -> Iterator[Fault]:
        """The fault of a step that is too long for the curvature of the formula."""
        longest = self.landscape(beads).longest_timestep(self.mass)
        if timestep > longest:
            yield Fault(
                "timestep",
                f"is {timestep:g}, but the curvature of model.expression within 10 kT of its minimum allows at most "
                f"{longest:.2g}; lower it",
            )

    def step_seconds(self, structure: ModelPotential, beads: Beads) -> float:
        """As of the shipped potentials; nothing is compiled to measure it [s]."""
        return 1.5e-8

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where the domain holds the Boltzmann weight.

        Raises:
            SystemSpecError: the domain cuts weight off.
        """
        self.landscape(built.beads).verified()
        return iter(())

    def facts(self, built: Built) -> Iterator[Fact]:
        """The coordinates and their domain."""
        yield "coordinates", ", ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in self.domain.items())

    @property
    def coordinate_limits(self) -> dict[str, tuple[float, float]]:
        """The domain."""
        return {name: self.domain[name] for name in self.coordinates}

    @property
    def kind(self) -> str:
        """`model_potential`, also of models that extend it."""
        return "model_potential"

    def landscape(self, beads: Beads) -> Landscape:
        """The potential with its CG coordinates."""
        from cg_assets.sampling.model_potential.landscape import Landscape

        return Landscape(
            names=tuple(self.coordinates),
            expression=self.expression,
            variables=tuple(beads.cg_map.bead_names),
            vectors=tuple(tuple(map(float, row)) for row in beads.cg_map.matrix),
            bounds=tuple((float(self.domain[name][0]), float(self.domain[name][1])) for name in self.coordinates),
            thermal_energy=beads.thermal_energy,
        )

    def repeated_labels(
        self,
        structure: ModelPotential,
        beads: Beads,
        samples: Frames,
        frames: Frames,
        force_maps: Sequence[ForceMap],
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
    ) -> ConditionalForces | None:
        """Independent draws of what two CG coordinates leave open."""
        from cg_assets.sampling.model_potential.planes import conditional_draws

        if beads.cg_map.n_beads == 1:
            return None
        return conditional_draws(self.landscape(beads), frames.positions[:, :, 0], seed)

    def sampler(
        self, structure: ModelPotential, beads: Beads, plan: SamplingPlan, seed: int, snapshots: int = 0
    ) -> ModelPotentialSampler:
        """Compiled walkers."""
        from cg_assets.sampling.model_potential.sampler import ModelPotentialSampler

        return ModelPotentialSampler(self, beads, plan, seed)

    def structure(
        self, mapping: Mapping, variables: Dictionary[str, CollectiveVariable], folder: Path
    ) -> ModelPotential:
        """The potential itself."""
        return self
