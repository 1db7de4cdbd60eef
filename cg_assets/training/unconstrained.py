"""Labels from ordinary dynamics, whose beads move: one sample of the atoms for each frame of the beads.

The force f and the energy u of a frame at temperature T are a draw from p(r | R; T), so that their means at given beads
are F and <u>_R: noisy labels, but at as many different configurations as there are frames, drawn from the ensemble that
the potential has to reproduce. With a potential that gives F and <u>_R nearly right, the product

    y = (u - U(R)) (f - F(R)) / (k T²)

is a label of F_1 = dF/dT (arXiv 2602.23198): its mean errs only by the product of both errors of the potential.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.base import Labels
from cg_assets.potentials.thermal.dependent import TemperatureDependent
from cg_assets.training.thermal_targets import ThermalTargets

FloatArray = NDArray[np.float64]


def unconstrained_targets(
    frames: Frames, number: int, temperature: FloatArray, force_variance: FloatArray, heat_capacity: FloatArray
) -> ThermalTargets:
    """Forces and energies of evenly chosen frames as labels with the noise of single samples.

    Args:
        frames: ordinary dynamics at some temperatures, as beads.
        number: frames to take at most.
        temperature: `(n_rows,)` temperatures at which the noise is known [K].
        force_variance: `(n_rows,)` variance of a component of f at fixed beads [(kJ/mol/nm)²].
        heat_capacity: `(n_rows,)` C_W = Var(u|R)/(kT²) [kJ/mol/K].

    Returns:
        The labels. Those of F_1, F_2 and C_W are not known: their errors are infinite.

    Raises:
        TrainingError: the frames lack forces, energies or the box.
    """
    if frames.forces is None or frames.potential_energy is None or frames.box is None:
        raise TrainingError("frames of ordinary dynamics need forces, energies and a box; sample the reference again")
    order = np.lexsort((frames.time, frames.replica))
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int))]
    kelvin = frames.temperature[rows].astype(np.float64)
    known = np.unique(temperature)
    noise, capacity = (
        np.interp(kelvin, known, [values[temperature == one].mean() for one in known])
        for values in (force_variance, heat_capacity)
    )
    shape, nothing = (len(rows), frames.n_sites, 3), np.zeros(len(rows))
    vectors = np.zeros(shape)
    return ThermalTargets(
        positions=frames.positions[rows].astype(np.float64),
        box=frames.box[rows].astype(np.float64),
        temperature=kelvin,
        frame=np.arange(len(rows)),
        origin_temperature=kelvin,
        forces=frames.forces[rows].astype(np.float64),
        forces_error=np.broadcast_to(np.sqrt(noise)[:, None, None], shape).copy(),
        first_order=vectors,
        first_order_error=np.full(shape, np.inf),
        second_order=vectors,
        second_order_error=np.full(shape, np.inf),
        mean_energy=frames.potential_energy[rows].astype(np.float64),
        mean_energy_error=np.sqrt(capacity * BOLTZMANN) * kelvin,
        heat_capacity=nothing,
        heat_capacity_error=np.full(len(rows), np.inf),
    )


def largest_noise(frames: Frames) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bounds of the noise of forces and energies of ordinary dynamics: all of their scatter.

    Args:
        frames: with forces and energies, at some temperatures.

    Returns:
        Temperatures `(n,)` [K], mean square of a force component [(kJ/mol/nm)²] and Var(u)/(kT²) [kJ/mol/K] at each.

    Raises:
        TrainingError: the frames lack forces or energies.
    """
    if frames.forces is None or frames.potential_energy is None:
        raise TrainingError("frames of ordinary dynamics need forces and energies; sample them again")
    known = np.unique(frames.temperature).astype(np.float64)
    rows = [frames.temperature == kelvin for kelvin in known]
    squares = np.array([np.mean(frames.forces[here].astype(np.float64) ** 2) for here in rows])
    spread = np.array([frames.potential_energy[here].astype(np.float64).var() for here in rows])
    return known, squares, spread / (BOLTZMANN * known**2)


def without_errors(targets: ThermalTargets) -> ThermalTargets:
    """The same labels with errors of 0 where they are known, so that deviations from them include their noise."""
    errors = {name: values for name, values in targets.columns().items() if name.endswith("_error")}
    return replace(targets, **{name: np.where(np.isfinite(values), 0.0, np.inf) for name, values in errors.items()})


def with_product_labels(targets: ThermalTargets, forces: FloatArray, mean_energy: FloatArray) -> ThermalTargets:
    """The same labels, those of F_1 from the product of what a potential leaves over.

    Args:
        targets: of `unconstrained_targets`.
        forces: F of a potential that has not learnt from these frames, `(n_rows, n_beads, 3)` [kJ/mol/nm].
        mean_energy: its <u>_R `(n_rows,)` [kJ/mol].

    Returns:
        The labels; the error of F_1 is the root mean square of all labels at a temperature, which are nearly all noise.
    """
    kelvin = targets.temperature
    factor = (targets.mean_energy - mean_energy) / (BOLTZMANN * kelvin**2)
    labels = factor[:, None, None] * (targets.forces - forces)
    error = np.empty_like(labels)
    for one in np.unique(kelvin):
        here = kelvin == one
        error[here] = np.sqrt(np.mean(labels[here] ** 2))
    return replace(targets, first_order=labels, first_order_error=error)


def force_products(potential: TemperatureDependent, labels: Labels) -> NDArray[np.float32]:
    """Labels of dF/dT `(f, n, 3)` of frames that a potential W(R, T) has not learnt from [kJ/mol/nm/K].

    Args:
        potential: gives F and <u>_R.
        labels: forces and energies of single frames, at their temperatures.
    """
    if labels.temperature is None:
        raise TrainingError("products of forces and energies need the temperature of each frame")
    about = labels.positions, labels.temperature, labels.box
    energy = labels.values["mean_energy"] - potential.mean_energies(*about)
    with torch.no_grad():
        forces = potential.energy_and_forces(labels.positions, labels.temperature, labels.box)[1]
    factor = energy / (BOLTZMANN * labels.temperature**2)
    return (factor[:, None, None] * (labels.forces - forces)).numpy().astype(np.float32)


def product_targets(batches: Sequence[Frames]) -> ThermalTargets:
    """Frames with labels of the temperature dependence, or of forces alone, as rows of targets.

    Args:
        batches: labelled frames; those of probe replicas are left out.

    Returns:
        The labels; each has the root mean square of all labels of its quantity as its error, which is nearly all noise.
        Those that frames lack have infinite errors, and so have energies: they only fix the constants of a potential.

    Raises:
        TrainingError: frames have no forces or no energies.
    """
    frames = Frames.concatenate([part.select(~part.probe) for part in batches])
    if frames.forces is None or frames.potential_energy is None:
        raise TrainingError("frames for a potential W(s, T) need forces and energies; label them again")
    kelvin, nothing = frames.temperature.astype(np.float64), np.zeros(len(frames))
    columns: dict[str, FloatArray] = {}
    for name in ("forces", "first_order", "second_order"):
        found = getattr(frames, name)
        values = np.zeros(frames.forces.shape) if found is None else found.astype(np.float64)
        error = math.inf if found is None else np.sqrt(np.mean(values**2))
        columns |= {name: values, f"{name}_error": np.full(values.shape, error)}
    unknown = np.full(len(frames), np.inf)
    box = np.full((len(frames), 3), np.inf) if frames.box is None else frames.box.astype(np.float64)
    return ThermalTargets(
        positions=frames.positions.astype(np.float64),
        box=box,
        temperature=kelvin,
        frame=np.arange(len(frames)),
        origin_temperature=kelvin,
        mean_energy=frames.potential_energy.astype(np.float64),
        mean_energy_error=unknown,
        heat_capacity=nothing,
        heat_capacity_error=unknown,
        **columns,
    )
