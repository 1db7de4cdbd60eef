"""The catalogue: `<home>/catalog.duckdb`, one view for each dataset and a table of lineage, all made from the files.

The Parquet files are the truth; the catalogue can be thrown away and built again. DuckDB lets one process at a time
write to a database and shuts readers out meanwhile, so a writer changes a copy and moves it to its name: readers never
wait and never see half a change. Views name the home folder without symbolic links, as DuckDB names its databases;
when the folder was moved they are rebuilt. The view of a dataset reads whatever batches are there: rebuilding it for
each would take longer with every batch.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cg_assets.core.errors import StorageError
from cg_assets.storage.atomic import atomic_file, file_lock, is_temporary
from cg_assets.storage.parquet import DATA_FILE, OLDER_FOLDER, describe
from cg_assets.storage.store import ParquetStore

if TYPE_CHECKING:
    import duckdb

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 60.0
_BUSY_SECONDS = 2.0
_TABLES = """
CREATE TABLE lineage (
    file VARCHAR PRIMARY KEY, system VARCHAR, stage VARCHAR, batch VARCHAR, content_hash VARCHAR,
    upstream STRUCT(data VARCHAR, file VARCHAR, content_hash VARCHAR)[],
    run_id VARCHAR, code_version VARCHAR, seed BIGINT, rows BIGINT, bytes BIGINT, written_at TIMESTAMPTZ
);
CREATE TABLE catalogue (home VARCHAR);
"""


def catalogue_path(home: Path) -> Path:
    """The catalogue of a home folder."""
    return Path(home).resolve() / "catalog.duckdb"


def record(home: Path, files: Path | Iterable[Path]) -> None:
    """Enter files that were written (or removed) into the catalogue; safe from several processes at once.

    Args:
        home: the home folder.
        files: data files under `<home>/data`.

    Raises:
        StorageError: a file is damaged or lies elsewhere, or the catalogue stayed locked for a minute.
    """
    store = ParquetStore(home)
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(path) for path in files]
    with file_lock(store.home / ".catalog.lock", _LOCK_SECONDS, "the catalogue"):
        if _home_of(store) != str(store.home.resolve()):
            _build(store)
            return
        with _changed(store) as connection:
            datasets = set()
            for path in paths:
                relative, system, stage, _ = _place(store, path)
                connection.execute("DELETE FROM lineage WHERE file = ?", [relative])
                if path.is_file():
                    _insert(connection, store, path)
                datasets.add((system, stage))
            for system, stage in sorted(datasets):
                _make_view(connection, store, system, stage)


def fetched(home: Path) -> ParquetStore:
    """The store of a home folder, with all that an object store has and this folder lacks, entered into the catalogue.

    A file that differs there, and of which neither is the newer one, is named in a warning and left as it is.

    Raises:
        StorageError: the object store cannot be reached; or as `record`.
    """
    store = ParquetStore(home)
    paths, faults = store.fetch()
    for fault in faults:
        _log.warning("%s", fault)
    if unknown := {*paths, *_not_entered(store)}:
        record(home, sorted(unknown))
    return store


def _not_entered(store: ParquetStore) -> list[Path]:
    """Files that are complete but not in the catalogue, as after a kill between the two: by name and size."""
    if _home_of(store) != str(store.home.resolve()):
        return []
    with _connect(catalogue_path(store.home), read_only=True) as connection:
        entered = dict(connection.execute("SELECT file, bytes FROM lineage").fetchall())
    found = []
    for path in data_files(store):
        if entered.get(str(path.relative_to(store.home))) != path.stat().st_size:
            with suppress(StorageError):  # a damaged file cannot be entered
                found.append(describe(path).path)
    return found


def rebuild(home: Path) -> list[str]:
    """Rebuild the catalogue from the files alone.

    Returns:
        What is wrong with files that could not be entered, one message each.

    Raises:
        StorageError: the catalogue stayed locked for a minute, or the folder cannot be written to.
    """
    store = ParquetStore(home)
    with file_lock(store.home / ".catalog.lock", _LOCK_SECONDS, "the catalogue"):
        return _build(store)


def differences(home: Path) -> list[str]:
    """Where the catalogue and the files disagree, one message each; nothing if there is no catalogue.

    In a home folder that was moved, the files are compared with what was in the old place.

    Raises:
        StorageError: the catalogue cannot be read.
    """
    store = ParquetStore(home)
    path = catalogue_path(store.home)
    if not path.is_file():
        return []
    if _home_of(store) is None:
        return [f"{path.name} is damaged"]
    entered = _entered(store)
    there = {}
    for file in data_files(store):
        with suppress(StorageError):  # a damaged file cannot be entered
            there[_name(store, file)] = describe(file).content_hash
    gone = [f"{file} is in the catalogue, but missing" for file in sorted(entered.keys() - there.keys())]
    missing = [f"{file} is not in the catalogue" for file in sorted(there.keys() - entered.keys())]
    other = sorted(file for file in entered.keys() & there.keys() if entered[file] != there[file])
    return gone + missing + [f"{file} is in the catalogue as another version" for file in other]


def _entered(store: ParquetStore) -> dict[str, str]:
    """File of each entry to its content hash."""
    with _connect(catalogue_path(store.home), read_only=True) as connection:
        return dict(connection.execute("SELECT file, content_hash FROM lineage").fetchall())


def _name(store: ParquetStore, file: Path) -> str:
    return str(file.relative_to(store.home))


def data_files(store: ParquetStore) -> Iterator[Path]:
    """All data files at their places, without pieces of unfinished batches and temporary files."""
    return (path for path in _finished(store) if _is_placed(store, path))


def misplaced(store: ParquetStore) -> list[Path]:
    """Files with the name of data files that lie elsewhere, as in a copy of a system's folder; nothing reads them."""
    return [path for path in _finished(store) if not _is_placed(store, path)]


def _finished(store: ParquetStore) -> Iterator[Path]:
    for path in sorted(store.data.glob("*/*/**/part-0.parquet")):
        if not any(part.startswith(".") for part in path.relative_to(store.data).parts) and not is_temporary(path):
            yield path


def _is_placed(store: ParquetStore, path: Path) -> bool:
    try:
        _place(store, path)
    except StorageError:
        return False
    return True


def query(home: Path, sql: str) -> pa.Table:
    """Answer one SQL query from the views and the lineage, without changing anything.

    DuckDB can read the files under `<home>/data` meanwhile and no others, and none of its settings can be changed.

    Args:
        home: the home folder; its catalogue is made when missing or when the folder was moved.
        sql: one SELECT (or DESCRIBE, SUMMARIZE, SHOW, EXPLAIN) statement, for example
            `SELECT count(*) FROM muller_brown.trajectories`.

    Raises:
        StorageError: the statement is wrong, would write something, or asks for other files.
    """
    import duckdb

    store = ParquetStore(home)
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise StorageError(f"query: {error}") from error
    kinds = [statement.type.name for statement in statements]
    if kinds not in (["SELECT"], ["EXPLAIN"]):
        raise StorageError(f"query: got {', '.join(kinds) or 'nothing'}; {_ANSWERED}")
    there = {_name(store, file) for file in data_files(store)}
    if _home_of(store) != str(store.home.resolve()) or _entered(store).keys() != there:
        for problem in rebuild(store.home):
            _log.warning("left out of every answer: %s", problem)
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            _connect(catalogue_path(store.home), read_only=True) as connection,
        ):
            _confine(connection, store, scratch)
            _require_reading(connection, sql)
            return connection.sql(sql).to_arrow_table()
    except duckdb.PermissionException as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(f"query: {reason}; only files under {store.data} can be read") from error
    except duckdb.Error as error:
        raise StorageError(f"query: {error}") from error


_ANSWERED = "one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN is answered"
_READING = {"SELECT", "SET_OPERATION", "RECURSIVE_CTE", "CTE"}
"""Kinds of nodes in DuckDB's tree of a statement that only reads; others, as COPY, can stand inside a SELECT."""


def _confine(connection: duckdb.DuckDBPyConnection, store: ParquetStore, scratch: str) -> None:
    """Let a connection read a home's data files alone, for good; `scratch` takes what the memory cannot hold."""
    places = (store.data, store.home.resolve() / store.data.name)
    folders = [f"{name}/" for place in places for name in (place, _pattern(place))]
    settings = {"temp_directory": scratch, "allow_community_extensions": False, "allowed_directories": folders}
    for name, value in (settings | {"enable_external_access": False, "lock_configuration": True}).items():
        connection.execute(f"SET {name} = ?", [value])


def _require_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse a statement that writes somewhere inside.

    Raises:
        StorageError: it does, or it is an EXPLAIN with options.
    """
    explained = re.sub(r"^\s*explain\s+(analyze\s+)?", "", sql, flags=re.IGNORECASE)
    [(tree,)] = connection.execute("SELECT json_serialize_sql(?)", [explained]).fetchall()
    # A quotation mark inside a text of the statement has a backslash before it.
    kinds = set(re.findall(r'"type":\s*"(\w+)_NODE"', tree))
    if not kinds or kinds - _READING:
        what = ", ".join(sorted(kinds - _READING)).replace("_QUERY", "") or "something else"
        raise StorageError(f"query: got {what}; {_ANSWERED}")


def _connect(path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    import duckdb

    options: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config=options)
        except duckdb.IOException as error:  # another program has opened this very file for writing
            if "lock" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def _home_of(store: ParquetStore) -> str | None:
    """The home folder that the catalogue was made for; None where there is no usable one."""
    import duckdb

    path = catalogue_path(store.home)
    if not path.is_file():
        return None
    try:
        with _connect(path, read_only=True) as connection:
            row = connection.execute("SELECT home FROM catalogue").fetchone()
    except duckdb.Error as error:
        _log.warning("%s cannot be read (%s); it is rebuilt from the files", path, error)
        return None
    return row[0] if row else None


@contextmanager
def _changed(store: ParquetStore, empty: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    target = catalogue_path(store.home)
    for leftover in store.home.glob(f".{target.name}.*"):
        if is_temporary(leftover):  # of a killed writer, for this process holds the catalogue's lock
            leftover.unlink()
    with atomic_file(target) as temporary:
        if empty:
            temporary.unlink()  # DuckDB makes its own file
        else:
            shutil.copyfile(target, temporary)
        try:
            with _connect(temporary, read_only=False) as connection:
                yield connection
        except duckdb.Error as error:
            raise StorageError(
                f"{target}: could not be changed ({error}); remove it, it is rebuilt from the files"
            ) from error


def _build(store: ParquetStore) -> list[str]:
    problems = []
    with _changed(store, empty=True) as connection:
        connection.execute(_TABLES)
        connection.execute("INSERT INTO catalogue VALUES (?)", [str(store.home.resolve())])
        damaged: dict[tuple[str, str], bool] = {}
        for path in data_files(store):
            dataset = (path.relative_to(store.data).parts[0], path.relative_to(store.data).parts[1])
            try:
                _insert(connection, store, path)
                damaged.setdefault(dataset, False)
            except StorageError as error:
                problems.append(str(error))
                _log.warning("left out of the catalogue: %s", error)
                damaged[dataset] = True
        for (system, stage), listed in sorted(damaged.items()):
            _make_view(connection, store, system, stage, listed)
    return problems


def _place(store: ParquetStore, path: Path) -> tuple[str, str, str, str | None]:
    """Path relative to the home folder, system, stage and batch of a data file."""
    place = store.place(path)
    if path.name != DATA_FILE or path.absolute() != store.path(*place):
        raise StorageError(f"{path}: is not the path of a data file (<system>/<stage>/[<batch>/]part-0.parquet)")
    return _name(store, path.absolute()), *place


def _insert(connection: duckdb.DuckDBPyConnection, store: ParquetStore, path: Path) -> None:
    relative, system, stage, batch = _place(store, path)
    info = describe(path)
    upstream = [
        {"data": key, "file": store.relative_file(key), "content_hash": version}
        for key, version in sorted(info.metadata.upstream_data_versions.items())
    ]
    connection.execute(
        "INSERT INTO lineage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            relative,
            system,
            stage,
            batch,
            info.content_hash,
            upstream,
            info.metadata.dagster_run_id,
            info.metadata.code_version,
            info.metadata.seed,
            info.rows,
            info.bytes,
            info.written_at,
        ],
    )


def _make_view(
    connection: duckdb.DuckDBPyConnection, store: ParquetStore, system: str, stage: str, listed: bool = False
) -> None:
    """The view of a dataset, unless it is there and reads what it should, according to its comment.

    Args:
        connection: to the catalogue.
        store: where the files are.
        system: the system.
        stage: the stage.
        listed: read only the files that are entered by now, for others are damaged.
    """
    entered = "FROM lineage WHERE system = ? AND stage = ? ORDER BY 1"
    view, dataset = f'"{system}"."{stage}"', [system, stage]
    batched = connection.execute(f"SELECT DISTINCT batch IS NOT NULL {entered}", dataset).fetchall()
    if not batched:
        connection.execute(f"DROP VIEW IF EXISTS {view}")
        return
    row = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE schema_name = ? AND view_name = ?", dataset
    ).fetchone()
    there, home = row[0] if row and row[0] else "", store.home.resolve()
    if listed or (there and "*/" not in there):
        files = connection.execute(f"SELECT file {entered}", dataset).fetchall()
        paths = [_pattern(home / file) for (file,) in files]
    else:
        folder = _pattern(home / _name(store, store.stage_folder(system, stage)))
        paths = [f"{folder}/[!.]*/part-0.parquet" if several else f"{folder}/part-0.parquet" for (several,) in batched]
    reads = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    if there == reads:
        return
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{system}"')
    options = "union_by_name = true, hive_partitioning = false, filename = true"
    connection.execute(
        f"CREATE OR REPLACE VIEW {view} AS SELECT {_BY_PATH if batched == [(True,)] else _AS_STORED} "
        f"FROM read_parquet([{reads}], {options}) WHERE {_only_from(catalogue_path(store.home))}"
    )
    connection.execute(f"COMMENT ON VIEW {view} IS '{reads.replace(chr(39), chr(39) * 2)}'")


_BY_PATH = (
    f"replace(split_part(filename, '/', -2), '{OLDER_FOLDER}', '') AS batch, "
    "COLUMNS(lambda name: name NOT IN ('batch', 'filename'))"
)
"""The batch stands in each file and in its path: by that, questions about some batches leave the others closed."""
_AS_STORED = "* EXCLUDE (filename)"


def _only_from(path: Path) -> str:
    """A condition that fails in a copy of a catalogue, whose views would read the files of the original."""
    there = str(path).replace("'", "''")
    remedy = f"this catalogue was made for {there}; cg-assets query, or cg-assets doctor --repair, rebuilds it here"
    found = f"bool_or(path = '{there}')"
    return f"(SELECT CASE WHEN {found} THEN true ELSE error('{remedy}') END FROM duckdb_databases())"


def _pattern(path: Path) -> str:
    """A path as DuckDB's pattern that means this path alone."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))
