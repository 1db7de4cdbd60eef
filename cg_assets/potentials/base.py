"""The interface of all potentials of beads: an energy of their positions, at the conditions that it depends on.

This file imports nothing but torch and NumPy: each registered model carries a copy of it
(`cg_assets.registry.shipping`).
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Required, TypedDict

import numpy as np
import torch
from torch import Tensor

Engine = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Energy `(r,)` and forces `(r, n, d)` of positions `(r, n, d)`, at conditions that are fixed."""


class Kernel(NamedTuple):
    """Compiled code of a potential at fixed conditions, for replicas side by side (`potentials.lanes.LaneEngine`).

    Attributes:
        add: adds energies and forces of lanes of replicas.
        data: its last argument.
    """

    add: Callable[[Any, Any, Any, Any], None]
    data: Any


MISSING = {
    "temperature": "this potential depends on temperature; give `temperature`, one or one of each frame [K]",
    "box": "this potential is for beads in a periodic box; give `box`, edges `(3,)` or `(n_frames, 3)` [nm]",
}
"""The message for each condition that is missing."""

EVALUATION_BATCH = 256
"""Frames evaluated at once without gradients; larger temporaries leave the cache (200 frames ran 1.8 x faster a
frame than 400)."""


class PotentialConfig(TypedDict, total=False):
    """What a potential is built from, as plain JSON in its file; each kind of potential adds its settings."""

    type: Required[str]
    """A member of `PotentialSettings`."""
    units: str
    system: str
    bead_names: list[str]
    bead_types: list[int]
    """Beads of equal type share their weights."""
    bead_masses: list[float]
    """[amu or reduced]."""
    temperature: float
    """Of the labels, where they have one [K]."""
    thermal_energy: float
    """k_B T of the labels, where they have one temperature [kJ/mol or reduced]."""
    periodic: bool
    """Whether it needs a box."""
    committee: int
    """Number of further networks, whose scatter is its uncertainty."""
    bonds: list[list[int]]
    """Pairs of beads."""
    prior: dict[str, list[list[float]]]
    """Terms of a `ChainPrior`, by kind."""


@dataclass(frozen=True)
class Labels:
    """The labels from which potentials are solved.

    Attributes:
        positions: `(f, n, d)` [nm or reduced].
        forces: `(f, n, d)` [kJ/mol/nm or reduced].
        box: `(f, 3)` edges of periodic boxes [nm]; None without.
        temperature: `(f,)` [K]; None where all labels are of one temperature.
        frame: `(f,)` number of the frame that a row belongs to; None where each row is a frame of its own.
        held_out: `(f,)` rows that no descent has seen; None for none.
        values: further labels by name, each `(f, ...)`.
        errors: standard errors of labels by name, of the shapes of these; infinite where a label is missing.
        emphasis: weight of each quantity in the loss.
        bonds: pairs of beads.
        seed: of whatever is drawn at random.
        solve_energies: whether `solve` learns the energies among `values`, not their constants alone.
        whole: the potential that these labels are of, where a part of a sum is solved.
        own_frames: given torsions `(k, 4)`, positions `(g, n, 3)` of the ensemble of `whole` at torsions of the data.
        progress: called with finished parts, their number and what they are.
    """

    positions: Tensor
    forces: Tensor
    box: Tensor | None = None
    temperature: Tensor | None = None
    frame: Tensor | None = None
    held_out: Tensor | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict)
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    emphasis: Mapping[str, float] = field(default_factory=dict)
    bonds: Sequence[tuple[int, int]] = ()
    seed: int = 0
    solve_energies: bool = False
    whole: Potential | None = None
    own_frames: Callable[[Tensor], Tensor] | None = None
    progress: Callable[[int, int, str], None] | None = None

    def configurations(self) -> tuple[Tensor, Tensor | None]:
        """Positions and boxes, those of each frame once."""
        if self.frame is None:
            return self.positions, self.box
        first = torch.as_tensor(np.unique(self.frame.cpu().numpy(), return_index=True)[1])
        return self.positions[first], None if self.box is None else self.box[first]

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """Positions and forces of the rows that descent has seen, then of those held out, if any."""
        if self.held_out is None:
            return [(self.positions, self.forces)]
        return [(self.positions[rows], self.forces[rows]) for rows in (~self.held_out, self.held_out)]


class PairFunction(NamedTuple):
    """The energy of a pair of beads by their distance."""

    energy: Callable[[Tensor], Tensor]
    """Of distances `(p,)` [nm] below the cutoff, differentiable [kJ/mol]."""
    cutoff: float
    """Beyond it the energy is zero [nm]."""
    low: float
    """Least distance of the training data [nm]."""
    constant: float
    """Energy of beads that are far from each other [kJ/mol]."""


class Potential(torch.nn.Module, ABC):
    """An energy of bead positions with its exact forces.

    A class of potentials needs an `__init__` with a config (plain JSON) and a generator for its initial weights, and
    `energy`. Everything else has a default.

    Attributes:
        conditions: what the energy depends on besides positions, of `temperature` and `box`.
        n_beads: number of beads; 0 for any.
        dimension: of their positions; 0 for any.
        frames_at_once: frames that are evaluated at once where no gradients are taken.
    """

    conditions: frozenset[str] = frozenset()
    n_beads: int = 0
    dimension: int = 0
    frames_at_once: int = EVALUATION_BATCH

    @classmethod
    def build(cls, config: PotentialConfig, generator: torch.Generator) -> Potential:
        """The potential that a config describes, with initial weights from a generator.

        Raises:
            ValueError: a key is missing or out of range.
        """
        return cls(config, generator)

    def __init__(self, config: PotentialConfig, generator: torch.Generator) -> None:
        """See `build`."""
        super().__init__()

    # ------------------------------------------------------------------------------- energy and forces

    @abstractmethod
    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, d)` [kJ/mol or reduced], differentiable by them.

        Args:
            positions: [nm or reduced].
            temperature: one or `(f,)` [K].
            box: edges `(3,)` or `(f, 3)` of the periodic box [nm].
        """

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, d)`; by automatic differentiation unless a class has a faster way.

        Forces are differentiable with respect to the weights wherever gradients are enabled.
        """
        return differentiated(self, positions, temperature, box)

    def forward(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """`energy` after a check of its inputs.

        Raises:
            ValueError: a condition is missing, or positions have the wrong shape.
        """
        self.check(positions, temperature, box)
        return self.energy(positions, temperature, box)

    def energy_and_forces(
        self, positions: Tensor, temperature: Any = None, box: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` [kJ/mol] and forces `(f, n, d)`, the exact negative gradient [kJ/mol/nm]; or both reduced.

        Without gradients, long batches are cut into pieces that fit the cache.

        Args:
            positions: `(f, n, d)` [nm or reduced].
            temperature: one or `(f,)` [K]; not read unless it is one of `conditions`.
            box: edges `(3,)` or `(f, 3)` of the periodic box [nm]; None for none.

        Raises:
            ValueError: a condition is missing, or positions have the wrong shape.
        """
        self.check(positions, temperature, box)
        if torch.is_grad_enabled() or len(positions) <= self.frames_at_once:
            return self.evaluate(positions, temperature, box)
        energies, forces = [], []
        for first in range(0, len(positions), self.frames_at_once):
            rows = slice(first, first + self.frames_at_once)
            parts = _of_frames(temperature, rows, 0), _of_frames(box, rows, 1)
            energy, force = self.evaluate(positions[rows], *parts)
            energies.append(energy)
            forces.append(force)
        return torch.cat(energies), torch.cat(forces)

    def energies(self, positions: Tensor, temperature: Any, box: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """W, U = W - T dW/dT [kJ/mol] and C = -T d²W/dT² [kJ/mol/K] at frozen beads, each `(f,)`, without forces.

        Raises:
            ValueError: this potential is of one temperature, so that the energy of its atoms is not known.
        """
        raise ValueError("this potential does not depend on temperature: the energy of its atoms is not known")

    @torch.no_grad()
    def virial(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Virial `(f, 3, 3)`: -dW/de where positions and box become (1 + e) times themselves [kJ/mol or reduced].

        With N k_B T on its diagonal, over the volume, it is the pressure. Without a box it is the sum of positions
        times forces.

        Args:
            positions: `(f, n, 3)` [nm or reduced].
            temperature: one or `(f,)` [K].
            box: edges `(3,)` or `(f, 3)` of the periodic box [nm].

        Raises:
            ValueError: a condition is missing, or this potential has no virial.
        """
        if box is not None or positions.shape[-1] != 3:
            name = type(self).__name__
            raise ValueError(f"{name} has no virial {'in a periodic box' if box is not None else 'in CG coordinates'}")
        forces = self.energy_and_forces(positions, temperature)[1]
        return positions.transpose(1, 2) @ forces.to(positions)

    def predictions(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> dict[str, Tensor]:
        """What a registered model returns: `energy`, `forces` and any further predictions of a potential."""
        return dict(zip(("energy", "forces"), self.energy_and_forces(positions, temperature, box), strict=True))

    def check(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> None:
        """Refuse what cannot be evaluated.

        Raises:
            ValueError: a condition is missing, or positions have the wrong shape.
        """
        shape = [own or given for own, given in zip((self.n_beads, self.dimension), positions.shape[1:], strict=False)]
        if positions.ndim != 3 or list(positions.shape[1:]) != shape:
            expected = f"(n_frames, {self.n_beads or 'n_beads'}, {self.dimension or 'dimension'})"
            raise ValueError(f"positions have shape {tuple(positions.shape)}; this potential needs {expected}")
        for name, value in (("temperature", temperature), ("box", box)):
            if name in self.conditions and value is None:
                raise ValueError(MISSING[name])

    # ------------------------------------------------------------------------------- training

    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Take the statistics of training data that weights refer to: means, ranges, walls around the data.

        Args:
            positions: `(f, n, d)` [nm or reduced].
            box: edges `(3,)` or `(f, 3)` [nm]; None without.
            forces: labels, of any number of frames [kJ/mol/nm or reduced].

        Raises:
            ValueError: this potential does not fit the data.
        """

    def solve(self, labels: Labels) -> dict[str, float]:
        """Set the weights in which the energy is linear, without descent.

        Returns:
            Facts for the record of the training.

        Raises:
            ValueError: the labels do not suffice.
        """
        return {}

    def solves_energies(self, kelvin: Tensor) -> bool:
        """Whether `solve` learns the energies of frames at temperatures `(f,)`, so that descent need not."""
        return False

    @property
    def is_solved(self) -> bool:
        """Whether `solve` sets all weights, so that there is nothing to descend."""
        return not any(weight.requires_grad for weight in self.parameters())

    @property
    def precision(self) -> torch.dtype:
        """The type of its weights."""
        weights = (value for value in self.state_dict().values() if value.is_floating_point())
        return next((value.dtype for value in weights), torch.float32)

    @property
    def is_zero(self) -> bool:
        """Whether the energy is zero everywhere, so that a sum need not evaluate it."""
        return False

    def trains_compiled(self, positions: Tensor) -> bool:
        """Whether compiled code may evaluate it: weights are trained on a CPU in single precision.

        Copies of this file in registered models come without compiled code.
        """
        weight = next((weight for weight in self.parameters() if weight.requires_grad), None)
        if weight is None or positions.requires_grad or positions.device.type != "cpu" or not len(positions):
            return False
        return positions.dtype == weight.dtype == torch.float32 and _has_compiled_code()

    # ------------------------------------------------------------------------------- simulation

    def engine(self, temperature: float | None = None, box: Any = None, device: torch.device | None = None) -> Engine:
        """The fastest way to evaluate this potential many times at fixed conditions.

        By default its compiled kernels, where it has some, else itself.

        Args:
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm].
            device: of the positions; the CPU where None.

        Raises:
            ValueError: a condition is missing or does not suit the potential.
        """
        edges = None if box is None else torch.tensor([float(edge) for edge in box], dtype=torch.float64, device=device)
        if self.n_beads and self.dimension:
            self(torch.zeros(0, self.n_beads, self.dimension, dtype=self.precision, device=device), temperature, edges)

        if device is None or device.type == "cpu":
            kernels = self.kernels(temperature, box)
            if kernels is not None:
                from cg_assets.potentials.lanes import LaneEngine

                return LaneEngine(kernels)

        def evaluate(positions: Tensor) -> tuple[Tensor, Tensor]:
            energy, forces = self.energy_and_forces(positions, temperature, edges)
            return energy.to(positions), forces

        return evaluate

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """Compiled kernels for a CPU whose sum is this potential at conditions that `engine` has checked.

        Args:
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm].

        Returns:
            None where there are none, or none in the precision of the weights.
        """
        return None

    def equilibrium(self, count: int, uniform: Callable[[int], Any]) -> Tensor | None:
        """Configurations `(count, n, d)` drawn from exp(-W/kT) of this potential; None where that takes a simulation.

        Args:
            count: how many.
            uniform: gives so many random numbers from 0 to 1.
        """
        return None

    def pair_function(self, temperature: float | None = None) -> PairFunction | None:
        """What the energy is a sum of over all pairs of beads; None where it is no such sum, of one type of beads.

        Args:
            temperature: [K].
        """
        return None

    # ------------------------------------------------------------------------------- committees

    @property
    def leading(self) -> Potential:
        """Itself; of a committee the potential that gives energy and forces."""
        return self

    @property
    def members(self) -> Sequence[Potential]:
        """Networks whose scatter is the uncertainty of this potential; none without a committee."""
        return ()


@cache
def _has_compiled_code() -> bool:
    return importlib.util.find_spec(f"{__package__}.lanes") is not None


def _of_frames(condition: Any, rows: slice, ndim: int) -> Any:
    """A condition of some frames: a part of it where it has more than `ndim` dimensions, else the same for all."""
    per_frame = isinstance(condition, Tensor) and condition.ndim > ndim
    return condition[rows] if per_frame else condition


def differentiated(
    potential: Potential, positions: Tensor, temperature: Any = None, box: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Energy `(f,)` and forces `(f, n, d)` by automatic differentiation; differentiable if grad is enabled."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        points = positions.detach().requires_grad_(True)
        energy = potential.energy(points, temperature, box)
        (gradient,) = torch.autograd.grad(energy.sum(), points, create_graph=create_graph)
    return (energy, -gradient) if create_graph else (energy.detach(), -gradient)


def thermal_energy_of(config: Mapping[str, Any]) -> float:
    """k_B T of the training data, the unit of the weights of networks at one temperature.

    Raises:
        ValueError: it is missing or not positive.
    """
    value = config.get("thermal_energy")
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"thermal_energy is {value!r}; give k_B T of the training data as a positive number")
    return float(value)
