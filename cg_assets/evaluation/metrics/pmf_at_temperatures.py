"""The PMF along one coordinate at temperatures that the CG simulation does not have."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import pmf_rmse
from cg_assets.evaluation.case import given
from cg_assets.evaluation.free_energies import FreeEnergyCase, deviation_of, reference_of, scatter, variable_unit
from cg_assets.evaluation.metric import Found, Measure, Metric
from cg_assets.evaluation.quantity import Profile, Quantity
from cg_assets.evaluation.settings import FreeEnergySettings


class PMFAtTemperatures(Metric[FreeEnergySettings]):
    """W(s, T) of one CG coordinate at further temperatures, against quadrature; its error is that of the committee."""

    reads = FreeEnergySettings
    measures = (
        Measure(
            "pmf_rmse_at",
            "root mean square difference to the exact PMF at another temperature",
            "kT",
            where="temperature",
        ),
    )

    def applies(self, settings: FreeEnergySettings) -> bool:
        """Where the exact reference names further temperatures."""
        return bool(settings.reference.further_temperatures)

    def measure(self, case: FreeEnergyCase) -> Iterable[Found]:
        """Error and PMF at each temperature."""
        reference, (name,) = reference_of(case), case.settings.collective_variables
        edges, grid = reference.bins.edges[0], reference.bins.centres[0]
        interval, points = (float(edges[0]), float(edges[-1])), grid[:, None, None]
        at = given(case.heated, "the exact PMF at other temperatures")
        for temperature in case.settings.reference.further_temperatures:
            there, thermal_energy = at(temperature), case.beads.at_temperature(temperature).thermal_energy
            energies, members = there.energy(points), [member(points) for member in there.committee]
            found = [pmf_rmse(grid, own, there.pmf, interval).value / thermal_energy for own in (energies, *members)]
            shown = f"T = {temperature:g}"
            yield Quantity("pmf_rmse_at", Estimate(found[0], scatter(found[1:]), "kT"), where=shown, headline=True)
            yield Profile(
                name="pmf",
                grid=grid,
                values=energies - energies.min(),
                unit=case.beads.energy_unit,
                where=f"{name} at {shown}",
                coordinate_unit=variable_unit(case, name),
                standard_error=deviation_of(members),
                reference=there.pmf,
                reference_error=np.zeros(len(grid)),
            )
