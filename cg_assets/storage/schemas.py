"""The data contract: the columns of a Parquet file of frames, their units, and the metadata of the file.

One row is one frame. Positions and forces are `FixedSizeList<float32>[n_sites * dimension]`; every field names its
`unit`, list fields also their `n_sites` and `dimension`. The metadata of the file record its origin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cg_assets.core.errors import StorageError
from cg_assets.core.frames import Frames
from cg_assets.core.units import UnitSystem, unit
from cg_assets.storage.column_descriptions import described

SCHEMA_VERSION = "1"
PREFIX = "cg_assets."
VARIABLE_PREFIX = "cv_"

# column: (Arrow type, quantity whose unit it has or None, nullable, always there)
_SCALARS: dict[str, tuple[pa.DataType, str | None, bool, bool]] = {
    "batch": (pa.string(), None, True, True),
    "replica": (pa.int32(), None, False, True),
    "window": (pa.int32(), None, True, True),
    "start": (pa.int32(), None, False, True),
    "probe": (pa.bool_(), None, False, True),
    "time": (pa.float64(), "time", False, True),
    "temperature": (pa.float64(), "temperature", False, True),
    "bias_energy": (pa.float64(), "energy", False, False),
    "potential_energy": (pa.float64(), "energy", False, False),
}
_LISTS: dict[str, str] = {
    **{"positions": "length", "forces": "force", "force_variance": "force", "first_order": "force"},
    **{"second_order": "force", "box": "length"},
}
REQUIRED = ("replica", "start", "probe", "time", "temperature", "positions")
"""Columns without which rows are no frames."""


@dataclass(frozen=True)
class FileMetadata:
    """Origin of a file; written into the file's metadata under `cg_assets.<name>`.

    Attributes:
        system: name of the system.
        stage: name of the stage (asset) that made the file.
        units: unit system of every column.
        bead_types: type of each bead, or element of each atom; None where sites have no types.
        map_hash: hash of the CG map; None before mapping.
        seed: seed of the random numbers; None where nothing is random.
        code_version: version of the code that made the data.
        upstream_data_versions: `<system>/<stage>` or `<system>/<stage>/<batch>` of each parent to its content hash.
        dagster_run_id: run that wrote the file.
        batch: name of the batch; None for a stage without batches, and in files from before it was recorded.
        variable_units: unit of each collective variable; in reduced units those missing are lengths.
        extra: further JSON-able facts, for example `bias`, `force_map`, `plan`; `bias` and `force_map` count as
            content, all others do not change the content hash.
    """

    system: str
    stage: str
    units: UnitSystem
    bead_types: list[str] | None = None
    map_hash: str | None = None
    seed: int | None = None
    code_version: str | None = None
    upstream_data_versions: dict[str, str] = field(default_factory=dict)
    dagster_run_id: str | None = None
    batch: str | None = None
    variable_units: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an unknown unit system."""
        if self.units not in get_args(UnitSystem):
            raise StorageError(f"metadata: units is {self.units!r}; allowed are {', '.join(get_args(UnitSystem))}")

    def to_key_values(self) -> dict[str, str]:
        """Keys and values as the file holds them: names as plain text, everything else as JSON."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "system": self.system,
            "stage": self.stage,
            "units": self.units,
            "bead_types": _to_json("bead_types", self.bead_types),
            "map_hash": _to_json("map_hash", self.map_hash),
            "seed": _to_json("seed", self.seed),
            "code_version": _to_json("code_version", self.code_version),
            "upstream_data_versions": _to_json("upstream_data_versions", self.upstream_data_versions),
            "dagster_run_id": _to_json("dagster_run_id", self.dagster_run_id),
            "batch": _to_json("batch", self.batch),
            "variable_units": _to_json("variable_units", self.variable_units),
        }
        for name, value in self.extra.items():
            if name in values or name in RESERVED:
                raise StorageError(f"metadata: extra has {name!r}, a name of the data contract; choose another")
            values[name] = _to_json(name, value)
        return {PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_key_values(cls, values: Mapping[str, str], source: str) -> FileMetadata:
        """Read what `to_key_values` wrote.

        Raises:
            StorageError: the keys are not there (a file of another program) or the schema version is unknown.
        """
        own = {key.removeprefix(PREFIX): value for key, value in values.items() if key.startswith(PREFIX)}
        version = own.pop("schema_version", None)
        if version is None:
            raise StorageError(
                f"{source}: is a Parquet file, but not one of cg_assets (no {PREFIX}schema_version); import foreign "
                "frames through a system's own files, or give the path of a cg_assets file"
            )
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"{source}: has schema version {version}, this cg_assets reads {SCHEMA_VERSION}; upgrade cg_assets or "
                "materialize the asset again"
            )
        try:
            plain = {name: own.pop(name) for name in ("system", "stage", "units")}
            decoded = {name: json.loads(value) for name, value in own.items() if name not in RESERVED}
            named = {name: decoded.pop(name) for name in _JSON_FIELDS} | {"batch": decoded.pop("batch", None)}
        except (KeyError, json.JSONDecodeError) as error:
            raise StorageError(f"{source}: its metadata are damaged ({error}); materialize the asset again") from error
        return cls(**plain, **named, extra=decoded)  # type: ignore[arg-type]


RESERVED = ("content_hash", "metadata_hash", "written_at", "rows")
"""Metadata names that the writer fills in."""
_JSON_FIELDS = (
    "bead_types",
    "map_hash",
    "seed",
    "code_version",
    "upstream_data_versions",
    "dagster_run_id",
    "variable_units",
)
CONTENT_KEYS = tuple(
    PREFIX + name for name in ("schema_version", "system", "stage", "units", "bead_types", "map_hash")
) + tuple(PREFIX + name for name in ("bias", "force_map"))
"""Metadata that belong to the content; a change of any other key leaves the content hash as it is."""


def _to_json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StorageError(f"metadata: {name} cannot be stored as JSON: {error}") from error


def frame_schema(frames: Frames, metadata: FileMetadata) -> pa.Schema:
    """The Arrow schema of a file that holds such frames.

    Raises:
        StorageError: the unit of a collective variable is not known.
    """
    return described(
        [
            pa.field(name, kind, nullable, metadata={"unit": unit(quantity, metadata.units)} if quantity else None)
            for name, (kind, quantity, nullable, always) in _SCALARS.items()
            if always or getattr(frames, name) is not None
        ]
        + [_list_field(name, frames, metadata.units) for name in _LISTS if getattr(frames, name) is not None]
        + [
            pa.field(VARIABLE_PREFIX + name, pa.float32(), False, metadata={"unit": _variable_unit(name, metadata)})
            for name in frames.collective_variables
        ],
        metadata.units,
    )


def _variable_unit(name: str, metadata: FileMetadata) -> str:
    if name in metadata.variable_units:
        return metadata.variable_units[name]
    if metadata.units == "reduced":
        return unit("length", "reduced")
    raise StorageError(
        f"{metadata.system}/{metadata.stage}: no unit for the collective variable {name!r}; give it in "
        "metadata.variable_units (System.variable_units)"
    )


def _list_field(name: str, frames: Frames, units: UnitSystem) -> pa.Field:
    cell = (1, 3) if frames.box is None or frames.box.ndim == 2 else (3, 3)
    shape = {"force_variance": (frames.n_sites, 1), "box": cell}.get(name, (frames.n_sites, frames.dimension))
    text, kelvin = unit(_LISTS[name], units), unit("temperature", units)
    of_unit = {"force_variance": f"({text})^2", "first_order": f"{text}/({kelvin})"}
    of_unit["second_order"] = f"{text}/({kelvin})^2"
    return pa.field(
        name,
        pa.list_(pa.field("element", pa.float32(), False), shape[0] * shape[1]),
        False,
        metadata={
            "unit": of_unit.get(name, text),
            "n_sites": str(shape[0]),
            "dimension": str(shape[1]),
        },
    )


def to_record_batch(frames: Frames, schema: pa.Schema, batch: str | None, source: str) -> pa.RecordBatch:
    """Frames as rows of the schema, positions and forces without a copy.

    Raises:
        StorageError: these frames carry other columns or another number of sites than the schema.
    """
    given = {name for name in (*_SCALARS, *_LISTS) if name != "batch" and getattr(frames, name) is not None}
    given |= {VARIABLE_PREFIX + name for name in frames.collective_variables} | {"batch", "window"}
    if given != set(schema.names):
        raise StorageError(
            f"{source}: a block of frames has the columns {sorted(given)}, the blocks before it {sorted(schema.names)}"
        )
    columns = []
    for item in schema:
        if item.name == "batch":
            columns.append(pa.repeat(pa.scalar(batch, pa.string()), len(frames)))
        elif item.name == "window" and frames.window is None:
            columns.append(pa.nulls(len(frames), pa.int32()))
        elif item.name.startswith(VARIABLE_PREFIX):
            values = frames.collective_variables[item.name.removeprefix(VARIABLE_PREFIX)]
            columns.append(pa.array(np.ascontiguousarray(values, np.float32), item.type))
        else:
            columns.append(_column(getattr(frames, item.name), item, source))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(values: NDArray, item: pa.Field, source: str) -> pa.Array:
    if not pa.types.is_fixed_size_list(item.type):
        return pa.array(np.ascontiguousarray(values, item.type.to_pandas_dtype()), item.type)
    width = item.type.list_size
    if values[:1].size != width * len(values[:1]):
        raise StorageError(
            f"{source}: {item.name} has {values[:1].size} numbers a frame, the frames before it {width} in all"
        )
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=item.type)


def list_shape(item: pa.Field) -> tuple[int, ...]:
    """Shape of one row of a list: `(n_sites, dimension)`, `(n_sites,)` for variances, `(3,)` or `(3, 3)` for a box."""
    facts = item.metadata or {}
    if b"shape" in facts:
        return tuple(int(size) for size in facts[b"shape"].split(b","))
    if b"n_sites" not in facts or b"dimension" not in facts:
        return (item.type.list_size,)
    n_sites, dimension = int(facts[b"n_sites"]), int(facts[b"dimension"])
    if item.name == "box":
        return (dimension,) if n_sites == 1 else (n_sites, dimension)
    return (n_sites,) if item.name == "force_variance" else (n_sites, dimension)


def list_to_numpy(column: pa.Array, shape: tuple[int, ...]) -> NDArray:
    """A FixedSizeList array as `(n_rows, *shape)`, without a copy (read-only)."""
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), *shape)


def frame_columns(names: list[str], columns: list[str] | None, source: str) -> list[str]:
    """The columns to read: those asked for and those that make frames.

    Raises:
        StorageError: a column is not in the file, or the file holds no frames.
    """
    if missing := [name for name in REQUIRED if name not in names]:
        raise StorageError(f"{source}: holds no frames (no column {', '.join(missing)}); read it with read_table")
    if columns is None:
        return [name for name in names if name != "batch"]
    if unknown := [name for name in columns if name not in names]:
        raise StorageError(f"{source}: has no column {', '.join(unknown)}; its columns are {', '.join(names)}")
    return [name for name in names if name in columns or name in REQUIRED]


def to_arrays(table: pa.Table | pa.RecordBatch) -> dict[str, NDArray]:
    """Columns as arrays of `(n_rows, ...)` under their column names, without `batch`; a missing window is -1.

    Lists of a table of one chunk are not copied (the arrays are read-only).
    """
    arrays = {}
    for item, column in zip(table.schema, table.columns, strict=True):
        if item.name == "batch":
            continue
        array = _one_chunk(column)
        if pa.types.is_fixed_size_list(item.type):
            arrays[item.name] = list_to_numpy(array, list_shape(item))
        else:
            if item.name == "window":
                array = array.fill_null(-1)
            arrays[item.name] = array.to_numpy(zero_copy_only=False)
    return arrays


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def to_frames(arrays: dict[str, NDArray]) -> Frames:
    """Frames of the arrays that `to_arrays` gives."""
    arrays = dict(arrays)
    if "window" in arrays and np.all(arrays["window"] == -1):
        del arrays["window"]
    variables = {name: arrays.pop(name) for name in list(arrays) if name.startswith(VARIABLE_PREFIX)}
    variables = {name.removeprefix(VARIABLE_PREFIX): values for name, values in variables.items()}
    return Frames(**arrays, collective_variables=variables)
