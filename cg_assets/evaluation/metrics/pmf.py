"""Errors of the PMF: along one exact coordinate, over two of them, and of a molecule from its CG simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cg_assets.core.statistics.estimates import Estimate, effective_samples
from cg_assets.core.statistics.metrics import jensen_shannon_divergence, jsd, pmf_error, pmf_rmse, squared_log_error
from cg_assets.core.units import unit
from cg_assets.evaluation.case import EnergyFunction
from cg_assets.evaluation.free_energies import (
    FreeEnergyCase,
    Line,
    LineDrawing,
    SurfacesDrawing,
    committee_weights,
    data_surface,
    deviation_of,
    exact_plane,
    labels_surface,
    line_of,
    marginals,
    member_planes,
    model_plane,
    reference_of,
    sampled,
    scatter,
    standard_deviation,
    surface_of,
    variable_unit,
    weighted_surface,
)
from cg_assets.evaluation.metric import Found, Measure, Metric, OfMolecules
from cg_assets.evaluation.quantity import SAMPLED, Profile, Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

if TYPE_CHECKING:
    from cg_assets.sampling.model_potential.planes import Plane


class LinePMF(Metric[FreeEnergySettings]):
    """The PMF along the one coordinate of a model potential, which is the energy of the potential itself."""

    reads = FreeEnergySettings
    measures = (
        Measure(
            "pmf_rmse",
            "root mean square difference to the exact PMF over the reference's range",
            "kT",
            where="the part of the range whose bins hold frames, where that is not all of it",
        ),
        Measure("sampled_range", "ends of the part of the reference's range whose bins hold frames", where="its end"),
    )
    remedies: ClassVar[Mapping[str, str]] = {
        "pmf_rmse": "where the results have a sampled_range, frames do not reach the ends of "
        "evaluation.reference.range: narrow it to that; else see where it differs in the figures of the evaluation; "
        "more data, a bias or a longer training can help",
    }

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where there is an exact PMF along one coordinate."""
        return settings.reference.exact and len(settings.collective_variables) == 1

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The error of the potential has a bound."""
        return {"pmf_rmse": f"The PMF error is at most {settings.max_pmf_error}."}

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Of the potential, of its labels alone, and the scatter of its committee."""
        line, thermal_energy = case.once(line_of), case.beads.thermal_energy
        grid, labels = line.grid, line.labels

        def rmse(energy: EnergyFunction) -> float:
            return pmf_rmse(grid, energy(grid[:, None, None]) / thermal_energy, line.exact, line.interval).value

        error = Estimate(rmse(case.energy), scatter([rmse(member) for member in case.committee]), "kT")
        if line.covered:
            # The labels' own statistical error, propagated along the model's PMF on the labels' grid.
            exact = np.interp(labels.grid, grid, line.exact)
            along = pmf_rmse(labels.grid, line.on_labels, exact, line.interval, covariance=line.covariance)
            error = Estimate(error.value, along.standard_error, "kT")
            alone = pmf_rmse(labels.grid, labels.pmf / thermal_energy, exact, line.interval, covariance=line.covariance)
            yield Quantity("pmf_rmse", alone, of="labels")
        else:
            yield from _where_frames_are(line, variable_unit(case, case.settings.collective_variables[0]))
        yield Quantity("pmf_rmse", error, bound=case.settings.max_pmf_error, decides=True, headline=True)
        deviation = line.label_error if line.covered else np.empty(0)
        if case.committee:
            inside = (grid >= line.interval[0]) & (grid <= line.interval[1])
            deviation = deviation_of([member(grid[:, None, None]) for member in case.committee]) / thermal_energy
            value = float(np.sqrt((deviation[inside] ** 2).mean()))
            yield Quantity("pmf_rmse", standard_deviation(value, len(case.committee), "kT"), of="committee")
        (name,) = case.settings.collective_variables
        pmf = Profile(
            name="pmf",
            grid=grid,
            values=(line.model - line.model.min()) * thermal_energy,
            unit=case.beads.energy_unit,
            where=name,
            coordinate_unit=variable_unit(case, name),
            standard_error=deviation * thermal_energy,
            reference=np.asarray(reference_of(case).pmf),
            reference_error=np.zeros(len(grid)),
        )
        yield pmf
        yield LineDrawing(pmf, labels, line.interval, case.data.collective_variables[name])


def _where_frames_are(line: Line, unit: str) -> Iterable[Quantity]:
    """The error over those bins of the range that hold frames, with its error from the labels, and their ends."""
    grid, (low, high) = line.labels.grid, line.sampled
    if ((grid >= low) & (grid <= high)).sum() < 2:
        return
    exact = np.interp(grid, line.grid, line.exact)
    error = pmf_rmse(grid, line.on_labels, exact, line.sampled, covariance=line.covariance)
    yield Quantity("pmf_rmse", error, where=SAMPLED, headline=True)
    for end, value in (("low", low), ("high", high)):
        yield Quantity("sampled_range", Estimate(value, 0.0, unit), where=end, headline=True)


class PlanePMF(Metric[FreeEnergySettings]):
    """The density of a model potential with two CG coordinates, by quadrature of its own and of the exact one."""

    reads = FreeEnergySettings
    measures = (
        Measure("weighted_pmf_rmse", "root mean square difference to the exact PMF, weighted by its density", "kT"),
        Measure("kl_divergence", "Kullback-Leibler divergence of the exact density from that of the potential"),
        Measure("jsd", "Jensen-Shannon divergence of the sampled density from that of the reference"),
        Measure("width", "standard deviation of a basin along its narrowest direction", "length", "basin"),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where there is an exact density of two coordinates."""
        return settings.reference.exact and len(settings.collective_variables) == 2

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The error of the potential has a bound."""
        return {"weighted_pmf_rmse": f"The PMF error is at most {settings.max_pmf_error}."}

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Of the potential, its simulation, its training data, and the scatter of its committee."""
        exact, model, reference = case.once(exact_plane), case.once(model_plane), reference_of(case)
        members = case.once(member_planes)
        surface, of_data = case.once(surface_of), case.once(data_surface)

        def estimate(measure: Callable[[Plane], float], of: str = "") -> Estimate:
            return Estimate(measure(model), scatter([measure(member) for member in members]), of)

        error = estimate(exact.pmf_error, "kT")
        yield Quantity("weighted_pmf_rmse", error, bound=case.settings.max_pmf_error, decides=True, headline=True)
        yield Quantity("kl_divergence", estimate(exact.divergence), headline=True)
        yield Quantity("jsd", jsd(surface, reference.surface), headline=True)
        yield Quantity("jsd", jsd(of_data, reference.surface), of="data")
        if case.committee:
            reduced = np.array([member.reduced for member in members])
            reduced -= (exact.probability * reduced).sum(axis=(1, 2), keepdims=True)
            apart = float(np.sqrt((exact.probability * reduced.var(axis=0, ddof=1)).sum()))
            found = standard_deviation(apart, len(members), "kT")
            yield Quantity("weighted_pmf_rmse", found, of="committee")
        length = unit("length", case.beads.units)
        for name, basin in case.settings.basins.items():
            found = estimate(partial(type(exact).narrowest, limits=basin.limits), length)
            known = Estimate(exact.narrowest(basin.limits), 0.0, length)
            yield Quantity("width", found, known, where=name, headline=True)
        yield from surface_figures(case)


class SampledPMF(OfMolecules, Metric[FreeEnergySettings]):
    """The free energy of a CG simulation over collective variables, against that of independent runs or of data.

    The PMF error is Σ m (ln p - ln q)², m = (p + q)/2, over the bins (`squared_log_error`).
    """

    measures = (
        Measure("pmf_error", "mass-weighted squared error of ln p over the bins of the reference", "(kT)²", noise=True),
        Measure(
            "reference_error", "the same of the reference: what its runs differ by, over twice their number", "(kT)²"
        ),
        Measure("jsd", "Jensen-Shannon divergence of the sampled density from that of the reference", noise=True),
        Measure("effective_share", "smallest share of the frames that counts after reweighting to a member"),
    )
    remedies: ClassVar[Mapping[str, str]] = {
        "reference_error": "lengthen the reference, or sample it under a bias or on a ladder of temperatures; until "
        "then no training can pass",
    }

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The error of the potential has a bound, and the reference must know it as well."""
        return {
            "pmf_error": f"The PMF error is at most {settings.max_pmf_error}.",
            "reference_error": f"The reference's own PMF error is at most {settings.max_pmf_error}; else lengthen it.",
        }

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Of the simulation, of the training data, of their forces alone, and the scatter of the committee."""
        reference, surface, of_data = reference_of(case), case.once(surface_of), case.once(data_surface)
        pooled, between = reference.surface, reference.disagreement()
        bound, noise = case.settings.max_pmf_error, between["pmf_error"]
        found, own_error = pmf_error(surface, pooled), pmf_error(surface, pooled.probability).standard_error
        yield Quantity("pmf_error", found, noise, bound=bound, decides=True, headline=True, own_error=own_error)
        yield Quantity("jsd", jsd(surface, pooled), between["jsd"], headline=True)
        # Two runs differ by twice the variance of one, and the mean of all has that of one over their number.
        share = 0.5 / len(reference.runs)
        own = Estimate(share * noise.value, share * noise.standard_error, noise.unit)
        yield Quantity("reference_error", own, bound=bound)
        yield Quantity("pmf_error", pmf_error(of_data, pooled), noise, of="data")
        yield Quantity("jsd", jsd(of_data, pooled), between["jsd"], of="data")
        labels, known = case.once(labels_surface), pooled.probability
        if labels is not None:
            # What the labels contain without a network: the best that a potential of these data can be expected to do.
            alone = labels.estimate(lambda p: squared_log_error(p, known))
            yield Quantity("pmf_error", replace(alone, unit=noise.unit), noise, of="labels")
            divergence = labels.estimate(lambda p: jensen_shannon_divergence(p, known))
            yield Quantity("jsd", divergence, between["jsd"], of="labels")
        if case.committee:
            frames, every = case.once(sampled)[0], case.once(committee_weights)
            moved = [weighted_surface(case, frames, weights) for weights in every]
            errors = [squared_log_error(item.probability, surface.probability) for item in moved]
            error = float(np.std(errors, ddof=1)) / math.sqrt(len(errors))
            own = Estimate(float(np.mean(errors)), error, noise.unit)
            yield Quantity("pmf_error", own, of="committee")
            share = min(effective_samples(weights) / len(weights) for weights in every)
            yield Quantity("effective_share", Estimate(share, math.nan), of="committee")
        yield from surface_figures(case)


def surface_figures(case: FreeEnergyCase) -> Iterable[Found]:
    """Free energies of the reference, the training data and the CG simulation."""
    reference = reference_of(case)
    yield from marginals(case)
    # At a temperature that a potential did not learn from, frames of the reference stand for its data.
    learnt = {} if case.data is case.truth else {"training data": case.once(data_surface)}
    yield SurfacesDrawing(
        surfaces={"reference": reference.surface, **learnt, "CG model": case.once(surface_of)},
        variables=reference.names,
        variable_units=tuple(variable_unit(case, name) for name in reference.names),
        maps="free energy" if len(reference.names) == 2 else "",
        marginals="marginals",
    )
