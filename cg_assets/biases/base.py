"""The interface of biases: settings in a sampling plan, and the function of collective variables that they give.

A new bias is one file with a member of the family `Bias`, and a `BiasFunction` if no existing one fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.family import Family
from cg_assets.core.settings import Fault, Scope

if TYPE_CHECKING:
    import openmm
    from torch import Tensor

    from cg_assets.biases.adaptive import AdaptiveBias
    from cg_assets.biases.deposited import DepositedBias
    from cg_assets.mapping.atom_variables import AtomVariables
    from cg_assets.mapping.beads import Beads

FloatArray = NDArray[np.float64]
Variables = Mapping[str, ArrayLike]
TorchFunction = Callable[["dict[str, Tensor]", "Tensor | None"], "tuple[Tensor, dict[str, Tensor]]"]
"""Energy and slopes `(n,)` of a bias for columns `(n,)` of its variables and windows `(n,)`."""


class Bias(Family, family="bias"):
    """A bias of the CG coordinates, as a sampling plan names it.

    Attributes:
        windowed: whether each replica is in one of several windows; frames then record theirs, and their weights
            are those of all windows together.
    """

    windowed: ClassVar[bool] = False

    @property
    def n_windows(self) -> int:
        """Number of windows that replicas are dealt out to in turn."""
        return 1

    @property
    def adaptive(self) -> AdaptiveBias | None:
        """Itself, if its windows are placed for each batch."""
        return None

    @property
    def deposited(self) -> DepositedBias | None:
        """Itself, if walkers build it while they move and it is then frozen."""
        return None

    @abstractmethod
    def function(self, beads: Beads) -> BiasFunction:
        """The bias as a function; one that walkers build, as it is before they start.

        Raises:
            SamplingError: it is no function yet, or does not fit.
        """


@dataclass(frozen=True)
class BiasFormula:
    """A formula of collective variables and of parameters.

    Attributes:
        text: the formula.
        parameters: `(n_windows,)` value of each parameter in each window.
    """

    text: str
    parameters: dict[str, FloatArray] = field(default_factory=dict)

    def in_window(self, window: int) -> dict[str, float]:
        """The parameters in one window."""
        return {name: float(values[window]) for name, values in self.parameters.items()}


class BiasFunction(ABC):
    """A bias potential of collective variables that is frozen while frames are taken.

    Subclass it with `type="..."`, the name in its definition.

    Attributes:
        collective_variables: names of its variables.
        windowed: as of `Bias`.
    """

    collective_variables: list[str]
    windowed: ClassVar[bool] = False
    type: ClassVar[str]
    _types: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, *, type: str, **kwargs: Any) -> None:
        """Register under the name of the type.

        Raises:
            TypeError: another class has this name.
        """
        super().__init_subclass__(**kwargs)
        cls.type, known = type, BiasFunction._types.setdefault(type, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"bias {type}: {known.__module__} and {cls.__module__} both define it")

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return 1

    @abstractmethod
    def energy_and_slopes(
        self, variables: Variables, window: ArrayLike | None = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Energy and its exact derivatives.

        Args:
            variables: name to values `(n,)`.
            window: `(n,)` window of each frame; None where there is one.

        Returns:
            Energy `(n,)` [kJ/mol or reduced], and its derivative `(n,)` by each of `collective_variables`.

        Raises:
            SamplingError: a variable is missing, or a window does not exist.
        """

    @abstractmethod
    def definition(self) -> dict[str, object]:
        """Plain JSON types from which `bias_from_definition` builds the same bias."""

    @classmethod
    @abstractmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Self:
        """The bias that a definition describes.

        Raises:
            KeyError: a field is missing.
            TypeError: a field cannot be used.
            ValueError: a field cannot be used.
        """

    @abstractmethod
    def openmm_forces(self, variables: AtomVariables) -> list[openmm.Force]:
        """New OpenMM forces that add it to a System, in the force group of biases."""

    def openmm_parameters(self, window: int) -> dict[str, float]:
        """Global parameters of the forces in a window."""
        return {}

    def formula(self) -> BiasFormula:
        """The bias as a formula, for the compiled dynamics of model potentials.

        Raises:
            SamplingError: it is not a formula.
        """
        raise SamplingError(f"a {self.type} bias is not a formula, which the bias of a model potential must be")

    def outside(self, variables: Variables) -> NDArray[np.bool_] | None:
        """Frames `(n,)` beyond the range that the bias is given on, where it has no slope; None without a range."""
        return None

    def center(self, window: int) -> dict[str, float]:
        """Values of variables to which replicas of a window are led before they start."""
        return {}

    def joined(self, others: Sequence[BiasFunction]) -> BiasFunction:
        """All windows of this and further biases of its kind, in order, as one bias."""
        return self

    def energy(self, variables: Variables, window: ArrayLike | None = None) -> FloatArray:
        """Energy `(n,)` alone; see `energy_and_slopes`."""
        return self.energy_and_slopes(variables, window)[0]

    def in_torch(self, device: Any) -> TorchFunction:
        """The bias for torch tensors, in float64 on a device; by default computed on the CPU."""
        import torch

        def evaluate(variables: dict[str, Tensor], window: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
            columns = {name: values.cpu().numpy() for name, values in variables.items()}
            energy, slopes = self.energy_and_slopes(columns, None if window is None else window.cpu().numpy())
            tensors = {name: torch.as_tensor(slope).to(device) for name, slope in slopes.items()}
            return torch.as_tensor(energy).to(device), tensors

        return evaluate


def bias_from_definition(definition: Mapping[str, Any]) -> BiasFunction:
    """Build the bias that a definition describes.

    Raises:
        SamplingError: a field is missing or the type is not known.
    """
    kind, known = definition.get("type"), BiasFunction._types
    if kind not in known:
        raise SamplingError(f"bias type {kind!r} is not known; allowed are {', '.join(sorted(known))}")
    try:
        return known[kind].from_definition(definition)
    except KeyError as error:
        raise SamplingError(f"definition of a {kind} bias lacks the field {error}") from None
    except (TypeError, ValueError) as error:
        raise SamplingError(f"definition of a {kind} bias cannot be used: {error}") from None


def range_faults(scope: Scope, names: Sequence[str], ranges: Mapping[str, tuple[float, float]]) -> Iterator[Fault]:
    """Unknown collective variables, and those that are no angles and have no `grid_range`."""
    yield from scope.not_driven("collective_variables", names)
    for name in names:
        if name in scope.angles or name not in scope.variables:
            continue
        if name not in ranges:
            yield Fault("grid_range", f"lacks {name}; give its lower and upper limit")
        elif not ranges[name][0] < ranges[name][1]:
            yield Fault("grid_range", f"of {name} is {list(ranges[name])}; give the lower limit first")


def column(variables: Variables, name: str) -> FloatArray:
    """Values `(n,)` of a variable.

    Raises:
        SamplingError: it is missing.
    """
    if name not in variables:
        raise SamplingError(f"bias needs the collective variable {name}; got {sorted(variables)}")
    return np.atleast_1d(np.asarray(variables[name], dtype=np.float64))
