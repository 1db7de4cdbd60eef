"""Model potentials as compiled, vectorised Langevin dynamics of many independent walkers.

The formula of the potential, the bias included, becomes a straight-line program with exact derivatives, which is
printed as source and compiled once by numba. Dynamics run in single precision, like OpenMM on a GPU;
energies and forces that are stored with frames are evaluated in double precision at the stored positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases import BiasFormula
from cg_assets.core.differentiation import Operation, Tape
from cg_assets.core.errors import SamplingError
from cg_assets.core.expressions import parse_expression
from cg_assets.core.splines import GridSpline
from cg_assets.sampling.model_potential.landscape import Landscape

BLOCK = 64
"""Walkers that the compiled loop treats together; the number of walkers is padded to a multiple."""
MAX_STEPS = 2**32 - 1
"""Steps that one walker can take before its random numbers would repeat."""


@dataclass(frozen=True)
class GridTable:
    """Derivative of a one-dimensional spline for the compiled loop: a parabola in each cell.

    Attributes:
        coefficients: `(n_cells, 3)` float32; dV/ds = c0 + t (c1 + t c2) at the fraction t of a cell.
        low: first node.
        per_spacing: cells per unit of the coordinate.
    """

    coefficients: NDArray[np.float32]
    low: float
    per_spacing: float

    @staticmethod
    def of(spline: GridSpline, spacing: float) -> GridTable:
        """Table of a spline with some distance of the nodes."""
        coefficients = (spline.slope_parabolas() / spacing).astype(np.float32)
        return GridTable(coefficients, spline.limits[0][0], 1.0 / spacing)


class Walkers:
    """Independent Langevin walkers on one landscape under one kind of bias.

    BAOAB splitting (Leimkuhler and Matthews 2013, doi:10.1063/1.4802990) in its leap-frog form: positions are those
    of BAOAB at whole steps, velocities those between the two half drifts, whose kinetic energy has no error of second
    order in the timestep (it is exact for a harmonic well).

    Attributes:
        position: `(dimension, n_padded)` float32.
        velocity: `(dimension, n_padded)` float32.
        n: number of walkers; the rest is padding.
    """

    def __init__(
        self,
        landscape: Landscape,
        points: NDArray,
        *,
        mass: float,
        thermal_energy: float,
        timestep: float,
        friction: float,
        seed: int,
        first_index: int = 0,
        bias: BiasFormula | None = None,
        window: NDArray | None = None,
        table: GridTable | None = None,
    ) -> None:
        """Put walkers at points with velocities of the Maxwell distribution.

        Args:
            landscape: the potential.
            points: `(n, dimension)` starting points.
            mass: mass of a walker.
            thermal_energy: k_B T.
            timestep: step of the integrator.
            friction: rate of the thermostat.
            seed: seed of all random numbers.
            first_index: index of the first walker; walkers of one seed and index share their random numbers.
            bias: formula of the CG coordinate that is added to the potential.
            window: `(n,)` window of each walker, where the formula has parameters.
            table: bias on a grid, which `set_grid` may renew.
        """
        self.landscape = landscape
        self.n, dimension = points.shape
        self._padded = -(-self.n // BLOCK) * BLOCK
        index = np.minimum(np.arange(self._padded), self.n - 1)
        self.position = np.ascontiguousarray(points[index].T, dtype=np.float32)
        rng = np.random.default_rng([seed, first_index, dimension])
        thermal_speed = math.sqrt(thermal_energy / mass)
        self.velocity = (thermal_speed * rng.standard_normal((dimension, self._padded))).astype(np.float32)
        self._square_speed = np.zeros(self._padded)
        decay = math.exp(-friction * timestep)
        noise = math.sqrt(-math.expm1(-2.0 * friction * timestep)) * thermal_speed
        self._settings = tuple(np.float32(v) for v in (0.5 * timestep, timestep / mass, decay, noise))
        self._key = np.uint64(np.random.SeedSequence(seed).generate_state(1)[0])
        self._first_index = first_index
        self._mass_per_dimension = mass / dimension
        parameters = bias.parameters if bias is not None else {}
        self._parameters = np.zeros((max(1, len(parameters)), self._padded), dtype=np.float32)
        for row, values in enumerate(parameters.values()):
            self._parameters[row] = values[0 if window is None else window[index]]
        self._table = table or GridTable(np.zeros((2, 3), dtype=np.float32), 0.0, 1.0)
        text = None if bias is None else bias.text
        self._advance = compile_dynamics(landscape, text, tuple(parameters), table is not None)

    def set_grid(self, table: GridTable) -> None:
        """Use another grid bias from now on."""
        self._table = table

    def advance(self, first_step: int, n_steps: int) -> NDArray[np.float64]:
        """Take steps; `first_step` counts those taken before.

        Returns:
            `(n,)` kinetic temperature k_B T of each walker, averaged over the steps.

        Raises:
            SamplingError: the random numbers of this seed are used up.
        """
        if first_step + n_steps > MAX_STEPS:
            raise SamplingError(f"a walker cannot take more than {MAX_STEPS} steps; split the plan into batches")
        self._square_speed[:] = 0.0
        table = self._table
        grid = (table.coefficients, np.float32(table.low), np.float32(table.per_spacing))
        indices = (self._first_index, first_step, n_steps, self._key)
        self._advance(
            self.position, self.velocity, self._square_speed, *indices, *self._settings, self._parameters, *grid
        )
        return self._mass_per_dimension * self._square_speed[: self.n] / n_steps

    def points(self) -> NDArray[np.float32]:
        """Positions `(n, dimension)`."""
        return np.ascontiguousarray(self.position[:, : self.n].T)


@lru_cache(maxsize=32)
def compile_dynamics(
    landscape: Landscape, bias: str | None = None, parameters: tuple[str, ...] = (), grid: bool = False
) -> Callable[..., None]:
    """Compiled dynamics `advance(position, velocity, square_speed, ...)` of a landscape under a bias.

    Compiling takes seconds, once for all processes.
    """
    from cg_assets.core import single_precision
    from cg_assets.core.compilation import kept_source

    functions = {name: getattr(single_precision, name) for name in (*_FUNCTIONS.values(), "philox", "normal_pair")}
    source = dynamics_source(landscape, bias, parameters, grid)
    return kept_source(source, "advance", functions | {"np": np}, **single_precision.OPTIONS)


# ------------------------------------------------------------------------------------------- source text

_FUNCTIONS = {
    "exp": "exp32",
    "log": "log32",
    "sin": "sin32",
    "cos": "cos32",
    "tan": "tan32",
    "tanh": "tanh32",
    "sign": "sign32",
}

_TEMPLATE = """{numbers}

def advance(position, velocity, square_speed, first_index, first_step, n_steps, key,
            half_step, kick, decay, noise, parameters, table, table_low, table_per_spacing):
    work = np.empty({rows} * {block}, np.float32)
    words = np.empty({pairs} * 2 * {block}, np.uint32)
    cells = np.empty({block}, np.int32)
    table_end = np.float32(table.shape[0])
    table_last = np.float32(table.shape[0] - 1)
    for first in range(0, position.shape[1], {block}):
        for i in range({block}):
{load}
        for step in range(first_step, first_step + n_steps):
{random}
            for i in range({block}):
{normal}
{grid}
            for i in range({block}):
{force}
        for i in range({block}):
{store}
"""


def dynamics_source(landscape: Landscape, bias: str | None, parameters: tuple[str, ...], grid: bool) -> str:
    """Source of the dynamics, in loops that LLVM turns into vector instructions, after the numbers that they use.

    The state of a block of walkers lies in rows of one work array: positions, velocities, noise, squared speed.

    Args:
        landscape: the potential.
        bias: formula of the CG coordinate and of `parameters` that is added to it.
        parameters: names of what each walker has a value of.
        grid: whether a bias on a grid acts.
    """
    dimension = len(landscape.names)
    tape, coordinate, slopes = _slopes(landscape, bias, grid)
    row = {
        name: f"{i * BLOCK} + i"
        for i, name in enumerate([f"{kind}{axis}" for kind in "qvg" for axis in range(dimension)] + ["speed", "slope"])
    }
    axes, pairs = range(dimension), range((dimension + 1) // 2)
    variables = {name: f"q{axis}" for axis, name in enumerate(landscape.names)}
    variables |= {name: f"parameter{number}" for number, name in enumerate(parameters)}
    variables |= {"<grid slope>": f"work[{row['slope']}]"}
    lines, numbers = _print(tape, slopes, variables)
    look_up = []
    if grid:
        lines_of_coordinate, more = _print(tape, [coordinate], variables)
        look_up, numbers = _grid_loops(lines_of_coordinate, row, f"t{coordinate}"), numbers | more

    load = [f"work[{row[f'q{a}']}] = position[{a}, first + i]" for a in axes]
    load += [f"work[{row[f'v{a}']}] = velocity[{a}, first + i]" for a in axes]
    load += [f"work[{row['speed']}] = np.float32(0.0)"]
    force = [f"q{a} = work[{row[f'q{a}']}]" for a in axes] + [f"v{a} = work[{row[f'v{a}']}]" for a in axes]
    force += [f"parameter{number} = parameters[{number}, first + i]" for number in range(len(parameters))]
    force += lines
    force += [f"v{a} = v{a} - kick * t{slopes[a]}" for a in axes]
    force += [f"q{a} = q{a} + half_step * v{a}" for a in axes]
    force += [f"work[{row['speed']}] += {' + '.join(f'v{a} * v{a}' for a in axes)}"]
    force += [f"v{a} = decay * v{a} + noise * work[{row[f'g{a}']}]" for a in axes]
    force += [f"work[{row[f'q{a}']}] = q{a} + half_step * v{a}" for a in axes]
    force += [f"work[{row[f'v{a}']}] = v{a}" for a in axes]
    store = [f"position[{a}, first + i] = work[{row[f'q{a}']}]" for a in axes]
    store += [f"velocity[{a}, first + i] = work[{row[f'v{a}']}]" for a in axes]
    store += [f"square_speed[first + i] += work[{row['speed']}]"]

    def indent(block: list[str], depth: int) -> str:
        return "\n".join(" " * 4 * depth + line for line in block)

    return _TEMPLATE.format(
        numbers="\n".join(f"{name} = np.float32(float.fromhex('{float(n).hex()}'))" for name, n in numbers.items()),
        rows=len(row),
        pairs=len(pairs),
        block=BLOCK,
        load=indent(load, 3),
        random=indent(_random_words(pairs), 3),
        normal=indent(_normal_numbers(pairs, row), 4),
        grid=indent(look_up, 3),
        force=indent(force, 4),
        store=indent(store, 3),
    )


def _slopes(landscape: Landscape, bias: str | None, grid: bool) -> tuple[Tape, int, list[int]]:
    """A tape with the CG coordinate and the derivatives of the potential and its bias by each coordinate."""
    tape = Tape()
    coordinate = tape.constant(0.0)
    for name, weight in zip(landscape.names, landscape.weights, strict=True):
        term = tape.binary("*", tape.constant(weight), tape.variable(name))
        coordinate = tape.binary("+", coordinate, term)
    energy = tape.append(parse_expression(landscape.expression))
    if bias is not None:
        energy = tape.binary("+", energy, tape.append(parse_expression(bias), {landscape.variable: coordinate}))
    slopes = tape.gradient(energy, landscape.names)
    if grid:
        slope = tape.variable("<grid slope>")
        for axis, weight in enumerate(landscape.weights):
            term = tape.binary("*", tape.constant(weight), slope)
            slopes[axis] = tape.binary("+", slopes[axis], term)
    return tape, coordinate, slopes


def _random_words(pairs: range) -> list[str]:
    """Loops that draw two random words for each pair of coordinates."""
    lines = []
    for pair in pairs:
        lines += [
            f"for i in range({BLOCK}):",
            f"    index = np.uint64(first_index + first + i) | np.uint64({pair << 30})",
            "    one, two = philox(index, np.uint64(step), key)",
            f"    words[{2 * pair * BLOCK} + i] = np.uint32(one)",
            f"    words[{(2 * pair + 1) * BLOCK} + i] = np.uint32(two)",
        ]
    return lines


def _normal_numbers(pairs: range, row: Mapping[str, str]) -> list[str]:
    """Statements that turn the random words into the noise of each coordinate."""
    lines = []
    for pair in pairs:
        lines += [f"one, two = normal_pair(words[{2 * pair * BLOCK} + i], words[{(2 * pair + 1) * BLOCK} + i])"]
        lines += [
            f"work[{row[name]}] = {word}"
            for word, name in (("one", f"g{2 * pair}"), ("two", f"g{2 * pair + 1}"))
            if name in row
        ]
    return lines


def _print(tape: Tape, outputs: Sequence[int], variables: Mapping[str, str]) -> tuple[list[str], dict[str, np.float32]]:
    """Statements that compute some lines of a tape as t<line>, and the single-precision numbers they use."""
    lines: list[str] = []
    numbers: dict[str, np.float32] = {}
    with np.errstate(over="ignore", under="ignore"):
        for index in tape.needed(outputs):
            operation = tape.lines[index]
            if operation.kind == "constant":
                numbers[f"t{index}"] = np.float32(operation.value)
            else:
                lines.append(f"t{index} = {_statement(index, operation, variables)}")
            if operation.kind == "power":
                numbers[f"exponent_{index}"] = np.float32(operation.value)
    return lines, numbers


def _statement(index: int, operation: Operation, variables: Mapping[str, str]) -> str:
    arguments = [f"t{argument}" for argument in operation.arguments]
    match operation.kind:
        case "variable":
            return variables[operation.name]
        case "+" | "-" | "*" | "/":
            return f"{arguments[0]} {operation.kind} {arguments[1]}"
        case "negative":
            return f"-{arguments[0]}"
        case "power":
            return f"{arguments[0]} ** exponent_{index}"
        case "sqrt":
            return f"np.sqrt({arguments[0]})"
        case "abs":
            return f"abs({arguments[0]})"
    return f"{_FUNCTIONS[operation.kind]}({arguments[0]})"


def _grid_loops(coordinate_lines: list[str], row: Mapping[str, str], coordinate: str) -> list[str]:
    """Loops that leave dV/ds of the grid bias in the row `slope`: zero outside the grid.

    The first is a vector loop that finds cells (inside the table even for a NaN), the second looks them up.
    """
    axes = sum(name.startswith("q") for name in row)
    dot = "slope = table[cell, 0] + part * (table[cell, 1] + part * table[cell, 2])"
    return [
        f"for i in range({BLOCK}):",
        *(f"    q{axis} = work[{row[f'q{axis}']}]" for axis in range(axes)),
        *(f"    {line}" for line in coordinate_lines),
        f"    u = ({coordinate} - table_low) * table_per_spacing",
        "    start = np.floor(u) if u > np.float32(0.0) else np.float32(0.0)",
        "    start = start if start < table_last else table_last",
        "    cells[i] = np.int32(start)",
        "    inside = (u > np.float32(0.0)) & (u < table_end)",
        f"    work[{row['slope']}] = u - start if inside else np.float32(-1.0)",
        f"for i in range({BLOCK}):",
        "    cell = np.uint64(cells[i])",
        f"    part = work[{row['slope']}]",
        f"    {dot}",
        f"    work[{row['slope']}] = slope if part >= np.float32(0.0) else np.float32(0.0)",
    ]
