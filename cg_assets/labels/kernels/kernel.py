"""Kernels that perturb configurations, and force labels of what they make (arXiv 2506.19628).

A kernel κ(R'|R) adds Gaussian noise to a configuration, z = R + noise ξ, and a flow kernel carries it on to R' = f(z).
Perturbed configurations have the density p'(R') = ∫ κ(R'|R) p(R) dR, and the mean of kT ∇ log κ(R'|R) at given R' is
their exact mean force: least squares on such labels learns the potential of p', which is the PMF so far as p' is p.

Any score at z whose mean at given z is ∇ log p(z) gives a label at R'. There are three:

- `clean`: (R - z) / noise², the kernel conditioned on the configuration R;
- `noised`: 2 (c - z) / noise², conditioned on a configuration c that was noised before, with half of the variance in
  each step: that of the paper, and always noisier than `clean`;
- `atomistic`: f(R) / kT with the mapped force of the atoms, where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cg_assets.labels.kernels.flow_network import CoordinateFlow, DistanceFlow

LabelKind = Literal["clean", "noised", "atomistic", "mixed", "learned"]
FloatArray = NDArray[np.float64]

LARGEST_STEP = 10.0
"""A configuration is dropped where a bead ends up further from where it began than this many times the noise."""
STEP_ERROR = 0.005
"""Largest relative change of the labels when the steps along the flow are halved."""
_BATCH = 256
_MOST_STEPS = 64


@dataclass(frozen=True)
class Perturbed:
    """Perturbed configurations with every kind of label.

    Attributes:
        positions: `(n_frames, n_beads, dimension)` R' [nm or reduced].
        labels: kind to force labels of the same shape [kJ/mol/nm or reduced]. With a flow also `learned`: the mean that
            the flow itself predicts, free of noise but only as right as the flow.
        index: `(n_frames,)` the frame that each comes from.
        dropped: frames whose way along the flow failed.
        steps: steps along the flow; 0 without one.
    """

    positions: NDArray[np.float32]
    labels: dict[LabelKind, NDArray[np.float32]]
    index: NDArray[np.int64]
    dropped: int
    steps: int


def _noised(
    clean: Tensor, noise: float, generator: torch.Generator, forces: Tensor | None, flow: Any
) -> tuple[Tensor, Tensor]:
    """Configurations with noise `(n, n_beads, dimension)`, and their labels over kT, stacked by kind.

    The noise is the sum of two draws: what one leaves open of the other makes the label of the second kind.
    """
    import torch

    one, two = (torch.randn(clean.shape, generator=generator) for _ in range(2))
    place = clean + noise / math.sqrt(2.0) * (one + two)
    scores = [-(one + two) / (math.sqrt(2.0) * noise), -two * math.sqrt(2.0) / noise]
    if forces is not None:
        scores.append(forces)
    if flow is not None:
        scores.append(flow(0.0, place).detach() / noise**2)
    return place, torch.stack(scores)


def _few_lost(good: NDArray[np.bool_]) -> int:
    """The number of frames that are not good.

    Raises:
        TrainingError: more than one in a hundred.
    """
    lost = int((~good).sum())
    if lost > 0.01 * len(good):
        raise TrainingError(
            f"{lost} of {len(good)} frames were lost on their way along the flow; train it longer or on more frames"
        )
    return lost


def perturb(
    positions: NDArray,
    noise: float,
    thermal_energy: float,
    seed: int,
    forces: NDArray | None = None,
    flow: DistanceFlow | CoordinateFlow | None = None,
    carried: bool = True,
    progress: Progress | None = None,
) -> Perturbed:
    """Perturb each configuration once, and label it.

    Labels of beads in space carry no net force: the potential of an isolated molecule has none, so that a label's own
    is noise.

    Args:
        positions: `(n_frames, n_beads, dimension)` configurations [nm or reduced].
        noise: standard deviation of the noise on each Cartesian component [nm or reduced].
        thermal_energy: k_B T [kJ/mol or reduced].
        seed: of the noise; the same seed gives the same labels.
        forces: mapped atomistic forces of the same shape [kJ/mol/nm or reduced]; None where unknown.
        flow: velocity field, trained for this noise; None for the labels of a noise kernel without `learned`.
        carried: whether configurations are carried along the flow; False for a noise kernel.
        progress: called during the frames.

    Raises:
        TrainingError: the flow was trained for other noise, or loses more than one frame in a hundred.
    """
    import torch

    from cg_assets.labels.kernels.flow_network import carry

    if flow is not None and not math.isclose(flow.noise, noise):
        raise TrainingError(f"the flow was trained for noise {flow.noise:g} and is used with {noise:g}; train it again")
    generator = torch.Generator().manual_seed(seed)
    given: dict[LabelKind, object] = {"clean": noise, "noised": noise, "atomistic": forces, "learned": flow}
    kinds = [kind for kind, source in given.items() if source is not None]
    steps = 0 if flow is None or not carried else _steps(flow, positions, noise, seed)
    places, labels, moved = [], [], []
    for first in range(0, len(positions), _BATCH):
        part = slice(first, first + _BATCH)
        clean = torch.as_tensor(centred(positions[part])).float()
        known = None if forces is None else torch.as_tensor(forces[part] / thermal_energy).float()
        place, stacked = _noised(clean, noise, generator, known, flow)
        if flow is not None and steps:
            place, stacked = carry(flow, place, stacked, steps)
        moved.append((place - clean).abs().amax(dim=(1, 2)).numpy())
        places.append(place.numpy())
        labels.append(stacked.numpy())
        if progress is not None:
            progress(min(first + _BATCH, len(positions)), len(positions), "perturbed frames")
    found, label = np.concatenate(places), np.concatenate(labels, axis=1)
    good = np.isfinite(label).all(axis=(0, 2, 3)) & (np.concatenate(moved) < LARGEST_STEP * noise)
    dropped = _few_lost(good)
    label = label[:, good] * thermal_energy
    if positions.shape[2] == 3:
        label -= label.mean(axis=2, keepdims=True)
    by_kind = {kind: values.astype(np.float32) for kind, values in zip(kinds, label, strict=True)}
    return Perturbed(found[good].astype(np.float32), by_kind, np.flatnonzero(good), dropped, steps)


def centred(positions: NDArray) -> FloatArray:
    """Configurations of beads in space with their mean at the origin; those of other beads as they are.

    In double precision: a molecule may have drifted far.
    """
    places = np.asarray(positions, dtype=np.float64)
    return places - places.mean(axis=1, keepdims=True) if places.shape[2] == 3 else places


def _steps(flow: DistanceFlow | CoordinateFlow, positions: NDArray, noise: float, seed: int) -> int:
    """The fewest steps along the flow with which labels do not change any more (`STEP_ERROR`)."""
    import torch

    from cg_assets.labels.kernels.flow_network import carry

    generator = torch.Generator().manual_seed(seed)
    chosen = np.linspace(0, len(positions) - 1, min(64, len(positions)), dtype=np.int64)
    clean = torch.as_tensor(centred(positions[chosen])).float()
    noises = torch.randn(clean.shape, generator=generator)
    noised, scores = clean + noise * noises, -noises[None] / noise
    last, steps = carry(flow, noised, scores, 2)[1], 2
    while steps < _MOST_STEPS:
        label = carry(flow, noised, scores, 2 * steps)[1]
        if float((label - last).norm() / label.norm()) < STEP_ERROR:
            return steps
        last, steps = label, 2 * steps
    raise TrainingError(
        f"labels still change by more than {STEP_ERROR:.1%} with {_MOST_STEPS} steps along the flow; train it on more "
        "frames, or with less noise"
    )


def mixing_coefficients(base: NDArray, other: NDArray) -> FloatArray:
    """Coefficients C `(n_beads, n_beads)` of the least noisy mixture base + C (other - base) of two kinds of labels.

    The difference of two labels has no mean at given R', whatever the coefficients, so that the mixture is a label too;
    least squares of the whole is least noise (arXiv 2407.01286, there with other labels).

    Args:
        base: `(n_frames, n_beads, dimension)` labels.
        other: other labels of the same perturbed configurations.
    """
    difference = np.asarray(other, dtype=np.float64) - base
    size = base.shape[1]
    columns = difference.transpose(0, 2, 1).reshape(-1, size)
    targets = np.asarray(base, dtype=np.float64).transpose(0, 2, 1).reshape(-1, size)
    solution, *_ = np.linalg.lstsq(columns.T @ columns, -(columns.T @ targets), rcond=1e-10)
    return solution.T


def mixed(base: NDArray, other: NDArray, coefficients: FloatArray) -> NDArray[np.float32]:
    """The mixture base + C (other - base)."""
    return (base + np.einsum("ij,fjd->fid", coefficients, np.asarray(other, dtype=np.float64) - base)).astype(
        np.float32
    )
