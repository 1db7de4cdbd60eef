"""How a potential W(R, T) depends on temperature: a sum of few energies of the beads with coefficients in T.

W(R, T) = sum_k s_k(T) W_k(R). One scalar function gives everything else exactly: forces -grad W at every T, the entropy
S = -dW/dT, the mean energy U = W - T dW/dT and the heat capacity C = -T d²W/dT² of the atoms at frozen beads. The W_k
are scaled to energies: at the origin T₀ the first three are W, T₀ dW/dT and T₀² d²W/dT².

- `taylor_temperature`: a Taylor series in T.
- `taylor_inverse_temperature`: a Taylor series in 1/T.
- `constant_heat_capacity`: C does not depend on T, W = W₀ + (T - T₀) W' + T₀ W'' [T ln(T/T₀) - (T - T₀)]. It is concave
  in T, as it must be, wherever W'' is not positive.
- `anchored`: cubic Hermite interpolation between anchors T_k, where the energies are W and T₀ dW/dT at each anchor
  (all W first; T₀ is the mean anchor). Beyond the outermost anchors W is linear in T.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor

FORMS = ("taylor_temperature", "taylor_inverse_temperature", "constant_heat_capacity", "anchored")
MAX_ORDER = 2


class DependenceConfig(TypedDict, total=False):
    """A form in the file of a potential."""

    form: str
    origin: float
    order: int
    anchors: list[float]


class TemperatureDependence:
    """The functions s_k(T) of a form, with their first two derivatives."""

    def __init__(self, config: DependenceConfig) -> None:
        """Read a form from its config.

        Args:
            config: `form` (`FORMS`); for the first three `origin`, the temperature T₀ [K], and `order`, 0 to 2 (0 for
                no dependence on T); for `anchored` the rising temperatures `anchors` [K].

        Raises:
            ValueError: a key is missing or out of range.
        """
        self.form = config.get("form")
        if self.form not in FORMS:
            raise ValueError(f"temperature form is {self.form!r}; it must be one of {', '.join(FORMS)}")
        if self.form == "anchored":
            self.anchors = [float(anchor) for anchor in config.get("anchors", [])]
            rising = all(low < high for low, high in zip(self.anchors[:-1], self.anchors[1:], strict=True))
            if len(self.anchors) < 2 or self.anchors[0] <= 0 or not rising:
                raise ValueError(f"anchors are {self.anchors}; give at least two rising positive temperatures")
            self.origin = sum(self.anchors) / len(self.anchors)
            self.n_terms = 2 * len(self.anchors)
            return
        self.origin = float(config.get("origin", 0.0))
        self.order = int(config.get("order", MAX_ORDER))
        if not 0.0 < self.origin < math.inf:
            raise ValueError(f"origin is {self.origin}; give a positive temperature")
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order is {self.order}; it must be 0 to {MAX_ORDER}")
        self.n_terms = self.order + 1

    def coefficients(self, temperature: Tensor) -> Tensor:
        """s_k and their first and second derivatives by T, `(3, f, n_terms)`, at temperatures `(f,)`, in float64.

        Raises:
            ValueError: a temperature is not positive.
        """
        kelvin = temperature.double()
        if not bool((kelvin > 0).all()):
            raise ValueError(f"temperature holds {float(kelvin.min())}; temperatures must be positive")
        if self.form == "anchored":
            return self._hermite(kelvin)
        return torch.stack(self._series(kelvin / self.origin)[: self.n_terms], dim=2)

    def _series(self, x: Tensor) -> list[Tensor]:
        """Value and derivatives `(3, f)` of each function of x = T/T₀."""
        zero, one, scale = torch.zeros_like(x), torch.ones_like(x), self.origin
        first, second = [x - 1, one, zero], [0.5 * (x - 1).square(), x - 1, one]
        if self.form == "taylor_inverse_temperature":
            y = 1 / x
            first = [1 - y + (y - 1).square(), y**2 - 2 * (y - 1) * y**2, 2 * y**3 * (3 * y - 3)]
            if self.order == 1:
                first = [1 - y, y**2, -2 * y**3]
            second = [0.5 * (y - 1).square(), -(y - 1) * y**2, y**4 + 2 * (y - 1) * y**3]
        elif self.form == "constant_heat_capacity":
            second = [x * x.log() - (x - 1), x.log(), 1 / x]
        rows = ([one, zero, zero], first, second)
        return [torch.stack([row[0], row[1] / scale, row[2] / scale**2]) for row in rows]

    def _hermite(self, kelvin: Tensor) -> Tensor:
        """Coefficients of the values and of T₀ times the slopes at the anchors."""
        knots, count = kelvin.new_tensor(self.anchors), len(self.anchors)
        inside = kelvin.clamp(knots[0], knots[-1])
        left = torch.searchsorted(knots, inside, right=True).clamp(1, count - 1) - 1
        width = knots[left + 1] - knots[left]
        t = (inside - knots[left]) / width
        value = [2 * t**3 - 3 * t**2 + 1, -2 * t**3 + 3 * t**2, t**3 - 2 * t**2 + t, t**3 - t**2]
        slope = [6 * t**2 - 6 * t, 6 * t - 6 * t**2, 3 * t**2 - 4 * t + 1, 3 * t**2 - 2 * t]
        curvature = [12 * t - 6, 6 - 12 * t, 6 * t - 4, 6 * t - 2]
        result = kelvin.new_zeros(3, len(kelvin), self.n_terms)
        beyond = kelvin - inside
        for number, place in enumerate((left, left + 1, count + left, count + left + 1)):
            scale = width / self.origin if number > 1 else torch.ones_like(width)
            first = scale * slope[number] / width
            second = torch.where(beyond == 0, scale * curvature[number] / width**2, torch.zeros_like(width))
            parts = torch.stack([scale * value[number] + beyond * first, first, second])
            result.scatter_add_(2, place.expand(3, -1)[..., None], parts[..., None])
        return result
