"""Potentials made of potentials: sums and committees; imports `base` alone, with which it is shipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from cg_assets.potentials.base import Engine, Kernel, Labels, PairFunction, Potential, PotentialConfig

_log = logging.getLogger(__name__)


def build(kind: type[Potential], config: PotentialConfig, generator: torch.Generator | None = None) -> Potential:
    """Build a potential, before its weights are read or trained.

    Args:
        kind: its class.
        config: what `kind` asks for; with `committee`, the number of further networks, the potential is a `Committee`.
        generator: of the initial weights; seed 0 where None.

    Raises:
        ValueError: a key is missing or out of range.
    """
    potential = kind.build(config, generator or torch.Generator().manual_seed(0))
    members = [kind.build(config, torch.Generator().manual_seed(0)) for _ in range(config.get("committee", 0))]
    return Committee(potential, members) if members else potential


class Sum(Potential):
    """The sum of potentials of the same beads, its parts by name."""

    def __init__(self, parts: Mapping[str, Potential]) -> None:
        """Join them, in this order."""
        torch.nn.Module.__init__(self)
        self.parts = torch.nn.ModuleDict(parts)
        self.conditions = frozenset().union(*(part.conditions for part in parts.values()))
        self.n_beads = max(part.n_beads for part in parts.values())
        self.dimension = max(part.dimension for part in parts.values())
        self.frames_at_once = min(part.frames_at_once for part in parts.values())

    def __getitem__(self, name: str) -> Any:
        """The part of a name."""
        return self.parts[name]

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of all parts."""
        first, *others = (part.energy(positions, temperature, box) for part in self._at_work())
        return sum(others, start=first)

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, d)` of all parts."""
        first, *others = (self._evaluated(part, positions, temperature, box) for part in self._at_work())
        energy, forces = first
        for more_energy, more_forces in others:
            energy, forces = energy + more_energy, forces + more_forces
        return energy, forces

    def _evaluated(self, part: Potential, positions: Tensor, temperature: Any, box: Any) -> tuple[Tensor, Tensor]:
        """Energy and forces of a part: in training compiled, where it has nothing to train."""
        alone = box is None and not part.conditions and part.is_solved
        fits = positions.shape[1:] == (self.n_beads, self.dimension)  # compiled code does not look at its bounds
        if alone and fits and self.trains_compiled(positions):
            kernels = part.kernels(None, None)
            if kernels is not None:
                from cg_assets.potentials.lanes import LaneEngine

                return LaneEngine(kernels)(positions)
        return part.evaluate(positions, temperature, box)

    def virial(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Virial `(f, 3, 3)` of all parts."""
        first, *others = (part.virial(positions, temperature, box) for part in self._at_work())
        return sum(others, start=first)

    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Of each part."""
        for part in self._parts():
            part.fit_statistics(positions, box, forces)

    def solves_energies(self, kelvin: Tensor) -> bool:
        """Whether a part does."""
        return any(part.solves_energies(kelvin) for part in self._parts())

    def solve(self, labels: Labels) -> dict[str, float]:
        """Of each part in turn, `labels.whole` being this sum."""
        facts: dict[str, float] = {}
        for part in self._parts():
            facts |= part.solve(replace(labels, whole=labels.whole or self))
        return facts

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """Those of all parts; None where one has none."""
        kernels: list[Kernel] = []
        for part in self._at_work():
            own = part.kernels(temperature, box)
            if own is None:
                _log.info("%s has no compiled kernels here: all parts are evaluated by torch", type(part).__name__)
                return None
            kernels += own
        return kernels

    def _parts(self) -> list[Potential]:
        return cast("list[Potential]", list(self.parts.values()))

    def _at_work(self) -> list[Potential]:
        """All but those that are zero everywhere; one at least."""
        parts = self._parts()
        return [part for part in parts if not part.is_zero] or parts[:1]


class Committee(Potential):
    """A potential, with networks trained on resampled data whose scatter is its uncertainty.

    Energy and forces are those of the potential alone, at its cost; the others are asked by name.
    """

    def __init__(self, potential: Potential, members: Sequence[Potential]) -> None:
        """Join networks of one kind."""
        torch.nn.Module.__init__(self)
        self.potential = potential
        self.networks = torch.nn.ModuleList(members)
        self.conditions, self.frames_at_once = potential.conditions, potential.frames_at_once
        self.n_beads, self.dimension = potential.n_beads, potential.dimension

    @property
    def leading(self) -> Potential:
        """The potential."""
        return self.potential

    @property
    def members(self) -> Sequence[Potential]:
        """The networks."""
        return cast("list[Potential]", list(self.networks))

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of the potential."""
        return self.potential.energy(positions, temperature, box)

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, d)` of the potential."""
        return self.potential.evaluate(positions, temperature, box)

    def virial(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Virial `(f, 3, 3)` of the potential."""
        return self.potential.virial(positions, temperature, box)

    def predictions(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> dict[str, Tensor]:
        """`energy` and `forces` of the potential and the `force_deviation` of the committee."""
        deviation = self.force_deviation(positions, temperature, box)
        return super().predictions(positions, temperature, box) | {"force_deviation": deviation}

    @torch.no_grad()
    def force_deviation(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Standard deviation `(f, n, d)` of the members' forces."""
        forces = [member.energy_and_forces(positions, temperature, box)[1] for member in self.members]
        return torch.stack(forces).std(dim=0)

    def engine(self, temperature: float | None = None, box: Any = None, device: torch.device | None = None) -> Engine:
        """Of the potential."""
        return self.potential.engine(temperature, box, device)

    def pair_function(self, temperature: float | None = None) -> PairFunction | None:
        """Of the potential."""
        return self.potential.pair_function(temperature)

    def equilibrium(self, count: int, uniform: Callable[[int], Any]) -> Tensor | None:
        """Of the potential."""
        return self.potential.equilibrium(count, uniform)
