"""Formulas of model potentials and static biases: parsed by a whitelist, never executed as Python.

The text is Python-like arithmetic. It is parsed with `ast`, every node is compared with the short list of what is
allowed, and size, nesting and exponents are bounded: no text can run code or take long to read.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import ExpressionError

FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "abs")
"""Functions of one argument that an expression may call."""
CONSTANTS = {"pi": math.pi}
"""Names that stand for a number."""
MAX_LENGTH = 5000
"""Longest text [characters]."""
MAX_DEPTH = 150
"""Deepest nesting of operations (a sum of n terms nests n - 1 deep)."""
MAX_EXPONENT = 100.0
"""Largest exponent, and largest product of stacked exponents."""

_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
SIGNS: dict[type[ast.unaryop], float] = {ast.USub: -1.0, ast.UAdd: 1.0}
_ALLOWED = f"allowed are numbers, names, + - * / **, parentheses, pi and {', '.join(FUNCTIONS)}"


@dataclass(frozen=True)
class Expression:
    """A checked formula.

    Attributes:
        text: the formula as it was written, without line breaks.
        names: its variables.
        tree: the checked syntax tree; only `Constant`, `Name`, `UnaryOp`, `BinOp` and one-argument `Call` nodes.
    """

    text: str
    names: frozenset[str]
    tree: ast.expr = field(repr=False, compare=False)

    def evaluate(self, variables: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Value for arrays of the variables, in float64.

        Args:
            variables: a value for each of `names`, arrays that broadcast; others are ignored except for their shape.

        Returns:
            Array of the common shape of all variables.

        Raises:
            ExpressionError: a variable is missing.
        """
        missing = self.names - set(variables)
        if missing:
            raise ExpressionError(f"expression {_short(self.text)!r} needs {sorted(missing)}; got {sorted(variables)}")
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in variables.items()}
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        with np.errstate(all="ignore"):
            value = _evaluate(self.tree, arrays)
        return np.array(np.broadcast_to(value, shape), dtype=np.float64)


def parse_expression(text: str) -> Expression:
    """Check a formula and make it usable.

    Args:
        text: Python-like arithmetic of numbers, names, `+ - * / **`, parentheses, `pi` and the one-argument
            functions `exp log sqrt sin cos tan tanh abs`. Exponents are numbers.

    Raises:
        ExpressionError: names the piece that is wrong and what is allowed.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"expression must be text, not {type(text).__name__}")
    flat = " ".join(text.split())
    if not flat:
        raise ExpressionError(f"expression is empty; {_ALLOWED}")
    if len(flat) > MAX_LENGTH:
        raise ExpressionError(f"expression has {len(flat)} characters; at most {MAX_LENGTH} are allowed")
    return _parsed(flat)


@lru_cache(maxsize=64)
def _parsed(flat: str) -> Expression:
    try:
        tree = ast.parse(flat, mode="eval").body
    except SyntaxError as error:
        near = flat[max(0, (error.offset or 1) - 10) : (error.offset or 1) + 10]
        raise ExpressionError(f"expression cannot be read near {near!r}: {error.msg}; {_ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"expression {_short(flat)!r} cannot be read: {error or 'nested too deeply'}") from None
    names: set[str] = set()
    _check(tree, flat, names, depth=1, exponents=1.0)
    return Expression(text=flat, names=frozenset(names), tree=tree)


def constant_value(node: ast.expr) -> float | None:
    """The value of a part that holds no variable, None for any other part."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id not in CONSTANTS and part.id not in FUNCTIONS:
            return None
    with np.errstate(all="ignore"):
        return float(_evaluate(node, {}))


def _check(node: ast.AST, text: str, names: set[str], depth: int, exponents: float) -> None:
    def piece() -> str:
        return repr(_short(ast.get_source_segment(text, node) or type(node).__name__))

    if depth > MAX_DEPTH:
        raise ExpressionError(f"expression nests more than {MAX_DEPTH} operations deep; shorten it")
    match node:
        case ast.Constant(value=value):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ExpressionError(f"{piece()} is not a number; {_ALLOWED}")
            if not _finite(value):
                raise ExpressionError(f"number {piece()} is too large; numbers must be finite")
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise ExpressionError(f"function {name} needs an argument, as in {name}(x)")
            if not name.isascii() or name.startswith("_"):
                raise ExpressionError(f"name {name!r} is not allowed; use ASCII letters and digits")
            if name not in CONSTANTS:
                names.add(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand, text, names, depth + 1, exponents)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            _check(right, text, names, depth + 1, exponents)
            exponent = constant_value(right)
            if exponent is None:
                raise ExpressionError(f"exponent in {piece()} must be a number; write exp(b*log(a)) for a**b")
            exponents *= max(1.0, abs(exponent))
            if not exponents <= MAX_EXPONENT:
                raise ExpressionError(f"exponent in {piece()} is too large; at most {MAX_EXPONENT:g}, towers included")
            _check(left, text, names, depth + 1, exponents)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            _check(left, text, names, depth + 1, exponents)
            _check(right, text, names, depth + 1, exponents)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            _check(argument, text, names, depth + 1, exponents)
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
            raise ExpressionError(f"{piece()}: {name} takes exactly one argument")
        case ast.Call():
            raise ExpressionError(f"function in {piece()} is not known; allowed are {', '.join(FUNCTIONS)}")
        case ast.BinOp(op=ast.BitXor()):
            raise ExpressionError("^ is not a power; write x**2 for x^2")
        case _:
            raise ExpressionError(f"{piece()} is not allowed; {_ALLOWED}")
    if not isinstance(node, ast.Constant | ast.Name):
        number = constant_value(node)
        if number is not None and not math.isfinite(number):
            raise ExpressionError(f"{piece()} has no finite value")


def _evaluate(node: ast.expr, variables: Mapping[str, NDArray[np.float64]]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)
        case ast.Name(id=name):
            return np.float64(CONSTANTS[name]) if name in CONSTANTS else variables[name]
        case ast.UnaryOp(op=operator, operand=operand):
            value = _evaluate(operand, variables)
            return SIGNS[type(operator)] * value
        case ast.BinOp(left=left, op=operator, right=right):
            first, second = _evaluate(left, variables), _evaluate(right, variables)
            match operator:
                case ast.Add():
                    return first + second
                case ast.Sub():
                    return first - second
                case ast.Mult():
                    return first * second
                case ast.Div():
                    return first / second
            return first**second
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return getattr(np, name)(_evaluate(argument, variables))
    raise ExpressionError(f"unexpected {type(node).__name__}; {_ALLOWED}")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _short(piece: str, length: int = 60) -> str:
    return piece if len(piece) <= length else piece[: length - 1] + "…"
