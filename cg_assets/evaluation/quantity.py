"""The parts of an evaluation: quantities, each with its error, and profiles, functions of one coordinate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.statistics.estimates import Estimate

FloatArray = NDArray[np.float64]

Of = Literal["model", "data", "labels", "committee"]
"""Whose number it is: of the potential and its simulation, of the frames that it was trained on, of their force labels
without a potential, or of the scatter within its committee."""

SAMPLED = "where frames are"
"""`where` of what is measured on the bins that hold frames, of a quantity that is measured on others, too."""

_ACRONYMS = {"pmf", "rmse", "jsd", "kl", "rdf", "adf", "rmsd"}


@dataclass(frozen=True)
class Quantity:
    """One number of an evaluation. Smaller is better for those that decide.

    Attributes:
        name: what it is; one name means one thing.
        value: the number with its standard error.
        reference: the same of the reference, or what noise alone would give; None where there is no such number.
        of: whose number it is.
        where: basin, bond, coordinate or run that it is of; empty where there is one.
        temperature: [K or reduced]; None where the system has one temperature, or the number is of all of them.
        bound: the largest value that passes; None where every value does.
        at_least: whether `bound` is the smallest value that passes.
        decides: whether a new model must not be worse in it to become champion.
        headline: whether it is shown first: in the comparison's figure and in printed results.
        own_error: part of the error of `value` that is not the reference's; None where all of it is. Not stored.
    """

    name: str
    value: Estimate
    reference: Estimate | None = None
    of: Of = "model"
    where: str = ""
    temperature: float | None = None
    bound: float | None = None
    at_least: bool = False
    decides: bool = False
    headline: bool = False
    own_error: float | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """Its name among all numbers of an evaluation, as metrics of a registered model are called."""
        parts = [self.name, "" if self.of == "model" else self.of, re.sub(r"\W+", "_", self.where)]
        if self.temperature is not None:
            parts.append(f"{self.temperature:g}K")
        return ".".join(part for part in parts if part)

    def to_json(self) -> dict[str, object]:
        """What it is and its numbers as plain JSON types; neither bound nor flags."""
        known = None if self.reference is None else self.reference.to_json()
        names = {"name": self.name, "of": self.of, "where": self.where, "temperature": self.temperature}
        return {**names, "value": self.value.to_json(), "reference": known}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Quantity:
        """The quantity that `to_json` described."""
        known = content["reference"]
        numbers = Estimate.from_json(content["value"]), None if known is None else Estimate.from_json(known)
        return cls(content["name"], *numbers, content["of"], content["where"], content["temperature"])

    @property
    def label(self) -> str:
        """Its name for figures."""
        words = " ".join(word.upper() if word in _ACRONYMS else word for word in self.name.split("_"))
        return " ".join(part for part in (words, self.where.replace("_", " ")) if part)

    @property
    def limit(self) -> str:
        """Its bound in tables; empty without one."""
        return "" if self.bound is None else f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    @property
    def passed(self) -> bool:
        """Whether it is within its bound."""
        if self.bound is None:
            return True
        value = self.value.value
        return math.isfinite(value) and (value >= self.bound if self.at_least else value <= self.bound)


@dataclass(frozen=True)
class Profile:
    """A function of one coordinate: of the model, and of the reference.

    Attributes:
        name: what it is.
        grid: `(n,)` values of the coordinate.
        values: `(n,)` of the model; not finite where nothing is known.
        unit: unit of the values.
        where: the collective variable that it runs along; empty where the name includes it.
        coordinate_unit: unit of the coordinate.
        temperature: [K]; None where the system has one temperature.
        standard_error: `(n,)` of `values`; nan where it is not known.
        reference: `(n,)` values of the reference; nan without one.
        reference_error: `(n,)` their standard error; 0 where the reference is exact.
    """

    name: str
    grid: FloatArray
    values: FloatArray
    unit: str
    where: str = ""
    coordinate_unit: str = ""
    temperature: float | None = None
    standard_error: FloatArray = field(default_factory=lambda: np.empty(0))
    reference: FloatArray = field(default_factory=lambda: np.empty(0))
    reference_error: FloatArray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        """Fill what is not known with nan."""
        for name in ("standard_error", "reference", "reference_error"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.grid), np.nan))


@dataclass(frozen=True)
class Drawing:
    """What a figure is drawn from beyond quantities and profiles; it is not stored.

    Attributes:
        temperature: [K]; None where there is one.
    """

    temperature: float | None = field(default=None, kw_only=True)
