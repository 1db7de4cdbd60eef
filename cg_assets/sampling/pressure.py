"""The box that a solvated molecule fills at atmospheric pressure."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.estimates import Estimate, autocorrelation_time
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.settings import Dynamics
from cg_assets.storage.atomic import atomic_file

if TYPE_CHECKING:
    import openmm

State = dict[str, NDArray[np.float64]]
"""Volumes so far, box, positions and velocities of a run."""

PRESSURE = 1.01325
"""Atmospheric pressure [bar]."""
DURATION = 1000.0
"""Length of the run [ps], of which the first fifth is left out."""
_INTERVAL = 1.0
"""Time between two volumes [ps]."""
_ATTEMPT_STEPS = 25
"""Steps between two trial moves of the barostat."""


def measure_box(
    molecule: MoleculeModel,
    temperature: float,
    dynamics: Dynamics,
    seed: int,
    progress: Progress | None = None,
    folder: Path | None = None,
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
        folder: where an unfinished run is kept until it ends, and from where it resumes; runs of other molecules or
            settings have files of their own.
        duration: length of the run [ps].

    Raises:
        SystemSpecError: the system is no molecule in a box.
    """
    if molecule.system is None:
        raise SystemSpecError("model.force_fields is empty; without one there is no pressure")
    if molecule.box is None:
        raise SystemSpecError("model.box is null; only a periodic box has a pressure")
    count = math.ceil(duration / _INTERVAL)
    unfinished = None if folder is None else folder / f"{_identity(molecule, temperature, dynamics, seed)}.npz"
    earlier = None if unfinished is None else _stored(unfinished)
    context = _context(molecule, temperature, dynamics, seed, earlier)
    volumes = [] if earlier is None else earlier["volumes"].tolist()
    for number in range(len(volumes), count):
        context.getIntegrator().step(round(_INTERVAL / dynamics.timestep))
        volumes.append(context.getState().getPeriodicBoxVolume()._value)
        if unfinished is not None:
            _store(unfinished, context, volumes)
        if progress is not None:
            progress(number + 1, count, "ps")
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    kept = np.array(volumes[count // 5 :])
    independent = max(2.0, len(kept) / (2.0 * autocorrelation_time(kept[None])))
    error = float(kept.std(ddof=1)) / math.sqrt(independent)
    shape = float(np.prod(np.diag(molecule.box))) / molecule.box[0, 0] ** 3
    edge = float(kept.mean() / shape) ** (1 / 3)
    return Estimate(edge, error / (3 * shape * edge**2), "nm")


def _context(
    molecule: MoleculeModel, temperature: float, dynamics: Dynamics, seed: int, earlier: State | None
) -> openmm.Context:
    """The molecule under a barostat, at the state of an earlier run or relaxed."""
    import openmm

    from cg_assets.sampling.molecule.platforms import choose_platform

    # A run that resumes draws other random numbers than its beginning.
    seed += 0 if earlier is None else 4 * len(earlier["volumes"])
    simulated = openmm.XmlSerializer.clone(molecule.system)
    barostat = openmm.MonteCarloBarostat(PRESSURE, temperature, _ATTEMPT_STEPS)
    barostat.setRandomNumberSeed(1 + seed)
    simulated.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(temperature, dynamics.friction, dynamics.timestep)
    integrator.setRandomNumberSeed(2 + seed)
    name, properties = choose_platform(molecule.n_atoms, periodic=True)
    context = openmm.Context(simulated, integrator, openmm.Platform.getPlatformByName(name), properties)
    if earlier is None:
        context.setPositions(molecule.positions)
        openmm.LocalEnergyMinimizer.minimize(context)
        context.setVelocitiesToTemperature(temperature, 3 + seed)
    else:
        context.setPeriodicBoxVectors(*earlier["box"])
        context.setPositions(earlier["positions"])
        context.setVelocities(earlier["velocities"])
    return context


def _identity(molecule: MoleculeModel, temperature: float, dynamics: Dynamics, seed: int) -> str:
    """What makes two runs the same: forces, start, dynamics and barostat; part of a file's name."""
    import openmm

    digest = hashlib.sha256(openmm.XmlSerializer.serialize(molecule.system).encode())
    digest.update(molecule.positions.tobytes())
    numbers = (temperature, dynamics.friction, dynamics.timestep, seed, PRESSURE, _ATTEMPT_STEPS, _INTERVAL)
    digest.update(repr(numbers).encode())
    return digest.hexdigest()[:32]


def _store(path: Path, context: openmm.Context, volumes: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = context.getState(positions=True, velocities=True)
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            volumes=np.array(volumes),
            box=state.getPeriodicBoxVectors(asNumpy=True)._value,
            positions=state.getPositions(asNumpy=True)._value,
            velocities=state.getVelocities(asNumpy=True)._value,
        )


def _stored(path: Path) -> State | None:
    """The state of a run; None where there is none."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
