"""What temperature-dependent potentials are fitted to, and how far from it they are.

The loss in units of force is w_0 |dF|² + w_1 T_0² |dF_1|² + w_2 (T_0²/2)² |dF_2|² + w_u |dU|²/(n l²): mean forces,
their first and second derivative by temperature at fixed beads, and mean energies of the atoms (l = `ENERGY_LENGTH`,
n beads). Each of these squares is weighted by its inverse variance, from the label's own error and from what no
potential of the kind can fit (`misfit`, the same for all labels of a quantity), relative to the mean weight of the
forces. The least possible loss is the noise floor of the labels; only loss minus floor says how good a potential is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.statistics.estimates import Estimate, jackknife
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.training.thermal_targets import ThermalTargets

ENERGY_LENGTH = 0.1
"""Length that makes forces of energies [nm]."""
QUANTITIES = ("forces", "first_order", "second_order", "mean_energy")
METHODS = ("response", "force_matching", "multi_temperature", "energy_matching", "product_response")
UNITS = {
    "forces": "(kJ/mol/nm)^2",
    "first_order": "(kJ/mol/nm/K)^2",
    "second_order": "(kJ/mol/nm/K^2)^2",
    "mean_energy": "(kJ/mol)^2",
}
ENERGY_WEIGHT = 1e-3
"""Weight of energies beside forces at one temperature: forces alone shall decide on W, energies on its derivative by T.

Without regularisation any weight gives the same; with it an equal one would draw W to the energy."""
SAME_TEMPERATURE = 0.5
"""Temperatures closer than this are the same [K]."""
_ROWS_AT_ONCE = 32


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


def label_weights(
    targets: ThermalTargets, weights: ResponseWeights, origin: float, misfit: dict[str, float] | None = None
) -> dict[str, NDArray[np.float64]]:
    """What the squared deviation of each label is multiplied with in the loss, for the quantities that count.

    Args:
        targets: the labels with their errors.
        weights: of the terms of the loss.
        origin: T_0 [K].
        misfit: variance of each quantity that is not noise and cannot be fitted [its unit²]; none where None.

    Returns:
        Of each quantity an array of the shape of its labels, 0 where a label is not known; the loss is the sum over
        all labels of all quantities.
    """
    scales = {
        "forces": 1.0,
        "first_order": origin**2,
        "second_order": (0.5 * origin**2) ** 2,
        "mean_energy": 1.0 / (targets.n_beads * ENERGY_LENGTH**2),
    }
    found = {}
    for quantity in QUANTITIES:
        if not getattr(weights, quantity):
            continue
        variance = getattr(targets, f"{quantity}_error") ** 2 + (misfit or {}).get(quantity, 0.0)
        known = np.isfinite(variance)
        if not known.any():
            continue
        if not variance[known].max() > 0:
            variance = np.where(known, 1.0 / scales[quantity], np.inf)
        found[quantity] = 1.0 / np.maximum(variance, 1e-6 * variance[known].mean())
    unit = next(iter(found.values())).mean()
    return {name: getattr(weights, name) * values / (unit * values.size) for name, values in found.items()}


@dataclass(frozen=True)
class Method:
    """A way to fit a potential, as a form of it and as rows and weights of the labels.

    Attributes:
        dependence: config of the temperature dependence.
        weights: of the loss.
        targets: the rows that are used.
    """

    dependence: dict[str, Any]
    weights: ResponseWeights
    targets: ThermalTargets


def method_dependence(name: str, dependence: dict[str, Any]) -> dict[str, Any]:
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


def middle_of(dependence: dict[str, Any]) -> float:
    """T_0 of the config of a temperature dependence, its `origin`, or the middle one of its anchors [K]."""
    anchors = dependence.get("anchors")
    return float(anchors[len(anchors) // 2] if anchors else dependence["origin"])


def method(name: str, targets: ThermalTargets, dependence: dict[str, Any]) -> Method:
    """One of `METHODS` on the same data, for comparison.

    `response` uses everything. `force_matching` knows the forces at T_0 alone, so that its potential does not depend on
    temperature; `multi_temperature` the forces at all temperatures, with the form of `response`. `energy_matching`
    knows forces and mean energies at T_0 alone: W(T) = U - T S with the entropy S = (U - W)/T_0 is linear in T
    (K. M. Lebold and W. G. Noid, J. Chem. Phys. 150, 234107 (2019)). `product_response` knows forces and F_1 at T_0.

    Args:
        name: of the method.
        targets: all rows.
        dependence: config of the temperature dependence of `response`; T_0 is `middle_of` it.

    Raises:
        TrainingError: no such method, or no row at T_0.
    """
    found = method_dependence(name, dependence)
    if name == "response":
        return Method(found, ResponseWeights(), targets)
    if name == "multi_temperature":
        return Method(found, ResponseWeights(first_order=0.0, second_order=0.0), targets)
    here = np.abs(targets.temperature - found["origin"]) < SAME_TEMPERATURE
    if not here.any():
        known = ", ".join(f"{kelvin:g}" for kelvin in np.unique(targets.temperature))
        raise TrainingError(f"{name} needs labels at {found['origin']:g} K; there are labels at {known} K")
    first_order, energy = float(name == "product_response"), ENERGY_WEIGHT * (name == "energy_matching")
    weights = ResponseWeights(first_order=first_order, second_order=0.0, mean_energy=energy)
    return Method(found, weights, targets.select(here))


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

    def to_json(self) -> dict[str, Any]:
        """The numbers in plain JSON types."""
        return {
            "mean_square": self.mean_square,
            "noise_floor": self.noise_floor,
            "excess": self.excess.to_json(),
            "reduced_chi_square": self.reduced_chi_square,
            "explained": self.explained,
        }


@dataclass(frozen=True)
class Predictions:
    """What a potential says at the rows of targets; shapes and units of the targets' columns."""

    forces: NDArray[np.float64]
    first_order: NDArray[np.float64]
    second_order: NDArray[np.float64]
    mean_energy: NDArray[np.float64]
    heat_capacity: NDArray[np.float64] = field(repr=False)


@torch.no_grad()
def predictions(module: ThermalPotential, targets: ThermalTargets) -> Predictions:
    """Evaluate a potential at all rows."""
    place = next(module.buffers())
    dtype = next((weight.dtype for weight in module.parameters()), torch.float64)
    parts = []
    for first in range(0, len(targets), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        arrays = (targets.positions[rows], targets.temperature[rows], targets.box[rows])
        response = module.response(*(torch.as_tensor(array, dtype=dtype, device=place.device) for array in arrays))
        parts.append([part.double().cpu().numpy() for part in response])
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Predictions(*joined[:3], *joined[4:])


@torch.no_grad()
def fit_constants(module: ThermalPotential, targets: ThermalTargets) -> None:
    """Add to a potential the energies per bead that make its mean energies right on average, as far as its form can.

    Forces do not determine them, and W itself is left open by any multiple of T, which no observable sees: least
    squares take the solution of least size.

    Args:
        module: the potential, which is changed.
        targets: labels with mean energies.
    """
    missing = targets.mean_energy - predictions(module, targets).mean_energy
    coefficients = module.dependence.coefficients(torch.as_tensor(targets.temperature)).cpu().numpy()
    design = targets.n_beads * (coefficients[0] - targets.temperature[:, None] * coefficients[1])
    module.add_constants(torch.as_tensor(np.linalg.lstsq(design, missing, rcond=1e-8)[0]))


def deviations(module: ThermalPotential, targets: ThermalTargets) -> dict[str, Deviation]:
    """Deviation from each quantity's labels, mean energies up to their own mean at each temperature.

    Args:
        module: the potential.
        targets: rows that it was not fitted to.
    """
    found = predictions(module, targets)
    result = {}
    for quantity in QUANTITIES:
        labels, errors = getattr(targets, quantity), getattr(targets, f"{quantity}_error")
        difference = getattr(found, quantity) - labels
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
