"""What a potential W(R, T) of a molecule implies for its atoms: their energy, and how states melt."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import within_limits
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.distributions import temperature_slopes
from cg_assets.evaluation.metric import Found, Measure, Metric, OfMolecules
from cg_assets.evaluation.metrics.energies import liquid_energy
from cg_assets.evaluation.metrics.native import rmsd_from
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

FloatArray = NDArray[np.float64]
States = dict[tuple[str, str], FloatArray]
"""Name and place of a quantity to whether each frame counts for it, 1 or 0."""


class Thermodynamics(OfMolecules, Metric[FreeEnergySettings]):
    """Energy and heat capacity of the atoms, without kinetic energy, and the change of populations with temperature.

    All from one CG simulation at one temperature, for potentials whose temperature dependence is known.
    """

    measures = (
        Measure("potential_energy", "mean potential energy of the atoms, <U_W>", "kJ/mol"),
        Measure("heat_capacity", "their heat capacity without its kinetic part, <C_W> + Var(U_W)/(kT²)", "kJ/mol/K"),
        Measure("population_slope", "derivative of a population by temperature, Cov(A, U_W)/(kT²)", "1/K", "basin"),
        Measure("folded_share_slope", "the same of the folded share", "1/K"),
    )

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation without a bias."""
        if case.thermodynamics is None or case.reference is None:
            return
        frames, kelvin, known = case.free, case.beads.temperature, case.reference
        energy, frozen = case.thermodynamics(frames)
        whole = liquid_energy(energy, frozen, kelvin, frames.replica, frames.time)
        yield Quantity("potential_energy", whole.energy, known.number("potential_energy"))
        yield Quantity("heat_capacity", whole.heat_capacity, known.number("heat_capacity"))
        for (name, where), inside in states_of(case.settings, case.native, frames).items():
            slope, error = temperature_slopes(inside[:, None], energy, kelvin, frames.replica, frames.time)
            estimate = Estimate(float(slope[0]), float(error[0]), "1/K")
            yield Quantity(f"{name}_slope", estimate, known.number(f"{name}_slope", where), where=where)


def states_of(settings: FreeEnergySettings, native: FloatArray | None, frames: Frames) -> States:
    """Which frames are in each basin, and which are folded."""
    variables = frames.collective_variables
    states: States = {
        ("population", name): within_limits(variables, basin.limits).astype(np.float64)
        for name, basin in settings.basins.items()
    }
    if native is not None and settings.native is not None:
        states["folded_share", ""] = (rmsd_from(frames, native) < settings.native.folded_rmsd).astype(np.float64)
    return states
