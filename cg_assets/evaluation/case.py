"""What metrics measure: a potential, its CG simulation, and what both are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.reweighting import weights_of
from cg_assets.core.frames import Frames
from cg_assets.evaluation.reference import Reference
from cg_assets.evaluation.settings import EvaluationSettings
from cg_assets.mapping.beads import Beads
from cg_assets.simulation.settings import ENHANCED, UNBIASED

if TYPE_CHECKING:
    from cg_assets.evaluation.metrics.slow_coordinates import SlowCoordinates
    from cg_assets.sampling.model_potential.planes import Plane
    from cg_assets.simulation.run import Run

FloatArray = NDArray[np.float64]
S_co = TypeVar("S_co", bound=EvaluationSettings, covariant=True)
T = TypeVar("T")

EnergyFunction = Callable[[NDArray], FloatArray]
"""Positions `(n_frames, n_beads, dimension)` to energies `(n_frames,)` [kJ/mol or reduced]."""

BIASED = "bias"
"""`where` of what is measured under the frozen bias of the biased samples."""


class AtTemperature(NamedTuple):
    """The potential of a case at another temperature, where its one CG coordinate is that of a model potential."""

    energy: EnergyFunction
    committee: Sequence[EnergyFunction]
    pmf: FloatArray
    """Exact PMF at the centres of the reference's bins [energy]."""


@dataclass(frozen=True)
class Case(Generic[S_co]):
    """One potential with everything needed to evaluate it.

    Attributes:
        beads: of the system.
        settings: of the evaluation.
        energy: the trained potential.
        simulation: frames of its CG simulation; `window` is 0 without a bias and 1 in enhanced runs.
        runs: what each of its CG simulations gave, those without a bias first.
        data: CG frames that it was trained on, of one batch under a frozen bias, or as `pooled_batches` joins them.
        truth: CG frames that those of the simulation should look like: never those of a kernel; of a liquid the
            dynamics of the atoms with their potential energies. None where there are none but `data`.
        committee: energies of the potential's committee, whose scatter is the uncertainty from the data.
        reference: the reference free energy; None for liquids.
        plane: the exact density of a model potential with two CG coordinates.
        heated: temperature [reduced] to the potential there and the exact PMF, of a model potential with one CG
            coordinate.
        domain: range of the one CG coordinate that the potential is defined on.
        thermodynamics: frames at one temperature to the mean energy of the atoms at fixed beads U_W [kJ/mol] and their
            heat capacity C_W [kJ/mol/K], each `(n_frames,)`; None for potentials of one temperature.
        native: `(n_beads, 3)` beads of the native structure [nm]; None without one.
        dynamics: CG frames of the atoms that move as they do without replica exchange; None to take `truth`.
        slow: slow coordinates of frames at several temperatures; None to find those of `truth`.
    """

    beads: Beads
    settings: S_co
    energy: EnergyFunction
    simulation: Frames
    runs: tuple[Run, ...]
    data: Frames
    truth: Frames | None = None
    committee: Sequence[EnergyFunction] = ()
    reference: Reference | None = None
    plane: Callable[[], Plane] | None = None
    heated: Callable[[float], AtTemperature] | None = None
    domain: tuple[float, float] | None = None
    thermodynamics: Callable[[Frames], tuple[FloatArray, FloatArray]] | None = None
    native: FloatArray | None = None
    dynamics: Frames | None = None
    slow: SlowCoordinates | None = None
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, function: Callable[[Case[Any]], T]) -> T:
        """The result of a function of this case, computed once for all metrics."""
        if function not in self._made:
            self._made[function] = function(self)
        return self._made[function]

    @property
    def true_frames(self) -> Frames:
        """Frames that those of the simulation should look like."""
        return self.data if self.truth is None else self.truth

    @property
    def free(self) -> Frames:
        """Frames of the CG simulation without a bias."""
        return self.simulation.of_window(UNBIASED)

    @property
    def sampled(self) -> Frames:
        """Frames that free energies are taken from: under the bias, where there are such."""
        enhanced = self.simulation.of_window(ENHANCED)
        return enhanced if len(enhanced) else self.free

    def weights(self, frames: Frames) -> FloatArray | None:
        """Weights that remove a bias from frames; None where there was none."""
        return weights_of(frames, self.beads.thermal_energy)


def given(value: T | None, what: str) -> T:
    """A part of a case that a metric requires.

    Raises:
        ValueError: the case lacks it.
    """
    if value is None:
        raise ValueError(f"this evaluation lacks {what}")
    return value
