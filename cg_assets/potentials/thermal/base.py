"""What all potentials W(R, T) of pairs of beads have: neighbours, and a repulsive prior."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_assets.potentials.thermal.dependent import TemperatureDependent, ThermalConfig
from cg_assets.potentials.thermal.pairs import Pairs, neighbour_pairs

PRIOR_DEPTH = 0.015
"""Distance over which the prior's force rises from a twentieth to all of the mean force [nm]."""
PRIOR_PART = 0.05
"""Part of the mean force that the prior has where the data begin."""
PRIOR_RATE = math.log(1.0 / PRIOR_PART) / PRIOR_DEPTH
"""Rate at which it decays [1/nm]."""
BEGIN = 0.01
"""The data begin where the radial distribution function first exceeds this."""
BEADS_AT_ONCE = 2048
"""Beads evaluated at once without gradients; more would leave the cache."""


class ThermalPotential(TemperatureDependent):
    """W(R, T) = sum_k s_k(T) W_k(R), and a repulsive prior that no data can teach.

    The prior is the pair energy (s p / a) exp(a (t - r)) with a = ln(1/p)/d (a `PRIOR_RATE`, d `PRIOR_DEPTH`, p
    `PRIOR_PART`), t the distance where the radial distribution function of the training data begins and s their mean
    |force component|; it does not depend on temperature.
    """

    prior: Tensor
    low: Tensor

    def __init__(self, config: ThermalConfig, generator: torch.Generator) -> None:
        """Take what all of them need.

        Args:
            config: `bead_types` and `temperature_dependence` (`TemperatureDependence`); with `periodic` the potential
                needs a box.
            generator: of the initial weights.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self.conditions = frozenset({"temperature", "box"} if config.get("periodic") else {"temperature"})
        self.bead_types = [int(kind) for kind in config["bead_types"]]
        if len(self.bead_types) < 2:
            raise ValueError(f"bead_types has {len(self.bead_types)} bead(s); a potential of pairs needs at least 2")
        self.n_beads, self.dimension = len(self.bead_types), 3
        self.frames_at_once = max(1, BEADS_AT_ONCE // self.n_beads)
        self.register_buffer("prior", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("low", torch.zeros((), dtype=torch.float64))

    @property
    @abstractmethod
    def cutoff(self) -> float:
        """Range of the potential [nm]."""

    @abstractmethod
    def own_terms(self, pairs: Pairs, n_frames: int) -> Tensor:
        """The energies `(f, n_terms)` without the prior [kJ/mol]."""

    # ------------------------------------------------------------------------------- statistics of the data

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Set the least distance and the prior from training positions `(f, n, 3)`.

        Args:
            positions: [nm].
            box: edges `(3,)` or `(f, 3)` [nm], or None; the density is then that of a sphere of the data's size.
            forces: labels, whose mean size the prior has [kJ/mol/nm].

        Raises:
            ValueError: wrong shapes, no forces, a cutoff beyond half the box, or no pair within the cutoff.
        """
        if forces is None:
            raise ValueError("the repulsive prior is as strong as the forces of the data; give forces")
        distance = neighbour_pairs(positions.double(), box, self.cutoff).distance
        if not len(distance):
            raise ValueError(f"no two beads come closer than the cutoff {self.cutoff:g} nm; make it longer")
        if box is None:
            volumes = torch.full((len(positions),), 4.0 / 3.0 * math.pi * float(distance.max()) ** 3).double()
        else:
            volumes = torch.as_tensor(box).double().expand(len(positions), 3).prod(dim=1)
        width = 0.002
        counts = torch.histc(distance, round(self.cutoff / width), 0.0, self.cutoff)
        middle = (torch.arange(len(counts)).to(counts) + 0.5) * self.cutoff / len(counts)
        shells = 4.0 * math.pi * middle.square() * self.cutoff / len(counts)
        ideal = 0.5 * self.n_beads * (self.n_beads - 1) * (1.0 / volumes).sum().to(shells) * shells
        begins = middle[counts / ideal > BEGIN][0]
        mean_size = float(np.abs(forces.cpu().numpy()).mean())
        self.low.copy_(distance.min())
        self.prior.copy_(torch.stack([torch.tensor(mean_size).to(begins), begins]))
        self._place(distance)

    def _place(self, distance: Tensor) -> None:
        """Whatever else a class takes from the distances of the data."""

    def repulsion(self, distance: Tensor) -> Tensor:
        """Energy `(p,)` of the prior at distances `(p,)` [kJ/mol]."""
        height = self.prior[0] * PRIOR_PART / PRIOR_RATE
        return height * torch.exp(PRIOR_RATE * (self.prior[1] - distance))

    def _prior_energy(self, pairs: Pairs, n_frames: int) -> Tensor:
        return self.per_frame(self.repulsion(pairs.distance), pairs.first, n_frames)

    def per_frame(self, values: Tensor, bead: Tensor, n_frames: int) -> Tensor:
        """Sums `(f, ...)` over each frame of values `(p, ...)` that belong to beads `(p,)`."""
        return values.new_zeros(n_frames, *values.shape[1:]).index_add(0, bead // self.n_beads, values)

    # ------------------------------------------------------------------------------- energies and their derivatives

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, 3)` [kJ/mol]."""
        return self._terms_of(neighbour_pairs(positions, box, self.cutoff), len(positions))

    def _terms_of(self, pairs: Pairs, n_frames: int) -> Tensor:
        own = self.own_terms(pairs, n_frames)
        return own + self._prior_energy(pairs, n_frames)[:, None].to(own) * self.is_value.to(own)

    @torch.no_grad()
    def virial(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Virial `(f, 3, 3)`: differences of pairs times what they pull."""
        self.check(positions, temperature, box)
        first, second, difference, _ = neighbour_pairs(positions.detach(), box, self.cutoff)
        with torch.enable_grad():
            difference = difference.requires_grad_(True)
            pairs = Pairs(first, second, difference, difference.square().sum(dim=1).sqrt())
            terms = self._terms_of(pairs, len(positions))
            energy = (self.coefficients_at(temperature, positions)[0].to(terms) * terms).sum()
            (slope,) = torch.autograd.grad(energy, difference)
        return -self.per_frame(difference.detach()[:, :, None] * slope[:, None], first, len(positions))
