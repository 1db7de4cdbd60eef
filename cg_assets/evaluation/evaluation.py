"""Judge a trained potential: free energies, populations, barriers, stability, bonds and chirality, with errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.reweighting import bias_weights
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate, effective_samples
from cg_assets.core.statistics.local_geometry import local_geometry
from cg_assets.core.statistics.metrics import (
    barrier_height,
    basin_free_energy,
    basin_population,
    jensen_shannon_divergence,
    jsd,
    pmf_error,
    pmf_rmse,
    squared_log_error,
)
from cg_assets.core.statistics.noise import IntegratedPMF, integrate_mean_force
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.core.units import unit
from cg_assets.evaluation.monitors import BondMonitor, ChiralityMonitor, bond_monitor, chirality_monitor
from cg_assets.evaluation.reference import Reference, reference_barrier
from cg_assets.evaluation.settings import QuadratureReference
from cg_assets.evaluation.slow_coordinates import SlowComparison, compare_slow
from cg_assets.evaluation.torque_surface import has_torque_surface, torque_surface
from cg_assets.labels.quality import bin_model_labels
from cg_assets.mapping.maps import LinearMapping
from cg_assets.sampling.model_potential.planes import exact_plane
from cg_assets.simulation.settings import ENHANCED, UNBIASED
from cg_assets.systems.spec import SystemSpec

EnergyFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Positions `(n_frames, n_beads, dimension)` to energies `(n_frames,)` [kJ/mol or reduced]."""

MAX_BOND_DIVERGENCE = 0.05
"""Largest Jensen-Shannon divergence of a bond-length distribution that passes."""
MAX_FLIPPED = 0.001
"""Largest fraction of frames with a flipped chiral centre that passes."""
_DEVIATION = " deviation of the committee"


@dataclass(frozen=True)
class Monitors:
    """Local health of a molecule's CG simulation."""

    bonds: BondMonitor
    chirality: ChiralityMonitor
    bead_names: tuple[str, ...]

    @property
    def bonds_ok(self) -> bool:
        """Whether every bond is distributed as in the data."""
        return bool((self.bonds.divergence <= MAX_BOND_DIVERGENCE).all())

    @property
    def chirality_ok(self) -> bool:
        """Whether no chiral centre has flipped."""
        return self.chirality.largest_flipped <= MAX_FLIPPED

    def bonds_json(self) -> dict[str, float]:
        """Divergence of each bond."""
        names = [f"{self.bead_names[i]} - {self.bead_names[j]}" for i, j in self.bonds.pairs]
        return {name: float(value) for name, value in zip(names, self.bonds.divergence, strict=True)}

    def chirality_json(self) -> dict[str, float]:
        """Flipped fraction of each chiral centre."""
        names = [self.bead_names[centre[0]] for centre in self.chirality.centres]
        return {name: item.value for name, item in zip(names, self.chirality.flipped, strict=True)}


@dataclass(frozen=True)
class EvaluationResult:
    """The judgement of one potential.

    Attributes:
        quantities: name to the potential's estimate and the reference's (None where it has none).
        pmf_error: the figure of merit that decides.
        stability: `replicas`, `stable_replicas` and the same of the enhanced run, of the CG simulation.
        grid: values of a one-dimensional CG coordinate; empty for molecules.
        model_pmf: W on `grid` less its minimum [energy].
        model_deviation: its standard deviation over the committee [energy]; empty without one.
        data_pmf: PMF integrated from the binned labels; None for molecules.
        surface: free-energy surface of the CG simulation.
        data_surface: that of the frames that it was trained on, without their bias.
        monitors: bonds and chirality of molecules.
        slow: the judgement in slow coordinates of molecules that ask for it.
    """

    quantities: dict[str, tuple[Estimate, Estimate | None]]
    pmf_error: Estimate
    stability: dict[str, int]
    surface: FreeEnergySurface
    data_surface: FreeEnergySurface
    grid: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    model_pmf: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    model_deviation: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    data_pmf: IntegratedPMF | None = None
    monitors: Monitors | None = None
    slow: SlowComparison | None = None

    def columns(self) -> dict[str, list[Any]]:
        """The figures of merit as columns of a table."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("quantity", "value", "standard_error", "unit", "reference", "reference_error")
        }
        for name, (estimate, reference) in self.quantities.items():
            known = reference or Estimate(math.nan, math.nan)
            row = (name, estimate.value, estimate.standard_error, estimate.unit, known.value, known.standard_error)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        return columns

    def rows(self) -> list[dict[str, str]]:
        """The figures of merit as rows of a table for people."""
        return [
            {"quantity": name, "result": str(estimate), "reference": "" if reference is None else str(reference)}
            for name, (estimate, reference) in self.quantities.items()
        ]

    def metrics(self) -> dict[str, float]:
        """The figures of merit that are finite numbers, and `pmf_error`, which decides, whatever it is."""
        values = {name.replace(" ", "_"): estimate.value for name, (estimate, _) in self.quantities.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        return finite | {"pmf_error": self.pmf_error.value}

    def surface_json(self) -> dict[str, Any]:
        """What the comparison draws."""
        return {
            "grid": self.grid.tolist(),
            "model_pmf": self.model_pmf.tolist(),
            "probability": self.surface.probability.ravel().tolist(),
            "data_probability": self.data_surface.probability.ravel().tolist(),
        }


def evaluate(
    system: SystemSpec,
    energy: EnergyFunction,
    reference: Reference,
    simulation: Frames,
    summary: Mapping[str, Any],
    data: Frames,
    committee: Sequence[EnergyFunction] = (),
    truth: Frames | None = None,
) -> EvaluationResult:
    """Judge a potential against the reference.

    Args:
        system: the system.
        energy: the trained potential.
        reference: what it is judged against.
        simulation: frames of its CG simulation; `window` tells runs without a bias (0) from enhanced ones (1).
        summary: that of the simulation (`CGSimulationResult.summary`).
        data: CG frames that it was trained on, of one batch under a frozen bias, or as `pooled_batches` joins them.
        committee: its members' energies, whose scatter is the uncertainty from the data; the CG simulation's own frames
            are reweighted to each.
        truth: CG frames whose bonds and slow coordinates a molecule should have; `data` where None. A kernel's frames
            are not the truth.
    """
    if isinstance(system.mapping, LinearMapping) and len(reference.names) == 2:
        return _evaluate_plane(system, energy, reference, simulation, summary, data, committee)
    if isinstance(system.mapping, LinearMapping):
        return _evaluate_model_potential(system, energy, reference, simulation, summary, data, committee)
    return _evaluate_molecule(system, energy, reference, simulation, summary, data, committee, truth)


def _evaluate_model_potential(
    system: SystemSpec,
    energy: EnergyFunction,
    reference: Reference,
    simulation: Frames,
    summary: Mapping[str, Any],
    data: Frames,
    committee: Sequence[EnergyFunction],
) -> EvaluationResult:
    (name,) = system.variable_names
    simulation = simulation.of_window(UNBIASED)
    thermal_energy, energy_unit = system.thermal_energy, unit("energy", system.units)
    settings = system.evaluation.reference
    interval = tuple(reference.bins.edges[0][[0, -1]])
    if isinstance(settings, QuadratureReference) and not isinstance(settings.range, dict):
        interval = settings.range
    grid = reference.bins.centres[0]
    model = energy(grid[:, None, None]) / thermal_energy
    exact = np.asarray(reference.pmf) / thermal_energy
    labels = integrate_mean_force(bin_model_labels(system, data))
    covered = labels.grid[0] <= interval[0] and labels.grid[-1] >= interval[1]
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {}
    error = Estimate(pmf_rmse(grid, model, exact, interval).value, math.nan, "kT")
    if covered:
        # The labels' own statistical error, propagated along the model's PMF on the labels' grid.
        on_labels = np.interp(labels.grid, grid, model)
        exact_there = np.interp(labels.grid, grid, exact)
        covariance = labels.covariance / thermal_energy**2
        along = pmf_rmse(labels.grid, on_labels, exact_there, interval, covariance=covariance)
        error = Estimate(error.value, along.standard_error, "kT")
        direct = pmf_rmse(labels.grid, labels.pmf / thermal_energy, exact_there, interval, covariance=covariance)
        quantities["PMF error of the binned labels"] = (direct, None)
        density = np.exp(-(on_labels - model.min())) * np.gradient(labels.grid)
        density /= density.sum()
    quantities = {"PMF error": (error, None)} | quantities
    deviation = np.empty(0)
    if committee:
        inside = (grid >= interval[0]) & (grid <= interval[1])
        members = np.array([member(grid[:, None, None]) for member in committee]) / thermal_energy
        deviation = (members - members[:, inside].mean(axis=1, keepdims=True)).std(axis=0, ddof=1)
        value = float(np.sqrt((deviation[inside] ** 2).mean()))
        quantities[f"PMF{_DEVIATION}"] = (_scatter(value, len(committee), "kT"), None)

    barrier = reference_barrier(system, reference)
    if barrier is not None:
        first, second = (basin.limits[name] for basin in system.evaluation.basins.values())
        found = barrier_height(grid, model * thermal_energy, first, second)
        spread = math.nan
        if covered:
            spread = barrier_height(labels.grid, labels.pmf, first, second, covariance=labels.covariance).standard_error
        quantities["barrier"] = (Estimate(found.value, spread, energy_unit), barrier)

    simulated = {name: simulation.collective_variables[name].astype(np.float64)}
    low, high = (float(edge) for edge in system.network.range)  # type: ignore[attr-defined]
    fine = np.linspace(low, high, 4001)
    weight = np.exp(-(energy(fine[:, None, None]) - energy(fine[:, None, None]).min()) / thermal_energy)
    for basin, region in system.evaluation.basins.items():
        inside = (fine >= region.limits[name][0]) & (fine <= region.limits[name][1])
        share = float(weight[inside].sum() / weight.sum())
        population = basin_population(simulated, region.limits, simulation.replica, simulation.time)
        error_of_share = math.nan
        if covered:
            # The labels' own error to first order, along the model's density.
            there = (labels.grid >= region.limits[name][0]) & (labels.grid <= region.limits[name][1])
            slope = density * (there - density[there].sum())
            error_of_share = math.sqrt(max(0.0, float(slope @ covariance @ slope)))
        quantities[f"population {basin}"] = (Estimate(share, error_of_share), reference.populations[basin])
        quantities[f"population {basin} in the CG simulation"] = (population, Estimate(share, 0.0))
    surface = free_energy_surface(
        simulated[name], reference.bins, thermal_energy, simulation.replica, simulation.time, unit=energy_unit
    )
    data_surface = free_energy_surface(
        data.collective_variables[name].astype(np.float64),
        reference.bins,
        thermal_energy,
        data.replica,
        data.time,
        weights=_weights(system, data),
        unit=energy_unit,
    )
    return EvaluationResult(
        quantities=_with_stability(quantities, summary),
        pmf_error=error,
        stability=_stability(summary),
        surface=surface,
        data_surface=data_surface,
        grid=grid,
        model_pmf=(model - model.min()) * thermal_energy,
        model_deviation=deviation * thermal_energy,
        data_pmf=labels,
    )


def _evaluate_plane(
    system: SystemSpec,
    energy: EnergyFunction,
    reference: Reference,
    simulation: Frames,
    summary: Mapping[str, Any],
    data: Frames,
    committee: Sequence[EnergyFunction],
) -> EvaluationResult:
    """A model potential with two CG coordinates, by quadrature of its own density and the exact one."""
    exact = exact_plane(system)
    model = exact.with_energy(energy)
    surface, data_surface = (_surface(system, reference, part) for part in (simulation.of_window(UNBIASED), data))
    error = Estimate(exact.pmf_error(model), math.nan, "kT")
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {
        "PMF error": (error, None),
        "KL divergence": (Estimate(exact.divergence(model), math.nan), None),
        "JSD": (jsd(surface, reference.surface), None),
        "JSD of the training data": (jsd(data_surface, reference.surface), None),
    }
    if committee:
        members = np.array([exact.with_energy(member).reduced for member in committee])
        members -= (exact.probability * members).sum(axis=(1, 2), keepdims=True)
        scatter = float(np.sqrt((exact.probability * members.var(axis=0, ddof=1)).sum()))
        quantities[f"PMF{_DEVIATION}"] = (_scatter(scatter, len(committee), "kT"), None)
    for name, basin in system.evaluation.basins.items():
        share = model.population(basin.limits)
        quantities[f"population {name}"] = (Estimate(share, math.nan), reference.populations[name])
        variables = {key: values.astype(np.float64) for key, values in simulation.collective_variables.items()}
        found = basin_population(variables, basin.limits, simulation.replica, simulation.time)
        quantities[f"population {name} in the CG simulation"] = (found, Estimate(share, 0.0))
        length = unit("length", system.units)
        known = Estimate(exact.narrowest(basin.limits), 0.0, length)
        quantities[f"width {name}"] = (Estimate(model.narrowest(basin.limits), math.nan, length), known)
    return EvaluationResult(
        quantities=_with_stability(quantities, summary),
        pmf_error=error,
        stability=_stability(summary),
        surface=surface,
        data_surface=data_surface,
    )


def _evaluate_molecule(
    system: SystemSpec,
    energy: EnergyFunction,
    reference: Reference,
    simulation: Frames,
    summary: Mapping[str, Any],
    data: Frames,
    committee: Sequence[EnergyFunction],
    truth: Frames | None,
) -> EvaluationResult:
    free, enhanced = simulation.of_window(UNBIASED), simulation.of_window(ENHANCED)
    sampled = enhanced if len(enhanced) else free
    surface, data_surface = _surface(system, reference, sampled), _surface(system, reference, data)
    pooled = reference.surface
    between = reference.disagreement()
    error = pmf_error(surface, pooled)
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {
        "JSD": (jsd(surface, pooled), between["jsd"]),
        "PMF error": (error, between["pmf_error"]),
        "JSD of the training data": (jsd(data_surface, pooled), between["jsd"]),
        "PMF error of the training data": (pmf_error(data_surface, pooled), between["pmf_error"]),
    }
    for frames, of in ((sampled, ""), (data, " of the training data")):
        weights = _weights(system, frames)
        for name, basin in system.evaluation.basins.items():
            variables = {key: values.astype(np.float64) for key, values in frames.collective_variables.items()}
            arguments = (variables, basin.limits, frames.replica, frames.time)
            quantities[f"population {name}{of}"] = (
                basin_population(*arguments, weights=weights),
                reference.populations[name],
            )
            free_energy = basin_free_energy(
                *arguments, thermal_energy=system.thermal_energy, weights=weights, unit=unit("energy", system.units)
            )
            quantities[f"free energy {name}{of}"] = (free_energy, reference.free_energies[name])
    if data.forces is not None and has_torque_surface(system):
        quantities |= _from_forces(system, reference, data)
    if committee:
        quantities |= _committee_scatter(system, energy, committee, reference, sampled, surface)
    slow = None
    if truth is not None and system.evaluation.slow_coordinates is not None:
        slow = compare_slow(system, truth, free)
        quantities |= slow.quantities
    cg_map, true = system.beads().cg_map, (data if truth is None else truth).positions
    monitors = Monitors(
        bonds=bond_monitor(free.positions, true, cg_map.bonds),
        chirality=chirality_monitor(free.positions, true, free.replica, cg_map.bonds),
        bead_names=tuple(cg_map.bead_names),
    )
    quantities["largest bond JSD"] = (Estimate(float(monitors.bonds.divergence.max()), math.nan), None)
    geometry = local_geometry(free.positions, true, cg_map.bonds, cg_map.bead_names)
    quantities["largest 1-3 distance JSD"] = (Estimate(geometry.largest("1-3 distance"), math.nan), None)
    flipped = max(monitors.chirality.flipped, key=lambda item: item.value, default=Estimate(0.0, 0.0))
    quantities["frames with flipped chirality"] = (flipped, None)
    return EvaluationResult(
        quantities=_with_stability(quantities, summary),
        pmf_error=error,
        stability=_stability(summary),
        surface=surface,
        data_surface=data_surface,
        monitors=monitors,
        slow=slow,
    )


def _from_forces(system: SystemSpec, reference: Reference, data: Frames) -> dict[str, tuple[Estimate, Estimate | None]]:
    """What the labels alone tell, without a network: the best that a potential of these data can be expected to do."""
    surface, known = torque_surface(system, [data], reference.bins), reference.surface.probability
    between = reference.disagreement()
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {
        "JSD of the forces": (surface.estimate(lambda p: jensen_shannon_divergence(p, known)), between["jsd"]),
        "PMF error of the forces": (surface.estimate(lambda p: squared_log_error(p, known)), between["pmf_error"]),
    }
    for name, basin in system.evaluation.basins.items():
        quantities[f"free energy {name} of the forces"] = (
            surface.basin_free_energy(basin.limits),
            reference.free_energies[name],
        )
    return quantities


def _committee_scatter(
    system: SystemSpec,
    energy: EnergyFunction,
    committee: Sequence[EnergyFunction],
    reference: Reference,
    frames: Frames,
    surface: FreeEnergySurface,
) -> dict[str, tuple[Estimate, Estimate | None]]:
    """How far free energies scatter when frames of a potential are reweighted to the members of its committee.

    All share the frames, whose own statistical error does not enter. The first row is Σ m (Δ ln p)² like the PMF error,
    mean over the members; the last the smallest share of the frames that counts after reweighting.
    """
    positions, thermal_energy = frames.positions.astype(np.float64), system.thermal_energy
    own = energy(positions)
    before = _weights(system, frames)
    errors, shares = [], []
    energies: dict[str, list[float]] = {name: [] for name in system.evaluation.basins}
    variables = {key: values.astype(np.float64) for key, values in frames.collective_variables.items()}
    for member in committee:
        reduced = (member(positions) - own) / thermal_energy
        weights = np.exp(reduced.min() - reduced) * (1.0 if before is None else before)
        moved = _surface(system, reference, frames, weights)
        errors.append(squared_log_error(moved.probability, surface.probability))
        shares.append(effective_samples(weights) / len(weights))
        for name, basin in system.evaluation.basins.items():
            found = basin_free_energy(
                variables,
                basin.limits,
                frames.replica,
                frames.time,
                thermal_energy=thermal_energy,
                weights=weights,
            )
            energies[name].append(found.value)
    spread = float(np.std(errors, ddof=1)) / math.sqrt(len(errors))
    quantities: dict[str, tuple[Estimate, Estimate | None]] = {
        f"PMF{_DEVIATION}": (Estimate(float(np.mean(errors)), spread), None)
    }
    for name, values in energies.items():
        scatter = _scatter(float(np.std(values, ddof=1)), len(values), unit("energy", system.units))
        quantities[f"free energy {name}{_DEVIATION}"] = (scatter, None)
    quantities["frames that count for the committee"] = (Estimate(min(shares), math.nan), None)
    return quantities


def _scatter(value: float, count: int, name: str) -> Estimate:
    """A standard deviation of `count` normal numbers with its standard error."""
    return Estimate(value, value / math.sqrt(2 * (count - 1)), name)


def _surface(
    system: SystemSpec, reference: Reference, frames: Frames, weights: NDArray[np.float64] | None = None
) -> FreeEnergySurface:
    columns = [frames.collective_variables[name].astype(np.float64) for name in reference.names]
    return free_energy_surface(
        np.stack(columns, axis=1),
        reference.bins,
        system.thermal_energy,
        frames.replica,
        frames.time,
        weights=_weights(system, frames) if weights is None else weights,
        unit=unit("energy", system.units),
    )


def _weights(system: SystemSpec, frames: Frames) -> NDArray[np.float64] | None:
    """Weights that take a bias out of frames; None where there was none."""
    if frames.bias_energy is None or not np.any(frames.bias_energy):
        return None
    return bias_weights(frames.bias_energy, system.thermal_energy)


def _stability(summary: Mapping[str, Any]) -> dict[str, int]:
    names = ("replicas", "stable_replicas", "enhanced_replicas", "enhanced_stable_replicas")
    return {name: int(summary[name]) for name in names}


def _with_stability(
    quantities: dict[str, tuple[Estimate, Estimate | None]], summary: Mapping[str, Any]
) -> dict[str, tuple[Estimate, Estimate | None]]:
    counts = _stability(summary)
    shares = {"stable replicas": _share(counts["stable_replicas"], counts["replicas"])}
    if counts["enhanced_replicas"]:
        shares["stable replicas under the bias"] = _share(
            counts["enhanced_stable_replicas"], counts["enhanced_replicas"]
        )
    temperature = Estimate(summary["kinetic_temperature"], summary["kinetic_temperature_error"], summary["unit"])
    return (
        quantities
        | {name: (share, Estimate(1.0, 0.0)) for name, share in shares.items()}
        | {"kinetic temperature": (temperature, Estimate(summary["target_temperature"], 0.0, summary["unit"]))}
    )


def _share(part: int, whole: int) -> Estimate:
    share = part / whole
    return Estimate(share, math.sqrt(share * (1 - share) / whole) or 1.0 / whole)
