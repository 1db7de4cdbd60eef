"""`cg-assets new` writes files that check accepts, states its guesses, and refuses what it cannot judge."""

import json

import jsonschema
import MDAnalysis
import numpy as np
import pytest
import yaml
from openmm import app, unit

from cg_assets.cli import main
from cg_assets.mapping.peptides import build_peptide


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def glycine(tmp_path):
    topology, positions = build_peptide(["ACE", "GLY", "NME"])
    with open(tmp_path / "glycine.pdb", "w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    return tmp_path / "glycine.pdb"


@pytest.fixture
def frames(glycine):
    universe = MDAnalysis.Universe(str(glycine))
    start, draw = universe.atoms.positions.copy(), np.random.default_rng(0)
    with MDAnalysis.Writer(str(glycine.with_suffix(".xtc")), universe.atoms.n_atoms) as writer:
        for number in range(20):
            universe.atoms.positions = start + draw.normal(0, 0.02, start.shape)
            universe.trajectory.ts.time = float(number)
            writer.write(universe.atoms)
    return glycine.with_suffix(".xtc")


def test_each_source_gives_a_file_that_is_accepted(home, glycine, frames, capsys):
    molecule = ["--pdb", str(glycine), "--temperature", "310"]
    sources = {"own_a": ["--from", "capped_alanine_quick"], "own_b": molecule}
    sources["own_c"] = [*molecule, "--trajectory", str(frames)]
    for name, source in sources.items():
        assert main(["new", name, *source]) == 0
        assert main(["check", name]) == 0
        assert f"{name}: ready to run" in capsys.readouterr().out
        text = (home / "systems" / f"{name}.yaml").read_text()
        first, *_ = text.splitlines()
        schema = json.loads((home / "systems" / first.partition("$schema=")[2]).read_text())
        jsonschema.validate(yaml.safe_load(text), schema)
    assert "# duration" not in text and "guess" in text and "310  # [K], as stated" in text
    assert "forces: null" in text and "flow_kernel_forces" in text


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda text: text, [], "state it with --temperature"),
        (lambda text: text.replace("GLY", "LIG"), ["--temperature", "300"], "LIG; name its files with --force-field"),
        (
            lambda text: "\n".join(x for x in text.splitlines() if x[76:78] != " H"),
            ["--temperature", "300"],
            "hydrogens",
        ),
        (lambda text: text.replace("NME", "HOH"), ["--temperature", "300"], "1 molecules of water; remove them"),
        (lambda text: "", ["--temperature", "300"], "not a PDB or GRO file"),
        (lambda text: text, ["--temperature", "25"], "temperature is 25"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_leaves_nothing(change, options, expected, home, glycine, capsys):
    glycine.write_text(change(glycine.read_text()))
    assert main(["new", "own", "--pdb", str(glycine), *options]) == 1
    assert expected in capsys.readouterr().err
    assert not list((home / "systems").glob("own*"))


def test_a_name_is_given_once(home, capsys):
    assert main(["new", "water", "--from", "muller_brown"]) == 1
    assert "water: a system of this name exists" in capsys.readouterr().err
