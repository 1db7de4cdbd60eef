"""Biases of a molecule as OpenMM forces in a force group of their own, and the grids that walkers fill."""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.settings import DepositedBias, MetadynamicsBias, OpesBias
from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.expressions import CONSTANTS, parse_expression
from cg_assets.mapping.atom_variables import AtomVariables

if TYPE_CHECKING:
    import openmm

NODES_PER_WIDTH = 5
"""Grid nodes per standard deviation of a hill."""
_PADDING = 8
"""Extra nodes beyond an angle's limits where a table cannot be periodic in one variable only."""


def static_force(variables: AtomVariables, expression: str) -> openmm.CustomCompoundBondForce:
    """A static bias: a formula of the collective variables."""
    parsed = parse_expression(expression)
    names = sorted(parsed.names) or variables.names[:1]
    return variables.compound_force(names, _lepton(parsed.tree))


def _lepton(node: ast.expr) -> str:
    """The formula in the syntax of OpenMM, fully bracketed."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return repr(float(value))
        case ast.Name(id=name):
            return repr(CONSTANTS[name]) if name in CONSTANTS else f"cv_{name}"
        case ast.UnaryOp(op=operator, operand=operand):
            return f"(-({_lepton(operand)}))" if isinstance(operator, ast.USub) else f"({_lepton(operand)})"
        case ast.BinOp(left=left, op=operator, right=right):
            symbols: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
            return f"(({_lepton(left)}){symbols.get(type(operator), '^')}({_lepton(right)}))"
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return f"{name}({_lepton(argument)})"
    raise SystemSpecError(f"expression holds a {type(node).__name__}, which OpenMM cannot evaluate")


class DepositedGrid(ABC):
    """A bias on a regular grid of one or two collective variables that walkers build while they move.

    Attributes:
        names: the biased variables.
        periodic: whether each is an angle.
        limits: lower and upper limit of each [rad or nm].
        widths: standard deviation of a hill or kernel along each [rad or nm].
        values: bias energy at the nodes [kJ/mol].
    """

    def __init__(self, variables: AtomVariables, bias: DepositedBias) -> None:
        """An empty grid."""
        self.names = list(bias.collective_variables)
        self.periodic = [variables[name].periodic for name in self.names]
        self.widths = [bias.width[name] for name in self.names]
        self.limits = [
            (-math.pi, math.pi) if angle else bias.grid_range[name]
            for name, angle in zip(self.names, self.periodic, strict=True)
        ]
        sizes = []
        for (low, high), angle, width in zip(self.limits, self.periodic, self.widths, strict=True):
            n_intervals = max(24, math.ceil(NODES_PER_WIDTH * (high - low) / width))
            sizes.append(n_intervals if angle else n_intervals + 1)
        self.values = np.zeros(sizes)
        self._nodes = [
            np.linspace(low, high, size, endpoint=not angle)
            for (low, high), size, angle in zip(self.limits, sizes, self.periodic, strict=True)
        ]

    @abstractmethod
    def deposit(self, points: NDArray[np.float64], energies: NDArray[np.float64]) -> None:
        """Let walkers at `points` `(n, n_variables)` [rad or nm], who feel `energies` `(n,)` [kJ/mol], add to it."""

    def state(self) -> dict[str, NDArray]:
        """Arrays from which `restore` goes on."""
        return {"values": self.values.copy()}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Take up a stored state."""
        self.values = state["values"].copy()

    def definition(self) -> dict[str, Any]:
        """The bias as plain JSON types, `values` in C order."""
        return {
            "type": "grid",
            "collective_variables": self.names,
            "limits": [list(limits) for limits in self.limits],
            "periodic": self.periodic,
            "shape": list(self.values.shape),
            "values": self.values.ravel().tolist(),
        }

    def _gaussian(self, center: NDArray[np.float64]) -> NDArray[np.float64]:
        """A Gaussian of height 1 at the nodes."""
        factors = []
        for axis, value in enumerate(center):
            shifts = (-2 * math.pi, 0.0, 2 * math.pi) if self.periodic[axis] else (0.0,)
            scaled = [(self._nodes[axis] - value - shift) / self.widths[axis] for shift in shifts]
            factors.append(np.sum([np.exp(-0.5 * item**2) for item in scaled], axis=0))
        return factors[0] if len(factors) == 1 else np.outer(factors[0], factors[1])


class HillGrid(DepositedGrid):
    """The sum of all hills of well-tempered metadynamics.

    Barducci, Bussi, Parrinello, Phys. Rev. Lett. 100, 020603 (2008): a hill at s has the height
    h exp(-V(s) / ((gamma - 1) kT)).
    """

    def __init__(self, variables: AtomVariables, bias: MetadynamicsBias, thermal_energy: float) -> None:
        """An empty grid; `thermal_energy` kT [kJ/mol]."""
        super().__init__(variables, bias)
        self._height, self._tempering = bias.height, thermal_energy * (bias.bias_factor - 1.0)

    def deposit(self, points: NDArray[np.float64], energies: NDArray[np.float64]) -> None:
        """Add a hill for each walker."""
        for point, energy in zip(points, energies, strict=True):
            self.values += self._height * math.exp(-energy / self._tempering) * self._gaussian(point)


class OpesGrid(DepositedGrid):
    """On-the-fly probability enhanced sampling with kernels of fixed width.

    Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), eqs. 8-10: with the kernel estimate P(s) of the
    unbiased probability, in which a walker's kernel weighs exp(V/kT), V(s) = (1 - 1/gamma) kT log(P(s)/Z + epsilon),
    where Z is the mean of P over the region explored, gamma = barrier/kT and epsilon = exp(-gamma/(1 - 1/gamma)). P is
    kept on the grid, so kernels need not be merged. A node counts as explored when a kernel was laid within one width.
    """

    def __init__(self, variables: AtomVariables, bias: OpesBias, thermal_energy: float) -> None:
        """No kernel yet: the bias is -barrier everywhere; `thermal_energy` kT [kJ/mol]."""
        super().__init__(variables, bias)
        self._thermal_energy = thermal_energy
        self._prefactor = thermal_energy - thermal_energy**2 / bias.barrier
        self._epsilon = math.exp(-bias.barrier / self._prefactor)
        self._density = np.zeros_like(self.values)
        self._explored = np.zeros(self.values.shape, dtype=bool)
        self._update()

    def deposit(self, points: NDArray[np.float64], energies: NDArray[np.float64]) -> None:
        """Add a kernel for each walker and renew the bias."""
        for point, energy in zip(points, energies, strict=True):
            kernel = self._gaussian(point)
            self._density += math.exp(energy / self._thermal_energy) * kernel
            self._explored |= kernel > math.exp(-0.5)
        self._update()

    def state(self) -> dict[str, NDArray]:
        """Arrays from which `restore` goes on."""
        return {"density": self._density.copy(), "explored": self._explored.copy()}

    def restore(self, state: Mapping[str, NDArray]) -> None:
        """Take up a stored state."""
        self._density, self._explored = state["density"].copy(), state["explored"].copy()
        self._update()

    def _update(self) -> None:
        mean = self._density[self._explored].mean() if self._explored.any() else 1.0
        self.values = self._prefactor * np.log(self._density / mean + self._epsilon)


def deposited_grid(variables: AtomVariables, bias: DepositedBias, thermal_energy: float) -> DepositedGrid:
    """The empty grid of a plan's bias; `thermal_energy` kT [kJ/mol]."""
    if isinstance(bias, OpesBias):
        return OpesGrid(variables, bias, thermal_energy)
    if isinstance(bias, MetadynamicsBias):
        return HillGrid(variables, bias, thermal_energy)
    raise SamplingError(f"bias.type is {bias.type}, which no walkers of a molecule deposit")


class GridForce:
    """A bias grid as one OpenMM force whose table can be renewed in a running context.

    One CustomCompoundBondForce with a tabulated function. Energies and forces are those of a CustomCVForce over the
    same table, bit for bit on the Reference platform, without the inner context that such a force drags along.
    """

    def __init__(self, variables: AtomVariables, definition: Mapping[str, Any]) -> None:
        """Build the force from a grid bias definition."""
        import openmm

        self.shape = list(definition["shape"])
        periodic = list(definition["periodic"])
        self._padding = [
            0 if not angle else (1 if all(periodic) else _PADDING) for angle in periodic
        ]  # periodic tables repeat the first node at the end
        self._all_periodic = all(periodic)
        limits = []
        for (low, high), size, padding in zip(definition["limits"], self.shape, self._padding, strict=True):
            extra = 0.0 if self._all_periodic else padding * (high - low) / size
            limits.append((low - extra, high + extra))
        names = list(definition["collective_variables"])
        clamped = [
            f"cv_{name}" if angle else f"max({low!r},min({high!r},cv_{name}))"
            for name, angle, (low, high) in zip(names, periodic, definition["limits"], strict=True)
        ]
        self.force = variables.compound_force(names, f"grid_bias({','.join(clamped)})")
        self._limits = [limit for pair in limits for limit in pair]
        table = self._table(np.reshape(definition["values"], self.shape))
        if len(names) == 1:
            function = openmm.Continuous1DFunction(table.ravel(), *self._limits, self._all_periodic)
        else:
            function = openmm.Continuous2DFunction(
                *table.shape, table.ravel(order="F"), *self._limits, self._all_periodic
            )
        self.force.addTabulatedFunction("grid_bias", function)

    def update(self, values: NDArray[np.float64], context: openmm.Context) -> None:
        """Put new node values `shape` [kJ/mol] into the force and a context."""
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
