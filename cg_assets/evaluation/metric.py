"""The interface of metrics. A metric is found by being defined: adding one is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from cg_assets.evaluation.case import Case
from cg_assets.evaluation.quantity import Drawing, Profile, Quantity
from cg_assets.evaluation.settings import EvaluationSettings, FreeEnergySettings

S = TypeVar("S", bound=EvaluationSettings)
Found = Quantity | Profile | Drawing


@dataclass(frozen=True)
class Measure:
    """A quantity that a metric measures.

    Attributes:
        name: of the quantity.
        meaning: its definition in one sentence.
        unit: unit of the number, or the quantity whose unit it has in the system's units (`energy`, `length`, ...).
        where: what `Quantity.where` names; empty where the number is one for the whole system.
        noise: whether its reference is what noise alone would give, and not the same number of the reference.
    """

    name: str
    meaning: str
    unit: str = ""
    where: str = ""
    noise: bool = False


class Metric(ABC, Generic[S]):
    """Measures some quantities of a potential. Subclass it, and it is part of every evaluation that it applies to.

    Attributes:
        reads: the settings that it needs; it applies to systems whose evaluation has them.
        measures: what it measures.
        remedies: what to do when one of its checks fails, where the usual advice is wrong.
    """

    reads: type[S]
    measures: ClassVar[tuple[Measure, ...]]
    remedies: ClassVar[Mapping[str, str]] = {}
    _members: ClassVar[dict[str, type[Metric[Any]]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Join the metrics."""
        super().__init_subclass__(**kwargs)
        Metric._members[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def applies(self, settings: S) -> bool:
        """Whether it can be measured in evaluations by these settings."""
        return True

    def checks(self, settings: S) -> Mapping[str, str]:
        """Name of each of its quantities with a bound, to the description of its check."""
        return {}

    @abstractmethod
    def measure(self, case: Case[S]) -> Iterable[Found]:
        """Its quantities, and the profiles and drawings that show them."""


class OfMolecules:
    """Metrics of molecules, whose reference is never exact; stands before `Metric` among the parents."""

    reads = FreeEnergySettings

    def applies(self, settings: FreeEnergySettings) -> bool:
        """To molecules."""
        return not settings.reference.exact


def metrics_of(settings: EvaluationSettings) -> list[Metric[Any]]:
    """The metrics that apply to evaluations with these settings."""
    return [metric for metric in _every_metric() if isinstance(settings, metric.reads) and metric.applies(settings)]


def measures_of_noise() -> frozenset[str]:
    """Names of the quantities whose reference is what noise alone would give."""
    return frozenset(measure.name for metric in _every_metric() for measure in metric.measures if measure.noise)


def _every_metric() -> list[Metric[Any]]:
    from cg_assets.evaluation import metrics

    for module in pkgutil.iter_modules(metrics.__path__, f"{metrics.__name__}."):
        importlib.import_module(module.name)
    return [member() for _, member in sorted(Metric._members.items())]
