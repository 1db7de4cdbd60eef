"""Labels of the temperature dependence of mean forces from single frames, whose beads are not held fixed.

In a frame at temperature T the energy u of the atoms, without any bias, and the force label f are a draw from
p(r | R; T), whatever bias of the beads R drew the frame. With estimates U, F, C and F_1 of the conditional means <u>,
<f>, Var(u)/(kT²) and Cov(u, f)/(kT²) at given beads, and du = u - U, df = f - F,

    y_1 = du df / (kT²)                                                        is a label of F_1 = dF/dT,
    y_2 = [(du² - kT² C) df - 2 kT² F_1 du] / (kT²)² - 2 y_1 / T               is a label of F_2 = d²F/dT².

Their means err only by products of the errors of two estimates: y_1 by that of U times that of F (arXiv 2602.23198);
the terms with C and F_1 make y_2 as robust, which du² df alone is not. Estimates come from other frames, so that their
noise is not that of the frame.

Stein's identity in the space of the atoms tests labels by the energies: W = U - T S gives F - T F_1 = -∇U and
T F_2 = ∇C, and for any smooth field g of the beads, and frames of p(R) exp(-V/kT),

    <g ∇U> = <g ∇U* - (u - U*)(∇·g + g (F - ∇V)/kT)>

errs only by the product of the errors of the estimates U* and F. The energy with the bias in the place of u moves the
right side by <g ∇V>, and no label. What follows for the forces, <g (f - ∇V)/kT> = -<∇·g>, tests temperature and bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.statistics.clusters import binned_means
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.stein import clustered_mean

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

FloatArray = NDArray[np.float64]

FOLDS = 5
"""Parts of the independent stretches; estimates for the frames of one come from the others."""
FIELDS = 24
"""Fields of each test."""
_KNOTS, _FRAMES_PER_KNOT = 60, 100
"""Knots of a conditional mean at most, and frames between two at least."""


@dataclass(frozen=True)
class ProductLabels:
    """Labels of single frames along one CG coordinate, with what they were made with, all `(n_frames,)`.

    Attributes:
        first_order: y_1, label of dF/dT [force unit/temperature].
        second_order: y_2, label of d²F/dT² [force unit/temperature²].
        energy: u - U, from other frames [energy unit].
        force: f - F, from other frames [force unit].
        mean_force: F.
        energy_slope: dU/ds.
        heat_capacity: C [energy unit/temperature].
        heat_capacity_slope: dC/ds.
        noise: of `first_order` and of `second_order`: mean square of what a mean at given s leaves.
    """

    first_order: FloatArray
    second_order: FloatArray
    energy: FloatArray
    force: FloatArray
    mean_force: FloatArray
    energy_slope: FloatArray
    heat_capacity: FloatArray
    heat_capacity_slope: FloatArray
    noise: tuple[FloatArray, FloatArray]

    def floors(self, block: NDArray[np.int64]) -> dict[str, Estimate]:
        """Noise floor of each label, with errors from the scatter between independent blocks `(n_frames,)`."""
        squares = {"forces": self.force**2, "first_order": self.noise[0], "second_order": self.noise[1]}
        found = {}
        for name, values in squares.items():
            mean = binned_means(values[:, None], np.zeros(len(values), dtype=np.int64), 1, block)
            found[name] = Estimate(float(mean.mean[0, 0]), float(np.sqrt(mean.variance[0, 0])))
        return found


def conditional_mean(place: FloatArray, values: FloatArray) -> BSpline:
    """Least-squares cubic spline through values `(n_frames,)` at places `(n_frames,)`; constant beyond them.

    Raises:
        TrainingError: there are fewer frames than a cubic needs.
    """
    from scipy.interpolate import make_lsq_spline

    order = np.argsort(place, kind="stable")
    x = place[order]
    if len(x) < 4 * _FRAMES_PER_KNOT:
        raise TrainingError(f"{len(x)} frames are too few for conditional means; {4 * _FRAMES_PER_KNOT} are needed")
    knots, last = [], 0
    for knot in np.linspace(x[0], x[-1], _KNOTS + 2)[1:-1]:
        rank = int(np.searchsorted(x, knot))
        if rank - last >= _FRAMES_PER_KNOT and len(x) - rank >= _FRAMES_PER_KNOT:
            knots.append(float(knot))
            last = rank
    ends = np.repeat([x[0], x[-1]], 4)
    return make_lsq_spline(x, values[order], np.concatenate([ends[:4], knots, ends[4:]]), k=3)


def response_products(
    energy: FloatArray,
    force: FloatArray,
    heat_capacity: FloatArray,
    response: FloatArray,
    temperature: float,
    boltzmann: float,
) -> tuple[FloatArray, FloatArray]:
    """y_1 and y_2 of the module.

    Args:
        energy: du = u - U.
        force: df = f - F.
        heat_capacity: C.
        response: F_1.
        temperature: T.
        boltzmann: k_B in their units.
    """
    scale = boltzmann * temperature**2
    first = energy * force / scale
    third = (energy**2 - scale * heat_capacity) * force - 2 * scale * response * energy
    return first, third / scale**2 - 2 * first / temperature


def product_labels(
    place: FloatArray,
    forces: FloatArray,
    energy: FloatArray,
    block: NDArray[np.int64],
    temperature: float,
    boltzmann: float,
    seed: int,
) -> ProductLabels:
    """Labels of dF/dT and d²F/dT² of frames along one CG coordinate s.

    Args:
        place: `(n_frames,)` s.
        forces: `(n_frames,)` force labels without the bias.
        energy: `(n_frames,)` potential energy of the atoms without the bias.
        block: `(n_frames,)` independent stretch that each is of.
        temperature: of all frames.
        boltzmann: k_B in their units.
        seed: of the parts that estimates are made from.

    Raises:
        TrainingError: there are too few frames, or too few independent stretches.
    """
    numbers, member = np.unique(block, return_inverse=True)
    if len(numbers) < 2 * FOLDS:
        raise TrainingError(
            f"{len(numbers)} independent stretches are too few for estimates from other frames; sample more replicas"
        )
    fold = (np.random.default_rng(seed).permutation(len(numbers)) % FOLDS)[member]
    scale, s = boltzmann * temperature**2, np.asarray(place, dtype=np.float64)
    found = {name: np.empty(len(s)) for name in ("F", "U", "dU", "C", "dC", "F1")}
    for number in range(FOLDS):
        rest, mine = fold != number, fold == number
        # Beyond the frames that an estimate is made from it is that of the outermost of them.
        at = s[mine].clip(s[rest].min(), s[rest].max())
        mean_energy, mean_force = conditional_mean(s[rest], energy[rest]), conditional_mean(s[rest], forces[rest])
        du, df = energy[rest] - mean_energy(s[rest]), forces[rest] - mean_force(s[rest])
        capacity, response = (conditional_mean(s[rest], du * other / scale) for other in (du, df))
        found["F"][mine], found["U"][mine], found["C"][mine] = mean_force(at), mean_energy(at), capacity(at)
        found["F1"][mine] = response(at)
        for name, spline in (("dU", mean_energy), ("dC", capacity)):
            found[name][mine] = spline.derivative()(at) * (at == s[mine])
    du, df = energy - found["U"], forces - found["F"]
    first, second = response_products(du, df, found["C"], found["F1"], temperature, boltzmann)
    noise = (first - found["F1"]) ** 2, (second - conditional_mean(s, second)(s)) ** 2
    return ProductLabels(first, second, du, df, found["F"], found["dU"], found["C"], found["dC"], noise)


def energy_test(
    place: FloatArray,
    forces: FloatArray,
    labels: ProductLabels,
    bias_force: FloatArray,
    block: NDArray[np.int64],
    temperature: float,
    boltzmann: float,
    seed: int,
) -> dict[str, FloatArray]:
    """Test labels by the derivatives of mean energies along the coordinate, and forces by Stein's identity.

    Args:
        place: `(n_frames,)` s.
        forces: `(n_frames,)` force labels without the bias.
        labels: of these frames.
        bias_force: `(n_frames,)` force of the bias, -dV/ds.
        block: `(n_frames,)` independent stretch that each is of.
        temperature: of all frames.
        boltzmann: k_B in their units.
        seed: of the fields, cosines of s.

    Returns:
        `forces`, `first_order` and `second_order` to `(FIELDS,)` means over their standard errors: standard normal
        numbers for right labels.
    """
    generator, thermal = np.random.default_rng([seed, 1]), boltzmann * temperature
    s = (place - place.mean()) / place.std()
    _, number, counts = np.unique(block, return_inverse=True, return_counts=True)
    force = labels.mean_force + bias_force
    squared = labels.energy**2 / (thermal * temperature) - labels.heat_capacity
    left = {"first_order": forces - temperature * labels.first_order, "second_order": temperature * labels.second_order}
    z: dict[str, list[float]] = {name: [] for name in ("forces", *left)}
    for _ in range(FIELDS):
        wave, phase = generator.uniform(0.0, 3.0), generator.uniform(0.0, 2.0 * math.pi)
        g, slope = np.cos(wave * s + phase), -wave / place.std() * np.sin(wave * s + phase)
        flux = slope + g * force / thermal
        terms = {
            "forces": slope + g * (forces + bias_force) / thermal,
            "first_order": g * left["first_order"] + g * labels.energy_slope - labels.energy * flux,
            "second_order": g * left["second_order"] - g * labels.heat_capacity_slope + squared * flux,
        }
        sums = np.array([np.bincount(number, term) for term in terms.values()])
        mean, error = clustered_mean(sums, counts)
        for name, value in zip(terms, mean / error, strict=True):
            z[name].append(float(value))
    return {name: np.array(values) for name, values in z.items()}
