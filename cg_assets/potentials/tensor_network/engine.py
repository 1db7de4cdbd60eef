"""HIP-NN-TS at one temperature with neighbour lists, single precision: the fast way to simulate a liquid on a CPU.

The same energy and forces as `TensorNetwork` gives (tests hold both together). Sums over neighbours are compiled, and
the layers of a bead are matrix products. With G = dE/dS, the derivative by the surroundings S_i = sum_j T(u_ij) s(r_ij)
of all beads, the pair i, j pulls with the gradient of (G_i T(u_ij) + G_j T(-u_ij)) s(r_ij).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cg_assets.core.single_precision import exp32, log32
from cg_assets.potentials.tensor_network.module import COMPONENTS, CUSP, TensorNetwork
from cg_assets.potentials.thermal.engine import ListEngine
from cg_assets.potentials.thermal.neighbours import compiled, separation

BEADS_AT_ONCE = 512
"""Beads whose layers are evaluated at once; more would leave the cache."""
_WIDTH = 8
"""Sensitivities are padded to a multiple of this, so that loops over them are whole vectors."""
_ZERO, _HALF, _ONE, _TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
_THIRD, _CUSP = np.float32(1.0 / 3.0), np.float32(CUSP)


class _Radial(NamedTuple):
    """What a pair is evaluated with.

    Attributes:
        inverse: `(v,)` 1/mu of the sensitivities [1/nm].
        widths: `(v,)` sigma; 0 where padded.
        used: `(v,)` 1, or 0 where padded.
        cutoff: [nm].
        prior: height, rate and begin of the repulsion.
    """

    inverse: NDArray[np.float32]
    widths: NDArray[np.float32]
    used: NDArray[np.float32]
    cutoff: float
    prior: NDArray[np.float64]


class TensorEngine(ListEngine):
    """Energy and forces of `TensorNetwork` at one temperature."""

    def __init__(self, module: TensorNetwork, temperature: float, box: ArrayLike | None) -> None:
        """Read the weights.

        Args:
            module: the potential, in single precision.
            temperature: [K].
            box: edges `(3,)` of the periodic box [nm], or None.

        Raises:
            ValueError: the temperature is not positive or the cutoff beyond half the box.
        """
        super().__init__(module, temperature, box)
        self.module = module
        count = len(module.centers)
        padded = -(-count // _WIDTH) * _WIDTH
        inverse, widths, used = np.zeros((3, padded), np.float32)
        inverse[:count], widths[:count] = 1.0 / module.centers.detach().numpy(), module.widths.detach().numpy()
        used[:count] = 1.0
        self.radial = _Radial(inverse, widths, used, module.cutoff, self.prior)
        self.kinds = module.kinds.numpy()
        weight = module.interaction.detach().reshape(-1, count, module.n_kinds).transpose(1, 2)
        self.interaction = torch.nn.functional.pad(weight, (0, padded - count)).flatten(1).contiguous()
        self.scales = np.zeros((module.tensor_order, len(module.bias)), np.float32)
        for own, scale in zip(self.scales, module.tensor_scales, strict=True):
            own[:] = scale.detach().numpy()
        self.coefficients = module.dependence.coefficients(torch.tensor([temperature]))[0, 0].double()
        self.constant = module.n_beads * float(self.coefficients @ module.constant.double())
        self.shape = (module.n_beads, COMPONENTS[module.tensor_order], module.n_kinds * padded)

    def evaluate(
        self,
        place: NDArray[np.float64],
        starts: NDArray[np.int64],
        listed: NDArray[np.int64],
        forces: NDArray[np.float64],
    ) -> float:
        """See the base class."""
        around = np.zeros(self.shape, np.float32)
        pairs, units, lengths, values, slopes, prior = _surroundings(
            place, self.neighbours.box, starts, listed, self.kinds, *self.radial, around, forces
        )
        parts = [self._layers(part, kinds) for part, kinds in self._parts(torch.from_numpy(around))]
        gradient = torch.cat([part for _, part in parts])
        _pull(pairs, units, lengths, values, slopes, self.kinds, gradient.numpy(), forces)
        return float(self.constant + prior + sum(own for own, _ in parts))

    def _parts(self, around: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Surroundings and kinds of so many beads that they stay in the cache."""
        return zip(around.split(BEADS_AT_ONCE), self.module.kinds.split(BEADS_AT_ONCE), strict=True)

    def _layers(self, around: Tensor, kinds: Tensor) -> tuple[float, Tensor]:
        """Energy of beads, and its derivatives by their surroundings `(n, components, kinds * v)`."""
        module, order = self.module, self.module.tensor_order
        hidden = around @ self.interaction.T
        features = module.own.T[kinds] + module.bias
        lengths = torch.empty(len(kinds), order, features.shape[1])
        _invariants(hidden.numpy(), self.scales, features.numpy(), lengths.numpy())
        slopes = [torch.empty_like(features) for _ in range(1 + len(module.inner))]
        _activate(features.numpy(), slopes[0].numpy())
        rows = torch.addmm(module.first_bias, features, module.first.T) + module.adjust.T[kinds]
        layers = list(zip(module.inner, module.inner_biases, module.outer, module.outer_biases, strict=True))
        for (inner, inner_bias, outer, outer_bias), slope in zip(layers, slopes[1:], strict=True):
            inside = torch.addmm(inner_bias, rows, inner.T)
            _activate(inside.numpy(), slope.numpy())
            rows = rows.add_(outer_bias).addmm_(inside, outer.T)
        energy, share = self._energy(rows @ module.readout.T + module.type_energies.T[kinds])
        gradient = share @ module.readout
        for (inner, _, outer, _), slope in zip(reversed(layers), reversed(slopes[1:]), strict=True):
            gradient = gradient.addmm_((gradient @ outer).mul_(slope), inner)
        gradient = (gradient @ module.first).mul_(slopes[0])
        _invariants_back(hidden.numpy(), self.scales, gradient.numpy(), lengths.numpy())
        return energy, hidden @ self.interaction

    def _energy(self, outputs: Tensor) -> tuple[float, Tensor]:
        """Energy of all beads without the prior, and its derivatives by the outputs `(n, n_terms)`."""
        module, coefficients = self.module, self.coefficients.to(outputs)
        share = (coefficients * module.energy_scale).expand_as(outputs)
        if module.dependence.form == "constant_heat_capacity" and module.n_terms == 3:
            last = outputs[:, 2:]
            share = torch.cat([share[:, :2], -share[:, 2:] * last.sigmoid()], dim=1)
            outputs = torch.cat([outputs[:, :2], -torch.nn.functional.softplus(last)], dim=1)
        return float(self.coefficients @ outputs.double().sum(dim=0)) * float(module.energy_scale), share


@compiled
def _sensitivities(distance: Any, inverse: Any, widths: Any, used: Any, cutoff: Any, value: Any, slope: Any) -> None:
    """s_v(r) and their slopes, into `value` and `slope`."""
    turn = 0.5 * math.pi / cutoff
    cosine, sine = math.cos(turn * distance), math.sin(turn * distance)
    end, fall = np.float32(cosine * cosine), np.float32(-2.0 * turn * cosine * sine)
    near = np.float32(1.0 / distance)
    for v in range(len(inverse)):
        away = (near - inverse[v]) * widths[v]
        bell = used[v] * exp32(-_HALF * away * away)
        value[v] = bell * end
        slope[v] = bell * (fall + end * away * widths[v] * near * near)


@compiled
def _tensors(x: Any, y: Any, z: Any, result: Any) -> None:
    """Components of the tensors of a unit vector, as far as they are needed."""
    result[0] = _ONE
    if len(result) > 1:
        result[1], result[2], result[3] = x, y, z
    if len(result) > 4:
        result[4], result[5], result[6] = x * x - _THIRD, x * y, x * z
        result[7], result[8] = y * y - _THIRD, y * z


@compiled
def _activate(rows: Any, slopes: Any) -> None:
    """Softplus of rows, in place, and its slopes."""
    for row in range(rows.shape[0]):
        for f in range(rows.shape[1]):
            x = rows[row, f]
            small = exp32(-abs(x))
            slopes[row, f] = (_ONE if x > _ZERO else small) / (_ONE + small)
            rows[row, f] = max(x, _ZERO) + log32(_ONE + small)


@compiled
def _invariants(hidden: Any, scales: Any, features: Any, lengths: Any) -> None:
    """Add invariants of `hidden` `(n, components, f)` to features `(n, f)`; keep lengths of tensors `(n, order, f)`."""
    for i in range(len(hidden)):
        h = hidden[i]
        for f in range(h.shape[1]):
            features[i, f] += h[0, f]
        if len(scales) > 0:
            for f in range(h.shape[1]):
                length = np.sqrt(h[1, f] * h[1, f] + h[2, f] * h[2, f] + h[3, f] * h[3, f] + _CUSP)
                lengths[i, 0, f] = length
                features[i, f] += scales[0, f] * length
        if len(scales) > 1:
            for f in range(h.shape[1]):
                square = h[4, f] * h[4, f] + h[7, f] * h[7, f] + h[4, f] * h[7, f]
                square += h[5, f] * h[5, f] + h[6, f] * h[6, f] + h[8, f] * h[8, f]
                length = np.sqrt(_TWO * square + _CUSP)
                lengths[i, 1, f] = length
                features[i, f] += scales[1, f] * length


@compiled
def _invariants_back(hidden: Any, scales: Any, gradient: Any, lengths: Any) -> None:
    """Replace `hidden` by derivatives by it, given those by the features `(n, f)`."""
    for i in range(len(hidden)):
        h = hidden[i]
        for f in range(h.shape[1]):
            h[0, f] = gradient[i, f]
        if len(scales) > 0:
            for f in range(h.shape[1]):
                uphill = gradient[i, f] * scales[0, f] / lengths[i, 0, f]
                for component in range(1, 4):
                    h[component, f] *= uphill
        if len(scales) > 1:
            for f in range(h.shape[1]):
                uphill = gradient[i, f] * scales[1, f] / lengths[i, 1, f]
                xx, yy = h[4, f], h[7, f]
                h[4, f], h[7, f] = uphill * (_TWO * xx + yy), uphill * (_TWO * yy + xx)
                h[5, f] *= _TWO * uphill
                h[6, f] *= _TWO * uphill
                h[8, f] *= _TWO * uphill


@compiled
def _surroundings(
    positions: Any,
    box: Any,
    starts: Any,
    listed: Any,
    kinds: Any,
    inverse: Any,
    widths: Any,
    used: Any,
    cutoff: Any,
    prior: Any,
    around: Any,
    forces: Any,
) -> Any:
    """Sums over neighbours, added to `around`, and the prior, whose forces are added.

    Args:
        positions: `(n, 3)`.
        box: edges, 0 where there are none.
        starts: of the lists of neighbours.
        listed: their numbers.
        kinds: `(n,)` of the beads.
        inverse: see `_Radial`, like the next four.
        widths: see above.
        used: see above.
        cutoff: see above.
        prior: see above.
        around: `(n, components, kinds * v)`.
        forces: `(n, 3)`.

    Returns:
        Beads `(p, 2)`, unit vectors `(p, 3)`, distances `(p,)`, sensitivities `(p, v)` and their slopes `(p, v)` of
        pairs within the cutoff, and the energy of the prior.
    """
    most, size, components = len(listed) // 2, len(inverse), around.shape[1]
    pairs, units, lengths = np.empty((most, 2), np.int64), np.empty((most, 3), np.float32), np.empty(most, np.float32)
    values, slopes = np.empty((most, size), np.float32), np.empty((most, size), np.float32)
    gap, tensor, count, energy = np.empty(3), np.empty(components, np.float32), 0, 0.0
    for i in range(len(positions)):
        for index in range(starts[i], starts[i + 1]):
            j = listed[index]
            if j < i:
                continue
            square = separation(positions[i], positions[j], box, gap)
            if not square < cutoff * cutoff:
                continue
            distance = math.sqrt(square)
            repulsion = prior[0] * math.exp(prior[1] * (prior[2] - distance))
            energy += repulsion
            for axis in range(3):
                pull = prior[1] * repulsion * gap[axis] / distance
                forces[i, axis] += pull
                forces[j, axis] -= pull
                units[count, axis] = np.float32(gap[axis] / distance)
            pairs[count, 0], pairs[count, 1], lengths[count] = i, j, np.float32(distance)
            value = values[count]
            _sensitivities(distance, inverse, widths, used, cutoff, value, slopes[count])
            _tensors(units[count, 0], units[count, 1], units[count, 2], tensor)
            first, second = kinds[j] * size, kinds[i] * size
            for component in range(components):
                there = tensor[component]
                back = -there if 1 <= component < 4 else there
                to_first, to_second = around[i, component], around[j, component]
                for v in range(size):
                    to_first[first + v] += there * value[v]
                for v in range(size):
                    to_second[second + v] += back * value[v]
            count += 1
    return pairs[:count], units[:count], lengths[:count], values[:count], slopes[:count], energy


@compiled
def _pull(
    pairs: Any, units: Any, lengths: Any, values: Any, slopes: Any, kinds: Any, gradient: Any, forces: Any
) -> None:
    """Add the forces of what `_surroundings` found, given derivatives by the surroundings `(n, components, ...)`."""
    size, components = values.shape[1], gradient.shape[1]
    tensor, across = np.zeros(9, np.float32), np.zeros(9, np.float32)
    for pair in range(len(pairs)):
        i, j = pairs[pair, 0], pairs[pair, 1]
        x, y, z = units[pair, 0], units[pair, 1], units[pair, 2]
        value, slope = values[pair], slopes[pair]
        _tensors(x, y, z, tensor[:components])
        first, second, along = kinds[j] * size, kinds[i] * size, _ZERO
        for component in range(components):
            from_first, from_second = gradient[i, component], gradient[j, component]
            sign = -_ONE if 1 <= component < 4 else _ONE
            total, rise = _ZERO, _ZERO
            for v in range(size):
                both = from_first[first + v] + sign * from_second[second + v]
                total += both * value[v]
                rise += both * slope[v]
            across[component] = total
            along += tensor[component] * rise
        turn_x = across[1] + _TWO * across[4] * x + across[5] * y + across[6] * z
        turn_y = across[2] + _TWO * across[7] * y + across[5] * x + across[8] * z
        turn_z = across[3] + across[6] * x + across[8] * y
        radial = along - (turn_x * x + turn_y * y + turn_z * z) / lengths[pair]
        for axis, turn in enumerate((turn_x, turn_y, turn_z)):
            pull = radial * units[pair, axis] + turn / lengths[pair]
            forces[i, axis] -= pull
            forces[j, axis] += pull
