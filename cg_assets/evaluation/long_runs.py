"""The reference of a molecule: long independent runs under frozen biases, reweighted exactly and kept as histograms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError, StorageError, library_errors
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.evaluation.reference import ReferenceCase
from cg_assets.evaluation.settings import LongRunReference
from cg_assets.storage.atomic import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

BLOCKS_PER_WALKER = 5
"""Blocks of time into which each walker is cut for statistical errors."""
_KEY = b"cg_assets.reference"


@dataclass(frozen=True)
class ReferenceDensity:
    """Equilibrium histograms of independent runs.

    Attributes:
        names: collective variables of the histogram.
        edges: bin edges of each [rad or nm].
        blocks: `(n_runs, n_blocks, *bins)` weighted histogram of each block; the blocks of a run sum to 1.
        seed: seed of the runs.
        sampled_time: simulated time of all runs, deposition and burn-in included [ps].
        kinetic_temperature: mean and standard error of each run [K].
        reference_hash: hash of the part of the specification that decides the reference.
    """

    names: list[str]
    edges: list[NDArray[np.float64]]
    blocks: NDArray[np.float64]
    seed: int
    sampled_time: float
    kinetic_temperature: list[tuple[float, float]]
    reference_hash: str

    @property
    def n_runs(self) -> int:
        """Number of independent runs."""
        return len(self.blocks)

    @property
    def centers(self) -> list[NDArray[np.float64]]:
        """Bin centres of each collective variable [rad or nm]."""
        return [0.5 * (edges[1:] + edges[:-1]) for edges in self.edges]

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of each bin in each run, `(n_runs, *bins)`; a run sums to 1."""
        return self.blocks.sum(axis=1)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error of `probability` from the scatter of the blocks, `(n_runs, *bins)`."""
        return np.stack([block_error(run) for run in self.blocks])

    def population(self, limits: Mapping[str, tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Population of a basin in each run and its standard error, both `(n_runs,)`.

        A bin that a limit cuts counts by the part of it that lies inside. Limits of a variable that is not in the
        histogram are refused.
        """
        unknown = set(limits) - set(self.names)
        if unknown:
            raise SamplingError(f"the reference has no histogram of {sorted(unknown)}; it has {self.names}")
        share = np.ones(())
        for name, edges in zip(self.names, self.edges, strict=True):
            low, high = limits.get(name, (edges[0], edges[-1]))
            inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) / np.diff(edges)
            share = np.multiply.outer(share, inside)
        axes = tuple(range(2, self.blocks.ndim))
        inside_blocks = (self.blocks * share).sum(axis=axes)
        both = np.stack([inside_blocks, self.blocks.sum(axis=axes) - inside_blocks], axis=-1)
        return inside_blocks.sum(axis=1), np.array([block_error(run)[0] for run in both])


def block_error(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of the bin probabilities of weighted blocks `(n_blocks, *bins)` by the ratio estimator."""
    n_blocks = len(blocks)
    total = blocks.sum()
    weight = blocks.reshape(n_blocks, -1).sum(axis=1).reshape(n_blocks, *[1] * (blocks.ndim - 1))
    deviation = blocks - blocks.sum(axis=0) / total * weight
    return np.sqrt(n_blocks / (n_blocks - 1.0) * (deviation**2).sum(axis=0)) / total


def reference_hash(case: ReferenceCase) -> str:
    """Hash of everything that the reference depends on: not the map, the network or the training; null is left out."""
    reference = _reference_of(case)
    variables = case.beads.collective_variables
    content: dict[str, Any] = {
        "model": case.model.model_dump(mode="json", exclude={"pdb"}, exclude_none=True),
        "temperature": case.beads.temperature,
        "collective_variables": {name: variables[name].model_dump(mode="json") for name in sorted(variables)},
        "histogram": [list(case.settings.collective_variables), case.settings.bins],
        "plan": reference.plan.model_dump(mode="json", exclude_none=True),
        "runs": reference.runs,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path in case.model.files(case.folder):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run_reference(
    case: ReferenceCase, seed: int, directory: Path, progress: Progress | None = None
) -> ReferenceDensity:
    """Run the reference plan of a molecule, or resume an interrupted run of the same plan.

    Args:
        case: of a molecule whose evaluation.reference is `long_runs`.
        seed: seed of all runs.
        directory: folder for the checkpoints, one file per run.
        progress: called after each piece of work.

    Raises:
        SamplingError: a run blew up.
    """
    reference = _reference_of(case)
    edges, of = histogram_edges(case), reference_hash(case)
    blocks, temperatures, sampled_time = [], [], 0.0
    for run in range(reference.runs):
        run_seed = int(np.random.SeedSequence([seed, run]).generate_state(1)[0]) & 0x7FFFFFFF
        sampler = case.model.sampler(case.structure, case.beads, reference.plan, run_seed)
        histogram = _Histogram(case, edges)
        path = Path(directory) / f"run_{run}.npz"
        if path.exists() and not _restore(path, sampler, histogram, of):
            path.unlink()
        total = sampler.n_chunks * reference.runs
        for piece in range(int(sampler.state()["next"]), sampler.n_chunks):
            frames = sampler.next_chunk()
            if frames is not None:
                histogram.add(frames)
            _store(path, sampler, histogram, of)
            if progress is not None:
                progress(run * sampler.n_chunks + piece + 1, total, "pieces of the reference runs")
        summary = sampler.summary()
        blocks.append(histogram.values / histogram.values.sum())
        temperatures.append((summary.kinetic_temperature.value, summary.kinetic_temperature.standard_error))
        sampled_time += summary.sampled_time
    return ReferenceDensity(
        names=list(case.settings.collective_variables),
        edges=edges,
        blocks=np.stack(blocks),
        seed=seed,
        sampled_time=sampled_time,
        kinetic_temperature=temperatures,
        reference_hash=of,
    )


def write_reference(path: Path, density: ReferenceDensity) -> None:
    """Write a reference as Parquet: run, bin centres, probability, standard error and the histogram of each block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = density.blocks.shape[2:]
    n_bins = int(np.prod(shape))
    grid = np.meshgrid(*density.centers, indexing="ij")
    columns: dict[str, pa.Array] = {"run": pa.array(np.repeat(np.arange(density.n_runs, dtype=np.int32), n_bins))}
    for name, values in zip(density.names, grid, strict=True):
        columns[f"cv_{name}"] = pa.array(np.tile(values.ravel(), density.n_runs))
    columns["probability"] = pa.array(density.probability.ravel())
    columns["standard_error"] = pa.array(density.standard_error.ravel())
    n_blocks = density.blocks.shape[1]
    rows = density.blocks.reshape(density.n_runs, n_blocks, n_bins).swapaxes(1, 2).reshape(-1)
    columns["blocks"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32)), n_blocks)
    metadata = {
        "names": density.names,
        "edges": [edges.tolist() for edges in density.edges],
        "seed": density.seed,
        "sampled_time": density.sampled_time,
        "kinetic_temperature": density.kinetic_temperature,
        "reference_hash": density.reference_hash,
    }
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(metadata).encode()})
    with atomic_file(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=12)


def read_reference(case: ReferenceCase, path: Path | None = None) -> ReferenceDensity:
    """Read the finished reference of a system.

    Args:
        case: of a molecule whose evaluation.reference is `long_runs`.
        path: the file; `evaluation.reference.file` by default.

    Raises:
        StorageError: there is no file, or it was made for another model, plan or histogram.
    """
    import pyarrow.parquet as pq

    if path is None:
        named = _reference_of(case).file
        if named is None:
            raise StorageError(f"{case.beads.name}: evaluation.reference.file is null; run the reference plan instead")
        path = case.folder / named
    if not path.is_file():
        raise StorageError(f"{path}: there is no such file; run the reference plan again, or correct its name")
    with library_errors(StorageError, f"{path}: cannot be read as a reference", "run the reference plan again"):
        return _density(pq.read_table(path), path, case)


def _density(table: pa.Table, path: Path, case: ReferenceCase) -> ReferenceDensity:
    """The density in a table; raises as `read_reference`, and whatever comes of damage."""
    if _KEY not in (table.schema.metadata or {}):
        raise StorageError(f"{path}: is a Parquet file, but not a reference; name the file that a reference run wrote")
    metadata = json.loads(table.schema.metadata[_KEY])
    if metadata["reference_hash"] != reference_hash(case):
        raise StorageError(
            f"{path}: was made for reference hash {metadata['reference_hash']}, {case.beads.name} has "
            f"{reference_hash(case)}: its model, plan or histogram changed; run the reference plan again, or set "
            "evaluation.reference.file to null"
        )
    edges = [np.array(values) for values in metadata["edges"]]
    shape = [len(values) - 1 for values in edges]
    column = table.column("blocks").combine_chunks()
    n_blocks = column.type.list_size
    flat = column.flatten().to_numpy()
    if not (np.isfinite(flat) & (flat >= 0.0)).all():
        raise StorageError(f"{path}: holds a weight that is negative or not finite; run the reference plan again")
    blocks = (
        flat.astype(np.float64).reshape(-1, int(np.prod(shape)), n_blocks).swapaxes(1, 2).reshape(-1, n_blocks, *shape)
    )
    blocks /= blocks.sum(axis=tuple(range(1, blocks.ndim)), keepdims=True)
    return ReferenceDensity(
        names=metadata["names"],
        edges=edges,
        blocks=blocks,
        seed=metadata["seed"],
        sampled_time=metadata["sampled_time"],
        kinetic_temperature=[(mean, error) for mean, error in metadata["kinetic_temperature"]],
        reference_hash=metadata["reference_hash"],
    )


class _Histogram:
    """Weighted histogram of each block of each walker; weights are exp(+V/kT), exact under a frozen bias."""

    def __init__(self, case: ReferenceCase, edges: list[NDArray[np.float64]]) -> None:
        plan = _reference_of(case).plan
        self._names = list(case.settings.collective_variables)
        self._edges = edges
        self._thermal_energy = case.beads.thermal_energy
        self._block_length = plan.duration / BLOCKS_PER_WALKER
        self._half_interval = 0.5 * plan.frame_interval
        self.values = np.zeros((plan.kept_replicas * BLOCKS_PER_WALKER, *(len(item) - 1 for item in edges)))
        self.offset = np.nan

    def add(self, frames: Frames) -> None:
        """Add frames; probe replicas are left out."""
        frames = frames.select(~frames.probe)
        bias = frames.bias_energy if frames.bias_energy is not None else np.zeros(len(frames))
        exponent = bias / self._thermal_energy
        if np.isnan(self.offset):
            self.offset = float(exponent.max())
        weights = np.exp(exponent - self.offset)
        time_block = np.minimum((frames.time - self._half_interval) // self._block_length, BLOCKS_PER_WALKER - 1)
        block = frames.replica * BLOCKS_PER_WALKER + time_block.astype(np.int64)
        sample = [
            block.astype(np.float64),
            *(frames.collective_variables[name].astype(np.float64) for name in self._names),
        ]
        block_edges = np.arange(len(self.values) + 1) - 0.5
        counts, _ = np.histogramdd(np.stack(sample, axis=1), bins=[block_edges, *self._edges], weights=weights)
        self.values += counts


def _reference_of(case: ReferenceCase) -> LongRunReference:
    reference = case.settings.reference
    if not isinstance(reference, LongRunReference):
        raise SamplingError(
            f"{case.beads.name}: evaluation.reference.type is {reference.type}; only long_runs is sampled"
        )
    return reference


def histogram_edges(case: ReferenceCase) -> list[NDArray[np.float64]]:
    """Edges of the bins of each collective variable of the evaluation [rad or nm]."""
    edges = []
    for name in case.settings.collective_variables:
        variable = case.beads.collective_variables[name]
        values = np.linspace(*variable.limits, case.settings.bins + 1)
        if variable.periodic:  # float32 angles may lie a rounding error beyond pi
            values[0], values[-1] = np.float64(np.float32(-np.pi)), np.float64(np.float32(np.pi))
        edges.append(values)
    return edges


def _store(path: Path, sampler: Any, histogram: _Histogram, of: str) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        own = {"reference_hash": np.array(of), "histogram": histogram.values, "offset": np.array(histogram.offset)}
        np.savez(stream, allow_pickle=False, **own, **sampler.state())


def _restore(path: Path, sampler: Any, histogram: _Histogram, of: str) -> bool:
    """Resume from a checkpoint; False for one of another model, plan or histogram, which is useless."""
    with np.load(path, allow_pickle=False) as archive:
        state = {name: archive[name] for name in archive.files}
    if str(state.pop("reference_hash", "")) != of:  # the sampler does not compare force fields and files
        return False
    try:
        sampler.restore(state)
    except SamplingError:
        return False
    histogram.values = state["histogram"]
    histogram.offset = float(state["offset"])
    return True
