"""Building blocks of all settings: strict fields, names, formulas, whole multiples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

from cg_assets.core.errors import ExpressionError
from cg_assets.core.expressions import parse_expression
from cg_assets.core.units import UnitSystem, thermal_energy

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]

StartPoint = dict[Name, float]


@dataclass(frozen=True)
class Scope:
    """What a section of a system's file can use from the others.

    Attributes:
        model: kind of the model.
        units: `molar`, or `reduced` for model potentials.
        temperature: of the system [K or reduced]; None where there are many.
        folder: of the file, against which relative paths are read.
        variables: names of the collective variables; of a model potential, of its CG coordinates, in order.
        angles: those of them that are angles.
        coordinates: names of a model potential's coordinates; none for molecules.
        box: edge of the periodic box of the beads [nm]; None where they are one molecule.
    """

    model: str
    units: UnitSystem
    temperature: float | None
    folder: Path
    variables: tuple[str, ...] = ()
    angles: frozenset[str] = frozenset()
    coordinates: tuple[str, ...] = ()
    box: float | None = None

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced], where there is one temperature."""
        return thermal_energy(self.temperature or 0.0, self.units)

    def unknown(self, field: str, names: Iterable[str], known: Iterable[str] | None = None) -> Iterator[Fault]:
        """The fault of a field that uses names that are not among those known, by default the collective variables."""
        there = set(self.variables if known is None else known)
        if wrong := set(names) - there:
            yield Fault(field, f"uses {sorted(wrong)}; known are {sorted(there)}")

    def missing(self, field: str, file: Path | None) -> Iterator[Fault]:
        """A fault of a field whose file is missing."""
        if file is not None and not (self.folder / file).is_file():
            yield Fault(field, f"names no file, {self.folder / file}; give a path relative to the YAML file")


class Fault(NamedTuple):
    """A fault of a section: the field, dotted (empty for the whole), and what is wrong with it."""

    field: str
    reason: str


class Strict(BaseModel):
    """Refuses unknown fields and cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    goes_with: ClassVar[tuple[str, ...]] = ()
    """Types of model that a section is for; empty for all."""

    def misfit(self, model: str) -> Fault:
        """The fault of a section that does not fit a type of model."""
        return Fault("", f"is for model.type {' or '.join(self.goes_with)} alone; leave it out")

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Faults of this section with respect to the others; faults of its own are found when it is read."""
        return iter(())


def _parsed(text: str) -> str:
    try:
        parse_expression(text)
    except ExpressionError as error:
        raise ValueError(str(error)) from None
    return text


Formula = Annotated[str, AfterValidator(_parsed)]
"""A formula that has been parsed (never evaluated as Python)."""


def is_multiple(value: float, part: float) -> bool:
    """Whether a time is a whole number of others."""
    return abs(value / part - round(value / part)) <= 1e-6


def rising_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """A lower and an upper limit, in this order."""
    if not limits[0] < limits[1]:
        raise ValueError(f"{list(limits)} does not rise; give the lower limit first")
    return limits


def rising(value: list[float]) -> list[float]:
    """Temperatures that rise."""
    if any(high <= low for low, high in itertools.pairwise(value)):
        raise ValueError(f"{value} does not rise; list the temperatures from the lowest up, each once")
    return value


def check_multiples(plan: Strict, pairs: tuple[tuple[str, str], ...]) -> None:
    """Refuse times of a plan that are not whole numbers of others."""
    for name, part in pairs:
        value, least = getattr(plan, name), getattr(plan, part)
        if not is_multiple(value, least):
            raise ValueError(f"{name} {value} is not a whole number of {part}s of {least}")


class Training(Strict):
    """How a potential is fitted to forces."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    patience: PositiveInt = 10
    """Epochs without a better held-out loss before training stops."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Part by which weight matrices shrink in each step, divided by the learning rate: keeps networks that learn from
    noisy labels smooth beyond their data."""
    held_out_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)
    committee: int = Field(default=0, ge=0, le=64)
    """Further networks, each trained on stretches of time drawn with replacement; their scatter is the uncertainty of
    the potential. 0 for none."""
    seed: int = Field(default=0, ge=0)

    @field_validator("committee")
    @classmethod
    def _scatter(cls, value: int) -> int:
        if value == 1:
            raise ValueError("committee is 1; one network has no scatter, give at least 2 or 0 for none")
        return value
