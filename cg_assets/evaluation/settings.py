"""Settings of references and of the evaluation of potentials."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cg_assets.core.family import Family
from cg_assets.core.nested import fields_of
from cg_assets.core.settings import (
    LIQUIDS,
    NANOMETRES,
    Built,
    Fact,
    Fault,
    Name,
    Range,
    Scope,
    Strict,
    distinct,
    is_multiple,
    rising_limits,
)
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.simulation.settings import CGSimulation

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.evaluation.reference import Reference as FreeEnergies
    from cg_assets.evaluation.reference import ReferenceCase


class Reference(Family, family="reference"):
    """What potentials are compared with.

    Attributes:
        exact: whether it has no statistical error.
    """

    exact: ClassVar[bool] = False

    is_data: ClassVar[bool] = False
    """Whether the reference is the system's own frames."""

    @property
    def sampled(self) -> SamplingPlan | None:
        """The plan of its runs; None where none are made."""
        return None

    @property
    def largest_difference(self) -> float | None:
        """Bound of what the folded shares of the halves of a ladder differ by; None without one."""
        return None

    @property
    def further_temperatures(self) -> list[float]:
        """Temperatures besides the system's at which potentials are compared with it [reduced]."""
        return []

    @property
    def files(self) -> list[Path]:
        """The file that holds it, relative to the folder of the YAML file; none where it is computed."""
        return []

    def reaches(self, basin: Basin, bins: int) -> bool:
        """Whether it has a bin in a basin, as far as that shows before it is computed."""
        return True

    @abstractmethod
    def compute(
        self, case: ReferenceCase, seed: int, directory: Path, progress: Progress | None, data: Frames | None
    ) -> FreeEnergies:
        """Compute, read or run it.

        Args:
            case: what it is computed from.
            seed: seed of the runs, where runs are made.
            directory: folder for the checkpoints of unfinished runs.
            progress: called during the runs.
            data: frames of beads, of which a reference that `is_data` is made.

        Raises:
            StorageError: the file that is named cannot be read or belongs to another plan.
        """


class QuadratureReference(Reference):
    """The exact PMF of a model potential by numerical quadrature."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    exact: ClassVar[bool] = True
    type: Literal["quadrature"]
    range: Range | dict[Name, Range]
    """Interval of the CG coordinate over which errors are measured; of two CG coordinates, that of each by name."""
    temperatures: list[PositiveFloat] | None = None
    """Further temperatures at which a potential along one CG coordinate is compared with the exact PMF [reduced]."""

    _distinct = field_validator("temperatures")(distinct)

    @property
    def further_temperatures(self) -> list[float]:
        """The field."""
        return self.temperatures or []

    @field_validator("range")
    @classmethod
    def _rises(cls, value: Any) -> Any:
        for limits in fields_of(value).values() or [value]:
            rising_limits(limits)
        return value

    @property
    def _ranges(self) -> dict[str, Range]:
        """Those of two CG coordinates by name; none of a single one."""
        return fields_of(self.range)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Limits of other coordinates than the CG coordinates, temperatures of a plane."""
        names = list(scope.variables) if len(scope.variables) > 1 else []
        if names and self.temperatures:
            yield Fault("temperatures", f"are for one CG coordinate, not {len(names)}; leave them out")
        if list(self._ranges) != names:
            expected = f"the limits of {' and '.join(names)} by name" if names else "two numbers"
            yield Fault("range", f"is {self.range}; give {expected}")

    def reaches(self, basin: Basin, bins: int) -> bool:
        """Whether the middle of one of the bins of the interval lies in the basin; of two CG coordinates always."""
        if self._ranges:
            return True
        low, high = cast("Range", self.range)
        middles = [low + (high - low) * (bin + 0.5) / bins for bin in range(bins)]
        return all(any(start <= middle <= end for middle in middles) for start, end in basin.limits.values())

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """An interval beyond the domain, and a domain that cuts off weight at a further temperature."""
        domain = built.model.landscape(built.beads).variable_ranges()
        for kelvin in self.temperatures or ():
            built.model.landscape(built.beads.at_temperature(kelvin)).verified()
        asked = self._ranges or dict.fromkeys(domain, cast("Range", self.range))
        for name, (low, high) in asked.items():
            if not domain[name][0] <= low < high <= domain[name][1]:
                shown = " to ".join(f"{end:g}" for end in domain[name])
                yield Fault("range", f"of {name} is {low:g} to {high:g}, beyond the domain, {shown}; narrow it")

    def compute(
        self, case: ReferenceCase, seed: int, directory: Path, progress: Progress | None, data: Frames | None
    ) -> FreeEnergies:
        """By quadrature of the Boltzmann weight."""
        from cg_assets.evaluation.reference import exact_line, exact_surface

        return exact_surface(case, self._ranges) if self._ranges else exact_line(case, cast("Range", self.range))


class LongRunReference(Reference):
    """Independent long runs, each with its own frozen bias or ladders of temperatures; the error is their scatter."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    type: Literal["long_runs"]
    runs: int = Field(default=2, ge=2, le=1000)
    """Independent runs, whose disagreement is the error."""
    plan: SamplingPlan
    """How each of them is sampled."""
    file: Path | None = None
    """A finished reference (Parquet) relative to the folder of the YAML file; null to run the plan."""

    @property
    def sampled(self) -> SamplingPlan:
        """The plan."""
        return self.plan

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Frames of other temperatures than that of the reference."""
        if self.plan.kept_rungs > 1:
            yield Fault("plan.tempering.kept_rungs", "is all, but a reference is at one temperature; leave it out")

    def facts(self, built: Built) -> Iterator[Fact]:
        """Where it comes from."""
        yield "reference", f"{self.runs} runs of its plan" if self.file is None else f"{self.file}: its plan is not run"

    @property
    def files(self) -> list[Path]:
        """The file that is named."""
        return [] if self.file is None else [self.file]

    def compute(
        self, case: ReferenceCase, seed: int, directory: Path, progress: Progress | None, data: Frames | None
    ) -> FreeEnergies:
        """From the file, or else by its runs."""
        from cg_assets.evaluation.reference import of_long_runs

        return of_long_runs(case, self, seed, directory, progress)


class DataReference(Reference):
    """The imported trajectories, or else the unbiased frames; the disagreement of their halves is the error.

    Of a ladder that keeps the frames of all rungs, a reference at each temperature.
    """

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    is_data: ClassVar[bool] = True

    type: Literal["data"]
    max_difference: PositiveFloat | None = None
    """Largest difference of the folded shares of two halves of a ladder, at any temperature, that passes; null for no
    such check."""

    @property
    def largest_difference(self) -> float | None:
        """The field."""
        return self.max_difference

    def compute(
        self, case: ReferenceCase, seed: int, directory: Path, progress: Progress | None, data: Frames | None
    ) -> FreeEnergies:
        """From the halves of the data."""
        from cg_assets.evaluation.ladder import of_ladder
        from cg_assets.evaluation.reference import of_data

        if data is None:
            raise ValueError("the reference is the data, but there are none")
        several = len(set(data.temperature.tolist())) > 1
        return of_ladder(case, data) if several else of_data(case, data)


class Basin(Strict):
    """A region of collective-variable space whose population is reported."""

    limits: dict[Name, Range] = Field(min_length=1)
    """Name of each variable to its lowest and highest value in the basin [rad, nm or reduced]."""

    @field_validator("limits")
    @classmethod
    def _limits_rise(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        return {name: rising_limits(limits) for name, limits in value.items()}


class SlowCoordinates(Strict):
    """The two slowest coordinates of the reference, by time-lagged independent component analysis."""

    lag: PositiveFloat
    """Lag time [ps], a multiple of the time between frames of the reference and of the CG simulation."""
    bins: int = Field(default=20, ge=5, le=200)
    """Bins along each in histograms."""
    dynamics: Name | None = None
    """Further plan whose frames give the time scales of the atoms: of a ladder that does not exchange while frames are
    kept. Null for the frames of the reference, whose time scales under replica exchange are those of the exchange."""

    def time_faults(self, intervals: Mapping[str, float], durations: Mapping[str, float]) -> Iterator[Fault]:
        """A lag that does not fit the times between frames, or the durations, of the runs, each by its field [ps]."""
        for name, interval in intervals.items():
            if not is_multiple(self.lag, interval):
                yield Fault("lag", f"{self.lag} is not a multiple of {name} {interval}")
        for name, duration in durations.items():
            if duration <= self.lag:
                yield Fault("lag", f"{self.lag} is not shorter than {name} {duration}; lower it")


class NativeStructure(Strict):
    """The folded structure of a molecule."""

    file: Path
    """A PDB file with the atoms of all beads, relative to the folder of the YAML file."""
    folded_rmsd: PositiveFloat = 0.2
    """Root mean square deviation of the beads up to which a configuration counts as folded [nm]."""

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A file that is missing, and a deviation in Å."""
        yield from scope.missing("file", self.file)
        yield from scope.unlikely("folded_rmsd", self.folded_rmsd, 0.01, 1, NANOMETRES)

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where the file has the atoms of all beads; errors as of `beads_in`."""
        self.beads(built)
        return iter(())

    def facts(self, built: Built) -> Iterator[Fact]:
        """How its residues were found, where they are counted or named otherwise."""
        yield from self.beads(built)[1]

    def beads(self, built: Built) -> tuple[NDArray[np.float64], list[Fact]]:
        """Positions of the beads, and how the residues were found; errors as of `beads_in`."""
        from cg_assets.mapping.other_structure import beads_in

        path = built.scope.folder / self.file
        return beads_in(built.structure, built.beads.cg_map, path, "evaluation.native.file")


class EvaluationSettings(Family, family="evaluation"):
    """How trained potentials are evaluated. A metric applies to systems whose settings are of the kind that it reads.

    Its `type` follows from the model.

    Attributes:
        all_must_be_stable: whether a potential fails when one replica of its CG simulation explodes.
    """

    all_must_be_stable: ClassVar[bool] = True

    @property
    def free_energies(self) -> FreeEnergySettings | None:
        """Its settings, where potentials are judged by free energies."""
        return None

    @property
    def liquid(self) -> LiquidSettings | None:
        """Its settings, where potentials are judged by the structure of a liquid."""
        return None


class FreeEnergySettings(EvaluationSettings):
    """How a potential is evaluated by free energies, and when it may become champion."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential", "molecule")
    type: Literal["free_energies"] = "free_energies"
    reference: Reference
    """What free energies are compared with."""
    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    """Names of one or two variables in which free energies are compared."""
    bins: int = Field(default=60, ge=10, le=400)
    """Bins of each variable."""
    basins: dict[Name, Basin] = Field(default_factory=dict)
    """Regions by name, whose populations and barriers are compared."""
    max_pmf_error: PositiveFloat
    """Bound of the blocking check: PMF root mean square error [kT] of a model potential, or the
    mass-weighted squared error of ln p for a molecule (docs/evaluation.md)."""
    slow_coordinates: SlowCoordinates | None = None
    """Also evaluate a molecule in the slowest coordinates of its data; null not to."""
    native: NativeStructure | None = None
    """Also evaluate a molecule by its distance from this structure; null not to."""

    _distinct = field_validator("collective_variables")(distinct)

    @property
    def free_energies(self) -> FreeEnergySettings:
        """It."""
        return self

    @model_validator(mode="after")
    def _has_data(self) -> FreeEnergySettings:
        if self.slow_coordinates is not None and not self.reference.is_data:
            raise ValueError("slow_coordinates requires reference.type data, whose frames determine what is slow")
        if self.native is not None and self.slow_coordinates is None:
            raise ValueError("native requires slow_coordinates; give their lag")
        if self.reference.largest_difference is not None and self.native is None:
            raise ValueError("reference.max_difference is of folded shares; name the folded structure in native")
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Unknown collective variables; not those that are the two CG coordinates of a model potential."""
        yield from scope.unknown("collective_variables", self.collective_variables)
        for name, basin in self.basins.items():
            unknown = list(scope.unknown(f"basins.{name}", basin.limits))
            yield from unknown
            if not unknown and not self.reference.reaches(basin, self.bins):
                yield Fault(
                    f"basins.{name}",
                    "holds no bin of reference.range; widen that, move the basin, or raise evaluation.bins",
                )
            for side in (0, 1):
                ends = {variable: limits[side] for variable, limits in basin.limits.items()}
                yield from scope.angle_faults(f"basins.{name}", ends)
        names = list(scope.variables)
        if scope.coordinates and len(names) == 2 and self.collective_variables != names:
            yield Fault("collective_variables", f"must be {names}, the CG coordinates")

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where a stored reference can be read.

        Raises:
            StorageError: it cannot, or belongs to another model or plan.
        """
        if self.reference.files:
            from cg_assets.evaluation.long_runs import read_reference
            from cg_assets.evaluation.reference import ReferenceCase

            read_reference(ReferenceCase(built.beads, self, built.model, built.structure, built.scope.folder))
        return iter(())


class LearningCurve(Strict):
    """Potentials trained on parts of each batch, to see how their error falls with the data."""

    fractions: list[float] = Field(min_length=2)
    """Parts of the kept time of each replica, from its beginning."""
    frames: list[PositiveInt] = Field(default_factory=list)
    """Numbers of frames drawn at random from a whole batch."""
    cg_simulation: CGSimulation | None = None
    """CG simulation of these potentials; null for that of the others."""

    _distinct = field_validator("fractions", "frames")(distinct)

    @field_validator("fractions")
    @classmethod
    def _parts(cls, value: list[float]) -> list[float]:
        if wrong := [fraction for fraction in value if not 0 < fraction <= 1]:
            raise ValueError(f"{wrong[0]} is not a fraction; give numbers above 0 and up to 1")
        return value


class LiquidSettings(EvaluationSettings):
    """How CG simulations are compared with the dynamics of the atoms, at each temperature of the reference.

    A replica that explodes is left out and counted; a temperature without a stable one is infinitely wrong.
    """

    goes_with: ClassVar[tuple[str, ...]] = LIQUIDS
    all_must_be_stable: ClassVar[bool] = False
    type: Literal["liquid"] = "liquid"

    max_rdf_error: PositiveFloat = 0.03
    """Largest integral of |g(r) - g(r) of the atoms|, less what noise makes of it, that passes [nm]."""
    neighbour_distance: PositiveFloat = 0.35
    """Distance of neighbours in the angular distribution function [nm]; about the first minimum of g(r)."""
    longest_lag: PositiveFloat = 10.0
    """Longest time of the mean squared displacement [ps]."""

    @property
    def liquid(self) -> LiquidSettings:
        """It."""
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Neighbours beyond half the box."""
        if scope.box is not None and self.neighbour_distance > scope.box / 2:
            yield Fault(
                "neighbour_distance",
                f"{self.neighbour_distance} nm is beyond half the box ({scope.box / 2:.4f} nm); lower it",
            )

    def time_faults(self, run: str, duration: float, interval: float) -> Iterator[Fault]:
        """A longest time that does not fit the duration of a run and the time between its frames [ps]."""
        if duration < 2 * self.longest_lag or self.longest_lag < 4 * interval:
            yield Fault(
                "longest_lag",
                f"{self.longest_lag} ps is not between 4 frame_intervals ({4 * interval} ps) and half the duration "
                f"({duration / 2} ps) of {run}; set another",
            )
