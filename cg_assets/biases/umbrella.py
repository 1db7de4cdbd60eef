"""Umbrella windows: each replica is held near the centre of one of them by a harmonic bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, PositiveFloat

from cg_assets.biases.base import Bias, BiasFormula, BiasFunction, FloatArray, Variables, column
from cg_assets.core.errors import SamplingError
from cg_assets.core.geometry import within_half_turn
from cg_assets.core.settings import Built, Fault, Scope, StartPoint

if TYPE_CHECKING:
    import openmm

    from cg_assets.mapping.atom_variables import AtomVariables
    from cg_assets.mapping.beads import Beads

_TURN = 2 * math.pi


class UmbrellaBias(Bias):
    """Harmonic windows, one for each replica in turn."""

    windowed: ClassVar[bool] = True

    type: Literal["umbrella"]
    centers: list[StartPoint] = Field(min_length=1)
    """One entry per window: a value for each collective variable."""
    force_constant: PositiveFloat
    """k of k/2 (difference)^2 [kJ/mol/rad^2, kJ/mol/nm^2 or reduced]."""

    @property
    def n_windows(self) -> int:
        """Number of centres."""
        return len(self.centers)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Unknown variables, centres that cannot be, and windows that are one."""
        for center in self.centers:
            yield from scope.not_driven("centers", center)
            yield from scope.place_faults("centers", {} if scope.coordinates else center)
        yield from scope.same_place_faults("centers", self.centers, "the replicas of a window are dealt out in turn")

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """Centres that the molecule cannot reach."""
        for center in self.centers:
            yield from built.reach_faults("centers", center)

    def function(self, beads: Beads) -> Windows:
        """The windows; angles among their variables are periodic."""
        held = {name for center in self.centers for name in center}
        return Windows(self.centers, self.force_constant, sorted(name for name in held if beads.is_periodic(name)))


class Windows(BiasFunction, type="umbrella"):
    """Harmonic windows, k/2 times the squared difference from a centre, summed over the variables.

    Attributes:
        centers: one entry per window, a value for each variable it holds; an empty one is free.
        constants: k of each of them [kJ/mol/rad^2, kJ/mol/nm^2 or reduced].
        periodic: variables that are angles: differences are taken to the nearest image, period 2 pi.
        collective_variables: every variable that some window holds.
    """

    windowed: ClassVar[bool] = True

    def __init__(
        self,
        centers: Sequence[Mapping[str, float]],
        force_constant: float | Sequence[Mapping[str, float]],
        periodic: Sequence[str] = (),
    ) -> None:
        """Set up the windows, with one force constant for all or those of each.

        Raises:
            SamplingError: no window, or a periodic variable that no window holds.
        """
        self.centers = [{name: float(value) for name, value in center.items()} for center in centers]
        self.constants = (
            [dict.fromkeys(center, float(force_constant)) for center in self.centers]
            if isinstance(force_constant, float | int)
            else [{name: float(value) for name, value in held.items()} for held in force_constant]
        )
        self.periodic = list(periodic)
        self.collective_variables = sorted({name for center in self.centers for name in center})
        if not self.collective_variables:
            raise SamplingError("umbrella bias has no centers; give a value of a collective variable for each window")
        if unknown := set(self.periodic) - set(self.collective_variables):
            raise SamplingError(f"umbrella bias: periodic names {sorted(unknown)}, which no center holds")

    @property
    def n_windows(self) -> int:
        """Number of centres."""
        return len(self.centers)

    def energy_and_slopes(
        self, variables: Variables, window: ArrayLike | None = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Energy and derivatives, each frame in its window."""
        if window is None and self.n_windows > 1:
            raise SamplingError(f"umbrella bias has {self.n_windows} windows; give the window of each frame")
        index = np.asarray(0 if window is None else window, dtype=np.intp)
        if index.size and (index.min() < 0 or index.max() >= self.n_windows):
            raise SamplingError(f"umbrella window {index.max()} does not exist; there are {self.n_windows}")
        unit, differences, parts = self._largest_constant, {}, {}
        for name in self.collective_variables:
            held = np.array([name in center for center in self.centers])
            center = np.array([entry.get(name, 0.0) for entry in self.centers])
            difference = np.where(held[index], column(variables, name) - center[index], 0.0)
            if name in self.periodic:
                difference = within_half_turn(difference)
            differences[name] = difference
            parts[name] = np.array([entry.get(name, 0.0) / unit for entry in self.constants])[index]
        energy = 0.5 * unit * np.sum([parts[name] * value**2 for name, value in differences.items()], axis=0)
        return energy, {name: unit * parts[name] * value for name, value in differences.items()}

    @property
    def _largest_constant(self) -> float:
        return max(value for held in self.constants for value in held.values())

    def openmm_forces(self, variables: AtomVariables) -> list[openmm.Force]:
        """A harmonic force for each variable, with global parameters for its constant and its centre."""
        return [variables.harmonic_force(name) for name in self.collective_variables]

    def openmm_parameters(self, window: int) -> dict[str, float]:
        """Constant and centre of each variable; no force on those that the window does not hold."""
        values: dict[str, float] = {}
        for name in self.collective_variables:
            center = self.centers[window].get(name)
            values[f"k_{name}"] = 0.0 if center is None else self.constants[window][name]
            turns = round(center / _TURN) if center is not None and name in self.periodic else 0
            values[f"center_{name}"] = 0.0 if center is None else center - _TURN * turns
        return values

    def formula(self) -> BiasFormula:
        """The windows as a formula whose parameters are the centres; all have one force constant."""
        for name in self.collective_variables:
            if any(name not in center for center in self.centers):
                raise SamplingError(f"bias.centers: each window must give a value of {name}")
        terms = [f"{0.5 * self._largest_constant!r}*({name} - Center_{name})**2" for name in self.collective_variables]
        parameters = {
            f"Center_{name}": np.array([center[name] for center in self.centers]) for name in self.collective_variables
        }
        return BiasFormula(" + ".join(terms), parameters)

    def center(self, window: int) -> dict[str, float]:
        """The centre of the window."""
        return self.centers[window]

    def joined(self, others: Sequence[BiasFunction]) -> Windows:
        """One bias with the windows of all."""
        every = [self, *(bias for bias in others if isinstance(bias, Windows))]
        periodic = dict.fromkeys(name for bias in every for name in bias.periodic)
        centers = [center for bias in every for center in bias.centers]
        return Windows(centers, [held for bias in every for held in bias.constants], list(periodic))

    def definition(self) -> dict[str, object]:
        """Plain JSON types."""
        values = {value for held in self.constants for value in held.values()}
        return {
            "type": "umbrella",
            "centers": self.centers,
            "force_constant": values.pop() if len(values) == 1 else self.constants,
            "periodic": self.periodic,
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Windows:
        """The bias that `definition` described."""
        return cls(definition["centers"], definition["force_constant"], definition.get("periodic", ()))
