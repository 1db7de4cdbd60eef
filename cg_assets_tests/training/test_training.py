"""Training: an exact PMF is recovered within its statistical error; splits, resuming, divergence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cg_assets.core.errors import DeviceError, TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.settings import Training
from cg_assets.training.data import TrainingData
from cg_assets.training.optimizer import MatrixMomentum, orthogonalised
from cg_assets.training.train import train

RADIAL = {
    "type": "radial_basis",
    "range": [-3.5, 3.5],
    "basis_functions": 30,
    "basis_width": 0.5,
    "hidden": [32, 32],
    "thermal_energy": 1.0,
}
BEADS = {
    "type": "message_passing",
    "bead_types": [0, 1, 2],
    "features": 8,
    "interactions": 2,
    "basis_functions": 3,
    "cutoff": None,
    "thermal_energy": 2.49,
}
NOISE = 2.0


def _pmf(x):
    return 0.5 * (x * x / 2 - 2) ** 2 + 0.5 * x


def _mean_force(x):
    return -x * (x * x / 2 - 2) - 0.5


def _one_dimensional(count, seed):
    # uniform x: every stretch of the PMF is equally well known
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, count)
    labels = _mean_force(x) + NOISE * rng.standard_normal(count)
    shape = (count, 1, 1)
    return TrainingData(x.reshape(shape).astype(np.float32), labels.reshape(shape).astype(np.float32), np.arange(count))


def _three_beads(count, seed):
    # harmonic triangle, sampled exactly enough for a smoke test: labels are its exact forces plus noise
    rng = np.random.default_rng(seed)
    corners = np.array([[0.0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0]])
    positions = corners + 0.01 * rng.standard_normal((count, 3, 3))
    forces = np.zeros_like(positions)
    for i, j, length in ((0, 1, 0.15), (1, 2, 0.15), (0, 2, 0.24)):
        vector = positions[:, i] - positions[:, j]
        distance = np.linalg.norm(vector, axis=1, keepdims=True)
        pull = -2.0e4 * (distance - length) * vector / distance
        forces[:, i] += pull
        forces[:, j] -= pull
    forces += 20 * rng.standard_normal(forces.shape)
    group = np.arange(count) // 50
    return TrainingData(positions.astype(np.float32), forces.astype(np.float32), group)


def test_exact_pmf_is_recovered_within_the_statistical_error():
    count = 20_000
    data = replace(_one_dimensional(count, seed=1), noise_floor=NOISE**2)
    training = Training(epochs=12, batch_size=256, learning_rate=0.01)
    result = train(RADIAL, training, data, seed=0)
    # the loss: mean of squared normal noise on the held-out frames, plus a small excess
    error = NOISE**2 * math.sqrt(2 / result.n_held_out)
    excess = result.held_out_loss - NOISE**2
    assert abs(excess) < 4 * error, (excess, error)
    grid = torch.linspace(-2.9, 2.9, 201)[:, None, None]
    energy, forces = result.module.energy_and_forces(grid)
    x = grid[:, 0, 0].numpy().astype(float)
    difference = energy.numpy() - _pmf(x)
    rmse = (difference - difference.mean()).std()
    # integrating forces of independent noise over uniform x: a random walk of variance NOISE^2 L x / n, whose
    # mean-centred mean square is NOISE^2 L^2 / (6 n)
    expected = NOISE * 6.0 / math.sqrt(6 * result.n_training)
    assert rmse < 3 * expected, (rmse, expected)
    assert np.sqrt(np.mean((forces.numpy()[:, 0, 0] - _mean_force(x)) ** 2)) < 0.15
    assert result.history[0]["noise_floor"] == NOISE**2
    assert result.frames_per_second > 0


def test_many_body_fit_reaches_the_noise_floor():
    training = Training(epochs=15, batch_size=64, learning_rate=0.01)
    result = train(BEADS, training, _three_beads(4000, seed=2), seed=0)
    components = 9 * result.n_held_out
    error = 20.0**2 * math.sqrt(2 / components)
    assert -4 * error < result.held_out_loss - 20.0**2 < 4 * error + 20.0**2 * 0.02
    assert result.history[-1]["training_loss"] < 0.05 * result.history[0]["training_loss"]


def test_readout_is_the_least_squares_solution():
    data = _one_dimensional(20_000, seed=1)
    training = Training(epochs=3, batch_size=256, learning_rate=0.01)
    result = train(RADIAL, training, data, seed=0)
    kept, _ = data.split(training.held_out_fraction, 0)
    module = result.module

    def loss():
        with torch.no_grad():
            _, forces = module.energy_and_forces(torch.tensor(kept.positions))
        return float((forces - torch.tensor(kept.forces)).double().square().mean())

    least = loss()
    generator = torch.Generator().manual_seed(0)
    for size in (0.003, 0.03):
        for _ in range(10):
            step = size * torch.randn(module.readout.shape, generator=generator)
            module.readout += step
            assert loss() > least
            module.readout -= step


class _Stop(Exception):
    pass


@pytest.mark.parametrize(("config", "make"), [(RADIAL, _one_dimensional), (BEADS, _three_beads)])
@pytest.mark.parametrize("stop", [2, 4])
def test_interrupted_training_equals_uninterrupted(tmp_path, config, make, stop):
    data = make(600, seed=3)
    training = Training(epochs=5, batch_size=64, learning_rate=0.005)
    whole = train(config, training, data, seed=4)
    checkpoint = tmp_path / "folder" / "checkpoint.pt"
    seen = []

    def interrupt(record):
        seen.append(record["epoch"])
        if len(seen) == stop:
            raise _Stop

    with pytest.raises(_Stop):
        train(config, training, data, seed=4, checkpoint=checkpoint, on_epoch=interrupt)
    resumed = train(config, training, data, seed=4, checkpoint=checkpoint, on_epoch=lambda r: seen.append(r["epoch"]))
    assert seen == [1, 2, 3, 4, 5]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    numbers = ("epoch", "training_loss", "held_out_loss", "learning_rate")
    assert [[r[key] for key in numbers] for r in whole.history] == [
        [r[key] for key in numbers] for r in resumed.history
    ]
    assert whole.best_epoch == resumed.best_epoch
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]
    finished = train(config, training, data, seed=4, checkpoint=checkpoint, on_epoch=lambda r: seen.append("more"))
    assert seen == [1, 2, 3, 4, 5]
    assert torch.equal(next(finished.module.parameters()), next(whole.module.parameters()))


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    data = _one_dimensional(300, seed=3)
    training = Training(epochs=2, batch_size=64, learning_rate=0.005)
    checkpoint = tmp_path / "checkpoint.pt"
    train(RADIAL, training, data, seed=4, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="other data, settings or seed; delete"):
        train(RADIAL, training, data, seed=5, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="other data, settings or seed; delete"):
        train(RADIAL, training, _one_dimensional(300, seed=9), seed=4, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"cannot be read .*delete"):
        train(RADIAL, training, data, seed=4, checkpoint=checkpoint)


def test_same_seed_same_weights_and_other_seed_others():
    data = _three_beads(300, seed=1)
    training = Training(epochs=1, batch_size=64, learning_rate=0.005)
    one, two, other = (train(BEADS, training, data, seed=seed).module.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["first"], other["first"])


def test_best_weights_are_kept_and_patience_stops():
    # labels without any signal: the held-out loss soon stops falling
    rng = np.random.default_rng(0)
    shape = (400, 1, 1)
    data = TrainingData(
        rng.uniform(-3, 3, shape).astype(np.float32), rng.standard_normal(shape).astype(np.float32), np.arange(400)
    )
    training = Training(epochs=60, batch_size=32, learning_rate=0.03, patience=4)
    result = train(RADIAL, training, data, seed=0)
    losses = [record["held_out_loss"] for record in result.history]
    assert len(losses) == result.best_epoch + 4 < 60
    assert min(losses) == losses[result.best_epoch - 1]
    _, held_out = data.split(training.held_out_fraction, 0)
    _, forces = result.module.energy_and_forces(torch.tensor(held_out.positions))
    again = float(((forces - torch.tensor(held_out.forces)) ** 2).mean())
    assert math.isclose(again, result.held_out_loss, rel_tol=1e-5)


def test_divergence_is_explained():
    training = Training(epochs=3, batch_size=64, learning_rate=1e5)
    with pytest.raises(TrainingError, match=r"diverged in epoch 1.*lower training\.learning_rate"):
        train(BEADS, training, _three_beads(300, seed=1), seed=0)


def test_groups_are_never_split():
    data = _three_beads(1000, seed=1)
    kept, held_out = data.split(0.1, seed=3)
    assert len(kept) + len(held_out) == 1000
    assert not set(kept.group) & set(held_out.group)
    assert 0.1 <= len(held_out) / 1000 <= 0.15
    again = data.split(0.1, seed=3)[1]
    np.testing.assert_array_equal(again.group, held_out.group)
    assert set(data.split(0.1, seed=4)[1].group) != set(held_out.group)


def test_groups_of_frames_are_blocks_of_time():
    count = 40
    frames = Frames(
        positions=np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3),
        forces=np.ones((count, 2, 3), np.float32),
        time=np.tile(np.arange(10.0), 4),
        replica=np.repeat([0, 1, 2, 3], 10).astype(np.int32),
        temperature=np.full(count, 300.0),
        start=np.zeros(count, np.int32),
        probe=np.repeat([False, False, False, True], 10),
    )
    data = TrainingData.from_frames([frames, frames], blocks_per_replica=5)
    assert len(data) == 60
    expected = np.repeat(np.arange(15), 2)
    np.testing.assert_array_equal(data.group, np.concatenate([expected, expected + 15]))
    drawn = data.draw(20, seed=1)
    assert len(np.unique(drawn.positions[:, 0, 0])) <= 20
    with pytest.raises(TrainingError, match="61 frames were asked for and 60 exist"):
        data.draw(61, seed=1)


def test_broken_data_are_refused():
    good = _three_beads(100, seed=1)
    forces = good.forces.copy()
    forces[7, 1, 2] = np.nan
    with pytest.raises(TrainingError, match="forces of 1 frames are not finite, first of frame 7"):
        TrainingData(good.positions, forces, good.group)
    with pytest.raises(TrainingError, match="disagree"):
        TrainingData(good.positions, good.forces[:50], good.group)
    training = Training(epochs=1, batch_size=64, learning_rate=0.01)
    with pytest.raises(TrainingError, match="one group"):
        train(BEADS, training, TrainingData(good.positions, good.forces, np.zeros(100, int)), seed=0)
    with pytest.raises(TrainingError, match="all force labels are zero"):
        train(BEADS, training, TrainingData(good.positions, 0 * good.forces, good.group), seed=0)
    with pytest.raises(TrainingError, match=r"this potential needs \(n_frames, 3, 3\)"):
        train(BEADS, training, TrainingData(good.positions[:, :2], good.forces[:, :2], good.group), seed=0)


def test_device_must_exist():
    training = Training(epochs=1, batch_size=64, learning_rate=0.01)
    with pytest.raises(DeviceError, match="cpu or cuda"):
        train(BEADS, training, _three_beads(100, seed=1), seed=0, device="tpu")


def test_orthogonalised_matrices_have_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 16, 40), (4, 40, 16), (8, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=generator)))
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.3


@pytest.mark.parametrize(
    "shape", [(3, 32, 54), (3, 54, 32), (2, 16, 16), (5, 10, 6), (7, 3), (64, 64), (10, 32, 1), (9,)]
)
def test_compiled_steps_are_those_of_torch_in_double_precision(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    moved = []
    for kind in (torch.float32, torch.float64):
        parameter = torch.nn.Parameter(start.to(kind, copy=True))
        optimizer = MatrixMomentum([parameter], learning_rate=0.1, weight_decay=0.5)
        descent = torch.Generator().manual_seed(1)
        for _ in range(4):
            # what comes back through a transpose is not in order of memory
            turned = shape if len(shape) < 2 else (*shape[:-2], shape[-1], shape[-2])
            gradient = torch.randn(turned, generator=descent, dtype=torch.float64).to(kind)
            parameter.grad = gradient if len(shape) < 2 else gradient.mT
            optimizer.step()
        moved.append((parameter.detach().double(), optimizer.state[parameter]["average"].double()))
    (weights, average), (exact, exact_average) = moved
    assert float((exact - start).abs().max()) > 0.1
    torch.testing.assert_close(weights, exact, rtol=0, atol=2e-5)
    torch.testing.assert_close(average, exact_average, rtol=1e-5, atol=1e-6)


def test_decay_shrinks_matrices_alone():
    matrix, vector = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 3, 4), (3, 1)))
    optimizer = MatrixMomentum([matrix, vector], learning_rate=0.1, weight_decay=0.5)
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3, 4), 0.95))
    torch.testing.assert_close(vector.detach(), torch.ones(3, 1))


def test_a_fit_with_decay_is_as_good_with_smaller_weights():
    data, results = _three_beads(4000, seed=2), []
    for decay in (0.0, 0.1):
        training = Training(epochs=15, batch_size=64, learning_rate=0.01, weight_decay=decay)
        results.append(train(BEADS, training, data, seed=0))
    error = 20.0**2 * math.sqrt(2 / (9 * results[0].n_held_out))
    assert abs(results[1].held_out_loss - results[0].held_out_loss) < error
    first, second = (result.module.hidden.norm() for result in results)
    assert second < 0.8 * first
