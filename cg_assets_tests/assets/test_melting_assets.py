"""A chain whose ladder keeps all rungs, as assets: reference, CG simulation and evaluation at several temperatures."""

import math

import dagster as dg
import numpy as np
import pytest
from test_chain_assets import CHAIN, STAGES, _write_labels
from test_pipeline import materialize, metadata_of, verdicts_of
from test_priors import chains  # noqa: F401

from cg_assets.assets.data import learnt_frames, learnt_source, training_frames
from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.work import Inputs
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.figures.comparison import comparison_figures
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.setup import training_data

NATIVE = "".join(
    f"ATOM  {number:5d}  CA  GLY 1{number:4d}    {3.8 * number:8.3f}{0.6 * (number % 2):8.3f}{0.0:8.3f}  1.00  0.00\n"
    for number in range(1, 6)
)
MELTING = CHAIN.replace("small_chain", "melting_chain").replace(
    "tempering: {temperatures: [300, 400], pace: 0.1}", "temperatures: [300, 360]"
)
MELTING = MELTING.replace("native: null", "native: {file: native.pdb}").replace(
    "interactions: 1}",
    "interactions: 1, torsion_order: 0, temperature_dependence: {form: taylor_temperature, origin: 330, order: 1}}",
)
MELTING += "  reference: {type: data, max_difference: 1}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory, chains):  # noqa: F811
    home = tmp_path_factory.mktemp("melting") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "melting_chain.yaml").write_text(MELTING)
    (home / "systems" / "native.pdb").write_text(NATIVE + "END\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system, store = load_system("melting_chain"), ParquetStore(home)
        _write_labels(system, store, chains[:2000], stretch=1.05)
        result = materialize(system, home, dg.DagsterInstance.ephemeral(), stages=STAGES)
        yield system, store, result


@pytest.mark.parametrize(("count", "temperatures"), [(3000, None), (1500, [360.0]), (None, [360.0])])
def test_an_evaluation_takes_the_frames_that_were_learnt(made, count, temperatures):
    """More of them than there are at the lowest temperature, and those of another temperature alone."""
    system, store, _ = made
    potential = system.potentials["atomistic"].model_copy(update={"frames": count, "temperatures": temperatures})
    inputs, other = Inputs(store, system), system.model_copy(update={"potentials": {"atomistic": potential}})
    every = training_frames(inputs, other, "atomistic", every_temperature=True)
    frames = learnt_frames(other, "atomistic", every)
    source = learnt_source(inputs, other, "atomistic")
    learnt = training_data(other.network, source.frames, count, other.drawn("atomistic")[1])
    assert np.array_equal(frames.positions, learnt.positions)
    assert set(frames.temperature) == set(temperatures or (300.0, 360.0))
    alone = other.cg_simulation.model_copy(update={"temperatures": None})
    frames = learnt_frames(other.model_copy(update={"cg_simulation": alone}), "atomistic", every)
    assert set(frames.temperature) == set(temperatures or (300.0,))


def test_the_reference_holds_every_temperature(made):
    system, store, result = made
    assert result.success and verdicts_of(result)["reference", "halves_agree"]
    reference = read_reference(Inputs(store, system), system)
    assert list(reference.rungs) == [300.0, 360.0]
    cold, hot = (rung.surface.thermal_energy for rung in reference.rungs.values())
    assert hot / cold == pytest.approx(1.2)
    shown = metadata_of(result)["reference"]
    assert "(/files/figures/" in shown["melting"].value
    assert "| 360 | folded share |" in shown["results"].value and "joined by MBAR" in str(shown["source"].value)


def test_one_potential_is_simulated_and_judged_at_each_temperature(made):
    system, store, result = made
    facts = store.describe(system.name, "cg_simulation_atomistic").metadata.extra
    assert [run["temperature"] for run in facts["runs"]] == [300.0, 360.0]
    frames = store.read_frames(system.name, "cg_simulation_atomistic")
    assert set(frames.temperature) == {300.0, 360.0} and set(frames.window) == {0}
    kinetic = {run["temperature"]: run["kinetic_temperature"]["value"] for run in facts["runs"]}
    assert 1.0 < kinetic[360.0] / kinetic[300.0] < 1.5
    found = Evaluation.from_columns(read_arrays(store.file(system.name, "evaluation_atomistic")))
    assert found.temperatures == [300.0, 360.0]
    for name in ("pmf_error", "folded_share", "stable_replicas", "largest_bond_jsd"):
        assert list(found.at_temperatures(name)) == [300.0, 360.0]
    assert found["largest_bond_jsd.300K"].value.value < found["largest_bond_jsd.360K"].value.value
    assert found.decisive[0].name == "pmf_error"
    for name in ("potential_energy", "heat_capacity", "folded_share_slope"):
        for item in found.at_temperatures(name).values():
            assert math.isfinite(item.value.value) and item.reference is not None
    shown = metadata_of(result)
    for figure in ("melting", "errors", "slow coordinates at three temperatures", "free energy of end_to_end"):
        assert "(/files/figures/" in shown["evaluation_atomistic"][figure].value
    assert "melting" in comparison_figures(Comparison({"atomistic": found}), system.title)
