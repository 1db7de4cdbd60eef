"""The evaluations of all potentials of a system side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.metric import measures_of_noise
from cg_assets.evaluation.quantity import Quantity


@dataclass(frozen=True)
class Comparison:
    """The evaluations of all potentials of a system.

    Attributes:
        evaluations: potential to its evaluation.
        speeds: potential to the steps of single replicas that its CG simulation made in a second; empty if not known.
        thermal_energy: kT, to limit free energies in figures [energy]; nan if not known.
    """

    evaluations: dict[str, Evaluation]
    speeds: dict[str, float] = field(default_factory=dict)
    thermal_energy: float = math.nan

    def columns(self) -> dict[str, list[Any]]:
        """One row for each potential and quantity, with the columns of `Evaluation.columns` that quantities need."""
        columns: dict[str, list[Any]] = {"potential": []}
        for potential, evaluation in self.evaluations.items():
            for name, values in Evaluation(evaluation.quantities).columns().items():
                columns.setdefault(name, []).extend(values)
            columns["potential"] += [potential] * len(evaluation.quantities)
        return {name: values for name, values in columns.items() if name not in {"coordinate", "coordinate_unit"}}

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray]) -> Comparison:
        """The comparison that `columns` gave, without profiles. Errors as in `Evaluation.from_columns`."""
        potentials = np.asarray(columns["potential"]).astype(str)
        nowhere = {"coordinate": np.full(len(potentials), np.nan), "coordinate_unit": np.full(len(potentials), "")}
        table = {name: np.asarray(values) for name, values in columns.items()} | nowhere
        return cls(
            {
                name: Evaluation.from_columns({key: values[potentials == name] for key, values in table.items()})
                for name in dict.fromkeys(potentials.tolist())
            }
        )

    def shown(self, everything: bool = False) -> set[str]:
        """Keys of the quantities that are shown: what decides, headlines, and what fails its bound; or all."""
        return {
            item.key
            for evaluation in self.evaluations.values()
            for item in evaluation.quantities
            if everything or item.decides or (item.headline and item.temperature is None) or not item.passed
        }

    def rows(self, everything: bool = False) -> list[dict[str, str]]:
        """One row for each quantity, one column for each potential; the quantity that decides comes first.

        Its reference is in the column `reference`, or in `noise alone` where it is what noise alone would give; in
        brackets where potentials have different ones.

        Args:
            everything: whether quantities are shown that are no headlines, and those of single temperatures.
        """
        noise = measures_of_noise()
        found: dict[str, dict[str, Quantity]] = {}
        shown = self.shown(everything)
        for potential, evaluation in self.evaluations.items():
            for item in evaluation.quantities:
                found.setdefault(item.key, {})[potential] = item
        rows = []
        for by_potential in (of_key for key, of_key in found.items() if key in shown):
            first = next(iter(by_potential.values()))
            references = {item.reference for item in by_potential.values()}
            row = {"metric": first.name, "of": first.of, "where": first.where}
            if first.temperature is not None:
                row["where"] = " ".join(part for part in (first.where, f"{first.temperature:g} K") if part)
            row |= dict.fromkeys(self.evaluations, "")
            for potential, item in by_potential.items():
                own = f" ({item.reference})" if len(references) > 1 and item.reference is not None else ""
                row[potential] = f"{item.value}{own}{'' if item.passed else ', fails'}"
            same = "" if len(references) > 1 or first.reference is None else str(first.reference)
            known = {"reference": "", "noise alone": ""} | {"noise alone" if first.name in noise else "reference": same}
            rows.append(row | known | {"bound": first.limit})
        return rows
