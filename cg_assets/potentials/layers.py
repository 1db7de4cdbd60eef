"""Pieces that potentials share, with hand-written derivatives: activation, walls, torsions, volumes; torch alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its derivative."""
    gate = torch.sigmoid(x)
    value = x * gate
    return value, gate * (1.0 + x - value)


def normal(generator: torch.Generator, *shape: int, gain: float = 1.0) -> torch.nn.Parameter:
    """Weights `(..., outputs, inputs)` that keep the variance times `gain` squared."""
    return torch.nn.Parameter(torch.randn(*shape, generator=generator) * (gain / math.sqrt(shape[-1])))


def wall(excess: Tensor, stiffness: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic energy [k_B T] of a positive excess and its derivative with respect to the excess."""
    excess = excess.clamp_min(0.0)
    slope = stiffness * excess
    return 0.5 * slope * excess, slope


def volumes(rows: Tensor, fours: Tensor) -> tuple[Tensor, Tensor]:
    """Signed volumes `(v, f)` of sets of four beads `(v, 4)`, and gradients `(v, 4, 3, f)`, from rows `(n, 3, f)`."""
    corner, a, b, c = (rows[fours[:, place]] for place in range(4))
    a, b, c = a - corner, b - corner, c - corner
    by_a, by_b, by_c = (torch.linalg.cross(*pair, dim=1) for pair in ((b, c), (c, a), (a, b)))
    return (a * by_a).sum(dim=1), torch.stack([-by_a - by_b - by_c, by_a, by_b, by_c], dim=1)


def torsion_angles(rows: Tensor, fours: Tensor) -> tuple[Tensor, Tensor]:
    """Torsions `(k, f)` of sets of four beads `(k, 4)` and gradients `(k, 4, 3, f)`, from rows `(n, 3, f)`.

    Formulas and sign of Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    one, two, three, four = (rows[fours[:, place]] for place in range(4))
    before, axis, after = one - two, two - three, four - three
    left, right = torch.linalg.cross(before, axis, dim=1), torch.linalg.cross(after, axis, dim=1)
    length = axis.square().sum(dim=1, keepdim=True).sqrt()
    sine = (torch.linalg.cross(right, left, dim=1) * axis).sum(dim=1) / length[:, 0]
    angle = torch.atan2(sine, (left * right).sum(dim=1))
    left = left / left.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    right = right / right.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    lean = (before * axis).sum(dim=1, keepdim=True) / length * left
    lean = lean - (after * axis).sum(dim=1, keepdim=True) / length * right
    return angle, torch.stack([-length * left, length * left + lean, -length * right - lean, length * right], dim=1)
