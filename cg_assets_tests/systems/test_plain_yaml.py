"""What could mean two things in YAML, or grow without bound, is refused in a line that names its line."""

import os

import pytest
import yaml

from cg_assets.core.errors import SystemSpecError
from cg_assets.systems.load import SHIPPED
from cg_assets.systems.plain_yaml import MOST_BYTES, read_yaml

LAUGHS = "\n".join(
    ["l0: &l0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
)


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return read_yaml(path)[0]

    return of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: a stands twice, first in line 1"),
        ("a: {b: 1, b: 1}", "line 1: b stands twice"),
        ("a: 010", "line 1: 010 is read differently"),
        ("a: -08", "line 1: -08 is read differently"),
        ("\na: 1:30", "line 2: 1:30 is read differently"),
        ("a: 1:30.5", "1:30.5 is read differently"),
        ("a: 0x1F", "0x1F is read differently"),
        ("a: 0o17", "0o17 is read differently"),
        ("a: 0b11", "0b11 is read differently"),
        ("a: 1_000", "1_000 is read differently"),
        ("a: 1_000.5", "1_000.5 is read differently"),
        *[(f"a: {word}", f"{word} is read differently") for word in ("yes", "No", "on", "OFF")],
        ("on: 1", "line 1: on is read differently"),
        ("1: 2", "1 stands where the name of a field must"),
        ("? [1]\n: 2", "where the name of a field must"),
        ("a: " + "1" * 5000, "5000 digits is too large"),
        ("a: !!float 3", "tag"),
        ("a: !own 3", "tag"),
        ("a: " + "[" * 31 + "]" * 31, "nests more than 30"),
        ("- " * 31 + "1", "nests more than 30"),
        (LAUGHS, "more than 50000 values"),
        ("a: &a [*a]", "*a names no value before it"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: [1, 2", "is not valid YAML"),
        ("a: b: c", "line 1: is not valid YAML"),
        ("<<: 5", "<< merges no section"),
        ("#" * (MOST_BYTES + 1), "at most 1000000"),
    ],
)
def test_doubtful_text_is_refused(read, tmp_path, text, words):
    with pytest.raises(SystemSpecError) as caught:
        read(text)
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "own.yaml")
    for path in (tmp_path / "own.yaml", tmp_path):
        with pytest.raises(SystemSpecError, match="is no file"):
            read_yaml(path)
    with pytest.raises(SystemSpecError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "nothing.yaml")


def test_plain_text_is_read_as_it_stands(read):
    text = "{a: 1, b: -2.5, c: 1e-3, d: 1e3, e: true, f: null, g: '010', h: \"yes\", i: .5, j: +7, k: 2:CA, l: ~, m: }"
    assert read(text) == {
        **{"a": 1, "b": -2.5, "c": 1e-3, "d": 1000.0, "e": True, "f": None, "g": "010", "h": "yes", "i": 0.5, "j": 7},
        **{"k": "2:CA", "l": None, "m": None},
    }
    assert read("a: &a {b: 1, c: 2}\nd: *a\ne: {<<: *a, b: 3}") == {
        "a": {"b": 1, "c": 2},
        "d": {"b": 1, "c": 2},
        "e": {"b": 3, "c": 2},
    }
    assert read("a: >-\n  b\n  c\n") == {"a": "b c"}
    assert read("") is None


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_are_read_as_by_pyyaml(path):
    assert read_yaml(path)[0] == yaml.safe_load(path.read_text())
