"""The CG simulations of a system: without a bias, and under the frozen bias of its biased samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.analysis.collective_variables import collective_variables
from cg_assets.analysis.evaluation import ENHANCED, UNBIASED
from cg_assets.frames import Frames
from cg_assets.mapping.maps import build_map
from cg_assets.potentials.model_format import energy_function
from cg_assets.progress import Progress
from cg_assets.simulation.bias import cg_bias
from cg_assets.simulation.langevin import CGTrajectory, simulate
from cg_assets.systems.spec import LinearMapping, SystemSpec
from cg_assets.units import unit


@dataclass(frozen=True)
class CGSimulationResult:
    """Frames of all CG simulations of a potential.

    Attributes:
        frames: positions, collective variables and bias energies; `window` is 0 without a bias and 1 under it.
        replicas: number of replicas of all runs together.
        stable_replicas: those that did not explode.
        kinetic_temperature: mean over stable replicas [K or reduced].
        kinetic_temperature_error: its standard error.
        replica_temperatures: `(n_replicas,)` of the run without a bias.
        steps_per_second: replica-steps per second of the run without a bias.
        target_temperature: temperature of the system.
        temperature_unit: its unit.
    """

    frames: Frames
    replicas: int
    stable_replicas: int
    kinetic_temperature: float
    kinetic_temperature_error: float
    replica_temperatures: NDArray[np.float64]
    steps_per_second: float
    target_temperature: float
    temperature_unit: str

    def summary(self) -> dict[str, Any]:
        """The numbers in plain JSON types."""
        return {
            "replicas": self.replicas,
            "stable_replicas": self.stable_replicas,
            "kinetic_temperature": self.kinetic_temperature,
            "kinetic_temperature_error": self.kinetic_temperature_error,
            "steps_per_second": self.steps_per_second,
            "target_temperature": self.target_temperature,
            "unit": self.temperature_unit,
        }
