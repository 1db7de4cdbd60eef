"""References of potentials: exact quadrature, or independent long runs whose disagreement is their error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.biases.reweighting import weights_of
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate, time_blocks
from cg_assets.core.statistics.metrics import basin_free_energy, basin_population, jsd, pmf_error
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.evaluation.quantity import Quantity
from cg_assets.mapping.beads import Beads

if TYPE_CHECKING:
    from cg_assets.evaluation.settings import FreeEnergySettings, LongRunReference
    from cg_assets.sampling.model import Model
    from cg_assets.sampling.model_potential.landscape import Landscape


@dataclass(frozen=True)
class ReferenceCase:
    """What a reference is computed from.

    Attributes:
        beads: of the system.
        settings: of the evaluation.
        model: what is simulated.
        structure: what `model` built.
        folder: of the system's file, against which relative paths are read.
        native: `(n_beads, 3)` beads of the native structure [nm]; None without one.
    """

    beads: Beads
    settings: FreeEnergySettings
    model: Model
    structure: Any
    folder: Path = Path()
    native: NDArray[np.float64] | None = None

    def landscape(self) -> Landscape:
        """The potential energy of a model potential; errors as in `Model.landscape`."""
        return self.model.landscape(self.beads)


@dataclass(frozen=True)
class Reference:
    """The reference free energy of a system's potentials.

    Attributes:
        names: its collective variables.
        runs: one surface for each independent run; one for an exact reference.
        exact: whether it has no statistical error.
        source: how it was made.
        populations: basin to its population.
        free_energies: basin to -kT ln(P / (1 - P)).
        pmf: `(n_bins,)` exact PMF at the centres of the bins [energy]; None where it is not exact.
        rungs: the reference at each temperature of a ladder, its own among them; none where there is one temperature.
        quantities: further numbers at each of these temperatures: folded shares, energies, their slopes. Their
            `reference` is what the frames of that temperature alone give.
    """

    names: tuple[str, ...]
    runs: tuple[FreeEnergySurface, ...]
    exact: bool
    source: str
    populations: dict[str, Estimate]
    free_energies: dict[str, Estimate]
    pmf: NDArray[np.float64] | None = None
    rungs: Mapping[float, Reference] = field(default_factory=dict)
    quantities: tuple[Quantity, ...] = ()

    def at(self, temperature: float) -> Reference:
        """The reference at one temperature of a ladder [K], with the numbers at it.

        Raises:
            ValueError: it holds none.
        """
        if temperature not in self.rungs:
            known = ", ".join(f"{kelvin:g}" for kelvin in self.rungs)
            raise ValueError(f"the reference has no frames at {temperature:g} K, only at {known}; make it again")
        numbers = tuple(item for item in self.quantities if item.temperature == temperature)
        return replace(self.rungs[temperature], quantities=numbers)

    def number(self, name: str, where: str = "") -> Estimate | None:
        """One of its further numbers; None where it has none of that name."""
        return next((item.value for item in self.quantities if (item.name, item.where) == (name, where)), None)

    @property
    def bins(self) -> Bins:
        """The bins of all its runs."""
        return self.runs[0].bins

    @property
    def surface(self) -> FreeEnergySurface:
        """All runs together."""
        return FreeEnergySurface.pool(self.runs)

    def disagreement(self) -> dict[str, Estimate]:
        """Jensen-Shannon divergence and PMF error between the runs; empty for an exact reference."""
        if self.exact:
            return {}
        pairs = list(pairwise(self.runs))
        return {
            "jsd": _largest([jsd(first, second) for first, second in pairs]),
            "pmf_error": _largest([pmf_error(first, second) for first, second in pairs]),
        }

    def columns(self) -> dict[str, NDArray]:
        """The reference as columns of a table: a row for each run and bin, and each temperature of a ladder."""
        if self.rungs:
            parts = {kelvin: rung.columns() for kelvin, rung in self.rungs.items()}
            columns = {name: np.concatenate([part[name] for part in parts.values()]) for name in self._columns()}
            return {"temperature": np.repeat([*parts], [len(part["run"]) for part in parts.values()])} | columns
        return self._columns()

    def _columns(self) -> dict[str, NDArray]:
        size, n_runs = self.bins.size, len(self.runs)
        grid = np.meshgrid(*self.bins.centres, indexing="ij")
        columns: dict[str, NDArray] = {"run": np.repeat(np.arange(n_runs, dtype=np.int32), size)}
        columns |= {
            f"cv_{name}": np.tile(values.ravel(), n_runs) for name, values in zip(self.names, grid, strict=True)
        }
        columns["probability"] = np.concatenate([run.probability.ravel() for run in self.runs])
        errors = [np.zeros(size) if self.exact else run.probability_error.ravel() for run in self.runs]
        columns["standard_error"] = np.concatenate(errors)
        blocks = [run.blocks.reshape(len(run.blocks), size).T for run in self.runs]
        columns["blocks"] = np.concatenate(blocks)
        if self.pmf is not None:
            columns["pmf"] = self.pmf
        return columns

    def metadata(self) -> dict[str, object]:
        """What is needed, besides a table of `columns`, to read it back."""
        rungs = {f"{kelvin:g}": rung.metadata() for kelvin, rung in self.rungs.items()}
        ladder = {"rungs": rungs, "quantities": [item.to_json() for item in self.quantities]} if rungs else {}
        return {
            **ladder,
            "names": list(self.names),
            "edges": [edges.tolist() for edges in self.bins.edges],
            "exact": self.exact,
            "source": self.source,
            "populations": {name: estimate.to_json() for name, estimate in self.populations.items()},
            "free_energies": {name: estimate.to_json() for name, estimate in self.free_energies.items()},
        }

    @classmethod
    def read(cls, beads: Beads, arrays: Mapping[str, NDArray], metadata: Mapping[str, Any]) -> Reference:
        """The reference that `columns` and `metadata` described."""
        if "rungs" in metadata:
            rungs = {}
            for kelvin in np.unique(arrays["temperature"]):
                part = {name: values[arrays["temperature"] == kelvin] for name, values in arrays.items()}
                rungs[float(kelvin)] = cls.read(
                    beads.at_temperature(float(kelvin)), part, metadata["rungs"][f"{kelvin:g}"]
                )
            numbers = tuple(Quantity.from_json(item) for item in metadata["quantities"])
            return replace(rungs[beads.temperature], source=metadata["source"], rungs=rungs, quantities=numbers)
        bins = Bins(tuple(np.array(edges) for edges in metadata["edges"]))
        runs = []
        for run in np.unique(arrays["run"]):
            blocks = arrays["blocks"][arrays["run"] == run].astype(np.float64)
            runs.append(_surface(beads, bins, blocks.T.reshape(-1, *bins.shape)))
        return cls(
            names=tuple(metadata["names"]),
            runs=tuple(runs),
            exact=metadata["exact"],
            source=metadata["source"],
            populations={name: Estimate.from_json(item) for name, item in metadata["populations"].items()},
            free_energies={name: Estimate.from_json(item) for name, item in metadata["free_energies"].items()},
            pmf=arrays.get("pmf"),
        )

    def rows(self) -> list[dict[str, str]]:
        """Its results as rows of a table."""
        if self.quantities:
            return [
                {
                    "temperature [K]": f"{item.temperature:g}",
                    "quantity": item.label,
                    "all temperatures": str(item.value),
                    "this one alone": "" if item.reference is None else str(item.reference),
                }
                for item in self.quantities
            ]
        rows = [{"quantity": f"population {name}", "result": str(value)} for name, value in self.populations.items()]
        rows += [
            {"quantity": f"free energy {name}", "result": str(value)} for name, value in self.free_energies.items()
        ]
        rows += [{"quantity": f"{name} between runs", "result": str(v)} for name, v in self.disagreement().items()]
        return rows


def _surface(beads: Beads, bins: Bins, blocks: NDArray[np.float64]) -> FreeEnergySurface:
    return FreeEnergySurface(bins, blocks, beads.thermal_energy, beads.energy_unit)


def _exact(beads: Beads, share: float) -> tuple[Estimate, Estimate]:
    """Population and free energy of a basin whose population is exact."""
    energy = float(-beads.thermal_energy * np.log(share / (1.0 - share)))
    return Estimate(share, 0.0), Estimate(energy, 0.0, beads.energy_unit)


def exact_line(case: ReferenceCase, interval: tuple[float, float]) -> Reference:
    """The exact PMF along the one CG coordinate of a model potential."""
    from cg_assets.sampling.model_potential.quadrature import exact_pmf

    (name,) = case.beads.variable_names
    bins = Bins.between([interval], case.settings.bins)
    landscape = case.landscape()
    result = exact_pmf(landscape, bins.centres[0])
    populations, free_energies = {}, {}
    for basin, region in case.settings.basins.items():
        grid = np.linspace(*_wide_limits(landscape, region.limits[name]), 2001)
        share = exact_pmf(landscape, grid).population(grid[0], grid[-1])
        populations[basin], free_energies[basin] = _exact(case.beads, share)
    probability = result.density * np.diff(bins.edges[0])
    return Reference(
        names=(name,),
        runs=(_surface(case.beads, bins, probability[None]),),
        exact=True,
        source="numerical quadrature of the Boltzmann weight",
        populations=populations,
        free_energies=free_energies,
        pmf=result.pmf,
    )


def exact_surface(case: ReferenceCase, limits: dict[str, tuple[float, float]]) -> Reference:
    """The exact density of the two CG coordinates of a model potential."""
    from cg_assets.sampling.model_potential.planes import exact_plane

    bins = Bins.between([limits[name] for name in case.beads.variable_names], case.settings.bins)
    plane = exact_plane(case.landscape(), bins)
    populations, free_energies = {}, {}
    for name, basin in case.settings.basins.items():
        populations[name], free_energies[name] = _exact(case.beads, plane.population(basin.limits))
    return Reference(
        names=plane.names,
        runs=(_surface(case.beads, plane.bins, plane.binned[None]),),
        exact=True,
        source="numerical quadrature of the Boltzmann weight",
        populations=populations,
        free_energies=free_energies,
    )


def _wide_limits(landscape: Landscape, limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of a basin, cut where the domain of the model potential ends."""
    lowest, highest = landscape.coordinate_range()
    return max(limits[0], lowest), min(limits[1], highest)


def of_long_runs(
    case: ReferenceCase, reference: LongRunReference, seed: int, directory: Path, progress: Progress | None
) -> Reference:
    """Independent long runs, read from their file where one is named."""
    from cg_assets.evaluation.long_runs import read_reference, run_reference

    if reference.file is not None:
        density = read_reference(case)
        made = f"read from {reference.file.name}"
    else:
        directory.mkdir(parents=True, exist_ok=True)
        density = run_reference(case, seed, directory, progress)
        made = "run here"
    bins = Bins(tuple(density.edges))
    populations, free_energies = {}, {}
    for name, basin in case.settings.basins.items():
        values, errors = density.population(basin.limits)
        populations[name] = _over_runs(values, errors)
        with np.errstate(divide="ignore", invalid="ignore"):
            energies = -case.beads.thermal_energy * np.log(values / (1.0 - values))
            energy_errors = case.beads.thermal_energy * errors / (values * (1.0 - values))
        free_energies[name] = _over_runs(energies, energy_errors, case.beads.energy_unit)
    return Reference(
        names=tuple(density.names),
        runs=tuple(_surface(case.beads, bins, blocks) for blocks in density.blocks),
        exact=False,
        source=f"{density.n_runs} independent runs under frozen biases, {density.sampled_time / 1000:.0f} ns, {made}",
        populations=populations,
        free_energies=free_energies,
    )


def halves(data: Frames) -> list[Frames]:
    """The first and the second half of the replicas, or of their time: of one, or of those in umbrella windows."""
    second = second_half(data)
    return [data.select(~second), data.select(second)]


def second_half(data: Frames) -> NDArray[np.bool_]:
    """Which frames `(n_frames,)` are in the second of the `halves`."""
    replicas, member = np.unique(data.replica, return_inverse=True)
    alike = len(replicas) > 1 and data.window is None
    return 2 * member >= len(replicas) if alike else time_blocks(data.replica, data.time, 2) == 1


def of_data(case: ReferenceCase, data: Frames) -> Reference:
    """Halves of the data as runs."""
    from cg_assets.evaluation.long_runs import histogram_edges

    names, bins = tuple(case.settings.collective_variables), Bins(tuple(histogram_edges(case)))
    parts, energy_unit, thermal_energy = halves(data), case.beads.energy_unit, case.beads.thermal_energy
    runs = []
    for half in parts:
        values = np.stack([half.collective_variables[name].astype(np.float64) for name in names], axis=1)
        runs.append(
            free_energy_surface(
                values,
                bins,
                thermal_energy,
                half.replica,
                half.time,
                weights=weights_of(half, thermal_energy),
                unit=energy_unit,
            )
        )
    populations, free_energies = {}, {}
    for name, basin in case.settings.basins.items():
        shares, energies = [], []
        for half in parts:
            arguments = (half.collective_variables, basin.limits, half.replica, half.time)
            weights = weights_of(half, thermal_energy)
            shares.append(basin_population(*arguments, weights=weights))
            energies.append(basin_free_energy(*arguments, weights=weights, thermal_energy=thermal_energy))
        populations[name] = _over_runs(*_values_and_errors(shares))
        with np.errstate(invalid="ignore"):  # a half without a frame in the basin
            free_energies[name] = _over_runs(*_values_and_errors(energies), energy_unit)
    return Reference(
        names=names,
        runs=tuple(runs),
        exact=False,
        source=f"two halves of the data, {len(data):,} frames",
        populations=populations,
        free_energies=free_energies,
    )


def _values_and_errors(estimates: list[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([item.value for item in estimates]), np.array([item.standard_error for item in estimates])


def _over_runs(values: NDArray[np.float64], errors: NDArray[np.float64], of: str = "") -> Estimate:
    """Mean over runs; its error is the larger of the runs' own errors and of their disagreement."""
    n_runs = len(values)
    inner = float(np.sqrt((errors**2).sum()) / n_runs)
    outer = float(values.std(ddof=1) / np.sqrt(n_runs))
    return Estimate(float(values.mean()), max(inner, outer), of)


def _largest(estimates: list[Estimate]) -> Estimate:
    return max(estimates, key=lambda estimate: estimate.value)
