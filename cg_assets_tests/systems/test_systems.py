"""System files: what is refused, with which words, and what a user's own file may do."""

import copy
import math
import textwrap

import dagster as dg
import pytest
import yaml

from cg_assets.cli import main
from cg_assets.core.errors import SystemSpecError
from cg_assets.evaluation.settings import Basin
from cg_assets.operations.doctor import examine
from cg_assets.operations.prune import find_prunable
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import find_systems, load_all_systems, load_system, seed_of
from cg_assets.systems.base import Refresh, merge
from cg_assets.systems.load import SHIPPED
from cg_assets.systems.plain_yaml import read_yaml


@pytest.fixture
def own_system(tmp_path, monkeypatch):
    """Write a changed copy of a shipped system and load it."""
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()

    def write(base, change, name="own"):
        content = yaml.safe_load((SHIPPED / f"{base}.yaml").read_text())
        content["name"] = name
        change(content)
        path = tmp_path / "systems" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_system(name)

    return write


def test_temperatures_can_be_null():
    """As where a file that extends another one takes them out."""
    helix = load_system("helix")
    run = helix.cg_simulation.model_dump(mode="json") | {"temperatures": None}
    learnt = helix.potentials["one"].model_dump(mode="json") | {"temperatures": None}
    assert type(helix.cg_simulation).model_validate(run).temperatures is None
    assert type(helix.potentials["one"]).model_validate(learnt).temperatures is None


def test_shipped_systems_load():
    systems = load_all_systems()
    assert {"muller_brown", "muller_brown_diagonal", "capped_alanine_implicit", "capped_alanine_quick"} <= set(systems)
    assert systems["muller_brown"].units == "reduced"
    assert systems["capped_alanine_implicit"].thermal_energy == pytest.approx(2.49434, rel=1e-5)


def put(path, value):
    """Set a dotted field; None as last part removes it."""

    def change(content):
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in parents:
            content = content.setdefault(part, {})
        content[last] = copy.deepcopy(value)

    return change


UMBRELLA = {"type": "umbrella", "centers": [{"phi": -1.0}, {"phi": 1.0}], "force_constant": 50.0}
WINDOWS = {
    "replicas": 2,
    "starts": [{"phi": -1.0}, {"phi": 1.0}],
    "timestep": 0.004,
    "friction": 1.0,
    "burn_in": 4,
    "duration": 40,
    "frame_interval": 0.04,
    "bias": UMBRELLA,
}


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        ("muller_brown", put("temprature", 1.0), ["temprature", "is temperature meant?"]),
        ("muller_brown", put("temperature", -3.0), ["temperature", "-3.0", "greater than 0"]),
        ("muller_brown", put("temperature", float("inf")), ["temperature", "finite"]),
        ("muller_brown", put("temperature", "warm"), ["temperature", "'warm'", "number"]),
        ("muller_brown", put("sampling.unbiased.replicas", 2.5), ["replicas", "2.5", "integer"]),
        ("muller_brown", put("temperature", True), ["temperature", "True", "number"]),
        ("muller_brown", put("temperature", "300"), ["temperature", "'300'", "number"]),
        ("muller_brown", put("sampling.unbiased.replicas", True), ["replicas", "integer", "not true or false"]),
        ("muller_brown", put("sampling.unbiased.replicas", "64"), ["replicas", "integer", "not text"]),
        ("muller_brown", put("network.hidden", ["64"]), ["network.hidden.0", "integer", "not text"]),
        ("muller_brown", put("refresh.max_age", "30"), ["refresh.max_age", "number"]),
        ("muller_brown", put("sampling.unbiased.replicas", 10**12), ["replicas", "less than or equal to 1000000000"]),
        ("muller_brown", put("network.hidden", [10**8]), ["network.hidden.0", "less than or equal to 10000"]),
        ("capped_alanine_implicit", put("sampling.biased.bias.width.phi", 1e-7), ["bias.width", "nodes", "1000000"]),
        ("capped_alanine_quick", put("model", {"waters": 10**8}), ["waters", "100000"]),
        ("muller_brown", put("sampling.unbiased.duration", 1e300), ["sampling.unbiased", "steps", "check the units"]),
        ("muller_brown", put("cg_simulation.timestep", 1e-300), ["cg_simulation", "steps", "check the units"]),
        ("muller_brown", put("sampling.unbiased.duration", 4000.1), ["duration", "timesteps"]),
        ("muller_brown", put("model.expression", "x**2 + z"), ["expression", "'z'"]),
        ("muller_brown", put("model.expression", "__import__('os')"), ["expression"]),
        ("muller_brown", put("model.domain.x", [60, 0]), ["domain", "smaller"]),
        ("muller_brown", put("sampling.biased.bias.expression", "-4*exp(-y**2)"), ["'y'", "not a function of the CG"]),
        ("muller_brown", put("sampling.unbiased.bias", {"type": "static", "expression": "x"}), ["unbiased", "biased"]),
        ("muller_brown", put("sampling.biased", None), ["relabelled_forces", "give only mapped_forces"]),
        ("muller_brown", put("evaluation.collective_variables", ["q"]), ["'q'", "known are ['x']"]),
        ("muller_brown", put("network.type", "message_passing"), ["network"]),
        ("muller_brown", put("network.range", [60, -10]), ["network", "range", "does not rise"]),
        ("muller_brown", put("evaluation.reference.range", [46, 15]), ["reference", "range", "does not rise"]),
        ("muller_brown", put("evaluation.basins.left.limits", {}), ["basins", "limits", "at least 1"]),
        ("muller_brown", put("evaluation.basins.left.limits.x", [31.2, 0]), ["limits", "does not rise"]),
        ("muller_brown", put("cg_simulation.duration", 2.0), ["duration 2.0", "frame_interval"]),
        ("muller_brown", put("cg_simulation.replicas", 1), ["cg_simulation.replicas", "at least 2"]),
        ("capped_alanine_quick", put("sampling.biased.bias.deposition", 0.5), ["deposition 0.5", "pace 1.0"]),
        ("capped_alanine_quick", put("sampling.biased.bias", UMBRELLA), ["enhanced_duration", "umbrella"]),
        (
            "capped_alanine_implicit",
            lambda content: content["model"].update(implicit_solvent=None, box=3.0, cutoff=1.0),
            ["network.cutoff is null", "1.5 nm"],
        ),
        ("muller_brown", put("name", "../../etc"), ["name"]),
        ("muller_brown", put("training.held_out_fraction", 0.9), ["held_out_fraction", "0.5"]),
        (
            "capped_alanine_implicit",
            put("collective_variables.phi.atoms", ["1:C", "2:N", "2:CA", "2:HB1"]),
            ["phi", "2:HB1", "no bead"],
        ),
        ("capped_alanine_implicit", put("model.pdb", "missing.pdb"), ["sequence, pdb and topology"]),
        (
            "capped_alanine_implicit",
            lambda content: content["model"].update(sequence=None, pdb="missing.pdb"),
            ["model.pdb", "missing.pdb", "no file"],
        ),
        (
            "capped_alanine_implicit",
            lambda content: content["model"].update(implicit_solvent=None, box=1.5, cutoff=1.0),
            ["cutoff 1.0", "half the box", "0.75"],
        ),
        (
            "capped_alanine_implicit",
            lambda content: (
                content["model"].update(implicit_solvent=None, box=1.5, cutoff=0.7),
                content["network"].update(cutoff=0.8),
            ),
            ["network.cutoff 0.8", "half the box"],
        ),
        ("capped_alanine_implicit", put("sampling.biased.bias.width", {"phi": 0.3}), ["width", "psi"]),
        ("capped_alanine_implicit", put("sampling.unbiased.starts", "equilibrium"), ["equilibrium", "model potential"]),
        ("capped_alanine_implicit", put("sampling.biased.starts", [{"phi": 1.0}]), ["biased.starts", "probe"]),
        (
            "capped_alanine_implicit",
            put("sampling.further", {"umbrella": WINDOWS}),
            ["further.umbrella.replicas", "2 windows", "at least two to each"],
        ),
        ("helix", put("network.torsion_order", 6), ["network.torsion_order is 6", "no temperature", "set it to 0"]),
        ("chignolin", put("potentials.atomistic.temperatures", [500.0]), ["atomistic.temperatures", "leave it out"]),
        ("chignolin", put("potentials.atomistic.learns", "products"), ["atomistic.learns", "temperature_dependence"]),
        (
            "helix",
            put("potentials.one.temperatures", [285.0]),
            ["one.temperatures holds 285", "mapped_forces"],
        ),
        (
            "helix",
            lambda content: content.update(
                labels={"k": {"type": "noise", "noise": 0.005}},
                potentials={"k": {"labels": "k_kernel_forces", "learns": "energies"}},
            ),
            ["potentials.k.learns is energies", "k_kernel_forces have no energies"],
        ),
        (
            "helix",
            lambda content: content["cg_simulation"].pop("temperatures"),
            ["potentials.one.temperatures is 359 alone", "judged at 280", "cg_simulation.temperatures"],
        ),
        (
            "helix",
            put("potentials.all", {"labels": "mapped_forces", "temperatures": [280.0, 500.0]}),
            ["all.temperatures are 2", "of the 3 terms"],
        ),
        (
            "helix",
            put("network.temperature_dependence", {"form": "anchored", "anchors": [600, 900]}),
            ["temperatures are 280 to 500", "an anchor outside, 600"],
        ),
    ],
)
def test_wrong_fields_are_named(own_system, base, change, words):
    with pytest.raises(SystemSpecError) as caught:
        own_system(base, change)
    for word in words:
        assert word in str(caught.value)


STATIC = {"type": "static", "expression": ""}
END_TO_END = "collective_variables.end_to_end.range"


def grouped(**beads):
    """Beads by name, with those that phi and psi need."""
    named = {"c1": ["1:C"], "n2": ["2:N"], "ca": ["2:CA"], "c2": ["2:C"], "n3": ["3:N"]}
    return put("mapping.beads", named | beads)


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        # degrees for radians
        (
            "capped_alanine_implicit",
            put("sampling.unbiased.starts", [{"phi": -60}, {"phi": 1.0}]),
            ["phi = -60", "radians", "-1.047"],
        ),
        (
            "capped_alanine_quick",
            put("sampling.further", {"wells": WINDOWS | {"bias": UMBRELLA | {"centers": [{"phi": -60}, {"phi": 60}]}}}),
            ["centers", "phi = 60", "radians"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.biased.bias.width.phi", 20),
            ["width.phi", "half the range", "radians"],
        ),
        ("capped_alanine_implicit", put("evaluation.basins.phi_positive.limits.phi", [0, 180]), ["basins", "3.142"]),
        # a static bias that jumps at ±π
        (
            "capped_alanine_implicit",
            put("sampling.biased.bias", STATIC | {"expression": "2*(phi - 1)**2"}),
            ["jumps by", "phi passes from π to -π"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.biased.bias", STATIC | {"expression": "3*cos(0.0174*psi)*sin(0.5*phi)"}),
            ["jumps by", "phi passes"],
        ),
        ("capped_alanine_implicit", put("sampling.biased.bias", STATIC | {"expression": "phi"}), ["jumps by 6.28"]),
        # windows that are one, duplicate entries
        (
            "capped_alanine_quick",
            put(
                "sampling.further",
                {"wells": WINDOWS | {"bias": UMBRELLA | {"centers": [{"phi": 1.0}, {"phi": 1.0 - 2 * math.pi}]}}},
            ),
            ["centers", "twice"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.biased.starts", [{"phi": 1.0}, {"phi": 1.0}]),
            ["starts", "stands twice"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.biased.starts", [{"phi": math.pi, "psi": 1.0}, {"phi": -3.1415926, "psi": 1.0}]),
            ["starts", "twice"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.unbiased.probe", {"replicas": 2, "starts": [{"phi": -1.4, "psi": 2.6}]}),
            ["starts holds", "twice; replicas of different starts are compared"],
        ),
        (
            "capped_alanine_implicit",
            put("model.force_fields", ["amber14-all.xml"] * 2),
            ["force_fields", "stands twice"],
        ),
        ("capped_alanine_implicit", put("evaluation.collective_variables", ["phi", "phi"]), ["phi stands twice"]),
        ("capped_alanine_implicit", put("sampling.biased.bias.collective_variables", ["phi", "phi"]), ["stands twice"]),
        ("muller_brown", put("model.coordinates", ["x", "y", "x"]), ["x stands twice"]),
        # beads on one atom
        ("capped_alanine_implicit", grouped(other=["2:CA"]), ["beads.other", "same atoms as ca"]),
        ("capped_alanine_implicit", grouped(a=["1:O", "1:CH3"], b=["1:CH3", "1:O"]), ["beads.b", "same atoms as a"]),
        # starts that cannot be
        ("muller_brown", put("sampling.unbiased.starts", [{"x": 500, "y": 20}]), ["starts", "x = 500", "0 to 60"]),
        ("chignolin", put("sampling.unbiased.starts", [{"end_to_end": 9.0}]), ["end_to_end = 9", "0.3 to 3.5"]),
        # steps that are too long for constraints and masses
        ("capped_alanine_implicit", put("model.constraints", "none"), ["timestep", "0.004 ps", "at most 0.002 ps"]),
        ("capped_alanine_implicit", put("model.hydrogen_mass", None), ["timestep", "at most 0.0025 ps"]),
        (
            "capped_alanine_implicit",
            put("sampling.unbiased.timestep", 4),
            ["timestep 4.0 is longer than frame_interval", "1 fs is 0.001 ps"],
        ),
        ("water_quick", put("sampling", {"unbiased": {"timestep": 0.02}}), ["sampling.unbiased.timestep", "0.02 ps"]),
        # a thermostat that leaves no dynamics
        (
            "capped_alanine_quick",
            put("cg_simulation", {"friction": 1000, "timestep": 0.02}),
            ["cg_simulation.friction is 1000", "at most 50"],
        ),
        (
            "capped_alanine_implicit",
            put("sampling.unbiased.friction", 1000.0),
            ["sampling.unbiased.friction", "at most 250"],
        ),
        ("muller_brown", put("sampling.unbiased.friction", 100.0), ["sampling.unbiased.friction is 100"]),
        (
            "water_quick",
            put("sampling", {"conditional": {"friction": 2000.0}}),
            ["sampling.conditional.friction is 2000"],
        ),
        # basis functions that are all alike, or far apart
        ("muller_brown", put("network.basis_width", 100.0), ["network.basis_width is 100", "at most their range, 70"]),
        ("muller_brown", put("network.basis_width", 0.1), ["network.basis_width is 0.1", "overlap"]),
        ("muller_brown_plane", put("network.spacing", 200.0), ["network", "spacing 200.0 is beyond the range"]),
        # other slips of units
        ("capped_alanine_implicit", put("cg_simulation", {"timestep": 2}), ["cg_simulation.timestep", "ps (1 fs"]),
        ("capped_alanine_implicit", put("temperature", 27), ["temperature is 27", "K (0 °C"]),
        ("capped_alanine_implicit", put("model.cutoff", 9.0), ["model.cutoff is 9", "nm (1 Å"]),
        ("capped_alanine_water", put("model", {"box": 210.6}), ["model.box is 210.6", "nm (1 Å"]),
        ("chignolin", put(END_TO_END, [3, 35]), ["range is 35", "nm (1 Å"]),
        ("chignolin", put(END_TO_END, [3.5, 0.3]), ["range", "does not rise"]),
        ("water", put("model.density", 0.997), ["density is 0.997", "kg/m³"]),
        ("chignolin", put("evaluation.native.folded_rmsd", 2.0), ["folded_rmsd is 2", "nm (1 Å"]),
    ],
)
def test_slips_are_found_before_any_work(own_system, base, change, words):
    def changed(content):
        change(content)
        for section, fields in content.items():
            if isinstance(shipped.get(section), dict) and isinstance(fields, dict):
                content[section] = merge(shipped[section], fields)

    shipped = dict(read_yaml(SHIPPED / f"{base}.yaml")[0])
    with pytest.raises(SystemSpecError) as caught:
        own_system(base, changed)
    for word in words:
        assert word in str(caught.value)


def test_functions_of_a_whole_turn_do_not_jump(own_system):
    for expression in ("cos(phi) + sin(2*psi)", "2*cos(phi - psi)", "phi**2"):
        own_system("capped_alanine_implicit", put("sampling.biased.bias", STATIC | {"expression": expression}))


def test_faults_of_what_was_built_come_all_at_once(own_system, tmp_path):
    def two(content):
        content["evaluation"]["native"]["file"] = "native.pdb"
        content["model"]["force_fields"] = []
        content["sampling"], content["labels"] = None, {}
        content["imported"] = {"files": ["nothing_*.xtc"], "frame_interval": 1.0}
        content["potentials"] = {"flow": {"labels": "flow_kernel_forces"}}
        content["labels"] = {"flow": {"type": "flow", "of": "imported", "noise": 0.007, "labels": "clean"}}
        del content["sampling"]

    (tmp_path / "systems" / "native.pdb").write_text("END\n")
    system = own_system("chignolin", two)
    with pytest.raises(SystemSpecError) as caught:
        system.check()
    first, *faults = str(caught.value).splitlines()
    assert first == "own: 2 faults"
    assert "imported.files: no file" in faults[0]
    assert "evaluation.native.file" in faults[1]


def test_starts_that_bonds_do_not_reach_are_refused(own_system):
    def far(content):
        del content["evaluation"]["native"]
        content["collective_variables"]["turn"]["range"] = [0.3, 4.0]
        content["sampling"]["unbiased"]["starts"] = [{"turn": 1.0}, {"turn": 3.5}]

    with pytest.raises(SystemSpecError, match=r"sampling.unbiased.starts gives turn = 3.5, .* reach 2\.\d+ nm"):
        own_system("chignolin", far).check()


@pytest.mark.parametrize(("box", "words"), [(3.4, "density of 2"), (1.85, "density of 145")])
def test_water_of_another_density_is_refused(own_system, box, words):
    content = read_yaml(SHIPPED / "capped_alanine_water.yaml")[0]
    model, reference = content["model"] | {"box": box}, {"reference": {"file": None}}
    system = own_system("capped_alanine_water", lambda content: content.update(model=model, evaluation=reference))
    with pytest.raises(SystemSpecError, match=f"model.box {box} nm gives a {words}"):
        system.check()


KERNELS = {"flow": {"type": "flow", "noise": 0.01, "flow": "data"}, "data": {"type": "flow", "noise": 0.01}}
TENSORS = {"type": "tensor_network", "cutoff": 0.6, "soft_cutoff": 0.5}


@pytest.mark.parametrize(
    ("base", "path", "value", "field"),
    [
        # names of entries that are also names of fields, types or sections stay part of the place
        ("capped_alanine_kernels", "labels", {"flow": {"type": "flow", "noise": -1}}, "labels.flow.noise (value -1)"),
        (
            "capped_alanine_kernels",
            "labels",
            KERNELS | {"data": {"type": "noise", "noise": 1}},
            "labels.flow.flow is data",
        ),
        (
            "muller_brown",
            "potentials",
            {"data": {"labels": "mapped_forces", "epochs": 0}},
            "potentials.data.epochs (value 0)",
        ),
        ("muller_brown", "potentials", {"data": {"labels": "nothing"}}, "potentials.data.labels is nothing"),
        # a nested field of a member of every family
        ("muller_brown", "model.mass", 0, "model.mass (value 0)"),
        ("capped_alanine_implicit", "mapping.beads", {"one": ["C"]}, "mapping.beads.one.0 (value 'C')"),
        (
            "capped_alanine_implicit",
            "collective_variables.phi.atoms.3",
            "2-C:",
            "collective_variables.phi.atoms.3 (value '2-C:')",
        ),
        (
            "capped_alanine_implicit",
            "collective_variables.phi.atoms.3",
            "C",
            "collective_variables phi uses C: no bead",
        ),
        ("capped_alanine_implicit", "sampling.biased.bias.width.phi", -1, "sampling.biased.bias.width.phi (value -1)"),
        ("capped_alanine_quick", "network.features", 0, "network.features (value 0)"),
        (
            "capped_alanine_implicit",
            "evaluation.reference.plan.replicas",
            0,
            "evaluation.reference.plan.replicas (value 0)",
        ),
        ("capped_alanine_kernels", "labels.noise.training", {}, "labels.noise.training: is not known"),
        (
            "water_quick",
            "network",
            TENSORS | {"training": {"epochs": 0}},
            "potentials.splines.network.training.epochs (value 0)",
        ),
    ],
)
def test_a_wrong_field_is_named_by_its_place(own_system, base, path, value, field):
    with pytest.raises(SystemSpecError) as caught:
        own_system(base, put(path, value))
    lines = str(caught.value).splitlines()
    place, _, value = field.partition(" (value")  # a place shares its line with others of the same fault
    assert any(f" {place}" in line and value in line for line in lines)
    assert len(lines) == 1 or lines[0].endswith(f": {len(lines) - 1} faults")


def test_extends_merges_and_a_stated_type_replaces(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "hot.yaml").write_text(
        textwrap.dedent("""\
        extends: muller_brown
        name: hot
        title: twice as hot
        temperature: 2.0
        sampling:
          biased:
            bias: {type: umbrella, centers: [{x: 20}, {x: 30}], force_constant: 0.1}
        """)
    )
    system, base = load_system("hot"), load_system("muller_brown")
    assert system.temperature == 2.0
    assert system.sampling.biased.bias.type == "umbrella"
    assert system.sampling.biased.duration == base.sampling.biased.duration
    assert system.model == base.model
    assert system.hash_of("model") == base.hash_of("model")
    assert system.content_hash != base.content_hash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: nowhere\nname: own\n", ["nowhere", "there are"]),
        ("extends: own\nname: own\n", ["leads back to itself"]),
        ("extends: [own]\nname: own\n", ["extends names", "there are"]),
        ("extends: muller_brown\nname: own\nevaluation: often\n", ["evaluation", "'often'"]),
        ("- a\n- b\n", ["fields and their values"]),
        ("name: [\n", ["not valid YAML"]),
        ("name: other\n", ["must be the file's name"]),
        ("!!python/object/apply:os.system ['true']\n", ["line 1", "tag", "not allowed"]),
    ],
)
def test_unreadable_files(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "own.yaml").write_text(text)
    with pytest.raises(SystemSpecError) as caught:
        load_system("own")
    for word in words:
        assert word in str(caught.value)


def test_files_of_the_parent_lie_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    for name, parent in (("mine", "chignolin"), ("next", "mine")):
        (tmp_path / "systems" / f"{name}.yaml").write_text(f"extends: {parent}\nname: {name}\ntitle: My own\n")
    assert load_system("next").evaluation.native.file == SHIPPED / "chignolin_native.pdb"


def test_unknown_system_and_name_taken_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    with pytest.raises(SystemSpecError, match="no system named 'nothing'"):
        load_system("nothing")
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "muller_brown.yaml").write_text("name: muller_brown\n")
    with pytest.raises(SystemSpecError, match="already exists"):
        load_system("muller_brown")


def test_a_wrong_or_clashing_file_stops_no_other_system(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    folder = tmp_path / "systems"
    folder.mkdir()
    (folder / "good.yaml").write_text("extends: muller_brown\nname: good\ntitle: Good\n")
    (folder / "wrong.yaml").write_text("extends: muller_brown\nname: wrong\ntemperature: warm\n")
    (folder / "torn.yaml").write_text("name: [\n")
    (folder / "muller_brown.yaml").write_text("name: muller_brown\n")
    (folder / "good.yml").write_text("name: good\n")
    found = find_systems()
    assert set(found.systems) == {path.stem for path in SHIPPED.glob("*.yaml")} | {"good"}
    assert sorted(path.name for path in found.left_out) == ["good.yml", "muller_brown.yaml", "torn.yaml", "wrong.yaml"]
    assert main(["--home", str(tmp_path), "systems"]) == 0
    printed = capsys.readouterr()
    assert "good " in printed.out
    doctor = "\n".join(fault for finding in examine(tmp_path) for fault in finding.faults)
    for path in found.left_out:
        assert f"left out: {path}: " in printed.err
        assert str(path) in doctor
    assert "temperature (value 'warm'): must be a number" in doctor


def test_data_of_a_system_whose_file_is_wrong_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "wrong.yaml").write_text("name: wrong\nname: wrong\n")
    for name in ("wrong", "gone"):
        path = ParquetStore(tmp_path).file(name, "trajectories", "0000")
        path.parent.mkdir(parents=True)
        path.touch()
    assert [item.path.parts[-4] for item in find_prunable(tmp_path)] == ["gone"]


def test_a_file_is_read_once_for_all_that_extend_it(tmp_path, monkeypatch):
    """What keeps loading a home of many systems quick."""
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    for number in range(20):
        (tmp_path / "systems" / f"own_{number}.yaml").write_text(
            f"extends: capped_alanine_quick\nname: own_{number}\ntitle: Own\n"
        )
    read = []
    monkeypatch.setattr("cg_assets.systems.load.read_yaml", lambda path: read.append(path) or read_yaml(path))
    assert len(load_all_systems()) >= 20
    assert len(read) == len(set(read))


def test_what_is_null_is_no_part_of_a_hash(own_system):
    """So that a field which is added later, and null by default, leaves the hashes of all systems as they are."""
    system = own_system("capped_alanine_implicit", lambda content: None)
    content = system.model_dump(mode="json")
    assert content["sampling"]["biased"]["tempering"] is None
    other = own_system("capped_alanine_implicit", put("sampling.biased.tempering", None), name="other")
    assert other.hash_of("sampling.biased") == system.hash_of("sampling.biased")
    heavier = own_system("capped_alanine_implicit", put("model.hydrogen_mass", 3.0), name="heavier")
    assert heavier.hash_of("model") != system.hash_of("model")


SCHEDULES = [
    "0 3 * * 1",
    "*/15 * * * *",
    "0 3 * * 1-5",
    "1,2,30 0-6/2 * * *",
    "5/7 * * * *",
    "0 0 29 2 *",
    "0 0 31 */2 7",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dagster_takes_every_schedule_that_is_accepted(schedule):
    assert Refresh(schedule=schedule).schedule == schedule
    dg.ScheduleDefinition(cron_schedule=schedule, job_name="any")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        *[(text, "must be five numbers") for text in ("@daily", "0 3 * *", "60 * * * *", "5-1 * * * *", "* * * * mon")],
        *[(text, "would never come") for text in ("0 0 31 2 *", "0 0 31 4,6 *", "0 0 30 2 1")],
    ],
)
def test_schedules_that_are_refused(schedule, words):
    with pytest.raises(ValueError, match=words):
        Refresh(schedule=schedule)


def test_seeds_differ_and_repeat():
    assert seed_of("a", "trajectories", "0000") == seed_of("a", "trajectories", "0000")
    seeds = {seed_of(s, t, b) for s in ("a", "b") for t in ("trajectories", "biased_samples") for b in ("0000", "0001")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_potential_has_a_seed_of_its_own():
    system = load_system("helix")
    own = system.potentials | {"forces": system.potentials["forces"].model_copy(update={"seed": 3})}
    system = system.model_copy(update={"potentials": own})
    assert (system.training_of("forces").seed, system.drawn("forces")) == (3, (None, 3))
    assert (system.training_of("all").seed, system.drawn("all")) == (0, (None, 0))


@pytest.mark.parametrize(
    ("potential", "fault"),
    [
        ({"also": ["paper_kernel_forces"]}, r"potentials.all.also\s+is paper_kernel_forces, but sampling"),
        ({"also": ["thermal_response_targets"]}, r"potentials.all.also\s+is thermal_response_targets, but sampling"),
        ({"also": ["mapped_forces"]}, "also names mapped_forces, which is labels; leave it out there"),
        ({"also": ["flow_kernel_forces"], "frames": 9}, "frames are drawn from the labels of one stage"),
    ],
)
def test_further_labels_that_do_not_fit_are_named(potential, fault):
    content = load_system("helix").model_dump(mode="json", exclude_unset=True)
    content["potentials"]["all"] |= potential
    with pytest.raises(ValueError, match=fault):
        type(load_system("helix")).model_validate(content | {"folder": load_system("helix").folder})


def test_a_flow_takes_what_its_training_leaves_out_from_defaults(own_system):
    system = own_system("muller_brown_plane", put("labels.flow.training", {"epochs": 3}))
    assert system.labels["flow"].training == load_system("muller_brown_plane").labels["flow"].training.model_copy(
        update={"epochs": 3}
    )


def test_ranges_and_points_take_formulas_of_pi(own_system):
    text = yaml.safe_dump({"limits": {"phi": ["-pi", "pi/2"], "psi": ["(1 + pi)/2 - pi/2", 1]}})
    assert Basin.model_validate(yaml.safe_load(text)).limits == {"phi": (-math.pi, math.pi / 2), "psi": (0.5, 1.0)}
    for value in ("pi*x", "pie", "[pi]", "", "0.5", "__import__('pi')"):
        with pytest.raises(ValueError, match="limits"):
            Basin.model_validate({"limits": {"phi": [value, 9]}})
    system = own_system("muller_brown", put("model.domain.x", ["-pi/4", 60]))
    assert system.model.domain["x"] == (-math.pi / 4, 60.0)
    assert system.model_dump(mode="json")["model"]["domain"]["x"] == [-math.pi / 4, 60.0]
