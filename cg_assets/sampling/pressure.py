"""The box that a solvated molecule fills at atmospheric pressure."""

from __future__ import annotations

import math

import numpy as np

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.estimates import Estimate, autocorrelation_time
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.settings import Dynamics

PRESSURE = 1.01325
"""Atmospheric pressure [bar]."""
DURATION = 1000.0
"""Length of the run [ps], of which the first fifth is left out."""
_INTERVAL = 1.0
_ATTEMPT_STEPS = 25


def measure_box(
    molecule: MoleculeModel,
    temperature: float,
    dynamics: Dynamics,
    seed: int,
    progress: Progress | None = None,
    duration: float = DURATION,
) -> Estimate:
    """First edge of the box [nm] whose volume is the mean volume at constant pressure, with its standard error.

    The box keeps its shape.

    Langevin dynamics from `model.box` with OpenMM's Monte Carlo barostat.

    Args:
        molecule: in a periodic box.
        temperature: [K].
        dynamics: time step and friction.
        seed: seed of the dynamics and of the barostat.
        progress: called after each picosecond.
        duration: length of the run [ps].

    Raises:
        SystemSpecError: the system is no molecule in a box.
    """
    import openmm

    from cg_assets.sampling.molecule.platforms import choose_platform

    if molecule.system is None:
        raise SystemSpecError("model.force_fields is empty; without one there is no pressure")
    if molecule.box is None:
        raise SystemSpecError("model.box is null; only a periodic box has a pressure")
    simulated = openmm.XmlSerializer.clone(molecule.system)
    barostat = openmm.MonteCarloBarostat(PRESSURE, temperature, _ATTEMPT_STEPS)
    barostat.setRandomNumberSeed(1 + seed)
    simulated.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(temperature, dynamics.friction, dynamics.timestep)
    integrator.setRandomNumberSeed(2 + seed)
    name, properties = choose_platform(molecule.n_atoms, periodic=True)
    context = openmm.Context(simulated, integrator, openmm.Platform.getPlatformByName(name), properties)
    context.setPositions(molecule.positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature, 3 + seed)
    count = math.ceil(duration / _INTERVAL)
    volumes = []
    for number in range(count):
        integrator.step(round(_INTERVAL / dynamics.timestep))
        volumes.append(context.getState().getPeriodicBoxVolume()._value)
        if progress is not None:
            progress(number + 1, count, "ps")
    kept = np.array(volumes[count // 5 :])
    independent = max(2.0, len(kept) / (2.0 * autocorrelation_time(kept[None])))
    error = float(kept.std(ddof=1)) / math.sqrt(independent)
    shape = float(np.prod(np.diag(molecule.box))) / molecule.box[0, 0] ** 3
    edge = float(kept.mean() / shape) ** (1 / 3)
    return Estimate(edge, error / (3 * shape * edge**2), "nm")
