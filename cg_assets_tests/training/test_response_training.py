"""The network from response labels: it learns, resumes from checkpoints, and refuses what it cannot train on."""

import numpy as np
import pytest
import torch
from thermal_models import ORIGIN, known_potential, labels

from cg_assets.core.errors import TrainingError
from cg_assets.core.settings import Training
from cg_assets.training.response import ResponseData, deviations
from cg_assets.training.train import train

NETWORK = {
    "type": "tensor_network",
    "bead_types": [0] * 27,
    "temperature_dependence": {"form": "taylor_temperature", "origin": ORIGIN, "order": 1},
    "cutoff": 0.58,
    "soft_cutoff": 0.5,
    "features": 16,
    "sensitivities": 8,
    "layers": 1,
    "tensor_order": 2,
}
SETTINGS = Training(epochs=12, batch_size=4, learning_rate=0.01, held_out_fraction=0.2)


@pytest.fixture(scope="module")
def targets():
    return ResponseData(labels(known_potential(), 30, [300.0, 550.0], noise=0.2))


@pytest.fixture(scope="module")
def trained(targets):
    return train(NETWORK, SETTINGS, targets, seed=1)


def test_network_learns_forces_and_their_change(trained):
    fresh = labels(known_potential(), 6, [300.0, 550.0], seed=4, noise=0.0)
    found = deviations(trained.module, fresh)
    assert found["forces"].explained > 0.5
    assert found["first_order"].explained > 0.3
    first, best = trained.history[0], trained.history[trained.best_epoch - 1]
    assert best["held_out_loss"] < 0.7 * first["held_out_loss"]
    assert 0 < best["noise_floor"] < best["held_out_loss"]
    assert trained.n_held_out == 12
    assert trained.n_training == 48


def test_mean_energies_are_right_on_average(trained, targets):
    """Constants are set last. In a potential of first order U does not depend on T: one constant for all."""
    with torch.no_grad():
        rows = targets.labels()
        energy = trained.module.response(rows.positions.float(), rows.temperature, rows.box)
    difference = energy.mean_energy.numpy() - rows.values["mean_energy"].numpy()
    assert abs(difference.mean()) < 0.1


def test_interrupted_training_goes_on(trained, targets, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise StoppedError

    path = tmp_path / "checkpoint.pt"
    short = SETTINGS.model_copy(update={"epochs": 3})
    with pytest.raises(StoppedError):
        train(NETWORK, short, targets, 1, checkpoint=path, on_epoch=stop)
    again = train(NETWORK, short, targets, 1, checkpoint=path)
    whole = train(NETWORK, short, targets, 1)
    assert len(again.history) == 3
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name
    with pytest.raises(TrainingError, match="other data, settings or seed"):
        train(NETWORK, short, targets, 2, checkpoint=path)


def test_what_cannot_be_trained_is_refused(targets):
    with pytest.raises(TrainingError, match="descends; give it settings"):
        train(NETWORK, None, targets, seed=0)
    with pytest.raises(TrainingError, match="beyond half the smallest box edge"):
        train(NETWORK | {"cutoff": 0.7}, SETTINGS, targets, seed=0)
    one = targets.select(np.flatnonzero(targets.groups() == 0))
    with pytest.raises(TrainingError, match="belong to one group"):
        train(NETWORK, SETTINGS, one, seed=0)
