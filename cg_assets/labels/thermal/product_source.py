"""Products of energies and forces of single frames as a source of labels of the temperature dependence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from cg_assets.core.checks import FINITE_BEADS, Check, Verdict, finite_verdict
from cg_assets.core.errors import TrainingError
from cg_assets.core.settings import Fault, Scope
from cg_assets.core.units import thermal_energy, unit
from cg_assets.labels.source import LabelInputs, Labelled, LabelSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cg_assets.core.frames import Frames
    from cg_assets.labels.thermal.product_labels import ProductLabels

MAX_Z = 4.5
"""Largest of 72 standard normal numbers that passes: right labels are above it once in 2,000 batches."""
BLOCKS = 200
"""Independent stretches at most, from whose scatter errors come."""
ENERGIES = Check(
    "energies_and_responses",
    "Labels of the temperature dependence agree with the slopes of the mean energy and of its variance along the CG "
    "coordinate (Stein's identity).",
    remedy="the energies must be those of the forces, without the bias, at the temperature of the frames; else sample "
    "more frames",
)


def _line(array: NDArray | None) -> NDArray[np.float64]:
    """Values along the one CG coordinate of each frame `(n_frames,)`."""
    return np.ravel(np.asarray(array, dtype=np.float64))


@dataclass(frozen=True)
class _Made:
    """A batch of labels with what judges it."""

    labels: ProductLabels
    bias_force: NDArray[np.float64]
    block: NDArray[np.int64]
    temperature: float
    boltzmann: float
    seed: int

    def judge(self, frames: Frames) -> list[Verdict]:
        """Verdicts on the frames as they were stored."""
        from cg_assets.labels.thermal.product_labels import energy_test

        first, second = (_line(array) for array in (frames.first_order, frames.second_order))
        place, forces = (_line(array) for array in (frames.positions, frames.forces))
        labels = replace(self.labels, first_order=first, second_order=second)
        z = energy_test(
            *(place, forces, labels, self.bias_force, self.block, self.temperature, self.boltzmann, self.seed)
        )
        largest = {f"largest_z_of_{name}": float(np.abs(values).max()) for name, values in z.items()}
        return [
            finite_verdict(FINITE_BEADS, frames),
            ENERGIES.verdict(max(largest.values()) <= MAX_Z, **largest, limit=MAX_Z),
        ]


class ProductLabelSource(LabelSource):
    """Labels of dF/dT and d²F/dT² from energies and forces of single frames, biased or not."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)
    responds: ClassVar[bool] = True

    type: Literal["product"]

    @property
    def needs_forces(self) -> bool:
        """The forces of the atoms."""
        return True

    @property
    def checks(self) -> tuple[Check, ...]:
        """Finite numbers, and energies that agree with responses."""
        return (FINITE_BEADS, ENERGIES)

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """More than one CG coordinate."""
        if len(scope.variables) != 1:
            yield Fault("type", f"is product, which is for one CG coordinate, not {len(scope.variables)}")

    def description(self, name: str, frames: str) -> str:
        """What the stage holds."""
        return (
            f"Frames of {frames} with their forces and with labels of the first and second derivative of the mean "
            "force by temperature: products of what conditional means leave of energies and forces (arXiv 2602.23198)."
        )

    def label(self, inputs: LabelInputs) -> Labelled:
        """Label the frames of one batch.

        Raises:
            TrainingError: frames lack forces or energies, are at another temperature, or are too few.
        """
        from cg_assets.biases.bead_bias import bias_forces
        from cg_assets.core.statistics.estimates import independent_blocks
        from cg_assets.labels.quality import LabelNoise, squared_force_unit
        from cg_assets.labels.thermal.product_labels import product_labels

        inputs.refuse_other_temperatures()
        frames, beads = inputs.frames, inputs.beads
        if frames.forces is None or frames.potential_energy is None:
            raise TrainingError("product labels need the forces and potential energies of the atoms; sample them again")
        place, forces = _line(frames.positions), _line(frames.forces)
        block = independent_blocks(frames.replica, frames.time, BLOCKS)
        temperature, boltzmann = beads.temperature, thermal_energy(1.0, beads.units)
        labels = product_labels(*(place, forces, frames.potential_energy, block, temperature, boltzmann, inputs.seed))
        pull = bias_forces(beads, inputs.bias, frames.positions, frames.window)[1]
        made = _Made(labels, _line(pull), block, temperature, boltzmann, inputs.seed)
        shape = frames.positions.shape
        labelled = replace(
            frames,
            first_order=labels.first_order.reshape(shape).astype(np.float32),
            second_order=labels.second_order.reshape(shape).astype(np.float32),
        )
        floors = labels.floors(block)
        kelvin, per = unit("temperature", beads.units), squared_force_unit(beads.units)
        units = {"forces": per, "first_order": f"{per}/({kelvin})²", "second_order": f"{per}/({kelvin})⁴"}
        floors = {name: replace(floor, unit=units[name]) for name, floor in floors.items()}
        rows = [{"label": name, "noise floor": str(floor)} for name, floor in floors.items()]
        noise = LabelNoise(floors["forces"], "deviation from the mean at the same CG coordinate in other frames")
        return Labelled(labelled, noise, made.judge, {"noise": rows})
