"""Free energies that several metrics are measured on; `Case.once` makes each of them once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.noise import IntegratedPMF, integrate_mean_force
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.core.units import unit
from cg_assets.evaluation.case import Case, given
from cg_assets.evaluation.quantity import Drawing, Profile
from cg_assets.evaluation.reference import Reference
from cg_assets.evaluation.settings import FreeEnergySettings
from cg_assets.evaluation.torque_surface import TorqueSurface, has_torque_surface, torque_surface

if TYPE_CHECKING:
    from cg_assets.sampling.model_potential.planes import Plane

FloatArray = NDArray[np.float64]
FreeEnergyCase = Case[FreeEnergySettings]


@dataclass(frozen=True)
class Line:
    """The PMF of a potential along its one coordinate, with the exact one and that of the labels.

    Attributes:
        grid: `(n,)` values of the coordinate.
        model: `(n,)` of the potential [kT].
        exact: `(n,)` [kT].
        labels: integrated from the binned labels [energy].
        interval: ends of the interval that errors are measured on.
        thermal_energy: kT [energy].
    """

    grid: FloatArray
    model: FloatArray
    exact: FloatArray
    labels: IntegratedPMF
    interval: tuple[float, float]
    thermal_energy: float

    @property
    def covered(self) -> bool:
        """Whether the labels cover the interval, so that their error can be propagated."""
        grid = self.labels.grid
        return bool(grid[0] <= self.interval[0] and grid[-1] >= self.interval[1])

    @property
    def sampled(self) -> tuple[float, float]:
        """The part of the interval whose bins hold labels."""
        grid = self.labels.grid
        return max(float(grid[0]), self.interval[0]), min(float(grid[-1]), self.interval[1])

    @property
    def on_labels(self) -> FloatArray:
        """The potential's PMF on the grid of the labels [kT]."""
        return np.interp(self.labels.grid, self.grid, self.model)

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the labels' PMF [(kT)²]."""
        return self.labels.covariance / self.thermal_energy**2

    @property
    def label_error(self) -> FloatArray:
        """Standard error [kT] that the labels leave on `grid`, of the PMF less its mean on the interval."""
        nodes = self.labels.grid
        inside = (nodes >= self.interval[0]) & (nodes <= self.interval[1])
        centred = np.eye(len(nodes)) - inside / inside.sum()
        variance = np.einsum("ij,jk,ik->i", centred, self.covariance, centred)
        return np.interp(self.grid, nodes, np.sqrt(np.maximum(variance, 0.0)))


@dataclass(frozen=True)
class LineDrawing(Drawing):
    """PMFs along one coordinate, and where the training data lie.

    Attributes:
        pmf: of the potential and the exact one [energy].
        labels: that of the binned labels.
        interval: that errors are measured on.
        samples: `(n_frames,)` coordinate of the training frames.
    """

    pmf: Profile
    labels: IntegratedPMF
    interval: tuple[float, float]
    samples: NDArray


@dataclass(frozen=True)
class SurfacesDrawing(Drawing):
    """Free energies over one or two variables.

    Attributes:
        surfaces: label to surface; the first is the reference, the last that of the model.
        variables: names of the variables.
        variable_units: their units.
        maps: title of the figure of maps; empty for none.
        marginals: title of the figure of each variable by itself; empty for none.
    """

    surfaces: Mapping[str, FreeEnergySurface]
    variables: tuple[str, ...]
    variable_units: tuple[str, ...]
    maps: str = ""
    marginals: str = ""


def reference_of(case: FreeEnergyCase) -> Reference:
    """The reference free energy."""
    return given(case.reference, "a reference")


def line_of(case: FreeEnergyCase) -> Line:
    """The PMF along the one coordinate of a model potential."""
    from cg_assets.labels.quality import bin_model_labels

    reference, thermal_energy = reference_of(case), case.beads.thermal_energy
    edges, grid = reference.bins.edges[0], reference.bins.centres[0]
    return Line(
        grid=grid,
        model=case.energy(grid[:, None, None]) / thermal_energy,
        exact=np.asarray(reference.pmf) / thermal_energy,
        labels=integrate_mean_force(bin_model_labels(case.beads, case.data)),
        interval=(float(edges[0]), float(edges[-1])),
        thermal_energy=thermal_energy,
    )


def scatter(values: Sequence[float]) -> float:
    """Standard deviation of a number over the members of a committee; nan of fewer than two.

    Members learn from bootstrap samples of the data, so that it is the standard error that the data leave.
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def deviation_of(members: Sequence[FloatArray]) -> FloatArray:
    """Standard deviation of the PMFs `(n,)` of a committee, each less its mean; empty of fewer than two."""
    if len(members) < 2:
        return np.empty(0)
    return (np.array(members) - np.mean(members, axis=1, keepdims=True)).std(axis=0, ddof=1)


def exact_plane(case: FreeEnergyCase) -> Plane:
    """The exact density of a model potential with two CG coordinates."""
    return given(case.plane, "the exact density of two CG coordinates")()


def model_plane(case: FreeEnergyCase) -> Plane:
    """The density of the potential on the same points."""
    return case.once(exact_plane).with_energy(case.energy)


def member_planes(case: FreeEnergyCase) -> list[Plane]:
    """The densities of the members of the committee on the same points."""
    exact = case.once(exact_plane)
    return [exact.with_energy(member) for member in case.committee]


def sampled(case: FreeEnergyCase) -> tuple[Frames, FloatArray | None]:
    """Frames of the CG simulation that free energies are taken from, and their weights."""
    frames = case.free if reference_of(case).exact else case.sampled
    return frames, case.weights(frames)


def surface_of(case: FreeEnergyCase) -> FreeEnergySurface:
    """Free energy of the CG simulation."""
    return weighted_surface(case, *case.once(sampled))


def data_surface(case: FreeEnergyCase) -> FreeEnergySurface:
    """Free energy of the training frames, without their bias."""
    return weighted_surface(case, case.data, case.weights(case.data))


def weighted_surface(case: FreeEnergyCase, frames: Frames, weights: FloatArray | None) -> FreeEnergySurface:
    """Free energy of weighted frames in the bins of the reference."""
    reference = reference_of(case)
    columns = [frames.collective_variables[name].astype(np.float64) for name in reference.names]
    return free_energy_surface(
        np.stack(columns, axis=1),
        reference.bins,
        case.beads.thermal_energy,
        frames.replica,
        frames.time,
        weights=weights,
        unit=case.beads.energy_unit,
    )


def labels_surface(case: FreeEnergyCase) -> TorqueSurface | None:
    """The free energy of the torsions from the labels alone; None where it cannot be had."""
    names = case.settings.collective_variables
    if case.data.forces is None or not has_torque_surface(case.beads, names):
        return None
    return torque_surface(case.beads, names, [case.data], reference_of(case).bins)


def committee_weights(case: FreeEnergyCase) -> list[FloatArray]:
    """Weights that make frames of the CG simulation those of each member of the committee.

    All share the frames, whose own statistical error does not enter.
    """
    frames, before = case.once(sampled)
    positions, thermal_energy = frames.positions.astype(np.float64), case.beads.thermal_energy
    own = case.energy(positions)
    weights = []
    for member in case.committee:
        reduced = (member(positions) - own) / thermal_energy
        weights.append(np.exp(reduced.min() - reduced) * (1.0 if before is None else before))
    return weights


def variables_of(frames: Frames) -> dict[str, FloatArray]:
    """Collective variables of frames in double precision."""
    return {name: values.astype(np.float64) for name, values in frames.collective_variables.items()}


def marginals(case: FreeEnergyCase) -> list[Profile]:
    """Free energy of the CG simulation and of the reference along each variable, all others summed over."""
    found, known = case.once(surface_of), reference_of(case)
    profiles = []
    for axis, name in enumerate(known.names):
        mine, theirs = (
            surface if len(known.names) == 1 else surface.marginal(axis) for surface in (found, known.surface)
        )
        profiles.append(
            Profile(
                name="free_energy",
                grid=mine.bins.centres[0],
                values=mine.free_energy,
                unit=case.beads.energy_unit,
                where=name,
                coordinate_unit=variable_unit(case, name),
                standard_error=mine.standard_error,
                reference=theirs.free_energy,
                reference_error=theirs.standard_error,
            )
        )
    return profiles


def variable_unit(case: FreeEnergyCase, name: str) -> str:
    """Unit of a collective variable."""
    return unit(case.beads.variable_quantities[name], case.beads.units)


def standard_deviation(value: float, count: int, of: str) -> Estimate:
    """A standard deviation of `count` normal numbers with its standard error."""
    return Estimate(value, value / math.sqrt(2 * (count - 1)), of)
