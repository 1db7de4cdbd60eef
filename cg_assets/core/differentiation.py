"""Expressions as straight-line programs with exact gradients: shared subexpressions are computed once.

A `Tape` holds one operation per line, each on earlier lines. `gradient` appends the lines of the reverse mode, so a
value and all its derivatives cost a small multiple of the value alone. NumPy runs a tape (`run`); the sampler of
model potentials prints it as source for its compiled loop.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.expressions import FUNCTIONS, SIGNS, Expression, constant_value

_FOLD = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


class Operation(NamedTuple):
    """One line: `kind` is constant, variable, + - * /, negative, power, sign, or the name of a function."""

    kind: str
    arguments: tuple[int, ...] = ()
    value: float = 0.0
    name: str = ""


class Tape:
    """A straight-line program without repeated lines."""

    def __init__(self) -> None:
        """Start with no lines."""
        self.lines: list[Operation] = []
        self._known: dict[Operation, int] = {}

    # ------------------------------------------------------------------------------------- building

    def constant(self, value: float) -> int:
        """Line of a number."""
        return self._line(Operation("constant", value=float(value)))

    def variable(self, name: str) -> int:
        """Line of a variable."""
        return self._line(Operation("variable", name=name))

    def binary(self, kind: str, first: int, second: int) -> int:
        """Line of a sum, difference, product or quotient; zeros, ones and numbers are folded."""
        a, b = self._number(first), self._number(second)
        if a is not None and b is not None and not (kind == "/" and b == 0.0):
            return self.constant(_FOLD[kind](a, b))
        if (kind in "+-" and b == 0.0) or (kind in "*/" and b == 1.0):
            return first
        if (kind == "+" and a == 0.0) or (kind == "*" and a == 1.0):
            return second
        if kind == "*" and (a == 0.0 or b == 0.0):
            return self.constant(0.0)
        if kind == "-" and a == 0.0:
            return self.unary("negative", second)
        if kind == "/" and b is not None and b != 0.0:
            return self.binary("*", first, self.constant(1.0 / b))
        if kind in "+*" and first > second:
            first, second = second, first
        return self._line(Operation(kind, (first, second)))

    def unary(self, kind: str, argument: int) -> int:
        """Line of a function of one argument, of `negative` or of `sign`."""
        if kind == "negative":
            number, line = self._number(argument), self.lines[argument]
            if number is not None:
                return self.constant(-number)
            if line.kind == "negative":
                return line.arguments[0]
        return self._line(Operation(kind, (argument,)))

    def power(self, base: int, exponent: float) -> int:
        """Line of a power by a number; whole and half exponents become products and square roots."""
        if exponent < 0:
            return self.binary("/", self.constant(1.0), self.power(base, -exponent))
        whole = math.floor(exponent)
        if exponent - whole == 0.5:
            return self.binary("*", self.power(base, whole), self.unary("sqrt", base))
        if exponent != whole:
            return self._line(Operation("power", (base,), value=exponent))
        result, square = self.constant(1.0), base
        while whole:
            if whole & 1:
                result = self.binary("*", result, square)
            whole >>= 1
            if whole:
                square = self.binary("*", square, square)
        return result

    def append(self, expression: Expression, variables: Mapping[str, int] | None = None) -> int:
        """Append an expression; `variables` gives lines that stand for some of its names.

        Returns:
            The line of its value.
        """
        return self._append(expression.tree, variables or {})

    def gradient(self, line: int, variables: Sequence[str]) -> list[int]:
        """Append the derivatives of a line with respect to variables (reverse mode).

        Returns:
            The line of each derivative.
        """
        adjoint = {line: self.constant(1.0)}

        def add(target: int, value: int) -> None:
            adjoint[target] = self.binary("+", adjoint[target], value) if target in adjoint else value

        for index in range(line, -1, -1):
            if index not in adjoint:
                continue
            operation, seed = self.lines[index], adjoint[index]
            match operation.kind:
                case "constant" | "variable" | "sign":
                    continue
                case "+":
                    for target in operation.arguments:
                        add(target, seed)
                case "-":
                    add(operation.arguments[0], seed)
                    add(operation.arguments[1], self.unary("negative", seed))
                case "*":
                    first, second = operation.arguments
                    add(first, self.binary("*", seed, second))
                    add(second, self.binary("*", seed, first))
                case "/":
                    first, second = operation.arguments
                    part = self.binary("/", seed, second)
                    add(first, part)
                    add(second, self.unary("negative", self.binary("*", part, index)))
                case "negative":
                    add(operation.arguments[0], self.unary("negative", seed))
                case _:
                    add(operation.arguments[0], self.binary("*", seed, self._derivative(index)))
        zero = self.constant(0.0)
        return [adjoint.get(self.variable(name), zero) for name in variables]

    def _derivative(self, index: int) -> int:
        operation = self.lines[index]
        argument, one = operation.arguments[0], self.constant(1.0)
        match operation.kind:
            case "power":
                return self.binary("*", self.constant(operation.value), self.power(argument, operation.value - 1.0))
            case "exp":
                return index
            case "log":
                return self.binary("/", one, argument)
            case "sqrt":
                return self.binary("/", self.constant(0.5), index)
            case "sin":
                return self.unary("cos", argument)
            case "cos":
                return self.unary("negative", self.unary("sin", argument))
            case "tan":
                return self.binary("+", one, self.binary("*", index, index))
            case "tanh":
                return self.binary("-", one, self.binary("*", index, index))
            case "abs":
                return self.unary("sign", argument)
        raise ValueError(f"no derivative of {operation.kind}")

    def _append(self, node: ast.expr, variables: Mapping[str, int]) -> int:
        number = constant_value(node)
        if number is not None:
            return self.constant(number)
        match node:
            case ast.Name(id=name):
                return variables[name] if name in variables else self.variable(name)
            case ast.UnaryOp(op=operator, operand=operand):
                value = self._append(operand, variables)
                return self.unary("negative", value) if SIGNS[type(operator)] < 0.0 else value
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                exponent = constant_value(right)
                if exponent is not None:
                    return self.power(self._append(left, variables), exponent)
            case ast.BinOp(left=left, op=operator, right=right):
                kind = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(operator)]
                return self.binary(kind, self._append(left, variables), self._append(right, variables))
            case ast.Call(func=ast.Name(id=name), args=[argument]) if name in FUNCTIONS:
                return self.unary(name, self._append(argument, variables))
        raise ValueError(f"unexpected {type(node).__name__}; build the expression with parse_expression")

    def _line(self, operation: Operation) -> int:
        if operation not in self._known:
            self._known[operation] = len(self.lines)
            self.lines.append(operation)
        return self._known[operation]

    def _number(self, index: int) -> float | None:
        operation = self.lines[index]
        return operation.value if operation.kind == "constant" else None

    # -------------------------------------------------------------------------------------- running

    def needed(self, outputs: Sequence[int]) -> list[int]:
        """The lines that these outputs need, in order."""
        needed = set(outputs)
        for index in range(max(outputs), -1, -1):
            if index in needed:
                needed.update(self.lines[index].arguments)
        return sorted(needed)

    def run(self, outputs: Sequence[int], variables: Mapping[str, ArrayLike]) -> list[NDArray[np.float64]]:
        """Values of some lines for arrays of the variables, in float64, broadcast to the variables' common shape."""
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in variables.items()}
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        values: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            for index in self.needed(outputs):
                operation = self.lines[index]
                arguments = [values[argument] for argument in operation.arguments]
                match operation.kind:
                    case "constant":
                        values[index] = np.float64(operation.value)
                    case "variable":
                        values[index] = arrays[operation.name]
                    case "+" | "-" | "*" | "/":
                        values[index] = _FOLD[operation.kind](*arguments)
                    case "negative":
                        values[index] = -arguments[0]
                    case "power":
                        values[index] = arguments[0] ** operation.value
                    case kind:
                        values[index] = getattr(np, kind)(arguments[0])
        return [np.array(np.broadcast_to(values[index], shape), dtype=np.float64) for index in outputs]
