"""Bias potentials that are fixed while frames are taken: on a grid, as a formula, or as umbrella windows.

Each bias has an energy and the exact gradient of that energy with respect to the collective variables, and a
definition of plain JSON types from which `bias_from_definition` builds it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.biases.settings import UmbrellaBias as Windows
from cg_assets.core.differentiation import Tape
from cg_assets.core.errors import SamplingError
from cg_assets.core.expressions import parse_expression
from cg_assets.mapping.collective_variables import Torsion
from cg_assets.systems.spec import SystemSpec

FloatArray = NDArray[np.float64]
Variables = Mapping[str, ArrayLike]


class Bias(Protocol):
    """A bias potential of collective variables."""

    collective_variables: list[str]

    def energy(self, variables: Variables, window: ArrayLike | None = None) -> FloatArray:
        """Energy `(n,)` [kJ/mol or reduced] for arrays `(n,)` of the variables; `window` matters to umbrellas only."""
        ...

    def gradient(self, variables: Variables, window: ArrayLike | None = None) -> dict[str, FloatArray]:
        """Derivative `(n,)` of the energy with respect to each of `collective_variables`."""
        ...

    def definition(self) -> dict[str, Any]:
        """Plain JSON types from which `bias_from_definition` builds the same bias."""
        ...


class GridBias:
    """Values on a regular grid of one or two collective variables, joined by a natural or periodic cubic spline.

    Energy and gradient come from the same twice continuously differentiable spline; it is the one that OpenMM's
    `Continuous1DFunction` and `Continuous2DFunction` fit to the same nodes. Outside the limits of a variable that is
    not periodic the energy keeps its value at the limit.

    Attributes:
        collective_variables: names of one or two variables.
        limits: lower and upper limit of each. Nodes lie at both limits; at the lower one only of a periodic variable.
        periodic: whether each variable is periodic over its limits.
        values: `(n,)` or `(n, m)` node energies [kJ/mol or reduced].
    """

    def __init__(
        self,
        collective_variables: Sequence[str],
        limits: Sequence[Sequence[float]],
        periodic: Sequence[bool],
        values: ArrayLike,
    ) -> None:
        """Fit the spline.

        Raises:
            SamplingError: shapes do not agree, limits are not in order, or a value is not finite.
        """
        self.collective_variables = list(collective_variables)
        self.limits = [(float(low), float(high)) for low, high in limits]
        self.periodic = [bool(value) for value in periodic]
        self.values = np.array(values, dtype=np.float64)
        n_variables = len(self.collective_variables)
        if n_variables not in (1, 2) or not (len(self.limits) == len(self.periodic) == self.values.ndim == n_variables):
            raise SamplingError(
                f"grid bias of {self.collective_variables} has {len(self.limits)} limits, {len(self.periodic)} "
                f"periodic flags and values of shape {self.values.shape}; give one of each for one or two variables"
            )
        if not np.isfinite(self.values).all():
            raise SamplingError(f"values of the grid bias on {self.collective_variables} are not all finite")
        for name, (low, high), size in zip(self.collective_variables, self.limits, self.values.shape, strict=True):
            if not low < high or size < 3:
                raise SamplingError(f"grid bias: {name} has limits [{low}, {high}] and {size} nodes; needs 3 or more")
        self._spacing = [
            (high - low) / (size if periodic else size - 1)
            for (low, high), size, periodic in zip(self.limits, self.values.shape, self.periodic, strict=True)
        ]
        slopes = [slope_matrix(size, flag) for size, flag in zip(self.values.shape, self.periodic, strict=True)]
        if n_variables == 1:
            self._tables = np.stack([self.values, slopes[0] @ self.values])
        else:
            along_first, along_second = slopes[0] @ self.values, self.values @ slopes[1].T
            both = along_first @ slopes[1].T
            self._tables = np.stack([self.values, along_first, along_second, both])

    @staticmethod
    def nodes(limits: Sequence[float], periodic: bool, size: int) -> FloatArray:
        """Positions `(size,)` of the nodes along one variable."""
        return np.linspace(limits[0], limits[1], size, endpoint=not periodic)

    def energy(self, variables: Variables, window: ArrayLike | None = None) -> FloatArray:
        """Energy `(n,)` of the spline."""
        return self._evaluate(variables)[0]

    def gradient(self, variables: Variables, window: ArrayLike | None = None) -> dict[str, FloatArray]:
        """Derivative `(n,)` of the spline with respect to each variable."""
        return dict(zip(self.collective_variables, self._evaluate(variables)[1:], strict=True))

    def definition(self) -> dict[str, Any]:
        """Plain JSON types; `values` flattened in C order."""
        return {
            "type": "grid",
            "collective_variables": self.collective_variables,
            "limits": [list(limit) for limit in self.limits],
            "periodic": self.periodic,
            "shape": list(self.values.shape),
            "values": self.values.ravel().tolist(),
        }

    def _evaluate(self, variables: Variables) -> list[FloatArray]:
        cells = [self._cell(axis, _column(variables, name)) for axis, name in enumerate(self.collective_variables)]
        if len(cells) == 1:
            nodes, value_weights, slope_weights = cells[0]
            table = np.concatenate([self._tables[0][nodes], self._tables[1][nodes]])
            return [(value_weights * table).sum(axis=0), (slope_weights * table).sum(axis=0)]
        (first, value_0, slope_0), (second, value_1, slope_1) = cells
        energy = np.zeros(first.shape[1])
        gradients = [np.zeros_like(energy), np.zeros_like(energy)]
        for row in range(4):
            for column in range(4):
                table = self._tables[row // 2 + 2 * (column // 2)][first[row % 2], second[column % 2]]
                energy += value_0[row] * value_1[column] * table
                gradients[0] += slope_0[row] * value_1[column] * table
                gradients[1] += value_0[row] * slope_1[column] * table
        return [energy, *gradients]

    def _cell(self, axis: int, x: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
        """Both nodes around each point, and the weights of (value, value, slope, slope) in energy and derivative."""
        (low, _), size, spacing = self.limits[axis], self.values.shape[axis], self._spacing[axis]
        u = (x - low) / spacing
        inside = np.ones_like(u)
        if self.periodic[axis]:
            u = np.mod(u, size)
            left = np.minimum(np.floor(u).astype(np.intp), size - 1)
            right = (left + 1) % size
        else:
            inside = ((u >= 0.0) & (u <= size - 1)).astype(np.float64)
            u = np.clip(u, 0.0, size - 1)
            left = np.minimum(np.floor(u).astype(np.intp), size - 2)
            right = left + 1
        t = u - left
        values = np.stack([(1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t), t * (1 - t) ** 2, t * t * (t - 1)])
        slopes = np.stack([6 * t * (t - 1), 6 * t * (1 - t), (1 - t) * (1 - 3 * t), t * (3 * t - 2)])
        return np.stack([left, right]), values, slopes * inside / spacing


class StaticBias:
    """A fixed formula of collective variables.

    Attributes:
        expression: the formula's text.
        collective_variables: the variables that it uses.
    """

    def __init__(self, expression: str) -> None:
        """Read the formula.

        Raises:
            ExpressionError: it cannot be read.
        """
        parsed = parse_expression(expression)
        self.expression = parsed.text
        self.collective_variables = sorted(parsed.names)
        self._tape = Tape()
        self._value = self._tape.append(parsed)
        self._slopes = self._tape.gradient(self._value, self.collective_variables)

    def energy(self, variables: Variables, window: ArrayLike | None = None) -> FloatArray:
        """Energy `(n,)`."""
        return self._tape.run([self._value], _columns(variables, self.collective_variables))[0]

    def gradient(self, variables: Variables, window: ArrayLike | None = None) -> dict[str, FloatArray]:
        """Derivative `(n,)` with respect to each variable."""
        columns = _columns(variables, self.collective_variables)
        return dict(zip(self.collective_variables, self._tape.run(self._slopes, columns), strict=True))

    def definition(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"type": "static", "expression": self.expression}


class UmbrellaBias:
    """Harmonic windows, k/2 times the squared difference from a centre, summed over the variables.

    Attributes:
        centers: one entry per window, a value for each variable it holds.
        force_constant: k [kJ/mol/rad^2, kJ/mol/nm^2 or reduced].
        periodic: variables that are angles: differences are taken to the nearest image, period 2 pi.
        collective_variables: every variable that some window holds.
    """

    def __init__(
        self, centers: Sequence[Mapping[str, float]], force_constant: float, periodic: Sequence[str] = ()
    ) -> None:
        """Set up the windows.

        Raises:
            SamplingError: no window, or a variable said to be periodic that no window holds.
        """
        self.centers = [{name: float(value) for name, value in center.items()} for center in centers]
        self.force_constant = float(force_constant)
        self.periodic = list(periodic)
        self.collective_variables = sorted({name for center in self.centers for name in center})
        if not self.collective_variables:
            raise SamplingError("umbrella bias has no centers; give a value of a collective variable for each window")
        unknown = set(self.periodic) - set(self.collective_variables)
        if unknown:
            raise SamplingError(f"umbrella bias: periodic names {sorted(unknown)}, which no center holds")

    @classmethod
    def of(cls, system: SystemSpec, windows: Windows) -> UmbrellaBias:
        """The windows of a sampling plan; torsions among their variables are periodic. Errors as in `__init__`."""
        held = {name for center in windows.centers for name in center}
        angles = sorted(name for name in held if isinstance(system.collective_variables.get(name), Torsion))
        return cls(windows.centers, windows.force_constant, angles)

    def energy(self, variables: Variables, window: ArrayLike | None = None) -> FloatArray:
        """Energy `(n,)`, each frame in its window `(n,)`."""
        differences = self._differences(variables, window)
        return 0.5 * self.force_constant * np.sum([value**2 for value in differences.values()], axis=0)

    def gradient(self, variables: Variables, window: ArrayLike | None = None) -> dict[str, FloatArray]:
        """Derivative `(n,)` with respect to each variable, each frame in its window `(n,)`."""
        return {name: self.force_constant * value for name, value in self._differences(variables, window).items()}

    def definition(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "type": "umbrella",
            "centers": self.centers,
            "force_constant": self.force_constant,
            "periodic": self.periodic,
        }

    def _differences(self, variables: Variables, window: ArrayLike | None) -> dict[str, FloatArray]:
        if window is None and len(self.centers) > 1:
            raise SamplingError(f"umbrella bias has {len(self.centers)} windows; say in which window each frame is")
        index = np.asarray(0 if window is None else window, dtype=np.intp)
        if index.size and (index.min() < 0 or index.max() >= len(self.centers)):
            raise SamplingError(f"umbrella window {index.max()} does not exist; there are {len(self.centers)}")
        differences = {}
        for name in self.collective_variables:
            held = np.array([name in center for center in self.centers])
            center = np.array([entry.get(name, 0.0) for entry in self.centers])
            difference = np.where(held[index], _column(variables, name) - center[index], 0.0)
            if name in self.periodic:
                difference -= 2 * math.pi * np.round(difference / (2 * math.pi))
            differences[name] = difference
        return differences


def bias_from_definition(definition: Mapping[str, Any]) -> Bias:
    """Build the bias that a definition describes.

    Raises:
        SamplingError: a field is missing or the type is not known.
    """
    kind = definition.get("type")
    try:
        if kind == "grid":
            values = np.asarray(definition["values"], dtype=np.float64).reshape(definition["shape"])
            return GridBias(definition["collective_variables"], definition["limits"], definition["periodic"], values)
        if kind == "static":
            return StaticBias(definition["expression"])
        if kind == "umbrella":
            return UmbrellaBias(definition["centers"], definition["force_constant"], definition.get("periodic", ()))
    except KeyError as error:
        raise SamplingError(f"definition of a {kind} bias lacks the field {error}") from None
    except (TypeError, ValueError) as error:
        raise SamplingError(f"definition of a {kind} bias cannot be used: {error}") from None
    raise SamplingError(f"bias type {kind!r} is not known; allowed are grid, static and umbrella")


@lru_cache(maxsize=16)
def slope_matrix(size: int, periodic: bool) -> FloatArray:
    """Matrix `(size, size)` from node values to the slopes of their cubic spline, per node spacing.

    Natural spline (no curvature at the ends), or periodic.
    """
    nodes = np.arange(size)
    left, right = np.zeros((size, size)), np.zeros((size, size))
    left[nodes, nodes] = 4.0
    for shift, sign in ((1, 3.0), (-1, -3.0)):
        neighbour = (nodes + shift) % size
        left[nodes, neighbour] += 1.0
        right[nodes, neighbour] += sign
    if not periodic:
        for end, inner, sign in ((0, 1, 1.0), (size - 1, size - 2, -1.0)):
            left[end], right[end] = 0.0, 0.0
            left[end, [end, inner]] = 2.0, 1.0
            right[end, [end, inner]] = -3.0 * sign, 3.0 * sign
    matrix = np.linalg.solve(left, right).astype(np.float64)
    matrix.setflags(write=False)
    return matrix


def _column(variables: Variables, name: str) -> FloatArray:
    if name not in variables:
        raise SamplingError(f"bias needs the collective variable {name}; got {sorted(variables)}")
    return np.atleast_1d(np.asarray(variables[name], dtype=np.float64))


def _columns(variables: Variables, names: Sequence[str]) -> dict[str, FloatArray]:
    """The columns used; all of them (for their length) where the formula is a mere number."""
    return {name: _column(variables, name) for name in names or variables}
