"""A file records what it was made by; batches of another specification, file or code are named and never pooled."""

import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest
from small_systems import GLYCINE, SMALL_WELLS
from test_imported import MINE
from test_pipeline import materialize
from test_refresh import TINY

from cg_assets import systems
from cg_assets.assets import stages_of
from cg_assets.assets.data import Source, read_source
from cg_assets.assets.potentials import _label_noise, _noise_floor
from cg_assets.assets.soundness import IMPORTED_FILES, RECIPE, STAMPS, Recipes, Soundness, stamps
from cg_assets.assets.stage import TableContent
from cg_assets.assets.work import Inputs, Work, carry_out
from cg_assets.core.errors import StorageError, TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.orchestration.refresh import Part, plan_refresh
from cg_assets.storage.catalogue import query, rebuild, record
from cg_assets.storage.dataset import FrameDataset
from cg_assets.storage.hashing import file_sha256
from cg_assets.storage.parquet import verify, write_table
from cg_assets.storage.schemas import FileMetadata
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SHIPPED = Path(systems.__file__).parent
NOT_DATA = ("title", "name", "refresh")
SAMPLED_WITH = ("model", "temperature", "mapping", "collective_variables", "sampling.unbiased")


def system_named(home, text, name, **files):
    path = home / "systems" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (path.parent / f"{file}.pdb").write_text(content)
    path.write_text(text)
    return load_system(name)


def wells(home):
    return system_named(home, SMALL_WELLS, "small_wells")


def glycine(home):
    return system_named(home, GLYCINE, "own_glycine", own_glycine="END\n")


def helix_text():
    return SHIPPED.joinpath("helix.yaml").read_text().replace("name: helix", "name: own_helix")


def own_helix(home, text):
    return system_named(home, text, "own_helix", helix_native=SHIPPED.joinpath("helix_native.pdb").read_text())


def leaves(value, place=()):
    """Places of all fields of a specification that are not null."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*place, name))
    elif value is not None:
        yield place


def edited(content, place):
    """A specification with another value of one field, which need not make sense."""
    first, *rest = place
    value = content[first]
    return content | {first: edited(value, rest) if rest else f"{json.dumps(value)} and more"}


def forge(system, store, stage, batch="0000", **facts):
    """A file of a stage as it would be written now, with other content."""
    stages = {item.name: item for item in stages_of(system)}
    parents = [read.stage for read in stages[stage].reads]
    work = Work(stages[stage], system, store, batch, "run", logging.getLogger(), None, None, None)
    for parent in parents:
        if store.file(system.name, parent, batch).is_file():
            work.inputs.info(parent, batch)
    work.keep(TableContent({"number": [1.0]}), batch=batch, facts=facts)


@pytest.mark.parametrize("make", [wells, glycine])
def test_no_edit_of_any_field_leads_to_a_mixture(home, monkeypatch, make):
    """Each field of a specification is edited in turn: a batch from before is used if that changes nothing in it."""
    system, store = make(home), ParquetStore(home)
    stages = {stage.name: stage for stage in stages_of(system)}
    batched = ["trajectories", "mapped_forces"]
    for stage in batched:
        forge(system, store, stage)
    present = {name: Recipes(system).of(stage) for name, stage in stages.items()}
    content, mixtures = system._hashed_content(), []
    places = list(leaves(content))
    assert len(places) > 40
    for place in places:
        monkeypatch.setattr(type(system), "_hashed_content", lambda self, place=place: edited(content, place))
        soundness, field = Soundness(store, system), ".".join(place)
        differ = {name for name, stage in stages.items() if soundness.recipes.of(stage) != present[name]}
        if place[0] in NOT_DATA:
            assert not differ, field
            continue
        assert differ, f"{field}: nothing would be made again"
        mixtures += [(field, name) for name in batched if name in differ and soundness.batches(name)]
        if field.startswith(SAMPLED_WITH):
            assert set(batched) <= differ, field
    assert not mixtures


def test_a_thermal_prior_is_of_the_temperatures_of_its_potential(home):
    old, new = "[280, 330, 359, 390, 460, 500]", "[280, 330, 500]"
    stages = []
    for content in (helix_text(), helix_text().replace(old, new)):
        system = own_helix(home, content)
        known = {stage.name: stage for stage in stages_of(system)}
        stages.append([Recipes(system).of(known[f"prior_{name}"]) for name in ("all", "without_two")])
    (same, before), (alike, after) = stages
    assert same == alike and before != after


def test_labels_with_the_noise_of_one_temperature_train_nothing_at_several(tmp_path):
    """As files have it that are older than the noise of each temperature."""
    places, floor = np.ones((1, 2, 3, 3), np.float32), Estimate(2.0, 0.1, "(kJ/mol/nm)²").to_json()
    one, other = (
        Frames.of_replicas(
            [1.0, 2.0], [0], temperature=kelvin, positions=places.swapaxes(0, 1), forces=places.swapaxes(0, 1)
        )
        for kelvin in (280.0, 330.0)
    )
    both, store = Frames.concatenate([one, other]), ParquetStore(tmp_path)
    about = FileMetadata(system="own", stage="mapped_forces", units="molar", extra={"noise_floor": floor})
    store.write_frames(both, about, "0000")
    info = store.describe("own", "mapped_forces", "0000")
    assert _noise_floor(Source(["0000"], [info], [one])).value == 2.0
    with pytest.raises(TrainingError, match=r"own.*mapped_forces.*at one temperature alone; make it again"):
        _noise_floor(Source(["0000"], [info], [both]))


def test_labels_of_two_sources_have_the_noise_of_their_files(tmp_path):
    """Each at its temperature; the least weighted loss is the harmonic mean, of 2, 6 and 3 (twice) over four frames."""
    store, places, unit = ParquetStore(tmp_path), np.ones((1, 1, 3, 3), np.float32), "(kJ/mol/nm)²"
    two, six, three = (Estimate(value, 0.1, unit).to_json() for value in (2.0, 6.0, 3.0))
    floors = [two | {"temperature": 280.0, "rows": 1}, six | {"temperature": 330.0, "rows": 1}]
    extras = [{"noise_floor": two, "noise_floors": floors}, {"noise_floor": three}]
    cold, warm = (Frames.of_replicas([1.0], [0], temperature=at, positions=places, forces=places) for at in (280, 330))
    parts = [Frames.concatenate([cold, warm]), Frames.concatenate([cold, cold])]
    for number, (frames, extra) in enumerate(zip(parts, extras, strict=True)):
        about = FileMetadata(system="own", stage="mapped_forces", units="molar", extra=extra)
        store.write_frames(frames, about, f"{number}")
    infos = [store.describe("own", "mapped_forces", name) for name in ("0", "1")]
    source = Source(["0", "1"], infos, parts)
    assert [noise.tolist() for noise in _label_noise(source)] == [[2.0, 6.0], [3.0, 3.0]]
    assert _noise_floor(source, several=True).value == pytest.approx(4 / (1 / 2 + 1 / 6 + 2 / 3))
    targets = SimpleNamespace(force_noise=np.array([1.0, 4.0]))
    joined = _noise_floor(source, several=True, targets=targets)
    assert joined.value == pytest.approx(6 / (1 / 2 + 1 / 6 + 2 / 3 + 1 + 1 / 4))
    with pytest.raises(TrainingError, match="thermal_response_targets: row 1 has mean forces without an error"):
        _noise_floor(source, several=True, targets=SimpleNamespace(force_noise=np.array([1.0, 0.0])))
    infos[1].metadata.extra["noise_floor"]["value"] = 0.0
    with pytest.raises(TrainingError, match=r"part-0\.parquet: a noise floor of its labels is not above zero"):
        _label_noise(source)


def test_kernel_labels_of_one_rung_are_not_those_of_a_ladder(home):
    """Their code has another version where the frames of all rungs are kept; elsewhere nothing is made again."""
    ladder = own_helix(home, helix_text())
    for system, version in ((ladder, "2"), (load_system("capped_alanine_kernels"), "1")):
        kernels = [stage for stage in stages_of(system) if "_kernel" in stage.name]
        assert len(kernels) >= 2 and {stage.code_version for stage in kernels} == {version}


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("temperature", "temperature: 1.0", "temperature: 2.0"),
        ("model", "  domain:", "  mass: 3.0\n  domain:"),
        ("sampling.unbiased", "timestep: 0.02", "timestep: 0.01"),
        ("mapping", "{x: {x: 1.0}}", "{x: {y: 1.0}}"),
    ],
)
def test_the_reason_names_what_changed(home, section, old, new):
    system, store = wells(home), ParquetStore(home)
    forge(system, store, "trajectories")
    change = system_named(home, SMALL_WELLS.replace(old, new, 1), "small_wells")
    with pytest.raises(StorageError, match=f"trajectories/0000 is out of date: {section} changed since it was made"):
        Inputs(store, change).sound("trajectories")


def test_a_changed_pdb_file_and_code_are_noticed_through_all_stages(home, monkeypatch):
    system, store = glycine(home), ParquetStore(home)
    for stage in ("trajectories", "mapped_forces"):
        forge(system, store, stage)
    assert Inputs(store, system).sound("mapped_forces") == ["0000"]
    (home / "systems" / "own_glycine.pdb").write_text("REMARK another conformer\nEND\n")
    with pytest.raises(StorageError, match="model changed since it was made"):
        Inputs(store, load_system("own_glycine")).sound("mapped_forces")
    (home / "systems" / "own_glycine.pdb").write_text("END\n")
    assert Inputs(store, system).sound("mapped_forces") == ["0000"]
    inputs = Inputs(store, system)
    inputs.soundness.recipes._versions["code of trajectories"] = "2"
    with pytest.raises(StorageError, match="code of trajectories changed since it was made"):
        inputs.sound("mapped_forces")


def test_a_force_field_of_the_users_own_is_part_of_the_model(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.xml"
    own.write_text("<ForceField/>")
    system = system_named(home, GLYCINE.replace("amber99sbildn.xml", "mine.xml"), "own_glycine", own_glycine="END\n")
    before = system.hash_of("model")
    own.write_text("<ForceField><Residues/></ForceField>")
    assert system.hash_of("model") != before


def test_imported_files_that_changed_make_their_batch_again(home):
    """Files that were only touched, or moved away after they were imported, change nothing."""
    system, store = system_named(home, MINE, "my_alanine", alanine="END\n"), ParquetStore(home)
    run = home / "systems" / "run_0000_a.npz"
    run.write_bytes(b"first")
    facts = {IMPORTED_FILES: {str(run): file_sha256(run)}, STAMPS: stamps([run])}
    forge(system, store, "imported_beads", **facts)
    forge(system, store, "flow_kernel_forces")
    assert Inputs(store, system).sound("flow_kernel_forces") == ["0000"]
    run.touch()
    assert Inputs(store, system).sound("flow_kernel_forces") == ["0000"]
    run.write_bytes(b"second")
    with pytest.raises(StorageError, match=r"imported_beads/0000: the content of imported\.files changed"):
        Inputs(store, system).sound("flow_kernel_forces")
    plan = plan_refresh(store, system, ["0000"])
    assert plan.reasons[Part("imported_beads", "0000")].startswith("the content of imported.files changed")
    run.unlink()
    assert Inputs(store, system).sound("flow_kernel_forces") == ["0000"]


def test_labels_of_samples_that_were_made_again_are_not_used(home):
    system, store = wells(home), ParquetStore(home)
    for stage in ("trajectories", "mapped_forces"):
        forge(system, store, stage)
    metadata = store.describe("small_wells", "trajectories", "0000").metadata
    store.write_table({"number": [2.0]}, metadata, "0000")
    with pytest.raises(StorageError, match="small_wells/trajectories/0000 was made again since"):
        Inputs(store, system).sound("mapped_forces")


def test_files_from_before_recipes_count_while_the_whole_specification_is_theirs(home):
    system, store = wells(home), ParquetStore(home)
    forge(system, store, "trajectories")
    metadata = store.describe("small_wells", "trajectories", "0000").metadata
    del metadata.extra[RECIPE]
    store.write_table({"number": [2.0]}, metadata, "0000")
    assert Inputs(store, system).sound("trajectories") == ["0000"]
    change = system_named(home, SMALL_WELLS.replace("epochs: 20", "epochs: 21"), "small_wells")
    with pytest.raises(StorageError, match="specification changed since it was made"):
        Inputs(store, change).sound("trajectories")


def test_a_file_that_changes_while_it_is_used_stops_the_stage(home):
    system, store = glycine(home), ParquetStore(home)
    (stage,) = [item for item in stages_of(system) if item.name == "trajectories"]
    work = Work(stage, system, store, "0000", "run", logging.getLogger(), None, None, None)
    (home / "systems" / "own_glycine.pdb").write_text("REMARK edited while it was sampled\nEND\n")
    with pytest.raises(StorageError, match="changed meanwhile; run it again"):
        work.keep(TableContent({"number": [1.0]}), batch="0000")
    assert not store.batches("own_glycine", "trajectories")


def test_a_temperature_edited_between_two_batches(home):
    """The old batch is named and left out, the new one trains alone, and the old one is made again by its name."""
    cold, store, instance = system_named(home, TINY, "tiny_wells"), ParquetStore(home), dg.DagsterInstance.ephemeral()
    stages = ["trajectories", "mapped_forces", "potential_unbiased"]
    assert materialize(cold, home, instance, "0000", stages).success
    hot = system_named(home, TINY.replace("temperature: 1.0", "temperature: 2.0"), "tiny_wells")
    plan = plan_refresh(store, hot, ["0000"])
    why = "temperature changed since it was made"
    assert plan.left_out == {Part("trajectories", "0000"): why} and plan.added == "0001"
    assert plan.reasons[Part("potential_unbiased", None)] == why
    assert materialize(hot, home, instance, "0001", stages).success
    upstream = store.describe("tiny_wells", "potential_unbiased").metadata.upstream_data_versions
    assert list(upstream) == ["tiny_wells/mapped_forces/0001"]
    (learned,) = read_source(Inputs(store, hot), "mapped_forces").frames
    assert set(np.unique(learned.temperature)) == {2.0}
    assert not materialize(hot, home, instance, "0000", ["mapped_forces"]).success, "made of samples at the old one"
    again = plan_refresh(store, hot, ["0000", "0001"], add="0000")
    assert not again.left_out and again.reasons[Part("trajectories", "0000")] == why
    shutil.rmtree(store.path("tiny_wells", "trajectories", "0000").parent)


# --------------------------------------------------------------------------------------- versions of what was opened


def test_a_file_that_another_run_makes_again_is_not_taken_for_the_first(home):
    system, store = wells(home), ParquetStore(home)
    forge(system, store, "trajectories")
    forge(system, store, "reference", None)
    for stage, batch in (("trajectories", "0000"), ("reference", None)):
        inputs = Inputs(store, system)
        first = inputs.info(stage, batch)
        assert inputs.table(stage, batch)["number"] == [1.0]
        store.write_table({"number": [2.0]}, first.metadata, batch)
        with pytest.raises(StorageError, match="was made again by another process meanwhile; run this stage again"):
            inputs.table(stage, batch)
        assert list(inputs.versions.values()) == [first.content_hash], "that of what was read"


def test_frames_are_those_of_the_file_that_was_opened(tmp_path):
    store = ParquetStore(tmp_path)
    written = store.write_frames(drawn(5, 1.0), FileMetadata("toy", "trajectories", "reduced"), "0000")
    dataset = FrameDataset(store.files("toy", "trajectories"))
    store.write_frames(drawn(5, 2.0), FileMetadata("toy", "trajectories", "reduced"), "0000")
    assert dataset.infos[0].content_hash == written.content_hash
    with pytest.raises(StorageError, match="was made again while it was read; run this again"):
        dataset.read()


def drawn(count, value):
    number = np.arange(count, dtype=np.int32)
    positions = np.full((count, 1, 1), value, np.float32)
    return Frames(positions, number.astype(float), 0 * number, np.ones(count), 0 * number, number < 0)


def test_two_runs_do_not_make_one_stage_at_once(home, monkeypatch):
    system, store = wells(home), ParquetStore(home)
    (stage,) = [item for item in stages_of(system) if item.name == "trajectories"]
    monkeypatch.setattr("cg_assets.assets.work._WAIT_SECONDS", 0.1)
    work = Work(stage, system, store, "0000", "run", logging.getLogger(), None, None, None)
    named = (
        f"small_wells/trajectories/0000 is in use by process {os.getpid()} on .*wait for it or end it, then run again"
    )
    with store.lock("small_wells", "trajectories", "0000"), pytest.raises(StorageError, match=named):
        carry_out(work)
    assert not list((home / "locks").rglob("*.lock")), "nothing is left of a lock that is free"


# --------------------------------------------------------------------------------------- files at the place of others


@pytest.mark.parametrize(
    "place", [("toy", "trajectories", "0001"), ("toy", "forces", "0000"), ("other", "trajectories", "0000")]
)
def test_a_file_at_the_place_of_another_is_refused_everywhere(tmp_path, place):
    store = ParquetStore(tmp_path)
    written = store.write_frames(drawn(5, 1.0), FileMetadata("toy", "trajectories", "reduced"), "0000")
    record(tmp_path, written.path)
    copy = store.path(*place)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(written.path, copy)
    message = "holds toy/trajectories/0000: it was copied or moved there; move it back, or remove it"
    readers = (
        lambda: store.read_frames(*place[:2], [place[2]]),
        lambda: store.describe(*place),
        lambda: verify(copy),
        lambda: record(tmp_path, copy),
        lambda: FrameDataset(store.files(*place[:2])),
    )
    for read in readers:
        with pytest.raises(StorageError, match=message):
            read()
    assert query(tmp_path, "select count(*) as n from toy.trajectories").to_pylist() == [{"n": 5}]
    assert [message in problem for problem in rebuild(tmp_path)] == [True]
    assert query(tmp_path, "select file from lineage").num_rows == 1


def test_a_table_at_the_place_of_another_and_files_from_before(tmp_path):
    """A file that does not name its batch is known by its system and stage alone."""
    store = ParquetStore(tmp_path)
    metadata = FileMetadata("toy", "targets", "reduced")
    first = store.write_table({"number": [1.0]}, metadata, "0000").path
    copy = store.path("toy", "targets", "0001")
    copy.parent.mkdir()
    shutil.copyfile(first, copy)
    with pytest.raises(StorageError, match="holds toy/targets/0000"):
        store.read_table("toy", "targets", "0001")
    write_table(copy, {"number": [1.0]}, metadata)
    assert store.read_table("toy", "targets", "0001")["number"].to_pylist() == [1.0]
    alone = store.path("toy", "targets")
    shutil.copyfile(first, alone)
    with pytest.raises(StorageError, match="holds toy/targets/0000"):
        store.describe("toy", "targets")
