"""Kernels: from CG frames to perturbed frames with force labels and their quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.bead_bias import bias_forces
from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.settings import Training
from cg_assets.core.statistics.clusters import binned_means
from cg_assets.core.statistics.estimates import Estimate, independent_blocks
from cg_assets.core.statistics.local_geometry import LocalGeometry, local_geometry
from cg_assets.core.statistics.stein import SteinTest, stein_test
from cg_assets.labels.kernels.kernel import LabelKind, mixed, mixing_coefficients, perturb
from cg_assets.labels.kernels.sources import STEIN_FIELDS, Kernel
from cg_assets.labels.quality import LabelNoise, squared_force_unit
from cg_assets.mapping.beads import Beads
from cg_assets.training.data import correlated_groups

if TYPE_CHECKING:
    from cg_assets.labels.kernels.flow_network import CoordinateFlow, DistanceFlow, FlowConfig

_DENOISER_STEPS = 1500


@dataclass(frozen=True)
class KernelReport:
    """Quality of a batch of perturbed frames.

    Attributes:
        chosen: the kind of label that the frames carry.
        noise_floor: mean squared deviation of a component of each kind of label from the mean that the velocity field
            predicts at z [force unit squared]: an upper bound, as tight as the field is right.
        mean_square: mean square of a component of each kind of label [force unit squared].
        stein: Stein's identity of each kind of label.
        geometry: local distributions against those of the unperturbed frames.
        steps: steps along the flow; 0 for a noise kernel.
        dropped: frames that were lost on their way.
        coefficients: `(n_beads, n_beads)` share of the atomistic label in a mixed one; None for others.
    """

    chosen: LabelKind
    noise_floor: dict[LabelKind, Estimate]
    mean_square: dict[LabelKind, float]
    stein: dict[LabelKind, SteinTest]
    geometry: LocalGeometry
    steps: int
    dropped: int
    coefficients: NDArray[np.float64] | None

    def noise(self) -> LabelNoise:
        """The noise of the label in use."""
        return LabelNoise(self.noise_floor[self.chosen], "deviation from the mean that a velocity field predicts")

    def rows(self) -> list[dict[str, str]]:
        """Noise and Stein's identity of each kind of label, as rows of a table."""
        least = self.noise_floor[self.chosen].value
        return [
            {
                "label": kind + (" (used)" if kind == self.chosen else ""),
                "noise floor": str(floor),
                "to the one used": f"{floor.value / least:.3f}",
                "mean square": f"{self.mean_square[kind]:.6g} {floor.unit}",
                f"Stein's identity, largest |z| of {STEIN_FIELDS}": f"{self.stein[kind].largest:.2f}",
            }
            for kind, floor in self.noise_floor.items()
        ]


def flow_config(beads: Beads, noise: float, hidden: int, temperature: NDArray[np.float64]) -> FlowConfig:
    """The config from which `build_flow` makes a velocity field for these beads, with facts for its users.

    Args:
        beads: the beads.
        noise: of the kernel.
        hidden: units of the field.
        temperature: `(n_frames,)` of the frames that it will learn from [K or reduced].
    """
    cg_map = beads.cg_map
    known = np.unique(temperature).tolist()
    config: FlowConfig = {
        "type": "distances" if beads.collective_variables else "coordinates",
        "n_beads": len(cg_map.bead_names),
        "noise": noise,
        "hidden": hidden,
        "thermal_energy": beads.thermal_energy,
        "temperature": beads.temperature,
        "units": beads.units,
        "system": beads.name,
        "bead_names": list(cg_map.bead_names),
        "bonds": [list(bond) for bond in cg_map.bonds],
    }
    if len(known) > 1:
        config["temperatures"] = known
    return config


def denoiser(beads: Beads, kernel: Kernel, frames: Frames, seed: int) -> DistanceFlow | CoordinateFlow:
    """A small velocity field for the frames of a noise kernel: it carries nothing, but gives the mean label."""
    from cg_assets.labels.kernels.flow_training import train_flow

    epochs = max(1, round(_DENOISER_STEPS * 512 / len(frames)))
    settings = Training(epochs=epochs, batch_size=512, learning_rate=0.01)
    config = flow_config(beads, kernel.noise, 64, frames.temperature)
    groups = correlated_groups([frames])
    return train_flow(config, settings, frames.positions, groups, seed, temperature=frames.temperature).module


_OF_THE_KERNEL = {"clean", "noised"}
"""Labels whose noise is that of the kernel alone, and so independent in each frame."""


def _noise_floor(deviation: NDArray, block: NDArray[np.int64], beads: Beads) -> Estimate:
    """Mean square of deviations `(n_frames, n_beads, dimension)` [force unit²], with its error between blocks."""
    noise = (deviation**2).mean(axis=(1, 2))
    mean = binned_means(noise[:, None], np.zeros(len(noise), dtype=np.int64), 1, block)
    return Estimate(float(mean.mean[0, 0]), float(np.sqrt(mean.variance[0, 0])), squared_force_unit(beads.units))


def _labelled(
    beads: Beads, frames: Frames, positions: NDArray, labels: NDArray, bias: Mapping[str, Any] | None
) -> Frames:
    """Frames moved to new positions with these labels, less the force of the bias there."""
    energy, pull = bias_forces(beads, bias, positions)
    return replace(
        frames,
        positions=positions,
        forces=(labels - pull).astype(np.float32),
        bias_energy=None if frames.bias_energy is None else energy,
        potential_energy=None,
        collective_variables={name: item.astype(np.float32) for name, item in beads.variables(positions).items()},
    )


def _stein(
    kind: str, label: NDArray, positions: NDArray, thermal_energy: float, seed: int, block: NDArray[np.int64]
) -> SteinTest:
    cluster = None if kind in _OF_THE_KERNEL else block
    return stein_test(positions, label, thermal_energy, seed, STEIN_FIELDS, cluster=cluster)


def stein_of_frames(
    beads: Beads, frames: Frames, kind: str, bias: Mapping[str, Any] | None, seed: int
) -> dict[float, SteinTest]:
    """Stein's identity of labelled frames at each temperature that they give, whatever their labels were made with.

    Args:
        beads: the beads.
        frames: labelled frames, from which the force of the bias has been taken out.
        kind: of the labels.
        bias: definition of the bias that is in the density of the frames; None for none.
        seed: of the fields.
    """
    found = {}
    for kelvin, own in frames.by_temperature().items():
        at = beads.at_temperature(kelvin)
        label = np.asarray(own.forces, dtype=np.float64) + bias_forces(beads, bias, own.positions)[1]
        block = independent_blocks(own.replica, own.time)
        found[kelvin] = _stein(kind, label, own.positions, at.thermal_energy, seed, block)
    return found


def kernel_frames(
    beads: Beads,
    kernel: Kernel,
    frames: Frames,
    flow: Any,
    seed: int,
    bias: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[Frames, KernelReport]:
    """Perturb each frame `draws` times, and label it; all frames are at the temperature of the beads.

    Frames under a bias have the density of the biased ensemble, and so have the labels. The bias is a function of the
    beads and smooth on the scale of the noise: its force is taken out of the labels at R'.

    Args:
        beads: what the frames are of.
        kernel: the kernel.
        frames: CG frames of one batch; forces are needed for `mixed` and `atomistic` labels only.
        flow: velocity field of the flow kernel, or `denoiser` of the noise kernel.
        seed: of the noise.
        bias: definition of the frozen bias that the frames were sampled under; None for none.
        progress: called during the frames.

    Raises:
        TrainingError: the labels need forces that the frames do not have, or too many frames are lost.
    """
    if kernel.needs_forces and frames.forces is None:
        raise TrainingError(
            f"labels are {kernel.labels}, but the frames carry no forces; set labels of this kernel to clean"
        )
    frames = frames.select(np.repeat(np.arange(len(frames)), kernel.draws))
    pull = bias_forces(beads, bias, frames.positions)[1]
    perturbed = perturb(
        *(frames.positions, kernel.noise, beads.thermal_energy, seed),
        forces=None if frames.forces is None else frames.forces + pull,
        flow=flow,
        carried=kernel.restores,
        progress=progress,
    )
    labels, coefficients = dict(perturbed.labels), None
    learned = labels.pop("learned").astype(np.float64)
    if "atomistic" in labels:
        coefficients = mixing_coefficients(labels["clean"], labels["atomistic"])
        labels["mixed"] = mixed(labels["clean"], labels["atomistic"], coefficients)
    kept = frames.select(perturbed.index)
    block = independent_blocks(kept.replica, kept.time)
    tested = perturbed.positions, beads.thermal_energy, seed, block
    chosen = labels[kernel.labels]
    report = KernelReport(
        chosen=kernel.labels,
        noise_floor={kind: _noise_floor(label - learned, block, beads) for kind, label in labels.items()},
        mean_square={kind: float((label.astype(np.float64) ** 2).mean()) for kind, label in labels.items()},
        stein={kind: _stein(kind, label, *tested) for kind, label in labels.items()},
        geometry=local_geometry(perturbed.positions, kept.positions, beads.cg_map.bonds, beads.cg_map.bead_names),
        steps=perturbed.steps,
        dropped=perturbed.dropped,
        coefficients=coefficients if kernel.labels == "mixed" else None,
    )
    return _labelled(beads, kept, perturbed.positions, chosen, bias), report
