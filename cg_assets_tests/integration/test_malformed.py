"""Malformed specs, files and arguments: each gives a clear error or is right; no traceback, nothing changed on disk."""

from __future__ import annotations

import contextlib
import copy
import io

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import Malformed, malformed, undamaged
from small_systems import GLYCINE, SMALL_WELLS

from cg_assets.cli import main
from cg_assets.core.errors import CgAssetsError
from cg_assets.storage.parquet import describe, read_arrays, verify
from cg_assets.systems.load import SHIPPED

FEW, MANY = 60, 200
"""Inputs of each kind in the fast and in the slow test."""
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["", "../x", "/", "~", "{x}", "x**x**x", "1/0", "exp(" * 60, "__import__('os')", "x" * 5000, "ä\x00"]
    ),
    st.lists(st.integers(-2, 2), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
NAMES = st.one_of(
    st.text(max_size=30), st.sampled_from(["small_wells", "muller_brown", "-", "--", "a/b", "..", "x@y@z"])
)
COMMANDS = st.sampled_from(["check", "run", "refresh", "results", "lookup", "lineage", "query", "box", "reference"])


def paths_of(content, at=()):
    """The place of every value in nested dicts and lists."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from paths_of(value, (*at, key))


def changed(content, path, value, how):
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if how == "replace":
        inner[path[-1]] = value
    elif how == "remove":
        del inner[path[-1]]
    elif isinstance(inner, dict):
        inner[str(value)[:20]] = value
    return content


SYSTEMS = [yaml.safe_load(SMALL_WELLS), yaml.safe_load(GLYCINE)]


@st.composite
def specs(draw):
    """A system's file with one to three values replaced, removed or added."""
    content = draw(st.sampled_from(SYSTEMS))
    name = content["name"]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_of(content)) or [("name",)]))
        content = changed(content, path, draw(VALUES), draw(st.sampled_from(["replace", "replace", "remove", "add"])))
    return name, yaml.safe_dump(content, allow_unicode=True).encode()


TEXTS = st.one_of(
    specs(),
    st.tuples(st.just("small_wells"), st.binary(max_size=200)),
    st.builds(
        lambda where, put: ("small_wells", SMALL_WELLS[:where].encode() + put + SMALL_WELLS[where:].encode()),
        st.integers(0, len(SMALL_WELLS)),
        st.binary(min_size=1, max_size=6),
    ),
)


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def refused_or_right(home, *arguments):
    """Call the command in this process; anything but a clear error or a right answer comes out of here."""
    before = snapshot(home)
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(list(arguments))
        except SystemExit as stopped:  # argparse's own refusal
            status = stopped.code
            assert status in (0, 2), arguments
    assert snapshot(home) == before, f"{arguments} changed something on disk"
    if status == 1:
        assert errors.getvalue().startswith("cg-assets: "), (arguments, errors.getvalue())
        assert len(errors.getvalue()) > 20
    assert "Traceback" not in errors.getvalue()
    return status


def check_specs(home, examples):
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(TEXTS)
    def inner(named):
        name, content = named
        path = home / "systems" / f"{name}.yaml"
        path.write_bytes(content)
        try:
            refused_or_right(home, "check", name)
        finally:
            path.unlink()

    inner()


def check_arguments(home, examples):
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        COMMANDS, st.lists(NAMES, max_size=3), st.sampled_from([[], ["--batch"], ["--select"], ["--json"], ["--port"]])
    )
    def inner(command, arguments, option):
        if command in ("run", "refresh") and arguments and arguments[0] in ("small_wells", "muller_brown"):
            arguments = ["nothing", *arguments[1:]]  # right arguments would run for minutes
        refused_or_right(home, command, *arguments, *option)

    inner()


def check_files(path, examples):
    content = path.read_bytes()
    whole = verify(path)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, len(content) - 1), st.sampled_from(["flip", "cut", "fill", "insert"]), st.integers(1, 255))
    def inner(where, how, value):
        damaged = bytearray(content)
        if how == "flip":
            damaged[where] ^= value
        elif how == "cut":
            del damaged[where:]
        elif how == "fill":
            damaged[where : where + 64] = bytes([value]) * len(damaged[where : where + 64])
        else:
            damaged.insert(where, value)
        path.write_bytes(damaged)
        for read in (describe, read_arrays, verify):
            try:
                found = read(path)
            except CgAssetsError as error:
                assert str(path) in str(error)
            else:
                assert read is not verify or found == whole, "damage was not noticed"

    try:
        inner()
    finally:
        path.write_bytes(content)


@pytest.fixture
def quiet(home):
    """A home folder in which there is nothing but systems; Dagster's and MLflow's imports are behind us."""
    (home / "systems" / "own_glycine.pdb").write_text("")
    return home


def test_malformed_specs(quiet):
    check_specs(quiet, FEW)


def test_malformed_arguments(quiet):
    check_arguments(quiet, FEW)


def test_malformed_files(finished, tmp_path):
    path = tmp_path / "part-0.parquet"
    path.write_bytes((finished.home / "data" / "small_wells" / "reference" / "part-0.parquet").read_bytes())
    check_files(path, FEW)


INTERNALS = ("Traceback", "pydantic", "Input should", "valid dictionary", "Extra inputs", "Field required", "type=")
SEED = 1


def refused_in_one_line(folder, number, system):
    """Check a malformed system's file: one line that begins with the cause, without the words of any library."""
    place = folder / str(number)
    place.mkdir()
    for name, content in {f"{system.name}.yaml": system.text, **system.others}.items():
        (place / name).write_bytes(content)
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(["--home", str(folder / "home"), "check", str(place / f"{system.name}.yaml")])
    lines = errors.getvalue().splitlines()
    assert (status, output.getvalue(), len(lines)) == (1, "", 1), (system.kind, lines)
    assert lines[0].startswith("cg-assets: ")
    assert len(lines[0]) < 1500
    assert not [word for word in INTERNALS if word in lines[0]], lines


def test_a_malformed_system_gives_one_line(tmp_path):
    for number, system in enumerate(malformed(SEED, parts=6)):
        refused_in_one_line(tmp_path, number, system)


@pytest.mark.parametrize("text", [b"\x9d", b"", b"[]", b'{"names": []}', b'{"reference_hash": '])
def test_a_damaged_reference_is_refused_in_one_line(tmp_path, text):
    """No checksum guards the metadata of a Parquet file."""
    table = pq.read_table(SHIPPED / "capped_alanine_implicit_reference.parquet")
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"cg_assets.reference": text}), buffer)
    name = "capped_alanine_implicit"
    others = {f"{name}_reference.parquet": buffer.getvalue()}
    refused_in_one_line(tmp_path, 0, Malformed("reference", name, (SHIPPED / f"{name}.yaml").read_bytes(), others))


@pytest.mark.slow
def test_three_hundred_malformed_systems_give_three_hundred_lines(tmp_path):
    systems = malformed(SEED)
    assert len(systems) == 300
    for number, system in enumerate(systems):
        refused_in_one_line(tmp_path, number, system)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_the_command_refuses_malformed_systems_in_one_line(command, verb):
    for system in malformed(SEED, parts=140):
        path = command.home / "systems" / f"own_{system.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(system.text.replace(f"name: {system.name}".encode(), f"name: own_{system.name}".encode()))
        for name, content in system.others.items():
            (path.parent / name).write_bytes(content)
        done = command(verb, path.stem)
        path.unlink()
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), (system.kind, done.stderr)
        assert not (command.home / "data").exists()


def test_the_systems_that_are_damaged_are_sound(tmp_path):
    for number, system in enumerate(undamaged()):
        (tmp_path / str(number)).mkdir()
        for name, content in {f"{system.name}.yaml": system.text, **system.others}.items():
            (tmp_path / str(number) / name).write_bytes(content)
        path = tmp_path / str(number) / f"{system.name}.yaml"
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["--home", str(tmp_path / "home"), "check", str(path)]) == 0


@pytest.mark.slow
def test_two_hundred_malformed_inputs_of_each_kind(quiet, finished, tmp_path):
    check_specs(quiet, MANY)
    check_arguments(quiet, MANY)
    path = tmp_path / "part-0.parquet"
    path.write_bytes((finished.home / "data" / "small_wells" / "trajectories" / "0000" / "part-0.parquet").read_bytes())
    check_files(path, MANY)
