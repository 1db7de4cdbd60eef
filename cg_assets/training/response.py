"""Methods of fitting temperature-dependent potentials to response labels, and their deviation from the labels.

The loss is described in `cg_assets.potentials.thermal.loss`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.potentials.base import Labels, Potential
from cg_assets.potentials.thermal.loss import QUANTITIES
from cg_assets.potentials.thermal.temperature import DependenceConfig
from cg_assets.training.data import TrainingSet
from cg_assets.training.thermal_targets import ThermalTargets

if TYPE_CHECKING:
    from cg_assets.training.training_run import Descent

METHODS = ("response", "force_matching", "multi_temperature", "energy_matching", "product_response")
UNITS = {
    "forces": "(kJ/mol/nm)^2",
    "first_order": "(kJ/mol/nm/K)^2",
    "second_order": "(kJ/mol/nm/K^2)^2",
    "mean_energy": "(kJ/mol)^2",
}
ENERGY_WEIGHT = 1e-3
"""Weight of energies next to forces at one temperature: forces determine W, energies its derivative with T.

Without regularisation any weight gives the same; with it an equal one would draw W to the energy."""
SAME_TEMPERATURE = 0.5
"""Temperatures closer than this are the same [K]."""


@dataclass(frozen=True)
class ResponseWeights:
    """Weights of the terms of the loss; 0 leaves a term out.

    Attributes:
        forces: w_0.
        first_order: w_1.
        second_order: w_2.
        mean_energy: w_u.
    """

    forces: float = 1.0
    first_order: float = 1.0
    second_order: float = 1.0
    mean_energy: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights that are negative or all zero.

        Raises:
            TrainingError: one of these.
        """
        values = {name: getattr(self, name) for name in QUANTITIES}
        if not all(math.isfinite(value) and value >= 0 for value in values.values()) or not any(values.values()):
            raise TrainingError(f"weights of the loss are {values}; give numbers of at least 0, not all of them 0")


@dataclass(frozen=True)
class ResponseData(TrainingSet):
    """Response labels, and how much each quantity counts."""

    targets: ThermalTargets
    weights: ResponseWeights = ResponseWeights()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def select(self, index: NDArray) -> ResponseData:
        """The rows picked by an index or mask."""
        return ResponseData(self.targets.select(index), self.weights)

    def groups(self) -> NDArray[np.int64]:
        """The CG frames."""
        return self.targets.frame

    def resample(self, seed: int | Sequence[int]) -> ResponseData:
        """CG frames drawn with replacement, each with all of its rows; one that is drawn twice is two frames."""
        frames, member = np.unique(self.targets.frame, return_inverse=True)
        drawn = np.sort(np.random.default_rng(seed).integers(len(frames), size=len(frames)))
        rows = [np.flatnonzero(member == number) for number in drawn]
        numbers = np.repeat(np.arange(len(drawn)), [len(part) for part in rows])
        return ResponseData(replace(self.targets.select(np.concatenate(rows)), frame=numbers), self.weights)

    def labels(self, held_out: NDArray[np.bool_] | None = None) -> Labels:
        """Everything, in double precision on the CPU."""
        tensors = {name: torch.as_tensor(array) for name, array in self.targets.columns().items()}
        return Labels(
            positions=tensors["positions"],
            forces=tensors["forces"],
            box=None if self.targets.edges is None else tensors["box"],
            temperature=tensors["temperature"],
            frame=tensors["frame"],
            held_out=None if held_out is None else torch.as_tensor(held_out),
            values={name: tensors[name] for name in QUANTITIES},
            errors={name: tensors[f"{name}_error"] for name in QUANTITIES},
            emphasis=vars(self.weights),
        )

    def hash(self) -> str:
        """Hash of rows and weights."""
        digest = hashlib.sha256(repr(self.weights).encode())
        for array in self.targets.columns().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def descent(self) -> type[Descent]:
        """Along the loss of forces, their response and energies."""
        from cg_assets.training.response_loop import ResponseMatching

        return ResponseMatching


@dataclass(frozen=True)
class Method:
    """A way to fit a potential, as a form of it and as rows and weights of the labels.

    Attributes:
        dependence: config of the temperature dependence.
        data: the rows that are used, with the weights of the loss.
    """

    dependence: DependenceConfig
    data: ResponseData


def method_dependence(name: str, dependence: DependenceConfig) -> DependenceConfig:
    """The temperature dependence that a method of `METHODS` can have; that of `response` is `dependence`.

    Raises:
        TrainingError: no such method.
    """
    if name not in METHODS:
        raise TrainingError(f"method is {name!r}; it must be one of {', '.join(METHODS)}")
    if name in {"response", "multi_temperature"}:
        return dependence
    order = 0 if name == "force_matching" else 1
    return {"form": "taylor_temperature", "origin": middle_of(dependence), "order": order}


def middle_of(dependence: DependenceConfig) -> float:
    """T_0 of the config of a temperature dependence, its `origin`, or the middle one of its anchors [K]."""
    anchors = dependence.get("anchors")
    return float(anchors[len(anchors) // 2] if anchors else dependence["origin"])


def method(name: str, targets: ThermalTargets, dependence: DependenceConfig) -> Method:
    """One of `METHODS` on the same data, for comparison.

    `response` uses everything. `force_matching` uses the forces at T_0 alone, so its potential does not depend on
    temperature; `multi_temperature` the forces at all temperatures, with the form of `response`. `energy_matching`
    uses forces and mean energies at T_0 alone: W(T) = U - T S with the entropy S = (U - W)/T_0 is linear in T
    (K. M. Lebold and W. G. Noid, J. Chem. Phys. 150, 234107 (2019)). `product_response` uses forces and F_1 at T_0.

    Args:
        name: of the method.
        targets: all rows.
        dependence: config of the temperature dependence of `response`; T_0 is `middle_of` it.

    Raises:
        TrainingError: no such method, or no row at T_0.
    """
    found = method_dependence(name, dependence)
    if name == "response":
        return Method(found, ResponseData(targets))
    if name == "multi_temperature":
        return Method(found, ResponseData(targets, ResponseWeights(first_order=0.0, second_order=0.0)))
    here = np.abs(targets.temperature - found["origin"]) < SAME_TEMPERATURE
    if not here.any():
        known = ", ".join(f"{kelvin:g}" for kelvin in np.unique(targets.temperature))
        raise TrainingError(f"{name} needs labels at {found['origin']:g} K; there are labels at {known} K")
    first_order, energy = float(name == "product_response"), ENERGY_WEIGHT * (name == "energy_matching")
    weights = ResponseWeights(first_order=first_order, second_order=0.0, mean_energy=energy)
    return Method(found, ResponseData(targets.select(here), weights))


@dataclass(frozen=True)
class Deviation:
    """How far a potential is from labels of one quantity.

    Attributes:
        mean_square: mean squared deviation from the labels.
        noise_floor: mean squared error of the labels.
        excess: mean_square - noise_floor, the squared error of the potential; its error by jackknife over CG frames.
        reduced_chi_square: mean of squared deviation over squared label error; 1 for a perfect potential.
        explained: 1 - excess over the labels' own mean square less noise_floor.
    """

    mean_square: float
    noise_floor: float
    excess: Estimate
    reduced_chi_square: float
    explained: float

    @property
    def root(self) -> Estimate:
        """Root of the excess, the error of the potential [unit of the label]; 0 where noise hides it."""
        value = math.sqrt(max(self.excess.value, 0.0))
        error = self.excess.standard_error
        return Estimate(value, error / (2.0 * value) if value**2 > error else math.sqrt(error))

    def to_json(self) -> dict[str, object]:
        """The numbers in plain JSON types."""
        return {
            "mean_square": self.mean_square,
            "noise_floor": self.noise_floor,
            "excess": self.excess.to_json(),
            "reduced_chi_square": self.reduced_chi_square,
            "explained": self.explained,
        }


def predicted(potential: Potential, targets: ThermalTargets) -> dict[str, NDArray[np.float64]]:
    """Predictions of a potential W(R, T) for each quantity at all rows, and for the heat capacity, in their units."""
    leading: Any = potential.leading
    rows = torch.as_tensor(targets.positions), torch.as_tensor(targets.temperature)
    box = None if targets.edges is None else torch.as_tensor(targets.edges)
    return {name: values.numpy() for name, values in leading.predict(*rows, box)._asdict().items()}


def deviations(potential: Potential, targets: ThermalTargets) -> dict[str, Deviation]:
    """Deviation from the labels of each known quantity, mean energies up to their mean at a temperature.

    Args:
        potential: the potential.
        targets: rows that it was not fitted to.
    """
    found = predicted(potential, targets)
    result = {}
    for quantity in QUANTITIES:
        labels, errors = getattr(targets, quantity), getattr(targets, f"{quantity}_error")
        if not np.isfinite(errors).any():
            continue
        difference = found[quantity] - labels
        if quantity == "mean_energy":
            labels, difference = (_centred(values, targets.temperature) for values in (labels, difference))
        result[quantity] = deviation(difference, labels, errors, targets.frame, UNITS[quantity])
    return result


def deviation(
    difference: NDArray[np.float64],
    labels: NDArray[np.float64],
    errors: NDArray[np.float64],
    frame: NDArray[np.int64],
    unit: str = "",
) -> Deviation:
    """Deviation `(n_rows, ...)` from labels with standard errors; rows of one frame are one independent piece."""
    axes = tuple(range(1, difference.ndim))
    squares, noise, signal = (np.mean(array**2, axis=axes) for array in (difference, errors, labels))
    pieces = np.unique(frame, return_inverse=True)[1]
    totals = [np.bincount(pieces, weights=row) for row in (squares - noise, np.ones(len(frame)))]
    value, error = jackknife(lambda total: total[0] / total[1], np.stack(totals, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(errors > 0, difference**2 / errors**2, np.nan)
    known = np.isfinite(ratio)
    power = float(signal.mean() - noise.mean())
    return Deviation(
        mean_square=float(squares.mean()),
        noise_floor=float(noise.mean()),
        excess=Estimate(float(value), float(error), unit),
        reduced_chi_square=float(ratio[known].mean()) if known.any() else math.nan,
        explained=1.0 - float(value) / power if power > 0 else math.nan,
    )


def _centred(values: NDArray[np.float64], temperature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values less their mean at the same temperature."""
    _, group = np.unique(np.round(temperature / SAME_TEMPERATURE), return_inverse=True)
    return values - (np.bincount(group, weights=values) / np.bincount(group))[group]
