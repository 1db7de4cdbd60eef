"""Atoms named by chain and number of the PDB file."""

import pytest
import yaml

from cg_assets.core.errors import SystemSpecError
from cg_assets.systems import load_system

LINE = "ATOM  {:5d}  CA  {} {}{:>5s}   {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C"
RESIDUES = [
    ("A", "38 "),
    ("A", "39 "),
    ("A", "52 "),
    ("A", "52A"),
    ("A", "53 "),
    ("B", "-1 "),
    ("B", "0 "),
    ("B", "1 "),
]


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Two chains of alpha carbons, with a gap, an insertion code, and numbers below zero."""
    from test_imported import MINE

    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "systems"
    folder.mkdir()

    def load(atoms, beads="alpha_carbons", residues=RESIDUES):
        lines = [
            LINE.format(k + 1, "ALA", chain, number, 3.8 * k, 6.0 * (chain == "B"), 0.0)
            for k, (chain, number) in enumerate(residues)
        ]
        (folder / "alanine.pdb").write_text("\n".join([*lines, "END", ""]))
        variables = {"end": {"type": "distance", "atoms": atoms, "range": [0.0, 3.0]}}
        content = yaml.safe_load(MINE) | {"collective_variables": variables}
        content["mapping"]["beads"] = beads
        content["evaluation"] |= {"collective_variables": ["end"], "basins": {}}
        (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
        return load_system("my_alanine")

    return load


def test_chain_and_number_are_those_of_the_file_and_a_plain_number_the_place(system):
    for atoms, plain in (
        (["A/38:CA", "A/52A:CA"], ("1:CA", "4:CA")),
        (["5:CA", "B/-1:CA"], ("5:CA", "6:CA")),
        (["B/1:CA", "A/52:CA"], ("8:CA", "3:CA")),
    ):
        assert system(atoms).collective_variables["end"].atoms == plain
    assert system(["A/38:CA", "B/0:CA"])._hashed_content() == system(["1:CA", "7:CA"])._hashed_content()


def test_beads_are_named_so_too(system):
    beads = {"first": ["A/38:CA"], "middle": ["A/39:CA", "A/52:CA"], "last": ["B/1:CA"]}
    found = system(["A/38:CA", "B/1:CA"], beads)
    assert found.mapping.beads == {"first": ["1:CA"], "middle": ["2:CA", "3:CA"], "last": ["8:CA"]}
    assert found.beads().cg_map.n_beads == 3


@pytest.mark.parametrize(
    ("atom", "words"),
    [
        ("A/40:CA", r"A/40:CA: alanine\.pdb has no residue A/40; chain A has 38, 39, 52, 52A, 53"),
        ("C/1:CA", r"has no residue C/1; its chains are A, B"),
    ],
)
def test_residues_that_the_file_lacks(system, atom, words):
    with pytest.raises(SystemSpecError, match=words):
        system([atom, "1:CA"])


def test_a_number_that_occurs_twice_is_ambiguous(system):
    with pytest.raises(SystemSpecError, match=r"2 residues A/1 \(1 ALA, 3 ALA\).*for example 1:CA"):
        system(["A/1:CA", "2:CA"], residues=[("A", "1 "), ("A", "2 "), ("A", "1 "), ("A", "2 ")])


def test_numbers_that_differ_from_places_are_shown(system):
    found = system(["A/38:CA", "B/0:CA"])
    facts = dict(found.model.facts(found.built()))
    assert facts["residue numbers"].startswith("1-2 = A/38-39; 3 = A/52; 4 = A/52A; 5 = A/53; 6-8 = B/-1-1")
    plain = system(["1:CA", "2:CA"], residues=[("A", "1 "), ("A", "2 "), ("A", "3 ")])
    assert "residue numbers" not in dict(plain.model.facts(plain.built()))
