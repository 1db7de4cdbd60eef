"""A frozen bias on a grid, built by walkers, as a spline in NumPy, torch and OpenMM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.biases.base import BiasFunction, FloatArray, TorchFunction, Variables, column
from cg_assets.core.errors import SamplingError
from cg_assets.core.splines import GridSpline

if TYPE_CHECKING:
    import openmm
    from torch import Tensor

    from cg_assets.mapping.atom_variables import AtomVariables

_PADDING = 8
"""Extra nodes beyond an angle's limits where a table cannot be periodic in one variable only."""


class GridBias(BiasFunction, type="grid"):
    """Values on a regular grid of one or two collective variables, joined by a natural or periodic cubic spline.

    Outside the limits of a variable that is not periodic the energy keeps its value at the limit.

    Attributes:
        collective_variables: names of one or two variables.
        spline: its limits, periodicity and node energies [kJ/mol or reduced].
    """

    def __init__(
        self,
        collective_variables: Sequence[str],
        limits: Sequence[Sequence[float]],
        periodic: Sequence[bool],
        values: ArrayLike,
    ) -> None:
        """Fit the spline.

        Args:
            collective_variables: names of one or two variables.
            limits: lower and upper limit of each; see `GridSpline`.
            periodic: whether each variable is periodic over its limits.
            values: `(n,)` or `(n, m)` node energies [kJ/mol or reduced].

        Raises:
            SamplingError: shapes do not agree, limits are not in order, or a value is not finite.
        """
        self.collective_variables = list(collective_variables)
        bounds = [(float(low), float(high)) for low, high in limits]
        flags, nodes = [bool(value) for value in periodic], np.array(values, dtype=np.float64)
        n_variables = len(self.collective_variables)
        if n_variables not in (1, 2) or not (len(bounds) == len(flags) == nodes.ndim == n_variables):
            raise SamplingError(
                f"grid bias of {self.collective_variables} has {len(bounds)} limits, {len(flags)} periodic flags and "
                f"values of shape {nodes.shape}; give one of each for one or two variables"
            )
        if not np.isfinite(nodes).all():
            raise SamplingError(f"values of the grid bias on {self.collective_variables} are not all finite")
        for name, (low, high), size in zip(self.collective_variables, bounds, nodes.shape, strict=True):
            if not low < high or size < 3:
                raise SamplingError(f"grid bias: {name} has limits [{low}, {high}] and {size} nodes; needs 3 or more")
        self.spline = GridSpline(bounds, flags, nodes)

    def energy_and_slopes(
        self, variables: Variables, window: ArrayLike | None = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Value and derivatives of the spline."""
        energy, slopes = self.spline([column(variables, name) for name in self.collective_variables])
        return energy, dict(zip(self.collective_variables, slopes, strict=True))

    def outside(self, variables: Variables) -> NDArray[np.bool_] | None:
        """Frames beyond the limits of a variable that is not periodic; None where all are."""
        ends = zip(self.collective_variables, self.spline.limits, self.spline.periodic, strict=True)
        beyond = [
            (column(variables, name) < low) | (column(variables, name) > high)
            for name, (low, high), periodic in ends
            if not periodic
        ]
        return np.any(beyond, axis=0) if beyond else None

    def in_torch(self, device: Any) -> TorchFunction:
        """The same spline on a device."""
        spline, names = self.spline.on(device), self.collective_variables

        def evaluate(variables: dict[str, Tensor], window: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
            energy, slopes = spline([variables[name] for name in names])
            return energy, dict(zip(names, slopes, strict=True))

        return evaluate

    def openmm_forces(self, variables: AtomVariables) -> list[openmm.Force]:
        """One force with the spline as a tabulated function."""
        return [GridForce(variables, self).force]

    def definition(self) -> dict[str, object]:
        """Plain JSON types; `values` flattened in C order."""
        return {
            "type": "grid",
            "collective_variables": self.collective_variables,
            "limits": [list(limit) for limit in self.spline.limits],
            "periodic": self.spline.periodic,
            "shape": list(self.spline.values.shape),
            "values": self.spline.values.ravel().tolist(),
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> GridBias:
        """The bias that `definition` described."""
        values = np.asarray(definition["values"], dtype=np.float64).reshape(definition["shape"])
        return cls(definition["collective_variables"], definition["limits"], definition["periodic"], values)


class GridForce:
    """A bias on a grid as one OpenMM force whose table can be updated in a running context.

    One CustomCompoundBondForce with a tabulated function. Energies and forces are those of a CustomCVForce over the
    same table, bit for bit on the Reference platform, without the inner context that such a force drags along.
    """

    def __init__(self, variables: AtomVariables, bias: GridBias) -> None:
        """Build the force."""
        import openmm

        spline, names = bias.spline, bias.collective_variables
        self._all_periodic = all(spline.periodic)
        self._padding = [
            0 if not angle else (1 if self._all_periodic else _PADDING) for angle in spline.periodic
        ]  # periodic tables repeat the first node at the end
        limits = []
        for (low, high), size, padding in zip(spline.limits, spline.values.shape, self._padding, strict=True):
            extra = 0.0 if self._all_periodic else padding * (high - low) / size
            limits += [low - extra, high + extra]
        clamped = [
            f"cv_{name}" if angle else f"max({low!r},min({high!r},cv_{name}))"
            for name, angle, (low, high) in zip(names, spline.periodic, spline.limits, strict=True)
        ]
        self.force = variables.compound_force(names, f"grid_bias({','.join(clamped)})")
        self._limits, table = limits, self._table(spline.values)
        if len(names) == 1:
            function = openmm.Continuous1DFunction(table.ravel(), *limits, self._all_periodic)
        else:
            function = openmm.Continuous2DFunction(*table.shape, table.ravel(order="F"), *limits, self._all_periodic)
        self.force.addTabulatedFunction("grid_bias", function)

    def update(self, values: NDArray[np.float64], context: openmm.Context) -> None:
        """Put new node values [kJ/mol] into the force and a context."""
        table = self._table(values)
        function = self.force.getTabulatedFunction(0)
        if table.ndim == 1:
            function.setFunctionParameters(table, *self._limits)
        else:
            function.setFunctionParameters(*table.shape, table.ravel(order="F"), *self._limits)
        self.force.updateParametersInContext(context)

    def _table(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._all_periodic:
            return np.pad(values, [(0, 1)] * values.ndim, mode="wrap")
        for axis, padding in enumerate(self._padding):
            if padding:
                width = [(0, 0)] * values.ndim
                width[axis] = (padding, padding + 1)
                values = np.pad(values, width, mode="wrap")
        return values
