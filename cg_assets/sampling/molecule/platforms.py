"""Choose the OpenMM platform for a molecule; it is always named, never left to OpenMM's default."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import DeviceError, SystemSpecError, library_errors
from cg_assets.settings import installation

if TYPE_CHECKING:
    import openmm

_MEASURED_SECONDS = 0.3
SMALL_MOLECULE = 100
"""Up to this many particles without periodic box the Reference platform is the fastest."""
_SOFTWARE = ("portable computing", "pocl", "llvm", "swiftshader", "cpu", "oclgrind")


def choose_platform(n_particles: int, periodic: bool, requested: str | None = None) -> tuple[str, dict[str, str]]:
    """Name and properties of the OpenMM platform.

    Args:
        n_particles: particles of the System.
        periodic: whether it has a periodic box.
        requested: name of a platform, `CUDA:1` for its device 1, or None to choose by size and `CG_DEVICE`.

    Raises:
        DeviceError: the platform asked for is not there; `CG_DEVICE` has another value than auto, cpu or cuda.
    """
    from openmm import Platform

    installed = [Platform.getPlatform(index).getName() for index in range(Platform.getNumPlatforms())]
    if requested is not None:
        name, _, device = requested.partition(":")
        if name not in installed or (name in {"CUDA", "OpenCL", "HIP"} and not _works(name)):
            raise DeviceError(f"OpenMM platform {requested!r} is not usable here; installed are {', '.join(installed)}")
        return name, _properties(name, device)
    choice = installation().device
    if n_particles <= SMALL_MOLECULE and not periodic:
        return "Reference", {}
    if choice != "cpu" and "CUDA" in installed and _works("CUDA"):
        return "CUDA", _properties("CUDA", "")
    if choice == "cuda":
        raise DeviceError("CG_DEVICE is cuda, but OpenMM's CUDA platform does not work here; install openmm[cuda12]")
    if choice == "auto" and "OpenCL" in installed and _works("OpenCL"):
        return "OpenCL", _properties("OpenCL", "")
    return "CPU", _properties("CPU", "")


def process_count(name: str, n_replicas: int, seconds: float) -> int:
    """Processes to run replicas in: a GPU is shared by all, short work is not worth another process.

    Args:
        name: name of the platform.
        n_replicas: replicas to run.
        seconds: estimated work of all of them on one core.
    """
    if name not in {"Reference", "CPU"}:
        return 1
    own = installation()
    worthwhile = max(1, int(seconds / 4.0)) if own.thread_count is None else own.threads
    return min(own.threads, n_replicas, worthwhile)


def seconds_per_step(n_atoms: int, periodic: bool) -> float:
    """Rough cost of a step on one core; sets only the size of the pieces of work."""
    return 1.0e-6 * n_atoms if periodic or n_atoms > SMALL_MOLECULE else 5e-6 + 5e-8 * n_atoms**2


def measured_step(system: openmm.System, positions: NDArray[np.float64], periodic: bool) -> float:
    """Time of a step on the platform that a simulation would choose, from half a second of steps [s].

    Args:
        system: an OpenMM System.
        positions: `(n_atoms, 3)` [nm].
        periodic: whether it has a periodic box.

    Raises:
        SystemSpecError: OpenMM cannot simulate it.
    """
    import openmm

    name, properties = choose_platform(system.getNumParticles(), periodic)
    clock = (
        time.process_time if name in {"Reference", "CPU"} else time.perf_counter
    )  # of a core, though others share it
    with library_errors(SystemSpecError, "model: OpenMM cannot simulate it"):
        integrator = openmm.LangevinMiddleIntegrator(1.0, 1.0, 1e-5)  # nothing is relaxed yet
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(name), properties)
        context.setPositions(positions)
        context.applyConstraints(1e-6)
        steps, seconds = 1, 0.0
        while seconds < _MEASURED_SECONDS:
            steps, begin = 2 * steps, clock()
            integrator.step(steps)
            context.getState(energy=True)
            seconds = clock() - begin
    return seconds / steps


def _properties(name: str, device: str) -> dict[str, str]:
    if name in {"CUDA", "OpenCL", "HIP"}:
        return {"Precision": "mixed"} | ({"DeviceIndex": device} if device else {})
    # With several threads the CPU platform gives other numbers each time, even where its forces are deterministic.
    return {"Threads": "1"} if name == "CPU" else {}


def _works(name: str) -> bool:
    """Whether a context can be created on real hardware: a software OpenCL is many times slower than a CPU."""
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    platform = openmm.Platform.getPlatformByName(name)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    except openmm.OpenMMException:
        return False
    described = " ".join(
        platform.getPropertyValue(context, item).lower()
        for item in platform.getPropertyNames()
        if item in {"OpenCLPlatformName", "DeviceName"}
    )
    return not any(word in described for word in _SOFTWARE)
