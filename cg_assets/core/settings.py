"""Building blocks of all settings: strict fields, names, formulas, whole multiples."""

from __future__ import annotations

import ast
import cmath
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from cg_assets.core.errors import ExpressionError
from cg_assets.core.expressions import constant_value, parse_expression
from cg_assets.core.nested import fields_of, rebuilt
from cg_assets.core.units import UnitSystem, thermal_energy

_NAME, _ATOM = r"^[a-z][a-z0-9_]*$", r"^[0-9]+:[A-Za-z0-9'*]+$"
_SITE = rf"{_ATOM}|^[^:/\s]+$"
Name = Annotated[str, Field(pattern=_NAME, max_length=60)]
AtomName = Annotated[str, Field(pattern=_ATOM, max_length=40)]
"""An atom as `residue number:atom name`, residues counted from 1."""
SiteName = Annotated[str, Field(pattern=_SITE, max_length=60)]
"""A bead by its name, or an atom that a bead sits on."""
PATTERNS = {
    _NAME: "lower-case letters, digits and underscores, with a letter first",
    _ATOM: "residue number:atom name, residues counted from 1, as in 2:CA, or chain/number:atom name of model.pdb, as "
    "in A/38:CA",
    _SITE: "the name of a bead, or residue number:atom name, residues counted from 1, as in 2:CA (with model.pdb also "
    "A/38:CA)",
}
"""Each pattern of text in words, for messages."""


def _number(value: Any) -> Any:
    """The value of a formula of numbers and pi; anything else as it is."""
    if not isinstance(value, str) or "pi" not in value:
        return value
    try:
        formula = parse_expression(value)
    except ExpressionError as error:
        raise ValueError(str(error)) from None
    number = constant_value(formula.tree)
    if number is None:
        raise ValueError(f"must be a number or a formula of numbers and pi, not of {', '.join(sorted(formula.names))}")
    if not re.fullmatch(_OF_PI, value):
        raise ValueError("takes numbers, pi, + - * /, parentheses and spaces alone; write the value of anything else")
    return number


_OF_PI = r"^(?=.*pi)([-+*/(). 0-9]|[0-9.][eE][-+0-9]|pi)*$"
"""What a formula of numbers and pi is written with, for the loader and for editors."""
_NUMBER_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _OF_PI}]}
Number = Annotated[float, BeforeValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""A number, or a formula of numbers and pi, as in `-pi/2`."""
Range = tuple[Number, Number]
"""A lowest and a highest value."""
StartPoint = dict[Name, Number]

Size = Annotated[int, Field(ge=1, le=10_000)]
"""Number of functions, units of a layer, or repetitions, each of which takes memory or time."""

KELVIN, NANOMETRES, PICOSECONDS = "K (0 °C is 273.15 K)", "nm (1 Å is 0.1 nm)", "ps (1 fs is 0.001 ps)"
"""Units of fields of molecules, with their usual slips."""


@dataclass(frozen=True)
class Scope:
    """What a section of a system's file can use from the others.

    Attributes:
        model: kind of the model.
        units: `molar`, or `reduced` for model potentials.
        temperature: of the system [K or reduced]; the lowest where there are several.
        folder: of the file, against which relative paths are read.
        variables: names of the collective variables; of a model potential, of its CG coordinates, in order.
        angles: those of them that are angles.
        undriven: those of them that the atoms cannot be driven along.
        coordinates: names of a model potential's coordinates; none for molecules.
        box: edge of the periodic box of the beads [nm]; None where they are one molecule.
        limits: range of each collective variable, or of each coordinate of a model potential.
        longest_timestep: that the fastest motion of the atoms allows [ps]; None where it is not known.
        temperatures: all of them, where there are several [K].
        draws_starts: whether the model finds start states by itself.
    """

    model: str
    units: UnitSystem
    temperature: float
    folder: Path
    variables: tuple[str, ...] = ()
    angles: frozenset[str] = frozenset()
    undriven: frozenset[str] = frozenset()
    coordinates: tuple[str, ...] = ()
    box: float | None = None
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    longest_timestep: float | None = None
    temperatures: tuple[float, ...] = ()
    draws_starts: bool = False

    @property
    def thermal_energy(self) -> float:
        """k_B T [kJ/mol or reduced]."""
        return thermal_energy(self.temperature, self.units)

    def unknown(self, field: str, names: Iterable[str], known: Iterable[str] | None = None) -> Iterator[Fault]:
        """The fault of a field that uses names that are not among those known, by default the collective variables.

        Where there are none at all, that is the fault to be named.
        """
        there = set(self.variables if known is None else known)
        if there and (wrong := set(names) - there):
            yield Fault(field, f"uses {sorted(wrong)}; known are {sorted(there)}")

    def not_driven(self, field: str, names: Iterable[str], known: Iterable[str] | None = None) -> Iterator[Fault]:
        """Faults of a field whose variables the atoms are driven along: unknown ones, and those that cannot be."""
        yield from self.unknown(field, names, known)
        if wrong := self.undriven & set(names):
            yield Fault(field, f"uses {sorted(wrong)}, which can be evaluated but not biased; take another variable")

    def unlikely(self, field: str, value: float | None, low: float, high: float, units: str) -> Iterator[Fault]:
        """The fault of a number of a molecule that only a slip of units explains.

        Args:
            field: whose value it is.
            value: None where there is none.
            low: smallest value that makes sense.
            high: largest.
            units: in words, with an example of the usual slip.
        """
        if self.units == "molar" and value is not None and not low <= value <= high:
            yield Fault(field, f"is {value:g}, outside {low:g} to {high:g}; it is in {units}")

    def angle_faults(self, field: str, point: Mapping[str, float], most: float = 2 * math.pi) -> Iterator[Fault]:
        """Faults of values of collective variables: angles beyond a turn, which are degrees."""
        for name, value in point.items():
            if name in self.angles and abs(value) > most:
                yield Fault(
                    field,
                    f"gives {name} = {value:g}, but angles are in radians: {value:g} degrees are "
                    f"{math.radians(value):.4g}",
                )

    def place_faults(self, field: str, point: Mapping[str, float]) -> Iterator[Fault]:
        """Faults of values that replicas are to take: angles in degrees, and values outside their range."""
        yield from self.angle_faults(field, point)
        for name, value in point.items():
            low, high = self.limits.get(name, (-math.inf, math.inf))
            if name not in self.angles and not low <= value <= high:
                yield Fault(
                    field, f"gives {name} = {value:g}, outside its range, {low:g} to {high:g}; correct one of them"
                )

    def same_place_faults(self, field: str, points: Iterable[Mapping[str, float]], why: str) -> Iterator[Fault]:
        """Faults of points that are one, also by a whole turn of an angle; `why` is what that is bad for."""
        places: list[dict[str, complex]] = []
        for point in points:
            directions = {name: cmath.rect(1.0, value) for name, value in point.items() if name in self.angles}
            place = {**point, **directions}
            if any(
                place.keys() == other.keys() and all(abs(place[x] - other[x]) < 1e-5 for x in place) for other in places
            ):
                yield Fault(field, f"holds {dict(point)} twice; {why}")
            places.append(place)

    def step_faults(self, field: str, timestep: float) -> Iterator[Fault]:
        """The fault of a step that is too long for the fastest motion that constraints and masses leave."""
        longest = self.longest_timestep
        if longest is not None and timestep > longest * (1 + 1e-6):
            yield Fault(
                field,
                f"is {timestep:g} ps, but the constraints and hydrogen masses of the model allow at most {longest:.2g} "
                "ps; lower it (1 fs is 0.001 ps), or set model.constraints to h_bonds and model.hydrogen_mass to 4",
            )

    def friction_faults(self, friction: float, timestep: float) -> Iterator[Fault]:
        """The fault of a thermostat that replaces the velocities within a step: times are then those of the step."""
        if friction * timestep > 1.0:
            yield Fault(
                "friction",
                f"is {friction:g}, so velocities are forgotten within a step of {timestep:g}; give at most "
                f"{1.0 / timestep:.3g}, or a shorter timestep",
            )

    def missing(self, field: str, file: Path | None) -> Iterator[Fault]:
        """A fault of a field whose file is missing."""
        if file is not None and not (self.folder / file).is_file():
            yield Fault(field, f"names no file, {self.folder / file}; give a path relative to the YAML file")


Fact = tuple[str, str]
"""What something is about, and what was understood."""


@dataclass(frozen=True)
class Built:
    """What a system's file asks for, as it has been built.

    Attributes:
        scope: what its sections share.
        model: what is simulated.
        structure: what `model` built.
        beads: made of it.
        mapping: settings of the beads.
        examined: what sections made of it to check it, by their names.
    """

    scope: Scope
    model: Any
    structure: Any
    beads: Any
    mapping: Any
    examined: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def step_seconds(self) -> float:
        """Time of a step of one replica here, on one core or GPU [s]."""
        return self.model.step_seconds(self.structure, self.beads)

    @cached_property
    def largest_values(self) -> dict[str, float]:
        """Value of collective variables that bonds do not let them exceed [nm]."""
        return self.model.largest_values(self.structure, self.beads)

    def reach_faults(self, field: str, point: Mapping[str, float]) -> Iterator[Fault]:
        """Faults of values that the molecule cannot take, however it is stretched."""
        for name, value in point.items():
            if value > (most := self.largest_values.get(name, math.inf)):
                yield Fault(
                    field, f"gives {name} = {value:g}, but the bonds between its atoms reach {most:.3g} nm; lower it"
                )


class Fault(NamedTuple):
    """A fault of a section: the field, dotted (empty for the whole), and what is wrong with it."""

    field: str
    reason: str


MOST = 1_000_000_000
"""Largest whole number of a field that has no limit of its own."""

MOST_STEPS, MOST_FRAMES = 1e13, 1e9
"""Of dynamics."""


def _is_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "must be an integer, not {kind}", {"kind": _kind(value)})
    return value


def _kind(value: bool | str) -> str:
    return "text" if isinstance(value, str) else "true or false"


def _plain_numbers(schema: Any) -> Any:
    """A schema whose numbers are no text, truth values, or absurdly large, and whose truth values are no numbers."""
    schema = rebuilt(schema, _plain_numbers)
    match fields_of(schema).get("type"):
        case "float" | "bool":
            return schema | {"strict": True}
        case "int":
            limited = schema if {"le", "lt"} & set(schema) else schema | {"le": MOST}
            return core_schema.no_info_before_validator_function(_is_number, limited)
    return schema


def meanings(settings: type[BaseModel]) -> dict[str, str]:
    """Name of each field, those of parents included, to the text that stands below it in the code."""
    found: dict[str, str] = {}
    for parent in reversed(settings.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
            for pair in itertools.pairwise(cast("ast.ClassDef", tree).body):
                match pair:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = " ".join(text.split())
    return found


LIQUIDS = ("water", "liquid")
"""Types of models whose molecules are beads."""


class Strict(BaseModel):
    """Refuses unknown fields and text for numbers, and cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    goes_with: ClassVar[tuple[str, ...]] = ()
    """Types of model that a section is for; empty for all."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """The usual schema, with strict numbers."""
        return _plain_numbers(handler(source))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The usual schema, with the texts that stand below fields."""
        reference = handler(schema)
        properties = handler.resolve_ref_schema(reference).get("properties", {})
        for name, text in meanings(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return reference

    def misfit(self, model: str) -> Fault:
        """The fault of a section that does not fit a type of model."""
        return Fault("", f"is for model.type {' or '.join(self.goes_with)} alone; leave it out")

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Faults of this section with respect to the others; faults of its own are found when it is read."""
        return iter(())

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """Faults that show only when everything has been built and files are read; see `System.check`.

        Raises:
            CgAssetsError: instead of a fault.
        """
        return iter(())

    def facts(self, built: Built) -> Iterator[Fact]:
        """What was understood of this section, for `cg-assets check`; an empty first part is that of its place."""
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
    parts = value / part
    return math.isfinite(parts) and abs(parts - round(parts)) <= 1e-6


_Items = TypeVar("_Items", bound=Sequence[Any] | None)


def distinct(value: _Items) -> _Items:
    """A list, no entry of which stands twice; None, or a word that stands for a list, as it is."""
    seen: list[Any] = []
    for item in () if value is None or isinstance(value, str) else value:
        if item in seen:
            raise ValueError(f"{item} stands twice; list each once")
        seen.append(item)
    return value


def rising_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """A lower and an upper limit, in this order."""
    if not limits[0] < limits[1]:
        raise ValueError(f"{list(limits)} does not rise; give the lower limit first")
    return limits


def rising(value: list[float] | None) -> list[float] | None:
    """Temperatures that rise; None as it is."""
    if any(high <= low for low, high in itertools.pairwise(value or ())):
        raise ValueError(f"{value} does not rise; list the temperatures from the lowest up, each once")
    return value


def check_size(runs: int, time: float, timestep: float, frame_interval: float) -> None:
    """Refuse dynamics that no computer finishes or stores.

    Args:
        runs: how many are made.
        time: of each [ps or reduced].
        timestep: [ps or reduced].
        frame_interval: time between frames [ps or reduced].
    """
    for what, part, most in (("steps", timestep, MOST_STEPS), ("frames", frame_interval, MOST_FRAMES)):
        if not runs * (time / part) <= most:
            raise ValueError(
                f"{runs} times {time:g} in parts of {part:g} are {runs * (time / part):.1e} {what}; at most {most:.0e} "
                "are possible: check the units, and lower the duration or the replicas"
            )


def check_multiples(plan: Strict, pairs: tuple[tuple[str, str], ...]) -> None:
    """Refuse times of a plan that are not whole numbers of others."""
    for name, part in pairs:
        value, least = getattr(plan, name), getattr(plan, part)
        if not is_multiple(value, least):
            raise ValueError(f"{name} {value} is not a whole number of {part}s of {least}")


class Training(Strict):
    """How a potential is fitted to forces."""

    epochs: PositiveInt
    """Most passes over the training frames."""
    batch_size: PositiveInt
    """Frames in each step of the optimiser."""
    learning_rate: PositiveFloat
    """First step size of the optimiser, which falls during training."""
    patience: PositiveInt = 10
    """Epochs without a better held-out loss before training stops."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Part by which weight matrices shrink in each step, divided by the learning rate: keeps networks that learn from
    noisy labels smooth beyond their data."""
    torque_weight: PositiveFloat | None = None
    """Weight of the torque about a bond in the loss, against that of the force on a bead; null for 10. A lower one
    fits less of the noise of long chains."""
    held_out_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)
    """Part of the frames, in stretches of time, on which the loss is judged."""
    committee: int = Field(default=0, ge=0, le=64)
    """Further networks, each trained on stretches of time drawn with replacement; their scatter is the uncertainty of
    the potential. 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights and of the order of the frames."""

    @field_validator("committee")
    @classmethod
    def _scatter(cls, value: int) -> int:
        if value == 1:
            raise ValueError("committee is 1; one network has no scatter, give at least 2 or 0 for none")
        return value
