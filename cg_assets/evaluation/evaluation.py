"""The evaluation of one potential: one table of quantities and profiles, for every kind of system."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.checks import Check, Verdict
from cg_assets.core.errors import StorageError
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.metric import Metric, measures_of_noise, metrics_of
from cg_assets.evaluation.quantity import SAMPLED, Drawing, Of, Profile, Quantity
from cg_assets.evaluation.settings import EvaluationSettings

_COLUMNS = (
    *("metric", "of", "where", "temperature", "coordinate", "value", "standard_error", "reference"),
    *("reference_error", "bound", "at_least", "decides", "headline", "unit", "coordinate_unit"),
)


@dataclass(frozen=True)
class Evaluation:
    """All that the metrics measured of one potential.

    Attributes:
        quantities: those that decide first, then those of the headlines.
        profiles: functions of one coordinate.
        drawings: what figures are drawn from; empty when the evaluation was read from its table.
        thermal_energy: kT of the system [energy]; nan when the evaluation was read from its table.
    """

    quantities: tuple[Quantity, ...]
    profiles: tuple[Profile, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    thermal_energy: float = math.nan

    def __post_init__(self) -> None:
        """Refuse two quantities of one key."""
        keys = [quantity.key for quantity in self.quantities]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"two quantities are called {sorted(twice)[0]}; one name must mean one thing")

    def __getitem__(self, key: str) -> Quantity:
        """The quantity of a key (`Quantity.key`).

        Raises:
            KeyError: there is none.
        """
        return {quantity.key: quantity for quantity in self.quantities}[key]

    def get(self, key: str) -> Quantity | None:
        """The quantity of a key; None where there is none."""
        return next((quantity for quantity in self.quantities if quantity.key == key), None)

    @property
    def temperatures(self) -> list[float]:
        """Temperatures that quantities are given at [K]; none where the system has one."""
        return sorted({item.temperature for item in self.quantities if item.temperature is not None})

    @property
    def decisive(self) -> tuple[Quantity, ...]:
        """The quantities that decide which model is champion."""
        return tuple(quantity for quantity in self.quantities if quantity.decides)

    @property
    def criteria(self) -> dict[str, Estimate]:
        """Key to value of each decisive quantity."""
        return {quantity.key: quantity.value for quantity in self.decisive}

    def metrics(self) -> dict[str, float]:
        """Key to number of the `estimates`."""
        return {key: item.value for key, item in self.estimates().items()}

    def estimates(self) -> dict[str, Estimate]:
        """Key to value of all that are finite numbers, and of those that decide or have a bound, whatever they are."""
        return {
            item.key: item.value
            for item in self.quantities
            if math.isfinite(item.value.value) or item.decides or item.bound is not None
        }

    def profile(self, name: str, where: str = "", temperature: float | None = None) -> Profile | None:
        """A profile; None where there is none."""
        wanted = (name, where, temperature)
        return next((item for item in self.profiles if (item.name, item.where, item.temperature) == wanted), None)

    def at_temperatures(self, name: str, where: str = "") -> dict[float, Quantity]:
        """The model's quantities of a name and place at each temperature [K]."""
        wanted = name, where, "model"
        return {
            item.temperature: item
            for item in self.quantities
            if (item.name, item.where, item.of) == wanted and item.temperature is not None
        }

    def verdicts(self, checks: Iterable[Check]) -> list[Verdict]:
        """Whether the quantities that each check is named as are within their bounds."""
        found, noise = [], measures_of_noise()
        for check in checks:
            name = check.name
            bounded = [item for item in self.quantities if item.name == name and item.bound is not None]
            facts: dict[str, Estimate | float | str] = {item.key: str(item.value) for item in bounded}
            if len(bounded) == 1:
                facts = {name: bounded[0].value}
            if bounded and bounded[0].bound is not None:
                facts["bound"] = bounded[0].bound
            if name in noise and len(bounded) == 1 and bounded[0].reference is not None:
                facts["noise_alone"] = str(bounded[0].reference)
            facts |= {
                item.where: str(item.value) for item in self.quantities if item.name == name and item.where == SAMPLED
            }
            found.append(check.verdict(all(item.passed for item in bounded), **facts))
        return found

    def rows(self) -> list[dict[str, str]]:
        """The quantities as rows of a table; one column for each temperature where there are several."""
        kelvins, noise = self.temperatures, measures_of_noise()
        rows: dict[tuple[str, str, str], dict[str, str]] = {}
        for item in self.quantities:
            names = {"metric": item.name, "of": item.of, "where": item.where}
            row = rows.setdefault(tuple(names.values()), names)  # type: ignore[arg-type]
            known = "" if item.reference is None else str(item.reference)
            column = "noise alone" if item.name in noise else "reference"
            if kelvins:
                row |= {"all": "", **{f"{kelvin:g} K": "" for kelvin in kelvins}} if len(row) == 3 else {}
                column = "all" if item.temperature is None else f"{item.temperature:g} K"
                row[column] = str(item.value) + (f" ({known})" if known else "")
            else:
                row |= {"result": str(item.value), "reference": "", "noise alone": "", "bound": item.limit}
                row[column] = known
        return list(rows.values())

    def columns(self) -> dict[str, list[Any]]:
        """The table: a row for each quantity, whose coordinate is nan, and for each point of a profile."""
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}

        def add(*row: Any) -> None:
            for column, value in zip(columns.values(), row, strict=True):
                column.append(math.nan if value is None else value)

        for item in self.quantities:
            value, known = item.value, item.reference or Estimate(math.nan, math.nan)
            flags = item.bound, item.at_least, item.decides, item.headline
            add(
                *(item.name, item.of, item.where, item.temperature, math.nan, value.value, value.standard_error),
                *(known.value, known.standard_error, *flags, value.unit, ""),
            )
        for line in self.profiles:
            for point in zip(
                line.grid, line.values, line.standard_error, line.reference, line.reference_error, strict=True
            ):
                names = line.name, "model", line.where, line.temperature
                add(*names, *map(float, point), math.nan, False, False, False, line.unit, line.coordinate_unit)
        return columns

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray]) -> Evaluation:
        """The evaluation that `columns` gave, without its drawings.

        Raises:
            StorageError: columns are missing: another version of the code wrote them.
        """
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise StorageError(f"an evaluation lacks the columns {', '.join(missing)}; evaluate the potential again")
        table = {name: np.asarray(columns[name]) for name in _COLUMNS}
        quantities = [
            _quantity({name: column[row] for name, column in table.items()})
            for row in np.flatnonzero(np.isnan(table["coordinate"].astype(np.float64)))
        ]
        points = ~np.isnan(table["coordinate"].astype(np.float64))
        names = ("metric", "where", "temperature")
        # nan differs from itself, and a temperature that is none is one temperature
        places = list(zip(*(table[name][points].astype(str).tolist() for name in names), strict=True))
        profiles = []
        for place in dict.fromkeys(places):
            rows = np.flatnonzero(points)[[other == place for other in places]]
            profiles.append(_profile({name: column[rows] for name, column in table.items()}))
        return cls(tuple(quantities), tuple(profiles))


def evaluate(case: Case[Any], metrics: Sequence[Metric[Any]] | None = None) -> Evaluation:
    """Evaluate a potential by all metrics that apply to its system.

    Args:
        case: the potential, its simulation, and what both are compared with.
        metrics: the metrics; None for all that apply.
    """
    quantities: list[Quantity] = []
    profiles: list[Profile] = []
    drawings: list[Drawing] = []
    for metric in metrics_of(case.settings) if metrics is None else metrics:
        for found in metric.measure(case):
            if isinstance(found, Quantity):
                quantities.append(found)
            elif isinstance(found, Profile):
                profiles.append(found)
            else:
                drawings.append(found)
    quantities.sort(key=lambda item: (not item.decides, not item.headline))
    return Evaluation(tuple(quantities), tuple(profiles), tuple(drawings), case.beads.thermal_energy)


_REMEDY = "see where it differs in the figures of the evaluation; more data, a bias or a longer training can help"


def checks_of(settings: EvaluationSettings) -> tuple[Check, ...]:
    """Checks of evaluations by these settings: a potential that fails one never becomes champion.

    They do not block, so that it is compared with the others all the same.
    """
    return tuple(
        Check(name, text, blocking=False, remedy=metric.remedies.get(name, _REMEDY))
        for metric in metrics_of(settings)
        for name, text in metric.checks(settings).items()
    )


def _quantity(row: Mapping[str, Any]) -> Quantity:
    unit = str(row["unit"])
    known = float(row["reference"])
    of: Of = row["of"]
    return Quantity(
        name=str(row["metric"]),
        value=Estimate(float(row["value"]), float(row["standard_error"]), unit),
        reference=None if math.isnan(known) else Estimate(known, float(row["reference_error"]), unit),
        of=of,
        where=str(row["where"]),
        temperature=_or_none(row["temperature"]),
        bound=_or_none(row["bound"]),
        **{name: bool(row[name]) for name in ("at_least", "decides", "headline")},
    )


def _profile(rows: Mapping[str, NDArray]) -> Profile:
    arrays = {name: rows[name].astype(np.float64) for name in ("standard_error", "reference", "reference_error")}
    return Profile(
        name=str(rows["metric"][0]),
        grid=rows["coordinate"].astype(np.float64),
        values=rows["value"].astype(np.float64),
        unit=str(rows["unit"][0]),
        where=str(rows["where"][0]),
        coordinate_unit=str(rows["coordinate_unit"][0]),
        temperature=_or_none(rows["temperature"][0]),
        **arrays,
    )


def _or_none(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
