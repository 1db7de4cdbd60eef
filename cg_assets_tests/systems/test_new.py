"""`cg-assets new` writes files that check accepts, states its guesses, and refuses what it cannot judge."""

import json

import jsonschema
import MDAnalysis
import numpy as np
import openmm
import pytest
import yaml
from openmm import app, unit

from cg_assets.cli import main
from cg_assets.mapping.peptides import build_peptide
from cg_assets.systems import load_system
from cg_assets.systems.new import Source, new_from_molecule
from cg_assets.systems.spec import SystemSpec


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
def trr(glycine):
    """Writes frames with the forces of Amber ff14SB [kJ/mol/nm] times a factor, or without."""

    def write(factor):
        pdb = app.PDBFile(str(glycine))
        system = app.ForceField("amber14-all.xml").createSystem(pdb.topology)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        start, draw = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer), np.random.default_rng(0)
        universe = MDAnalysis.Universe(str(glycine))
        universe.trajectory.ts.has_forces = factor is not None
        with MDAnalysis.Writer(str(glycine.with_suffix(".trr")), len(start)) as writer:
            for number in range(20):
                places = start + draw.normal(0, 0.002, start.shape)
                context.setPositions(places)
                universe.atoms.positions = 10 * places
                universe.trajectory.ts.time = float(number)
                if factor is not None:
                    found = context.getState(getForces=True).getForces(asNumpy=True)
                    universe.atoms.forces = factor * 0.1 * found.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
                writer.write(universe.atoms)
        return glycine.with_suffix(".trr")

    return write


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
        if name != "own_a":
            assert "guess" in text and "310  # [K], as stated" in text
            assert ("implicit_solvent: OBC2" in text) == (name == "own_b")
            assert ("forces: null" in text and "flow_kernel_forces" in text) == (name == "own_c")


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
        (
            lambda text: "",
            ["--temperature", "300"],
            "not a PDB file with atoms; write one, for example with gmx editconf",
        ),
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


@pytest.mark.parametrize(
    "parent", ["muller_brown", "water", "capped_alanine_implicit", "capped_alanine_quick", "helix"]
)
def test_lines_without_their_sign_give_a_file_that_loads(parent, home):
    assert main(["new", "own", "--from", parent]) == 0
    path, kept = home / "systems" / "own.yaml", {"name", "title", "folder"}
    own, shipped = load_system("own"), load_system(parent)
    head, lines = path.read_text().split("\ntitle: ")
    path.write_text(f"{head}\ntitle: " + lines.replace("\n#", "\n"))
    assert load_system("own").model_dump(exclude=kept) == own.model_dump(exclude=kept)
    assert own.title == f"{shipped.title}, own copy"
    if parent == "capped_alanine_implicit":
        path.write_text(f"{head}\ntitle: " + lines.replace("\n#temperature: 300.0", "\ntemperature: 310.0"))
        assert (shipped.temperature, load_system("own").temperature) == (300, 310)


@pytest.mark.parametrize("title", ["Wells #2 # really", "Wells: a", 'The "large" well', "Müller", "null"])
def test_a_title_is_kept_whatever_its_letters(title, home):
    (home / "systems").mkdir(parents=True)
    parent = {"extends": "muller_brown", "name": "wells", "title": title}
    (home / "systems" / "wells.yaml").write_text(yaml.safe_dump(parent))
    assert main(["new", "own", "--from", "wells"]) == 0
    assert load_system("own").title == f"{title}, own copy"


@pytest.mark.parametrize("shown", ["HILLS", "plumed.dat", None])
def test_a_bias_next_to_the_frames_is_pointed_out_and_not_denied(shown, home, glycine, frames, capsys):
    fields = "#! FIELDS time phi psi sigma_phi sigma_psi height biasf\n"
    if shown:
        (frames.parent / shown).write_text(fields if shown == "HILLS" else "METAD ARG=phi PACE=500 HEIGHT=1.2\n")
    assert main(["new", "own", "--pdb", str(glycine), "--temperature", "310", "--trajectory", str(frames)]) == 0
    told, path = capsys.readouterr().out, home / "systems" / "own.yaml"
    assert "bias" not in yaml.safe_load(path.read_text())["imported"]
    assert ("declare it in imported.bias" in told and str(shown) in told) == bool(shown)
    assert main(["check", "own"]) == bool(shown)
    assert ("declare it in imported.bias" in capsys.readouterr().err) == bool(shown)
    path.write_text(path.read_text().replace("#  bias: null", "  bias: null"))
    assert main(["check", "own"]) == 0


def test_forces_are_taken_where_there_are_some_and_else_the_user_is_told(home, glycine, trr, capsys):
    options = ["--pdb", str(glycine), "--temperature", "310", "--trajectory", str(trr(1.0))]
    assert main(["new", "own_a", *options]) == 0
    assert load_system("own_a").imported.forces == "file" and "note" not in capsys.readouterr().out
    trr(None)
    assert main(["new", "own_b", *options]) == 0
    assert load_system("own_b").imported.forces is None
    assert "note: imported.forces is null, and a flow kernel makes the labels:" in (told := capsys.readouterr().out)
    assert "holds no forces" in told


def test_forces_in_another_unit_are_no_missing_forces(home, glycine, trr, capsys):
    options = ["--temperature", "310", "--force-field", "amber14-all.xml", "--trajectory", str(trr(1 / 41.84))]
    assert main(["new", "own", "--pdb", str(glycine), *options]) == 1
    assert "kcal/mol/angstrom was read as kJ/mol/nm, a factor of" in capsys.readouterr().err
    assert not list((home / "systems").glob("own*"))


@pytest.mark.parametrize(
    ("files", "solvent", "comment"),
    [
        ([], "OBC2", "guess: no box"),
        (["amber14-all.xml"], "OBC2", "guess: no box"),
        (["amber99sbildn.xml"], None, "null: vacuum"),
        (["amber14-all.xml", "implicit/gbn2.xml"], None, "null: that of force_fields counts"),
    ],
)
def test_solvent_of_stated_force_fields(files, solvent, comment, home, glycine, capsys):
    stated = ["--force-field", *files] if files else []
    assert main(["new", "own", "--pdb", str(glycine), "--temperature", "310", *stated]) == 0
    assert load_system("own").model.implicit_solvent == solvent
    assert comment in (home / "systems" / "own.yaml").read_text()
    assert ("note: model.implicit_solvent is null" in capsys.readouterr().out) == (solvent is None)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "sub/dir", "Upper", "", "a" * 61, "own\n"])
@pytest.mark.parametrize("molecule", [False, True])
def test_a_name_that_cannot_be_one_writes_nothing(name, molecule, home, glycine, capsys):
    source = ["--pdb", str(glycine), "--temperature", "300"] if molecule else ["--from", "muller_brown"]
    assert main(["new", name, *source]) == 1
    assert "cannot be the name of a system" in capsys.readouterr().err
    assert [path for path in glycine.parent.rglob("*") if path.is_file()] == [glycine]


def test_a_structure_that_is_not_there_and_one_of_another_format(home, tmp_path, capsys):
    assert main(["new", "own", "--pdb", str(tmp_path / "nothere.pdb"), "--temperature", "300"]) == 1
    assert "nothere.pdb: there is no such file" in capsys.readouterr().err
    (tmp_path / "frame.gro").write_text("title\n 1\n    1SOL     OW    1   0.126   1.624   1.679\n 1 1 1\n")
    assert main(["new", "own", "--pdb", str(tmp_path / "frame.gro"), "--temperature", "300"]) == 1
    assert "frame.gro: is not a PDB file with atoms" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_nothing(error, home, glycine, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(SystemSpec, "check", fails)
    with pytest.raises(type(error)):
        new_from_molecule("own", Source(glycine, 300.0), home / "systems")
    assert not list((home / "systems").iterdir())
