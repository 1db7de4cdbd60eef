"""The message-passing potential: HIP-NN-TS with one energy head for each function of temperature.

The network of N. Lubbers et al., J. Chem. Phys. 148, 241715 (2018), with the tensor sensitivities of M. Chigaev et al.,
J. Chem. Phys. 158, 184108 (2023): one interaction layer, as in its use for liquids of one-site molecules, and the same
numbers as its authors' package `hippynn` for the same weights (`benchmarks/thermal_potentials.py` checks).

With sensitivities s_v(r) = exp(-(1/r - 1/mu_v)² sigma_v²/2) cos²(pi r/2R), one-hot types z_j and unit vectors u_ij,

    H^l_i = sum_{j,v} V_v z_j s_v(r_ij) T^l(u_ij),  T^0 = 1, T^1 = u, T^2 = u u - 1/3,
    a_i = H^0 + t_1 sqrt(|H^1|² + e) + t_2 sqrt(|H^2|² + e) + B z_i + b,

followed by residual layers x <- A x + M softplus(a), and energies that are linear in z and in the last features.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cg_assets.potentials.base import MISSING, Engine
from cg_assets.potentials.thermal.base import ThermalPotential
from cg_assets.potentials.thermal.dependent import ThermalConfig
from cg_assets.potentials.thermal.pairs import Pairs

CUSP = 1e-6
"""e, which makes lengths of tensors smooth at zero."""
ENERGY_LENGTH = 0.1
"""Energies of the network are in units of the data's mean force over this length [nm]."""
COMPONENTS = (1, 4, 9)
"""Numbers of components of all tensors up to an order."""


class TensorNetworkConfig(ThermalConfig, total=False):
    """With its settings."""

    cutoff: float
    soft_cutoff: float
    tensor_order: int
    features: int
    layers: int
    sensitivities: int


class TensorNetwork(ThermalPotential):
    """See the module. Where the form has a constant heat capacity its energy head is never positive: C >= 0."""

    energy_scale: Tensor
    constant: Tensor
    kinds: Tensor

    def __init__(self, config: TensorNetworkConfig, generator: torch.Generator) -> None:
        """Build the network with random weights.

        Args:
            config: that of `ThermalPotential`, with `features`, `sensitivities`, `cutoff` R and `soft_cutoff`, the
                centre of the last sensitivity [nm], `layers` (residual layers after the interaction) and
                `tensor_order`, 0 to 2.
            generator: source of the initial weights.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self._cutoff, self.soft_cutoff = float(config["cutoff"]), float(config["soft_cutoff"])
        self.tensor_order = int(config["tensor_order"])
        features, layers, count = (int(config[name]) for name in ("features", "layers", "sensitivities"))
        if not 0 < self.soft_cutoff <= self._cutoff:
            raise ValueError(f"soft_cutoff {self.soft_cutoff} must be positive and at most the cutoff {self._cutoff}")
        if not 0 <= self.tensor_order <= 2:
            raise ValueError(f"tensor_order is {self.tensor_order}; it must be 0, 1 or 2")
        if features < 1 or layers < 0 or count < 2:
            raise ValueError(f"features {features} must be at least 1, layers {layers} 0 and sensitivities {count} 2")
        names = list(dict.fromkeys(self.bead_types))
        self.n_kinds = len(names)
        kinds = torch.tensor([names.index(kind) for kind in self.bead_types])
        self.register_buffer("kinds", kinds, persistent=False)
        self.register_buffer("energy_scale", torch.ones(()))
        self.register_buffer("constant", torch.zeros(self.n_terms, dtype=torch.float64))

        def matrix(outputs: int, inputs: int) -> torch.nn.Parameter:
            scale = math.sqrt(2.0 / (inputs + outputs))
            return torch.nn.Parameter(scale * torch.randn(outputs, inputs, generator=generator))

        def vector(size: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(size))

        self.centers = torch.nn.Parameter(torch.linspace(0.25, self.soft_cutoff, count))
        self.widths = torch.nn.Parameter(torch.full((count,), 0.5 * count))
        self.interaction = matrix(features, count * self.n_kinds)
        self.own, self.bias = matrix(features, self.n_kinds), vector(features)
        scales = [torch.randn(features, generator=generator) for _ in range(self.tensor_order)]
        self.tensor_scales = torch.nn.ParameterList([torch.nn.Parameter(scale) for scale in scales])
        self.adjust = matrix(features, self.n_kinds)
        self.first, self.first_bias = matrix(features, features), vector(features)
        stack = torch.nn.ParameterList
        self.inner = stack([matrix(features, features) for _ in range(layers)])
        self.inner_biases = stack([vector(features) for _ in range(layers)])
        self.outer = stack([matrix(features, features) for _ in range(layers)])
        self.outer_biases = stack([vector(features) for _ in range(layers)])
        self.type_energies = torch.nn.Parameter(torch.zeros(self.n_terms, self.n_kinds))
        self.readout = matrix(self.n_terms, features)

    @property
    def cutoff(self) -> float:
        """Range of the potential [nm]."""
        return self._cutoff

    def _place(self, distance: Tensor) -> None:
        """Centres of the sensitivities evenly in 1/r from the least distance of the data, as wide as their gap."""
        low, count = float(self.low), len(self.centers)
        if not low < self.soft_cutoff:
            raise ValueError(f"no two beads come closer than {low:.4g} nm; soft_cutoff {self.soft_cutoff} is too short")
        inverse = torch.linspace(1.0 / low, 1.0 / self.soft_cutoff, count)
        self.centers.copy_(1.0 / inverse)
        self.widths.fill_((count - 1) / (1.0 / low - 1.0 / self.soft_cutoff))
        self.energy_scale.copy_(self.prior[0] * ENERGY_LENGTH)

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol]."""
        self.constant += values.to(self.constant)

    def own_terms(self, pairs: Pairs, n_frames: int) -> Tensor:
        """The energies `(f, n_terms)` without the prior [kJ/mol]."""
        energies = self.bead_energies(pairs.both_ways(), n_frames)
        if self.dependence.form == "constant_heat_capacity" and self.n_terms == 3:
            energies = torch.cat([energies[:, :2], -torch.nn.functional.softplus(energies[:, 2:])], dim=1)
        total = energies.reshape(n_frames, self.n_beads, self.n_terms).sum(dim=1) * self.energy_scale.to(energies)
        return total + (self.n_beads * self.constant).to(total)

    def engine(self, temperature: float | None = None, box: Any = None, device: torch.device | None = None) -> Engine:
        """In single precision on a CPU compiled code with neighbour lists."""
        if self.precision != torch.float32 or (device is not None and device.type != "cpu"):
            return super().engine(temperature, box, device)
        from cg_assets.potentials.tensor_network.engine import TensorEngine

        if temperature is None:
            raise ValueError(MISSING["temperature"])
        return TensorEngine(self, temperature, box)

    def bead_energies(self, pairs: Pairs, n_frames: int) -> Tensor:
        """Output of the network `(f * n, n_terms)` for pairs both ways."""
        kinds = self.kinds.repeat(n_frames)
        one_hot = torch.nn.functional.one_hot(kinds, self.n_kinds).to(self.bias)
        slot = pairs.first * self.n_kinds + kinds[pairs.second]
        tensors = self._tensors(pairs)
        sensitivities = self._sensitivities(pairs.distance)
        products = tensors[:, :, None] * sensitivities[:, None]
        surroundings = products.new_zeros(len(kinds) * self.n_kinds, *products.shape[1:]).index_add(0, slot, products)
        surroundings = surroundings.reshape(len(kinds), self.n_kinds, *products.shape[1:]).permute(0, 2, 3, 1)
        hidden = surroundings.flatten(2) @ self.interaction.T
        features = hidden[:, 0] + one_hot @ self.own.T + self.bias
        if self.tensor_order >= 1:
            length = (hidden[:, 1:4].square().sum(dim=1) + CUSP).sqrt()
            features = features + self.tensor_scales[0] * length
        if self.tensor_order == 2:
            xx, xy, xz, yy, yz = hidden[:, 4:9].unbind(dim=1)
            square = xx * xx + yy * yy + xx * yy + xy * xy + xz * xz + yz * yz
            features = features + self.tensor_scales[1] * (2.0 * square + CUSP).sqrt()
        softplus, linear = torch.nn.functional.softplus, torch.nn.functional.linear
        features = linear(softplus(features), self.first, self.first_bias) + one_hot @ self.adjust.T
        for inner, inner_bias, outer, outer_bias in zip(
            self.inner, self.inner_biases, self.outer, self.outer_biases, strict=True
        ):
            features = features + linear(softplus(linear(features, inner, inner_bias)), outer, outer_bias)
        return features @ self.readout.T + one_hot @ self.type_energies.T

    def _sensitivities(self, distance: Tensor) -> Tensor:
        """s_v(r) `(p, v)`."""
        away = (1.0 / distance[:, None] - 1.0 / self.centers) * self.widths
        end = torch.cos(0.5 * math.pi * distance / self._cutoff).square()
        return torch.exp(-0.5 * away.square()) * end[:, None]

    def _tensors(self, pairs: Pairs) -> Tensor:
        """Components `(p, 1 + 3 + 5)` of the tensors of the unit vectors, as far as they are needed."""
        unit = pairs.difference / pairs.distance[:, None]
        x, y, z = unit.unbind(dim=1)
        third = 1.0 / 3.0
        rows = [torch.ones_like(x), x, y, z, x * x - third, x * y, x * z, y * y - third, y * z]
        return torch.stack(rows[: COMPONENTS[self.tensor_order]], dim=1)
