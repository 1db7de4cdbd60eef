"""Biases that walkers build on a grid while they move: what metadynamics and OPES have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator, model_validator

from cg_assets.biases.base import Bias, FloatArray, range_faults
from cg_assets.biases.grid import GridBias
from cg_assets.core.settings import Fault, Name, Scope, distinct
from cg_assets.core.splines import GridSpline

if TYPE_CHECKING:
    from cg_assets.mapping.beads import Beads

NODES_PER_WIDTH = 5
"""Grid nodes per standard deviation of a hill or kernel."""
_MOST_NODES = 1_000_000
_FEWEST_INTERVALS = 24
"""Intervals of the grid along each variable, at least."""


class DepositedBias(Bias):
    """A bias that all walkers build together while they move, and that is then frozen."""

    collective_variables: list[Name] = Field(min_length=1, max_length=2)
    """Names of the variables that the bias is a function of."""
    width: dict[Name, PositiveFloat]
    """Standard deviation of a hill or kernel along each collective variable."""
    pace: PositiveFloat
    """Time between two hills or kernels of a walker [ps or reduced]."""
    deposition: PositiveFloat
    """Time for which each walker deposits before the bias is frozen [ps or reduced]."""
    grid_range: dict[Name, tuple[float, float]] = Field(default_factory=dict)
    """Range of the bias grid for collective variables that are not angles."""

    _distinct = field_validator("collective_variables")(distinct)

    @model_validator(mode="after")
    def _widths_given(self) -> DepositedBias:
        if set(self.width) != set(self.collective_variables):
            raise ValueError(f"width gives {sorted(self.width)}; it must give each of {self.collective_variables}")
        if self.deposition < self.pace:
            raise ValueError(f"deposition {self.deposition} is shorter than pace {self.pace}: there would be no bias")
        return self

    @property
    def deposited(self) -> DepositedBias:
        """Itself."""
        return self

    @property
    def n_hills(self) -> int:
        """Hills or kernels of each walker."""
        return round(self.deposition / self.pace)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Unknown variables, those without limits, and widths of more than half their range."""
        yield from range_faults(scope, self.collective_variables, self.grid_range)
        for name, width in self.width.items():
            low, high = self.grid_range.get(name) or scope.limits.get(name, (-math.inf, math.inf))
            if low < high and width > (high - low) / 2:
                yield Fault(
                    f"width.{name}",
                    f"is {width:g}, more than half the range of {name}, {low:.4g} to {high:.4g}; angles are in "
                    "radians, lengths in nm",
                )
        nodes = math.prod(
            NODES_PER_WIDTH * (high - low) / self.width[name]
            for name in self.collective_variables
            if (limits := self.grid_range.get(name) or scope.limits.get(name))
            for low, high in [limits]
        )
        if nodes > _MOST_NODES:
            yield Fault("width", f"is so small that the grid has {nodes:.1e} nodes; {_MOST_NODES} are possible")

    @abstractmethod
    def grid(self, beads: Beads) -> DepositedGrid:
        """The grid before any walker has deposited."""

    def function(self, beads: Beads) -> GridBias:
        """The bias of the empty grid."""
        return self.grid(beads).bias()


class DepositedGrid(ABC):
    """A bias on a regular grid of one or two collective variables that walkers build while they move.

    Attributes:
        names: the biased variables.
        periodic: whether each is an angle.
        limits: lower and upper limit of each [rad, nm or reduced].
        widths: standard deviation of a hill or kernel along each [rad, nm or reduced].
        spacing: distance of the nodes along each.
        values: bias energy at the nodes [kJ/mol or reduced].
    """

    def __init__(self, beads: Beads, bias: DepositedBias) -> None:
        """An empty grid."""
        self.names = list(bias.collective_variables)
        self.periodic = [beads.is_periodic(name) for name in self.names]
        self.widths = [bias.width[name] for name in self.names]
        self.limits = [
            (-math.pi, math.pi) if angle else bias.grid_range[name]
            for name, angle in zip(self.names, self.periodic, strict=True)
        ]
        sizes = []
        for (low, high), angle, width in zip(self.limits, self.periodic, self.widths, strict=True):
            n_intervals = max(_FEWEST_INTERVALS, math.ceil(NODES_PER_WIDTH * (high - low) / width))
            sizes.append(n_intervals if angle else n_intervals + 1)
        self.values = np.zeros(sizes)
        self._nodes = [
            np.linspace(low, high, size, endpoint=not angle)
            for (low, high), size, angle in zip(self.limits, sizes, self.periodic, strict=True)
        ]
        self.spacing = [float(nodes[1] - nodes[0]) for nodes in self._nodes]

    @abstractmethod
    def deposit(self, points: FloatArray, energies: FloatArray) -> None:
        """Deposit a hill or kernel for each walker.

        Args:
            points: `(n, n_variables)` where they are [rad, nm or reduced].
            energies: `(n,)` bias energies there [kJ/mol or reduced].
        """

    def state(self) -> dict[str, NDArray]:
        """Arrays for `restore`."""
        return {"values": self.values.copy()}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Restore a stored state."""
        self.values = state["values"].copy()

    def bias(self) -> GridBias:
        """The bias as it is now."""
        return GridBias(self.names, self.limits, self.periodic, self.values)

    def spline(self) -> GridSpline:
        """The spline through the nodes as they are now."""
        return GridSpline(self.limits, self.periodic, self.values)

    def inside(self, points: FloatArray) -> NDArray[np.bool_]:
        """Whether points `(n, n_variables)` lie on the grid."""
        within = [
            angle | ((column >= low) & (column <= high))
            for column, (low, high), angle in zip(points.T, self.limits, self.periodic, strict=True)
        ]
        return np.all(within, axis=0)

    def energies(self, points: FloatArray) -> FloatArray:
        """Bias energies `(n,)` at points `(n, n_variables)` on the grid."""
        return self.spline().at(self._places(points))[0]

    def _places(self, points: FloatArray) -> list[FloatArray]:
        """Points in units of the node spacing, `(n,)` along each variable."""
        return [
            (column - nodes[0]) / spacing
            for column, nodes, spacing in zip(points.T, self._nodes, self.spacing, strict=True)
        ]

    def _gaussian(self, center: FloatArray) -> FloatArray:
        """A Gaussian of height 1 at the nodes."""
        factors = []
        for axis, value in enumerate(center):
            shifts = (-2 * math.pi, 0.0, 2 * math.pi) if self.periodic[axis] else (0.0,)
            scaled = [(self._nodes[axis] - value - shift) / self.widths[axis] for shift in shifts]
            factors.append(np.sum([np.exp(-0.5 * item**2) for item in scaled], axis=0))
        return factors[0] if len(factors) == 1 else np.outer(factors[0], factors[1])
