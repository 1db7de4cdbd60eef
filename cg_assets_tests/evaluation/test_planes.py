"""Two CG coordinates of a model potential: exact density, spline surface, and kernels from samples to evaluation."""

import math

import dagster as dg
import mlflow
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_systems import landscape_of
from test_pipeline import evaluation_of, materialize, metadata_of, verdicts_of

from cg_assets.core.errors import SystemSpecError, TrainingError
from cg_assets.core.settings import Training
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.evaluation.comparison import Comparison
from cg_assets.figures.comparison import comparison_figures
from cg_assets.labels.kernels.kernel import perturb
from cg_assets.labels.quality import LabelNoise
from cg_assets.potentials.base import Labels, differentiated
from cg_assets.potentials.energies import energy_function
from cg_assets.potentials.settings import build_potential
from cg_assets.registry.tracking import ModelTracking
from cg_assets.sampling.model_potential.landscape import Landscape
from cg_assets.sampling.model_potential.planes import conditional_draws, exact_plane
from cg_assets.sampling.model_potential.quadrature import equilibrium_draws
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.data import TrainingData
from cg_assets.training.setup import potential_config
from cg_assets.training.train import train

CONFIG = {"type": "spline_surface", "range": {"x": [-3, 3], "y": [-2, 2.5]}, "spacing": 0.5, "thermal_energy": 1.5}
SMALL = """
extends: muller_brown_plane
name: small_plane
sampling: {unbiased: {replicas: 7500}}
labels: {flow: {hidden: 64, training: {epochs: 20, batch_size: 256, learning_rate: 0.01}}}
training: {epochs: 2}
cg_simulation: {replicas: 300, duration: 40}
evaluation: {max_pmf_error: 1.0}
"""
STAGES = ["trajectories", "mapped_forces", "flow_kernel", "flow_kernel_forces", "reference"]
JUDGED = ["potential_flow", "cg_simulation_flow", "evaluation_flow"]


def plane_of(system):
    limits = system.evaluation.reference.range
    return exact_plane(landscape_of(system), Bins.between(list(limits.values()), system.evaluation.bins))


@pytest.fixture(scope="module")
def plane():
    return plane_of(load_system("muller_brown_plane"))


def test_what_is_integrated_out_leaves_the_surface(plane):
    """z is Gaussian about a wave whose width is the same everywhere: the PMF is the potential of x and y."""
    x, y = plane.points[..., 0], plane.points[..., 1]
    surface = (
        -17.3 * np.exp(-0.0039 * (x - 48) ** 2 - 0.0391 * (y - 8) ** 2)
        - 8.7 * np.exp(-0.0039 * (x - 32) ** 2 - 0.0391 * (y - 16) ** 2)
        - 14.7 * np.exp(-0.0254 * (x - 24) ** 2 + 0.043 * (x - 24) * (y - 32) - 0.0254 * (y - 32) ** 2)
        + 1.3 * np.exp(0.00273 * (x - 16) ** 2 + 0.0023 * (x - 16) * (y - 24) + 0.00273 * (y - 24) ** 2)
    )
    difference = (plane.reduced - surface / plane.thermal_energy)[plane.probability > 1e-12]
    assert np.ptp(difference) < 1e-6
    assert plane.binned.sum() == pytest.approx(1.0)


def test_divergence_error_and_width_of_gaussians(plane):
    def gaussian(x, y, width):
        return plane.with_energy(
            lambda p: 0.5 * plane.thermal_energy * (((p[:, 0, 0] - x) / 3) ** 2 + ((p[:, 1, 0] - y) / width) ** 2)
        )

    one, other = gaussian(30, 22, 2.0), gaussian(31, 22, 2.5)
    expected = 0.5 * (1 / 9 + 0.64 - 1 - np.log(0.64))
    assert one.divergence(other) == pytest.approx(expected, rel=1e-6)
    # W differs by -(x - 30) / 9 and by (1 / 2.5² - 1 / 2²) (y - 22)² / 2, whose variances under the first add
    assert one.pmf_error(other) == pytest.approx(np.sqrt(1 / 9 + 0.5 * (0.36) ** 2), rel=1e-6)
    assert one.narrowest({}) == pytest.approx(2.0, rel=1e-6)
    assert one.population({"x": (8, 30)}) == pytest.approx(0.5, abs=1e-3)


def test_noise_of_the_forces_is_that_of_the_coordinate_that_is_left_out(plane):
    """Both components have the variance kT cos²((x + y) / 3) at given x and y."""
    system = load_system("muller_brown_plane")
    generator = np.random.default_rng(0)
    rows = generator.choice(plane.reduced.size, 4000, p=plane.probability.ravel())
    draws = conditional_draws(landscape_of(system), plane.points.reshape(-1, 2)[rows], seed=1)
    floor = conditional_noise(draws.forces[0]).noise_floor
    exact = system.thermal_energy * (plane.probability * np.cos(plane.points.sum(axis=2) / 3) ** 2).sum()
    assert floor.value == pytest.approx(exact, abs=4 * floor.standard_error)
    assert floor.standard_error < 0.05


def test_labels_are_exact_where_both_coordinates_are_kept():
    bounds, vectors = ((-5.0, 5.0), (-5.0, 5.0)), ((1.0, 0.0), (0.0, 1.0))
    surface = Landscape(("x", "y"), "x**2 + x*y + 2*y**2", ("x", "y"), vectors, bounds, thermal_energy=1.0)
    draws = conditional_draws(surface, np.random.default_rng(0).normal(size=(50, 2)), seed=1)
    noise = conditional_noise(draws.forces[0])
    assert noise.noise_floor.value == 0.0
    (row,) = LabelNoise(noise.noise_floor, draws.how, beads=noise, map_kind="linear").map_rows()
    assert row["to the one used"] == ""


def test_forces_of_a_surface_are_its_exact_gradient_inside_and_beyond():
    module = build_potential(CONFIG).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        module.coefficients.copy_(torch.randn(module.coefficients.shape, generator=generator, dtype=torch.float64))
    positions = 3 * torch.randn(60, 2, 1, generator=generator, dtype=torch.float64)
    module.fit_statistics(positions.clamp(-1, 1))
    outside = ((positions[:, :, 0] < module.low) | (positions[:, :, 0] > module.high)).sum(dim=1)
    assert set(outside.tolist()) == {0, 1, 2}
    energy, forces = module.energy_and_forces(positions)
    expected = differentiated(module, positions)
    torch.testing.assert_close(energy, expected[0])
    torch.testing.assert_close(forces, expected[1])
    step = 1e-6
    for axis in range(2):
        shift = torch.zeros(1, 2, 1, dtype=torch.float64)
        shift[0, axis] = step
        slope = (module(positions + shift) - module(positions - shift)) / (2 * step)
        torch.testing.assert_close(forces[:, axis, 0], -slope, rtol=1e-5, atol=1e-6)


def _labels(positions):
    """Forces of a polynomial that splines hold exactly, x³/10 + x² + x y + y² [kT = 1.5]."""
    x, y = positions[:, 0, 0], positions[:, 1, 0]
    return -1.5 * np.stack([0.3 * x**2 + 2 * x + y, x + 2 * y], axis=1)[:, :, None]


def test_a_surface_is_solved_exactly_and_rises_where_there_are_no_data():
    """Labels with noise of 3 in 20,000 frames: z RMS of forces 1 where data are, up to the pull that smooths."""
    generator = np.random.default_rng(2)
    positions = generator.normal(scale=0.6, size=(20_000, 2, 1)).clip(-2, 2)
    noisy = _labels(positions) + 3 * generator.normal(size=positions.shape)
    group, training = np.arange(20_000) // 100, Training(epochs=1, batch_size=2000, learning_rate=0.01)
    exact, fitted = (
        train(CONFIG, training, TrainingData(positions.astype(np.float32), labels.astype(np.float32), group), 0).module
        for labels in (_labels(positions), noisy)
    )
    centre = torch.as_tensor(positions[np.abs(positions).max(axis=(1, 2)) < 1.0][:2000]).float()
    truth = _labels(centre.numpy().astype(np.float64))
    found, noisy_found = (module.energy_and_forces(centre)[1].numpy() for module in (exact, fitted))
    assert np.abs(found - truth).max() < 0.02
    # about 60 splines share the central data: their error is 3 √(60 / 20,000)
    assert np.sqrt(((noisy_found - truth) ** 2).mean()) < 2 * 3 * np.sqrt(60 / 20_000)
    far = torch.tensor([[[2.9], [2.4]], [[-2.9], [-1.9]], [[6.0], [0.0]], [[0.0], [-5.0]]])
    assert (fitted.energy_and_forces(far)[0] > fitted.energy_and_forces(centre)[0].max() + 10).all()


def test_frames_beyond_the_range_are_refused():
    positions = np.random.default_rng(0).normal(scale=2.0, size=(2000, 2, 1)).astype(np.float32)
    data = TrainingData(positions, positions, np.arange(2000) // 10)
    with pytest.raises(TrainingError, match="beyond its range; widen it"):
        train(CONFIG, Training(epochs=1, batch_size=200, learning_rate=0.01), data, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("planes") / "home"
    (home / "systems").mkdir(parents=True)
    (home / "systems" / "small_plane.yaml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CG_ASSETS_HOME", str(home))
        patch.setenv("CG_DEVICE", "cpu")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        system = load_system("small_plane")
        instance = dg.DagsterInstance.ephemeral()
        yield system, ParquetStore(home), materialize(system, home, instance, stages=[*STAGES, *JUDGED])


def test_a_flow_of_two_coordinates_from_samples_to_evaluation(made):
    """15,000 frames: the stiff mode keeps its width; the error of W is that of labels integrated over the barrier."""
    system, store, result = made
    assert result.success
    assert all(verdicts_of(result).values())
    evaluation = evaluation_of(store, system.name, "flow")
    found = evaluation.metrics()
    exact = plane_of(system)
    assert found["width.well"] == pytest.approx(exact.narrowest(system.evaluation.basins["well"].limits), rel=0.06)
    assert found["jsd"] < 0.05
    for key in ("weighted_pmf_rmse", "kl_divergence", "width.well", "population.left"):
        value = evaluation[key].value
        assert 0 < value.standard_error < math.inf, key  # of three members
    assert found["stable_replicas"] == 1.0
    for name in ("free energy", "marginals"):
        assert "(/files/figures/" in metadata_of(result)["evaluation_flow"][name].value
    tracking = ModelTracking(None, store.home)
    mlflow.set_tracking_uri(tracking.uri)
    model = mlflow.pyfunc.load_model(tracking.lookup("small_plane.flow").uri)
    predicted = model.predict({"positions": [[[24.0], [32.0]], [[24.0], [45.0]]]})
    assert predicted["forces"].shape == (2, 2, 1)
    assert predicted["energy"][1] > predicted["energy"][0] + 3 * system.thermal_energy
    assert comparison_figures(Comparison({"flow": evaluation}), system.title)["figure"].startswith(b"\x89PNG")


def test_labels_of_noise_are_those_of_the_widened_density(plane):
    """60,000 independent frames: the fitted density is the exact one, folded with the noise, and not the exact one."""
    system = load_system("muller_brown_plane")
    noise, limits = system.labels["noise"].noise, system.evaluation.basins["well"].limits
    frames = equilibrium_draws(landscape_of(system), 60_000, np.random.default_rng(4))[:, :2, None]
    perturbed = perturb(frames, noise, system.thermal_energy, seed=5)
    surface = build_potential(potential_config(system.network, system.beads()))
    positions, labels = (torch.as_tensor(array) for array in (perturbed.positions, perturbed.labels["clean"]))
    surface.fit_statistics(positions)
    surface.solve(Labels(positions, labels))
    found = plane.with_energy(energy_function(surface))
    step = plane.points[1, 1] - plane.points[0, 0]
    folded = gaussian_filter(plane.probability, noise / step, mode="constant", truncate=6)
    widened = plane.with_energy(lambda _: -plane.thermal_energy * np.log(folded + 1e-300))
    assert found.narrowest(limits) == pytest.approx(widened.narrowest(limits), rel=0.03)
    assert found.narrowest(limits) > 1.3 * plane.narrowest(limits)
    assert plane.divergence(found) > 0.1
    assert widened.divergence(found) < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mapping: {coordinates: {x: {x: 1.0}, y: {x: 1.0}}}", "a separate one of the"),
        ("mapping: {coordinates: {x: {x: 1.0}, y: {y: 0.5}}}", "a separate one of the"),
        ("mapping: {type: linear, coordinates: {y: {y: 1.0}, x: {x: 1.0}}}", "give the limits of y and x by name"),
        (
            "network: {type: spline_surface, range: {x: [5, 60], z: [0, 1]}, spacing: 1}",
            "give the limits of x and y by name",
        ),
        ("network: {spacing: 0.1}", "raise it"),
        ("network: {range: {x: [60, 5]}}", "does not rise"),
        ("evaluation: {collective_variables: [x]}", "must be"),
        ("evaluation: {reference: {range: [8, 58]}}", "give the limits of x and y by name"),
    ],
)
def test_wrong_planes_are_refused(command, change, message):
    command.add_system("extends: muller_brown_plane\nname: wrong_plane\n" + change + "\n")
    with pytest.raises(SystemSpecError, match=message):
        load_system("wrong_plane")
