"""A toy bias: a constant pull along one collective variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from cg_assets.biases import Bias, BiasFormula, BiasFunction
from cg_assets.biases.base import column
from cg_assets.core.settings import Fault, Name, Scope


class PullSettings(Bias):
    """V = strength times the variable."""

    type: Literal["toy_pull"]
    variable: Name
    """Collective variable that is pulled."""
    strength: float
    """Constant force along it [energy per unit of the variable]."""

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """An unknown variable."""
        return scope.unknown("variable", [self.variable])

    def function(self, beads):
        """The pull."""
        return Pull(self.variable, self.strength)


class Pull(BiasFunction, type="toy_pull"):
    """V = strength times the variable."""

    def __init__(self, variable, strength):
        self.collective_variables, self.strength = [variable], strength

    def energy_and_slopes(self, variables, window=None):
        """A line and its slope."""
        (name,) = self.collective_variables
        values = column(variables, name)
        return self.strength * values, {name: np.full_like(values, self.strength)}

    def openmm_forces(self, variables):
        """One force."""
        (name,) = self.collective_variables
        return [variables.compound_force([name], f"{self.strength!r}*cv_{name}")]

    def formula(self):
        """For the compiled dynamics of model potentials."""
        return BiasFormula(f"({self.strength!r})*{self.collective_variables[0]}")

    def definition(self):
        """Plain JSON types."""
        return {"type": "toy_pull", "variable": self.collective_variables[0], "strength": self.strength}

    @classmethod
    def from_definition(cls, definition):
        """The pull that `definition` described."""
        return cls(definition["variable"], definition["strength"])
