"""Committees: their scatter is the error that the data leave; evaluations and registered models report it."""

import dagster as dg
import mlflow
import numpy as np
import pytest
import torch
from small_systems import SMALL_WELLS
from test_pipeline import evaluation_of, materialize
from test_training import RADIAL, _one_dimensional, _pmf

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.settings import Training
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.surfaces import free_energy_surface
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.evaluation import evaluate
from cg_assets.evaluation.reference import Reference
from cg_assets.potentials.energies import committee_energies, energy_function
from cg_assets.potentials.model_format import load_potential, save_potential
from cg_assets.simulation.run import Run
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.data import TrainingData
from cg_assets.training.train import train

SETTINGS = Training(epochs=6, batch_size=100, learning_rate=0.01, committee=4)
CONFIG = RADIAL | {"committee": 4}


def test_one_network_has_no_scatter(command):
    command.add_system(SMALL_WELLS.replace("learning_rate: 0.01}", "learning_rate: 0.01, committee: 1}"))
    with pytest.raises(SystemSpecError, match="committee is 1; one network has no scatter"):
        load_system("small_wells")


def test_scatter_is_the_error_of_the_pmf():
    """Mean square of the error over that of the committee's deviation, over independent sets of labels."""
    grid = np.linspace(-2.8, 2.8, 100)
    errors, deviations = [], []
    for seed in range(6):
        module = train(CONFIG, SETTINGS, _one_dimensional(3000, seed), seed=seed).module
        curves = np.array([energy(grid[:, None, None]) for energy in committee_energies(module)])
        curves -= curves.mean(axis=1, keepdims=True)
        difference = energy_function(module)(grid[:, None, None]) - _pmf(grid)
        errors.append(((difference - difference.mean()) ** 2).mean())
        deviations.append(curves.var(axis=0, ddof=1).mean())
    # A PMF error of a few modes in six sets is known to a factor of two.
    assert 0.4 < np.mean(errors) / np.mean(deviations) < 2.5


def test_the_potential_is_that_without_a_committee_and_goes_on_after_an_interruption(tmp_path):
    data = _one_dimensional(500, 0)
    alone = train(RADIAL, SETTINGS.model_copy(update={"committee": 0}), data, seed=3).module
    told = []
    whole = train(CONFIG, SETTINGS, data, seed=3, progress=lambda done, total, what: told.append((done, total)))
    for name, value in alone.state_dict().items():
        assert torch.equal(whole.module.state_dict()[f"potential.{name}"], value)
    assert told[-1] == (30, 30) and told == sorted(told)

    def stop(done, total, what):
        if done == 15:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, SETTINGS, data, seed=3, checkpoint=checkpoint, progress=stop)
    seen = []
    again = train(CONFIG, SETTINGS, data, seed=3, checkpoint=checkpoint, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 16
    for name, value in whole.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]

    save_potential(tmp_path / "model", again.module, CONFIG)
    stored, _ = load_potential(tmp_path / "model")
    points = torch.linspace(-2.0, 2.0, 9)[:, None, None]
    assert torch.equal(stored.force_deviation(points), again.module.force_deviation(points))
    members = torch.stack([member.energy_and_forces(points)[1] for member in again.module.members])
    assert torch.allclose(again.module.force_deviation(points), members.std(dim=0))


def test_clusters_are_drawn_whole():
    few = TrainingData(np.zeros((60, 1, 1), np.float32), np.ones((60, 1, 1), np.float32), np.arange(60) // 3)
    for data, size in ((few, 3), (TrainingData(few.positions, few.forces, few.group, run=np.arange(60) // 2), 2)):
        numbered = TrainingData(np.arange(60, dtype=np.float32)[:, None, None], data.forces, data.group, run=data.run)
        drawn = numbered.resample(1)
        times = np.bincount(drawn.positions[:, 0, 0].astype(int), minlength=60).reshape(-1, size)
        assert np.all(times == times[:, :1]) and len(drawn) == 60
        assert 0.2 < (times[:, 0] == 0).mean() < 0.55  # 1/e
        assert np.array_equal(drawn.positions, numbered.resample(1).positions)
        assert not np.array_equal(drawn.positions, numbered.resample(2).positions)


def test_frames_of_a_molecule_are_reweighted_to_the_members():
    """Members that are the potential and a known function of phi: the free energies differ by it exactly."""
    system = load_system("capped_alanine_quick")
    generator = np.random.default_rng(0)
    n = 20_000
    phi, psi = generator.uniform(-np.pi, np.pi, (2, n))
    positions = np.repeat(phi[:, None, None], 10, axis=1) * np.ones(3)
    frames = Frames(
        positions=(positions + generator.normal(scale=0.1, size=positions.shape)).astype(np.float32),
        time=np.tile(np.arange(200.0), 100),
        replica=np.repeat(np.arange(100, dtype=np.int32), 200),
        temperature=np.full(n, 300.0),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        window=np.zeros(n, np.int32),
        collective_variables={"phi": phi.astype(np.float32), "psi": psi.astype(np.float32)},
    )
    edges = (np.linspace(-np.pi, np.pi, 21),) * 2
    columns = np.stack([phi, psi], axis=1)
    surface = free_energy_surface(columns, _bins(edges), system.thermal_energy, frames.replica, frames.time)
    reference = Reference(
        names=("phi", "psi"),
        runs=(surface, surface),
        exact=False,
        source="test",
        populations={"phi_positive": None},
        free_energies={"phi_positive": None},
    )

    def step(height):
        return lambda positions: height * (positions[:, 0, 0] > 0)

    members = [step(height) for height in (-1.0, 0.0, 1.0)]
    run = Run(300.0, False, 100, 100, Estimate(300.0, 1.0, "K"), 1.0)
    result = evaluate(
        Case(system.beads(), system.evaluation, step(0.0), frames, (run,), frames, None, members, reference)
    )
    found = result["free_energy.committee.phi_positive"]
    deviation = found.value
    assert deviation.value == pytest.approx(1.0, abs=0.05)  # bead and phi have the same sign but for noise of 0.1
    assert found.reference is None and deviation.standard_error == pytest.approx(deviation.value / 2)
    assert 0.8 < result["effective_share.committee"].value.value < 1.0
    expected = np.mean([0.0, 1.0, 1.0]) * (0.5 / system.thermal_energy) ** 2
    assert result["pmf_error.committee"].value.value == pytest.approx(expected, rel=0.15)


def _bins(edges):
    from cg_assets.core.statistics.clusters import Bins

    return Bins(edges)


def test_the_registered_model_and_the_evaluation_tell_the_scatter(command):
    text = SMALL_WELLS.replace("epochs: 20,", "epochs: 3, committee: 3,").replace(
        "  unbiased: {labels: mapped_forces}\n", ""
    )
    command.add_system(text)
    system = load_system("small_wells")
    assert materialize(system, command.home, dg.DagsterInstance.ephemeral()).success
    scatter = evaluation_of(ParquetStore(command.home), "small_wells", "biased")["pmf_rmse.committee"].value
    assert 0.0 < scatter.value < 0.5 and scatter.unit == "kT"
    mlflow.set_tracking_uri(f"sqlite:///{command.home}/mlflow/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/small_wells.biased@candidate")
    answer = model.predict({"positions": np.linspace(-1.2, 1.2, 7)[:, None, None]})
    assert answer["force_deviation"].shape == answer["forces"].shape == (7, 1, 1)
    assert np.all(answer["force_deviation"] > 0)
    assert [output.name for output in model.metadata.signature.outputs] == ["energy", "forces", "force_deviation"]
