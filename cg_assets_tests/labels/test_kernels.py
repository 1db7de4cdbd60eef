"""Kernels: exact divergences and adjoint labels, and a double well with a stiff mode, of which everything is known.

Labels of the double well are judged by Stein's identity (z-scores), distributions by the exact density.
"""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from cg_assets.core.errors import TrainingError
from cg_assets.core.settings import Training
from cg_assets.core.statistics.stein import stein_test
from cg_assets.labels.kernels.flow_network import at_temperature, build_flow, carry
from cg_assets.labels.kernels.flow_training import flow_at, train_flow
from cg_assets.labels.kernels.kernel import mixed, mixing_coefficients, perturb
from cg_assets.labels.kernels.sources import MAX_STEIN_Z, STEIN_FIELDS, largest_stein_z

WIDTH, STIFFNESS, CURVE = 0.05, 3.0, 0.5
NOISE = math.hypot(0.05, 0.05)
TRAINING = Training(epochs=40, batch_size=512, learning_rate=0.01)


def double_well(count: int, seed: int) -> np.ndarray:
    """Exact samples `(count, 2, 1)` of U / kT = 3 (x² - 1)² + (y - x²/2)² / (2 · 0.05²)."""
    generator = np.random.default_rng(seed)
    grid = np.linspace(-2.2, 2.2, 44_001)
    cumulative = np.cumsum(np.exp(-STIFFNESS * (grid**2 - 1) ** 2))
    x = np.interp(generator.uniform(size=count), cumulative / cumulative[-1], grid)
    return np.stack([x, CURVE * x**2 + WIDTH * generator.normal(size=count)], axis=1)[:, :, None]


def exact_force(positions: np.ndarray) -> np.ndarray:
    """-grad U [kT]."""
    x, y = positions[:, 0, 0], positions[:, 1, 0]
    stretch = (y - CURVE * x**2) / WIDTH**2
    return np.stack([-4 * STIFFNESS * x * (x**2 - 1) + 2 * CURVE * x * stretch, -stretch], axis=1)[:, :, None]


def random_flow(kind: str, n_beads: int, seed: int = 0):
    """A field with weights far from their initial values, in double precision, and configurations for it."""
    generator = torch.Generator().manual_seed(seed)
    flow = build_flow({"type": kind, "n_beads": n_beads, "noise": 0.1, "hidden": 12}, generator).double()
    shape = (n_beads, 3 if kind == "distances" else 1)
    flow.fit_statistics(torch.randn(200, *shape, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=generator, dtype=torch.float64))
    return flow, torch.randn(6, *shape, generator=generator, dtype=torch.float64), generator


@pytest.mark.parametrize(
    ("kind", "n_beads"), [("distances", 2), ("distances", 5), ("coordinates", 1), ("coordinates", 3)]
)
def test_divergence_and_adjoint_are_exact(kind, n_beads):
    flow, places, generator = random_flow(kind, n_beads)
    scores = torch.randn(3, *places.shape, generator=generator, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda place: flow(0.3, place[None])[0]))(places)
    size = places[0].numel()
    trace = jacobians.reshape(len(places), size, size).diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(flow.divergence(0.3, places), trace)
    velocity, pulled = flow.velocity_and_adjoint(0.3, places, scores[0], [scores[1], scores[2]])
    torch.testing.assert_close(velocity, flow(0.3, places))
    places.requires_grad_(True)
    objectives = [(flow(0.3, places) * score).sum() for score in scores]
    objectives[0] = objectives[0] + flow.divergence(0.3, places).sum()
    for found, objective in zip(pulled, objectives, strict=True):
        torch.testing.assert_close(found, torch.autograd.grad(objective, places)[0])


@pytest.mark.parametrize(("kind", "n_beads"), [("distances", 4), ("coordinates", 2)])
def test_carried_scores_are_the_gradient_of_the_density_through_the_inverse(kind, n_beads):
    flow, clean, generator = random_flow(kind, n_beads)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    place, carried = carry(flow, clean + 0.1 * noise, -noise[None] / 0.1, steps=16)
    label = label_through_inverse(flow, place, clean, steps=16)
    assert float((carried[0] - label).norm() / label.norm()) < 1e-3


def label_through_inverse(flow, place, clean, steps):
    """grad log κ(R'|R) by automatic differentiation of the inverse flow, as the paper does it."""
    end = place.detach().clone().requires_grad_(True)
    state, log_determinant, width, time = end, 0.0, -1.0 / steps, 1.0
    for _ in range(steps):
        rates = []
        for part in (0.0, 0.5, 0.5, 1.0):
            at = state if not rates else state + part * width * rates[-1][0]
            rates.append((flow(time + part * width, at), flow.divergence(time + part * width, at)))
        state = state + width / 6 * sum(w * rate[0] for w, rate in zip((1, 2, 2, 1), rates, strict=True))
        log_determinant = log_determinant + width / 6 * sum(
            w * rate[1] for w, rate in zip((1, 2, 2, 1), rates, strict=True)
        )
        time += width
    log_density = log_determinant - ((state - clean) ** 2).sum(dim=(1, 2)) / (2 * flow.noise**2)
    return torch.autograd.grad(log_density.sum(), end)[0]


def test_flows_of_beads_turn_with_them_and_push_no_centre():
    flow, places, generator = random_flow("distances", 5)
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    scores = torch.randn(2, *places.shape, generator=generator, dtype=torch.float64)
    place, carried = carry(flow, places, scores, steps=8)
    for turn in (matrix, -matrix):
        turned, turned_scores = carry(flow, places @ turn.T + 3.0, scores @ turn.T, steps=8)
        torch.testing.assert_close(turned, place @ turn.T + 3.0)
        torch.testing.assert_close(turned_scores, carried @ turn.T)
    torch.testing.assert_close(place.mean(dim=1), places.mean(dim=1))
    torch.testing.assert_close(carried.sum(dim=2), scores.sum(dim=2))


@pytest.fixture(scope="module")
def flow():
    frames = double_well(60_000, seed=1)
    config = {"type": "coordinates", "n_beads": 2, "noise": NOISE, "hidden": 128}
    return train_flow(config, TRAINING, frames, np.arange(len(frames)) // 600, seed=0).module


@pytest.fixture(scope="module")
def frames():
    return double_well(60_000, seed=2)


@pytest.fixture(scope="module")
def through_flow(flow, frames):
    return perturb(frames, NOISE, 1.0, seed=3, forces=exact_force(frames), flow=flow)


@pytest.fixture(scope="module")
def by_noise(frames):
    return perturb(frames, NOISE, 1.0, seed=3, forces=exact_force(frames))


@pytest.mark.parametrize("kernel", ["through_flow", "by_noise"])
@pytest.mark.parametrize("kind", ["clean", "noised", "atomistic", "mixed"])
def test_stein(request, kernel, kind):
    perturbed = request.getfixturevalue(kernel)
    if kind == "mixed":
        clean, atomistic = perturbed.labels["clean"], perturbed.labels["atomistic"]
        label = mixed(clean, atomistic, mixing_coefficients(clean, atomistic))
    else:
        label = perturbed.labels[kind]
    test = stein_test(perturbed.positions, label, 1.0, seed=0)
    assert test.largest < 3.5, f"largest |z| {test.largest:.2f} of {len(test.z)} fields, for 60,000 independent frames"


def test_stein_finds_a_wrong_force(through_flow, frames):
    """The force of a Gaussian around the configuration that the flow started from, taken at where it ended."""
    wrong = (frames[through_flow.index] - through_flow.positions) / NOISE**2
    assert stein_test(through_flow.positions, wrong, 1.0, seed=0).largest > 20


def test_flow_gives_back_the_distribution_that_noise_widens(through_flow, by_noise, frames):
    def width(positions):
        return float(np.std(positions[:, 1, 0] - CURVE * positions[:, 0, 0] ** 2))

    error = WIDTH / math.sqrt(2 * len(frames))
    assert abs(width(frames) - WIDTH) < 4 * error
    assert width(through_flow.positions) < 0.053
    assert width(by_noise.positions) > 0.08
    assert through_flow.dropped == 0
    right = np.mean(through_flow.positions[:, 0, 0] > 0) - np.mean(frames[:, 0, 0] > 0)
    assert abs(right) < 0.01


def fitted(positions: np.ndarray, forces: np.ndarray) -> tuple[float, float]:
    """Stiff width of the potential fitted to labels, and KL divergence of the exact density from its own.

    The potential is a product of cubic splines in x and in t = y - x²/2, fitted by least squares; densities are
    compared by quadrature over the cells that hold data.
    """
    x, t = positions[:, 0, 0].astype(float), positions[:, 1, 0].astype(float)
    t = t - CURVE * x**2
    ends = np.array([1.75, 5 * t.std()])
    inside = (np.abs(x) < ends[0]) & (np.abs(t) < ends[1])
    x, t, forces = x[inside], t[inside], forces[inside, :, 0].astype(float)
    along, across = (
        BSpline(end * (2 * np.arange(-3, count + 1) / (count - 3) - 1), np.eye(count), 3)
        for end, count in zip(ends, (28, 14), strict=True)
    )

    def products(one, other):
        return (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)

    slope = products(along(x), across.derivative()(t))
    rows = -np.concatenate([products(along.derivative()(x), across(t)) - 2 * CURVE * x[:, None] * slope, slope])
    normal = rows.T @ rows
    normal += 1e-7 * np.trace(normal) / len(normal) * np.eye(len(normal))
    solution = np.linalg.solve(normal, rows.T @ np.concatenate([forces[:, 0], forces[:, 1]]))
    grid_x, grid_t = (np.linspace(-end, end, count)[1:-1] for end, count in zip(ends, (701, 401), strict=True))
    energy = along(grid_x) @ solution.reshape(28, 14) @ across(grid_t).T
    cells = [np.linspace(-end, end, count) for end, count in zip(ends, (71, 41), strict=True)]
    seen = np.histogram2d(x, t, cells)[0] > 0
    seen = seen[np.ix_(np.digitize(grid_x, cells[0]) - 1, np.digitize(grid_t, cells[1]) - 1)]
    exact_energy = STIFFNESS * (grid_x[:, None] ** 2 - 1) ** 2 + grid_t[None] ** 2 / (2 * WIDTH**2)
    found, exact = (np.where(seen, np.exp(u[seen].min() - u), 0.0) for u in (energy, exact_energy))
    found, exact = found / found.sum(), exact / exact.sum()
    mean = (found * grid_t).sum()
    divergence = (exact[seen] * np.log(exact[seen] / found[seen])).sum()
    return math.sqrt((found * grid_t**2).sum() - mean**2), float(divergence)


def test_potential_fitted_to_flow_labels_is_that_of_the_data(through_flow, by_noise, frames):
    """The stiff mode keeps its width of 0.05 with a flow kernel; noise alone widens it."""
    width, divergence = fitted(frames, exact_force(frames))
    assert width == pytest.approx(WIDTH, rel=0.02)
    assert divergence < 1e-6
    for kind in ("clean", "noised"):
        width, divergence = fitted(through_flow.positions, through_flow.labels[kind])
        assert width < 0.053
        assert divergence < 0.01
        width, divergence = fitted(by_noise.positions, by_noise.labels[kind])
        assert width > 0.08
        assert divergence > 0.15


def test_noise_of_the_labels(through_flow):
    """Mean square of each label about the learned mean: the paper's, clean, mixed with exact forces."""
    labels = through_flow.labels
    coefficients = mixing_coefficients(labels["clean"], labels["atomistic"])
    labels = labels | {"mixed": mixed(labels["clean"], labels["atomistic"], coefficients)}
    noise = {kind: np.mean((label - labels["learned"]).astype(np.float64) ** 2) for kind, label in labels.items()}
    assert noise["clean"] < 0.35 * noise["noised"]
    assert noise["mixed"] < 0.1 * noise["noised"]
    # The mean of the exact forces' own density, which is nearly that of the perturbed configurations.
    exact = exact_force(through_flow.positions)
    assert np.mean((labels["clean"] - exact) ** 2) == pytest.approx(noise["clean"], rel=0.05)


def test_same_seed_same_labels_and_other_noise_is_refused(flow, frames):
    first, again, other = (perturb(frames[:300], NOISE, 1.0, seed, flow=flow) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.labels["clean"], again.labels["clean"])
    assert not np.array_equal(first.positions, other.positions)
    with pytest.raises(TrainingError, match="trained for noise"):
        perturb(frames[:300], 0.05, 1.0, 1, flow=flow)


def test_training_goes_on_bit_for_bit(tmp_path):
    frames, group = double_well(2000, seed=4), np.arange(2000) // 100
    config = {"type": "coordinates", "n_beads": 2, "noise": NOISE, "hidden": 16}
    settings = Training(epochs=4, batch_size=100, learning_rate=0.01)
    whole = train_flow(config, settings, frames, group, seed=5)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "flow.pt"
    with pytest.raises(KeyboardInterrupt):
        train_flow(config, settings, frames, group, seed=5, checkpoint=checkpoint, on_epoch=stop)
    resumed = train_flow(config, settings, frames, group, seed=5, checkpoint=checkpoint)
    for name, weights in whole.module.state_dict().items():
        assert torch.equal(weights, resumed.module.state_dict()[name])
    assert resumed.held_out_loss == whole.held_out_loss
    with pytest.raises(TrainingError, match="other data"):
        train_flow(config, settings, frames, group, seed=6, checkpoint=checkpoint)


# --------------------------------------------------------------------------------------- several temperatures


LEVELS = (0.7, 1.0, 1.5)
SEVERAL = {"type": "coordinates", "n_beads": 2, "noise": NOISE, "temperature": LEVELS[0], "temperatures": list(LEVELS)}


def wells_at(level: float, count: int, seed: int) -> np.ndarray:
    """Exact samples of the double well at k_B T = level."""
    generator = np.random.default_rng(seed)
    grid = np.linspace(-2.4, 2.4, 48_001)
    cumulative = np.cumsum(np.exp(-STIFFNESS * (grid**2 - 1) ** 2 / level))
    x = np.interp(generator.uniform(size=count), cumulative / cumulative[-1], grid)
    spread = WIDTH * math.sqrt(level)
    return np.stack([x, CURVE * x**2 + spread * generator.normal(size=count)], axis=1)[:, :, None]


@pytest.mark.parametrize(("kind", "n_beads"), [("distances", 4), ("coordinates", 2)])
def test_a_flow_of_several_temperatures_is_one_of_each(kind, n_beads):
    """At one temperature it is a flow of one, with the exact velocities and labels of such a one."""
    generator = torch.Generator().manual_seed(1)
    config = {"type": kind, "n_beads": n_beads, "noise": 0.1, "hidden": 12, "temperatures": [250.0, 300.0, 420.0]}
    flow = build_flow(config, generator).double()
    shape = (n_beads, 3 if kind == "distances" else 1)
    corners = 2.0 * torch.eye(n_beads, dtype=torch.float64)[:, : shape[1]]  # beads that are never near each other
    places, rung = torch.randn(60, *shape, generator=generator, dtype=torch.float64), torch.arange(60) % 3
    places = corners + 0.2 * (1.0 + 0.5 * rung[:, None, None]) * places
    flow.fit_statistics(places, rung)
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator, dtype=torch.float64))
    velocity = flow(0.3, places, rung)
    for number, kelvin in enumerate(config["temperatures"]):
        own, mine = at_temperature(flow, kelvin), rung == number
        torch.testing.assert_close(own(0.3, places[mine]), velocity[mine])
        noise = torch.randn(places[mine][:6].shape, generator=generator, dtype=torch.float64)
        place, carried = carry(own, places[mine][:6] + 0.1 * noise, -noise[None] / 0.1, steps=16)
        label = label_through_inverse(own, place, places[mine][:6], steps=16)
        assert float((carried[0] - label).norm() / label.norm()) < 1e-3
        assert not any(weights.requires_grad for weights in own.parameters())
    assert all(weights.requires_grad for weights in flow.parameters())  # it can be trained on
    assert not torch.allclose(flow(0.3, places, 0 * rung)[1:], velocity[1:])
    with pytest.raises(TrainingError, match="trained at temperature 250, 300, 420 and is used at 310"):
        flow_at(flow, 310.0)


@pytest.fixture(scope="module")
def of_several():
    frames = np.concatenate([wells_at(level, 8_000, 10 + number) for number, level in enumerate(LEVELS)])
    group, kelvin = np.arange(len(frames)) // 200, np.repeat(LEVELS, 8_000)
    training = Training(epochs=25, batch_size=512, learning_rate=0.01)
    return train_flow(SEVERAL | {"hidden": 128}, training, frames, group, seed=0, temperature=kelvin).module


@pytest.mark.parametrize("level", LEVELS)
def test_one_flow_gives_back_the_density_of_each_temperature(of_several, level):
    """Widths that differ by half between the temperatures, and labels of right mean with each one's own kT."""
    frames = wells_at(level, 20_000, seed=7)
    made = perturb(frames, NOISE, level, seed=3, flow=flow_at(of_several, level))
    width = float(np.std(made.positions[:, 1, 0] - CURVE * made.positions[:, 0, 0] ** 2))
    assert width == pytest.approx(WIDTH * math.sqrt(level), rel=0.08)
    assert abs(np.mean(made.positions[:, 0, 0] > 0) - 0.5) < 0.02
    right = stein_test(made.positions, made.labels["clean"], level, seed=0)
    assert right.largest < 3.5
    wrong = stein_test(made.positions, made.labels["clean"], 1.2 * level, seed=0)
    assert wrong.largest > 4.5  # the bound of the stage's check


def test_training_at_several_temperatures_resumes_bit_for_bit_and_refuses_others(tmp_path):
    frames, kelvin = np.concatenate([wells_at(level, 700, 4) for level in LEVELS]), np.repeat(LEVELS, 700)
    group, config = np.arange(len(frames)) // 50, SEVERAL | {"hidden": 16}
    settings = Training(epochs=3, batch_size=100, learning_rate=0.01)
    whole = train_flow(config, settings, frames, group, seed=5, temperature=kelvin)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "flow.pt"
    with pytest.raises(KeyboardInterrupt):
        train_flow(config, settings, frames, group, seed=5, checkpoint=checkpoint, on_epoch=stop, temperature=kelvin)
    resumed = train_flow(config, settings, frames, group, seed=5, checkpoint=checkpoint, temperature=kelvin)
    for name, weights in whole.module.state_dict().items():
        assert torch.equal(weights, resumed.module.state_dict()[name])
    with pytest.raises(TrainingError, match="other data"):
        train_flow(config, settings, frames, group, seed=5, checkpoint=checkpoint, temperature=kelvin[::-1].copy())
    with pytest.raises(TrainingError, match="needs those of its configurations"):
        train_flow(config, settings, frames, group, seed=5)
    with pytest.raises(TrainingError, match=r"at temperature 1\.1, which is none"):
        train_flow(config, settings, frames, group, seed=5, temperature=np.where(kelvin == 1.0, 1.1, kelvin))
    with pytest.raises(TrainingError, match="no configuration is at temperature 1"):
        train_flow(config, settings, frames, group, seed=5, temperature=np.where(kelvin == 1.0, 0.7, kelvin))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_steins_identity_at_several_temperatures_rejects_right_labels_as_rarely_as_at_one(count):
    """One batch in 2,450: by Bonferroni, exact to the fourth digit here."""
    tail = math.erfc(largest_stein_z(count) / math.sqrt(2.0))
    assert STEIN_FIELDS * count * tail == pytest.approx(1 / 2450, rel=0.01)
    assert largest_stein_z(1) == MAX_STEIN_Z
