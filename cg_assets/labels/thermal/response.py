"""Mean forces, their temperature derivatives and the energies that go with them, from samples at fixed beads.

With u the potential energy and f the force labels of the atoms, and averages over p(r | R; T) at constant volume,

    F   = <f>
    F_1 = dF/dT   = Cov(u, f) / (k T²)
    F_2 = d²F/dT² = κ(u, u, f) / (k T²)² - 2 Cov(u, f) / (k T³)
    C_W = d<u>/dT = Var(u) / (k T²)

κ being the joint cumulant <δu δu δf> (arXiv 2602.23198). All temperatures enter each estimate by MBAR (Shirts and
Chodera, J. Chem. Phys. 129, 124105 (2008)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.mbar import StateMixture, gap_fault
from cg_assets.core.units import BOLTZMANN
from cg_assets.labels.thermal.samples import ConditionalSamples

FloatArray = NDArray[np.float64]

BLOCKS = 20
"""Blocks that are left out in turn for the standard errors."""
REGRESSION_NEIGHBOURS = 5
"""Temperatures in a local regression."""


@dataclass(frozen=True)
class ThermalResponse:
    """Response of one CG frame at some temperatures.

    Attributes:
        temperature: `(n_temperatures,)` [K].
        forces: `(n_temperatures, n_beads, 3)` F [kJ/mol/nm].
        first_order: same shape, dF/dT [kJ/mol/nm/K].
        second_order: same shape, d²F/dT² [kJ/mol/nm/K²].
        mean_energy: `(n_temperatures,)` <u> [kJ/mol].
        heat_capacity: `(n_temperatures,)` C_W [kJ/mol/K].
    """

    temperature: FloatArray
    forces: FloatArray
    first_order: FloatArray
    second_order: FloatArray
    mean_energy: FloatArray
    heat_capacity: FloatArray


@dataclass(frozen=True)
class EstimatedResponse:
    """A response with its errors.

    Attributes:
        value: the response.
        error: its standard errors; its `temperature` is that of the value.
        effective_samples: `(n_temperatures,)` independent samples that each estimate is worth.
        force_variance: `(n_temperatures,)` variance of a component of f in a single sample, mean of all
            [(kJ/mol/nm)²].
        left_out: the response without each block in turn, from which the errors follow.
    """

    value: ThermalResponse
    error: ThermalResponse
    effective_samples: FloatArray
    force_variance: FloatArray
    left_out: list[ThermalResponse]


def ladder_mixture(samples: ConditionalSamples, guess: FloatArray | None = None) -> StateMixture:
    """All samples of a ladder as one density; `guess` `(n_ladder,)` are reduced free energies to begin with."""
    ladder, state = np.unique(samples.temperature, return_inverse=True)
    return StateMixture.of((samples.energy - samples.energy.mean()) / (BOLTZMANN * ladder[:, None]), state, guess)


def ladder_fault(samples: ConditionalSamples, mixture: StateMixture) -> str:
    """Which temperatures do not touch; empty where the samples determine all weights."""
    gaps = mixture.gaps(mixture.common(samples.run, samples.time))
    if fault := gap_fault(gaps, [f"{temperature:g} K" for temperature in samples.ladder]):
        return f"temperatures of the ladder do not touch: {fault}; put temperatures between them, or sample longer"
    return "" if mixture.converged else "the free energies of the ladder did not converge; sample longer"


def log_weights(samples: ConditionalSamples, temperatures: FloatArray, mixture: StateMixture) -> FloatArray:
    """Logarithms `(n_temperatures, n_samples)` of the weights of all samples, of which exp sums to 1 over the samples.

    Args:
        samples: samples at the temperatures of a ladder.
        temperatures: `(n_temperatures,)` where the weights are wanted [K].
        mixture: `ladder_mixture` of the samples.
    """
    energy = samples.energy - samples.energy.mean()
    logarithm = -energy / (BOLTZMANN * np.asarray(temperatures)[:, None]) - mixture.log_density
    return logarithm - np.logaddexp.reduce(logarithm, axis=1)[:, None]


def thermal_response(samples: ConditionalSamples, temperatures: ArrayLike, n_blocks: int = BLOCKS) -> EstimatedResponse:
    """Response of one CG frame with standard errors by leaving out blocks.

    Covariances and third cumulants are unbiased k-statistics, with n/(n - 1) and n²/((n - 1)(n - 2)) times the moments
    about the mean of all samples; n is the effective number of samples, from the weights (Kish) and the
    autocorrelation of the energy.

    Args:
        samples: samples at the temperatures of a ladder.
        temperatures: `(n_temperatures,)` where the response is wanted, within the ladder [K].
        n_blocks: blocks over all runs.

    Raises:
        ValueError: a temperature is outside the ladder; temperatures of the ladder do not touch; there are fewer than
            3 effective samples at one, or fewer than two blocks.
    """
    at = np.asarray(temperatures, dtype=np.float64)
    ladder = samples.ladder
    if (outside := at[(at < ladder[0]) | (at > ladder[-1])]).size:
        raise ValueError(
            f"{outside[0]:g} K is outside the temperatures that were sampled, {ladder[0]:g} to {ladder[-1]:g} K"
        )
    mixture = ladder_mixture(samples)
    if fault := ladder_fault(samples, mixture):
        raise ValueError(fault)
    weights = np.exp(log_weights(samples, at, mixture))
    inefficiency = samples.statistical_inefficiency()[np.searchsorted(ladder, samples.temperature)]
    effective = 1.0 / (weights**2 @ inefficiency)
    if (few := np.flatnonzero(effective < 3)).size:
        raise ValueError(
            f"{effective[few[0]]:.1f} effective samples at {at[few[0]]:g} K are too few for a third moment; sample "
            "longer, or nearer to this temperature"
        )
    block = samples.blocks(n_blocks)
    numbers = np.unique(block)
    if len(numbers) < 2:
        raise ValueError("one block of samples gives no error; sample longer or in several runs")
    left_out = []
    for number in numbers:
        kept = samples.select(block != number)
        part = np.exp(log_weights(kept, at, ladder_mixture(kept, mixture.free_energy)))
        left_out.append(response_of_weights(kept, part, at, effective * len(kept) / len(samples)))
    value = response_of_weights(samples, weights, at, effective)
    spread = samples.forces.reshape(len(samples), -1) - samples.forces.mean(axis=0).ravel()
    variance = (weights @ spread**2 - (weights @ spread) ** 2).mean(axis=1)
    return EstimatedResponse(value, jackknife_error(left_out), effective, variance, left_out)


def jackknife_error(left_out: Sequence[ThermalResponse]) -> ThermalResponse:
    """Standard errors from the responses without each block."""
    errors = {}
    for item in fields(ThermalResponse):
        values = np.stack([getattr(part, item.name) for part in left_out])
        errors[item.name] = np.sqrt((len(values) - 1) * values.var(axis=0))
    return ThermalResponse(**errors | {"temperature": left_out[0].temperature})


def response_of_weights(
    samples: ConditionalSamples, weights: FloatArray, temperatures: FloatArray, effective: FloatArray
) -> ThermalResponse:
    """Response from weighted samples.

    Args:
        samples: samples at any temperatures.
        weights: `(n_temperatures, n_samples)`, which sum to 1 at each temperature.
        temperatures: `(n_temperatures,)` [K].
        effective: `(n_temperatures,)` independent samples that they are worth.
    """
    shape = (len(temperatures), *samples.forces.shape[1:])
    forces = samples.forces.reshape(len(samples), -1).astype(np.float64)
    centre = forces.mean(axis=0)  # far from zero the moments would lose digits
    forces = forces - centre
    mean_energy = weights @ samples.energy
    deviation = samples.energy - mean_energy[:, None]
    first, second = weights * deviation, weights * deviation**2
    mean_force, heat = weights @ forces, second.sum(axis=1)
    n, factor = effective, 1.0 / (BOLTZMANN * temperatures**2)
    covariance = (first @ forces) * (factor * n / (n - 1))[:, None]
    third = (second @ forces - heat[:, None] * mean_force) * (factor**2 * n**2 / ((n - 1) * (n - 2)))[:, None]
    return ThermalResponse(
        temperature=temperatures,
        forces=(mean_force + centre).reshape(shape),
        first_order=covariance.reshape(shape),
        second_order=(third - 2 * covariance / temperatures[:, None]).reshape(shape),
        mean_energy=mean_energy,
        heat_capacity=heat * factor * n / (n - 1),
    )


def second_order_by_regression(
    response: EstimatedResponse, neighbours: int = REGRESSION_NEIGHBOURS
) -> tuple[FloatArray, FloatArray]:
    """F_2 as the slope of F_1 over neighbouring temperatures: less noise than third moments, for a smoothness assumed.

    At each temperature a parabola is fitted to F_1 at the nearest temperatures, by least squares weighted with the
    mean squared error of F_1 there.

    Args:
        response: response at three temperatures or more.
        neighbours: temperatures in a fit, the nearest; all where there are fewer.

    Returns:
        F_2 and its standard error `(n_temperatures, n_beads, 3)` [kJ/mol/nm/K²].

    Raises:
        ValueError: there are fewer than three temperatures.
    """
    temperatures = response.value.temperature
    if len(temperatures) < 3:
        raise ValueError(f"a parabola needs three temperatures, there are {len(temperatures)}; ask for more")
    spread = np.maximum(np.sqrt((response.error.first_order**2).mean(axis=(1, 2))), np.finfo(np.float64).tiny)
    slopes = np.zeros((len(temperatures), len(temperatures)))
    for row, temperature in zip(slopes, temperatures, strict=True):
        near = np.argsort(np.abs(temperatures - temperature), kind="stable")[:neighbours]
        scale = np.abs(temperatures[near] - temperature).max()
        design = np.vander((temperatures[near] - temperature) / scale, 3, increasing=True) / spread[near, None]
        row[near] = np.linalg.pinv(design)[1] / spread[near] / scale
    value = np.einsum("st,tij->sij", slopes, response.value.first_order)
    parts = np.stack([np.einsum("st,tij->sij", slopes, part.first_order) for part in response.left_out])
    return value, np.sqrt((len(parts) - 1) * parts.var(axis=0))
