"""A fixed bias, given as a formula of the collective variables."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from cg_assets.biases.base import Bias, BiasFormula, BiasFunction, FloatArray, Variables, column
from cg_assets.core import expressions
from cg_assets.core.differentiation import Tape
from cg_assets.core.errors import SystemSpecError
from cg_assets.core.settings import Fault, Formula, Scope

if TYPE_CHECKING:
    import openmm

    from cg_assets.mapping.atom_variables import AtomVariables
    from cg_assets.mapping.beads import Beads


class StaticBias(Bias):
    """A fixed bias given as a formula of the collective variables."""

    type: Literal["static"]
    expression: Formula
    """Formula of the collective variables [kJ/mol or reduced]."""

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A formula of other than the CG coordinates."""
        used, known = expressions.parse_expression(self.expression).names, set(scope.variables)
        if hidden := sorted(used & set(scope.coordinates) - known):
            yield Fault(
                "",
                f"uses {hidden}: it is not a function of the CG coordinate {sorted(known)}, so it would change the "
                "mean force; write it in the CG coordinate",
            )
        else:
            yield from scope.not_driven("expression", used)
            if not used - known:
                yield from self._jumps(scope)

    def _jumps(self, scope: Scope) -> Iterator[Fault]:
        """Angles at whose -π and π the formula differs, which would be an infinite force."""
        formula = expressions.parse_expression(self.expression)
        points = {name: np.linspace(*scope.limits.get(name, (-math.pi, math.pi)), 9)[1:-1] for name in formula.names}
        for name in sorted(formula.names & scope.angles):
            ends = [
                formula.evaluate(dict(zip(points, np.meshgrid(*(points | {name: end}).values()), strict=True)))
                for end in (-math.pi, math.pi)
            ]
            jump = float(np.abs(ends[1] - ends[0]).max())
            if not jump <= 1e-3 * max(1.0, float(np.abs(ends[0]).max())):
                yield Fault(
                    "expression",
                    f"jumps by {jump:.3g} where {name} passes from π to -π; use functions of a whole turn, such as "
                    f"cos({name}) and sin(2*{name}), with {name} in radians",
                )

    def function(self, beads: Beads) -> FormulaBias:
        """The formula."""
        return FormulaBias(self.expression)


class FormulaBias(BiasFunction, type="static"):
    """A formula of collective variables.

    Attributes:
        expression: the formula's text.
        collective_variables: the variables that it uses.
    """

    def __init__(self, expression: str) -> None:
        """Read the formula.

        Raises:
            ExpressionError: it cannot be read.
        """
        self._parsed = expressions.parse_expression(expression)
        self.expression = self._parsed.text
        self.collective_variables = sorted(self._parsed.names)
        self._tape = Tape()
        value = self._tape.append(self._parsed)
        self._lines = [value, *self._tape.gradient(value, self.collective_variables)]

    def energy_and_slopes(
        self, variables: Variables, window: ArrayLike | None = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Value and derivatives of the formula."""
        # of all columns, for their length, where the formula is a mere number
        columns = {name: column(variables, name) for name in self.collective_variables or variables}
        energy, *slopes = self._tape.run(self._lines, columns)
        return energy, dict(zip(self.collective_variables, slopes, strict=True))

    def openmm_forces(self, variables: AtomVariables) -> list[openmm.Force]:
        """One force with the formula."""
        names = self.collective_variables or variables.names[:1]
        return [variables.compound_force(names, _lepton(self._parsed.tree))]

    def formula(self) -> BiasFormula:
        """The formula itself."""
        return BiasFormula(self.expression)

    def definition(self) -> dict[str, object]:
        """Plain JSON types."""
        return {"type": "static", "expression": self.expression}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> FormulaBias:
        """The bias that `definition` described."""
        return cls(definition["expression"])


def _lepton(node: ast.expr) -> str:
    """The formula in the syntax of OpenMM, fully bracketed."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return repr(float(value))
        case ast.Name(id=name):
            return repr(expressions.CONSTANTS[name]) if name in expressions.CONSTANTS else f"cv_{name}"
        case ast.UnaryOp(op=operator, operand=operand):
            return f"({expressions.SIGNS[type(operator)]} * ({_lepton(operand)}))"
        case ast.BinOp(left=left, op=operator, right=right):
            symbols: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
            return f"(({_lepton(left)}){symbols.get(type(operator), '^')}({_lepton(right)}))"
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return f"{name}({_lepton(argument)})"
    raise SystemSpecError(f"expression holds a {type(node).__name__}, which OpenMM cannot evaluate")
