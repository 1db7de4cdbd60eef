"""Forces of a molecule at all temperatures train W(R, T): F, F_1, U are those of a known one; prior, data, faults."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.settings import Training
from cg_assets.core.units import BOLTZMANN
from cg_assets.potentials.energies import thermodynamics
from cg_assets.potentials.settings import build_potential
from cg_assets.potentials.thermal.settings import TemperatureForm
from cg_assets.systems import load_system
from cg_assets.training.data import TrainingData
from cg_assets.training.loop import ForceMatching
from cg_assets.training.priors import fit_prior
from cg_assets.training.setup import fitted_prior, potential_config, training_data
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.train import train

ORIGIN = 380.0
KELVINS = np.array([280.0, 330.0, 380.0, 430.0, 500.0])
BETWEEN = np.array([305.0, 355.0, 405.0, 455.0])
"""Temperatures without data."""
FORM = {"form": "taylor_temperature", "origin": ORIGIN}
NETWORK = {
    **{"type": "message_passing", "bead_types": [0, 1, 2], "features": 16, "interactions": 2, "basis_functions": 4},
    **{"cutoff": None, "thermal_energy": ORIGIN * BOLTZMANN, "temperature_dependence": FORM},
}
PAIRS = ((0, 1, 0.15), (1, 2, 0.15), (0, 2, 0.24))
CORNERS = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0]])
STIFF = torch.tensor([[2.0e4, 2.0e4, 6.0e3], [-6.0e3, 8.0e3, 3.0e3], [0.0, 0.0, 0.0]])
PULL = torch.tensor([[0.0, 0.0, 0.0], [60.0, -40.0, 150.0], [30.0, 60.0, -80.0]])
"""W_k of the three beads: sums of STIFF r²/2 + PULL r over the pairs, r being the distance less its length."""
NOISE, ENERGY_NOISE = 20.0, 5.0
SCATTER = 30.0
"""Standard deviation of the energy of the atoms at fixed beads, as of a peptide [kJ/mol]."""
OFFSET, CAPACITY = -40.0, 0.04
"""U of the atoms has more than that of W: an energy, and a heat capacity that the form can have [kJ/mol, kJ/mol/K]."""


def known(positions, kelvin):
    """F, F_1 = dF/dT and U of the known potential."""
    points, warm = torch.as_tensor(positions).double().requires_grad_(True), torch.as_tensor(kelvin) / ORIGIN - 1
    gaps = [(points[:, one] - points[:, two]).norm(dim=1) - length for one, two, length in PAIRS]
    r = torch.stack(gaps, dim=1)[:, None]
    terms = (0.5 * STIFF.double() * r**2 + PULL.double() * r).sum(dim=2)
    energy = terms[:, 0] + warm * terms[:, 1] + 0.5 * warm**2 * terms[:, 2]
    slope = (terms[:, 1] + warm * terms[:, 2]) / ORIGIN
    forces, response = (-torch.autograd.grad(item.sum(), points, retain_graph=True)[0] for item in (energy, slope))
    inner = (energy - torch.as_tensor(kelvin) * slope).detach() + OFFSET + CAPACITY * ORIGIN * (warm + 0.5 * warm**2)
    return forces.numpy(), response.numpy(), inner.numpy()


def drawn(count, seed):
    """Places, temperatures, and exact values there with the noise of single samples."""
    generator = np.random.default_rng([seed, 7])
    positions, kelvin = CORNERS + 0.01 * generator.standard_normal((count, 3, 3)), np.resize(KELVINS, count)
    forces, _, energy = known(positions, kelvin)
    noise = NOISE * np.sqrt(kelvin / ORIGIN)[:, None, None] * generator.standard_normal(forces.shape)
    return TrainingData(
        positions.astype(np.float32),
        (forces + noise).astype(np.float32),
        np.arange(count) // 50,
        temperature=kelvin,
        energy=energy + ENERGY_NOISE * generator.standard_normal(count),
    )


def joint(count, seed):
    """The same at T_0, with the covariance of energy and force that the response asks for, kT² F_1."""
    generator = np.random.default_rng([seed, 8])
    positions, kelvin = CORNERS + 0.01 * generator.standard_normal((count, 3, 3)), np.full(count, ORIGIN)
    forces, response, energy = known(positions, kelvin)
    left = SCATTER * generator.standard_normal(count)
    noise = NOISE * generator.standard_normal(forces.shape)
    noise += (BOLTZMANN * kelvin**2 * left / SCATTER**2)[:, None, None] * response
    return TrainingData(
        positions.astype(np.float32),
        (forces + noise).astype(np.float32),
        np.arange(count) // 50,
        temperature=kelvin,
        energy=energy + left,
    )


PLACES = CORNERS + 0.007 * np.random.default_rng(99).standard_normal((240, 3, 3))
AT = np.resize(BETWEEN, len(PLACES))


def predictions(data, seed, form=FORM, kelvin=AT):
    """F, F_1 and U of a potential trained on data, at temperatures between those of the data."""
    module = train(NETWORK | {"temperature_dependence": form}, TRAINING, data, seed=seed).module
    found = module.predict(torch.as_tensor(PLACES), torch.as_tensor(kelvin), None)
    return [found.forces.numpy(), found.first_order.numpy(), found.mean_energy.numpy()]


def root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_forces_response_and_energy_are_those_of_the_known_potential():
    """Three seeds. Deviations are those by which seeds differ, and small against what is to be found.

    The response is 0.28 kJ/mol/nm/K, and U varies by 4 kJ/mol at one temperature, with noise of 5 in each energy.
    """
    exact = known(PLACES, AT)
    found = [predictions(drawn(4000, seed), seed) for seed in range(3)]
    for number, (name, bound) in enumerate({"F": 0.05, "F_1": 0.1, "U": 0.1}.items()):
        values = np.array([item[number] for item in found])
        scatter = root_mean_square(values - values.mean(axis=0)) * np.sqrt(1.5)
        size = root_mean_square(exact[number] - exact[number].mean())
        for one in values:
            error = root_mean_square(one - exact[number])
            assert error < bound * size and error < 3 * scatter + 0.02 * size, (name, error, scatter, size)


@pytest.mark.parametrize("wrong", ["mirrored temperatures", "forces of one temperature at all", "energy with a bias"])
def test_wrong_data_are_seen_in_what_follows(wrong):
    data = drawn(1500, 5)
    if wrong == "mirrored temperatures":
        data = replace(data, temperature=2 * ORIGIN - data.temperature)
    elif wrong == "forces of one temperature at all":
        data = replace(data, temperature=np.full(len(data), ORIGIN))
    else:
        data = replace(data, energy=data.energy + 10.0)
    exact, found = known(PLACES, AT), predictions(data, 0)
    which = 2 if wrong == "energy with a bias" else 1
    size = root_mean_square(exact[which] - exact[which].mean())
    assert root_mean_square(found[which] - exact[which]) > 0.8 * size


def test_the_form_follows_from_the_labels():
    """At several temperatures that of the file; at one W is constant in T, or linear where energies are learnt."""
    system = load_system("helix")
    beads, network = system.beads(), system.network
    places = np.zeros((1, 6, beads.cg_map.n_beads, 3), np.float32)

    def form(kelvins, learns="forces", **columns):
        about = {"positions": places, **columns}
        batches = [Frames.of_replicas(np.arange(6), [0], temperature=kelvin, **about) for kelvin in kelvins]
        config = potential_config(network, beads, 0, batches, learns)
        assert config["thermal_energy"] == pytest.approx(BOLTZMANN * config["temperature_dependence"]["origin"])
        return config["temperature_dependence"]

    own = network.temperature_dependence
    response = {"first_order": places, "second_order": places}
    assert form([280.0, 330.0, 390.0]) == own.model_dump(mode="json") == form([280.0], **response)
    assert form([280.0, 330.0], "energies") == form([280.0, 330.0], "products") == own.model_dump(mode="json")
    assert form([280.0]) == {"form": "taylor_temperature", "origin": 280.0, "order": 0}
    assert form([280.0], "products") == {"form": "taylor_temperature", "origin": 280.0, "order": 1}


@pytest.mark.parametrize(
    ("kelvins", "form", "terms"),
    [
        ([280.0, 500.0], {"form": "constant_heat_capacity", "origin": 359.0}, "has 3 terms, .* 280, 500 K determine 2"),
        ([280.0, 500.0], {"form": "anchored", "anchors": [280.0, 390.0, 500.0]}, "has 6 terms, .* determine 2"),
        # beyond the anchors W is linear in T
        (list(KELVINS), {"form": "anchored", "anchors": [600.0, 900.0]}, "has 4 terms, .* determine 2"),
        # four temperatures of one interval do not determine the slope at the further anchor of another
        ([280.0, 300.0, 320.0, 330.0, 350.0], {"form": "anchored", "anchors": [280.0, 330.0, 500.0]}, "6 .* 5"),
    ],
)
def test_more_terms_than_the_labels_determine_are_refused(kelvins, form, terms):
    system = load_system("helix")
    network = system.network.model_copy(update={"temperature_dependence": TemperatureForm(**form)})
    places = np.zeros((1, 6, system.beads().cg_map.n_beads, 3), np.float32)
    batches = [Frames.of_replicas(np.arange(6), [0], temperature=kelvin, positions=places) for kelvin in kelvins]
    with pytest.raises(TrainingError, match=terms):
        potential_config(network, system.beads(), batches=batches)


TRAINING = Training(epochs=10, batch_size=64, learning_rate=0.01)
LINEAR, HERE = FORM | {"order": 1}, np.full(len(PLACES), ORIGIN)


def deviations_at_origin(data, seed, form=LINEAR):
    """Deviations of F, F_1 and U at T_0, up to their means, in units of their own size."""
    pairs = zip(known(PLACES, HERE), predictions(data, seed, form, HERE), strict=True)
    return [float((found - exact).std() / exact.std()) for exact, found in pairs]


def test_products_of_energies_and_forces_at_one_temperature_give_the_response():
    """Three seeds; the noise of an energy is eight times the size of U, that of a label of F_1 twice that of F_1."""
    for seed in range(3):
        forces, response, energy = deviations_at_origin(replace(joint(4000, seed), learns="products"), seed)
        assert forces < 0.02 and response < 0.3 and energy < 0.3, (seed, forces, response, energy)


def test_labels_of_the_response_train_a_molecule():
    """Frames that have them: forces, dF/dT and d²F/dT² with noise at T_0 alone give F and F_1."""
    data = joint(2000, 5)
    _, response, _ = known(data.positions, data.temperature)
    noise = np.random.default_rng(0).standard_normal((2, *response.shape))
    curvature = known(data.positions, data.temperature + 1.0)[1] - response
    frames = Frames.of_replicas(
        np.arange(100) + 1.0,
        np.arange(20),
        temperature=ORIGIN,
        positions=data.positions.reshape(20, 100, 3, 3),
        forces=data.forces.reshape(20, 100, 3, 3),
        first_order=(response + 0.1 * noise[0]).astype(np.float32).reshape(20, 100, 3, 3),
        second_order=(curvature + 0.001 * noise[1]).astype(np.float32).reshape(20, 100, 3, 3),
        potential_energy=data.energy.reshape(20, 100),
    )
    labels = training_data(load_system("helix").network, [frames], None, 0)
    forces, response, _ = deviations_at_origin(labels, 0, FORM)
    assert forces < 0.1 and response < 0.2, (forces, response)


def fixed_beads(count, seed):
    """Targets of frames at three temperatures: F and F_1 with small errors, as of an average at fixed beads."""
    generator = np.random.default_rng([seed, 9])
    positions = np.repeat(CORNERS + 0.01 * generator.standard_normal((count, 3, 3)), 3, axis=0)
    kelvin, shape = np.tile([300.0, ORIGIN, 460.0], count), positions.shape
    forces, response, energy = known(positions, kelvin)
    blank = np.zeros(shape)
    errors = {"forces": 0.1 * NOISE, "first_order": 0.02, "second_order": np.inf}
    values = {"forces": forces, "first_order": response, "second_order": blank}
    noise = {name: np.nan_to_num(error, posinf=0) * generator.standard_normal(shape) for name, error in errors.items()}
    columns = {name: value + noise[name] for name, value in values.items()}
    columns |= {f"{name}_error": np.full(shape, error) for name, error in errors.items()}
    nothing, unknown = np.zeros(len(kelvin)), np.full(len(kelvin), np.inf)
    about = {"positions": positions, "box": np.full((len(kelvin), 3), np.inf), "temperature": kelvin}
    about |= {"frame": np.arange(len(kelvin)) // 3, "origin_temperature": kelvin, "mean_energy": energy}
    about |= {"mean_energy_error": np.ones(len(kelvin)), "heat_capacity": nothing, "heat_capacity_error": unknown}
    return ThermalTargets(**columns, **about)


def without_forces(count, seed):
    """Noisier labels of configurations alone, at all temperatures: three times the noise, and no energies."""
    data = drawn(count, seed)
    exact, generator = known(data.positions, data.temperature)[0], np.random.default_rng([seed, 10])
    forces = exact + 3 * NOISE * generator.standard_normal(exact.shape)
    return replace(data, forces=forces.astype(np.float32), energy=None, noise=np.full(count, (3 * NOISE) ** 2))


@pytest.mark.parametrize("learns", ["forces", "products"])
def test_labels_of_several_sources_train_one_potential(learns):
    """Forces at T_0, a tenth as many labels at fixed beads and noisy labels without energies: F, F_1 and U everywhere.

    Each alone is worse, or does not determine the form.
    """
    own = replace(joint(1500, 1), noise=np.full(1500, NOISE**2))
    noisy, fixed = without_forces(1500, 2), TrainingData.from_targets(fixed_beads(50, 3))
    data = replace(own.joined(noisy).joined(fixed), learns=learns)
    assert np.isnan(data.energy).sum() == 1500 and np.isfinite(data.first_order).all(axis=(1, 2)).sum() == 150
    exact = known(PLACES, AT)
    errors = [
        [float((found - truth).std() / truth.std()) for found, truth in zip(predictions(item, 0), exact, strict=True)]
        for item in (data, replace(noisy, energy=np.full(1500, np.nan)))
    ]
    forces, response, energy = errors[0]
    assert forces < 0.06 and response < 0.2 and energy < 0.3, errors
    assert errors[1][0] > 1.3 * forces and errors[1][1] > 1.3 * response, errors


def test_labels_count_by_the_inverse_of_their_noise():
    """In a batch of labels of two sources the noisier one has as much less weight; a row without a label has none."""
    one, two = drawn(200, 0), without_forces(100, 1)
    data = replace(one, noise=np.full(200, NOISE**2), learns="products").joined(two)
    run = ForceMatching(
        build_potential(NETWORK), NETWORK, TRAINING, data, 0, torch.Generator().manual_seed(0), torch.device("cpu")
    )
    shares, noisy = run.rows.shares, np.isnan(run.kept.energy)
    assert shares[:, 0].mean() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(shares[~noisy, 0].mean() / shares[noisy, 0].mean(), 9.0, rtol=1e-5)
    energy = run.columns["energy"]
    assert (shares[noisy, energy] == 0).all() and (shares[~noisy, energy] > 0).all()
    labels = (run.kept.energy - np.nanmean(run.kept.energy))[~noisy]
    assert 0 < float(run.squares[energy]) <= 1.05 * float((labels**2).mean())


@pytest.mark.parametrize("wrong", ["sign of the energy", "factor of two", "energy with a bias of the beads"])
def test_wrong_energies_are_seen_in_the_response(wrong):
    data = replace(joint(2000, 3), learns="products")
    if wrong == "sign of the energy":
        data = replace(data, energy=-data.energy)
    elif wrong == "factor of two":
        data = replace(data, energy=2 * data.energy)
    else:  # it changes no product, whose mean at given beads it multiplies with that of f - F
        distance = np.linalg.norm(data.positions[:, 0] - data.positions[:, 2], axis=1)
        data = replace(data, energy=data.energy + 1500.0 * distance, learns="energies")
    _, response, energy = deviations_at_origin(data, 0)
    assert (energy if "bias" in wrong else response) > 0.7, (response, energy)


def test_energies_that_are_to_be_learnt_and_are_missing_are_refused():
    with pytest.raises(TrainingError, match="frames have no energies, but energies are to be learnt"):
        replace(drawn(100, 0), energy=None, learns="energies")


def test_products_survive_an_interruption(tmp_path):
    """Stopped in the last epoch of the potential, after those of both halves; the files of these are removed."""
    data = replace(joint(300, 1), learns="products")
    config = NETWORK | {"temperature_dependence": LINEAR}
    training = Training(epochs=3, batch_size=64, learning_rate=0.01)
    whole = train(config, training, data, seed=2).module.state_dict()

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, training, data, seed=2, checkpoint=tmp_path / "c.pt", on_epoch=stop)
    assert len(list(tmp_path.glob("c*.pt"))) == 3
    again = train(config, training, data, seed=2, checkpoint=tmp_path / "c.pt").module.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert [path.name for path in tmp_path.glob("c*.pt")] == ["c.pt"]


def test_frames_at_one_temperature_give_no_temperature_dependence():
    data = replace(drawn(600, 1), temperature=np.full(600, ORIGIN), energy=None)
    training = Training(epochs=2, batch_size=64, learning_rate=0.01)
    module = train(NETWORK, training, data, seed=0).module
    warm, cold = (module.energy_and_forces(torch.as_tensor(PLACES).float(), kelvin)[1] for kelvin in (250.0, 500.0))
    assert torch.equal(warm, cold)


def test_rungs_of_a_ladder_at_one_time_are_never_divided():
    """Three rungs of two ladders, at 50 times in a row: no time of a ladder is in two groups, or in both parts."""
    times, kelvin = np.tile(np.repeat(np.arange(50.0), 3), 2), np.tile([300.0, 360.0, 430.0], 100)
    places, nothing = np.zeros((300, 3, 3), np.float32), np.zeros(300, np.int32)
    replica = np.repeat([0, 1], 150).astype(np.int32)
    about = {"forces": places, "potential_energy": kelvin}
    frames = Frames(places, times, replica, kelvin, nothing, nothing.astype(bool), **about)
    data = TrainingData.from_frames([frames], every_temperature=True)
    moment = 50 * frames.replica + times
    assert np.unique(np.stack([moment, data.group]), axis=1).shape[1] == 100
    assert len(np.unique(data.group)) == 20
    held = data.held_out(0.2, 0)
    assert not set(moment[held]) & set(moment[~held])
    again = data.resample(1)
    assert (np.unique(again.temperature, return_counts=True)[1] == len(again) // 3).all()
    np.testing.assert_array_equal(again.energy, again.temperature)
    with pytest.raises(TrainingError, match="frames are at 3 temperatures"):
        TrainingData.from_frames([frames])


def test_a_committee_has_energies_and_heat_capacities():
    """Those of its first potential."""
    training = Training(epochs=1, batch_size=64, learning_rate=0.01, committee=2)
    module = train(NETWORK, training, drawn(300, 2), seed=0).module
    frames = Frames.of_replicas([1.0], np.arange(4), temperature=400.0, positions=PLACES[:4, None].astype(np.float32))
    energy, capacity = thermodynamics(module)(frames)
    found = module.leading.predict(torch.as_tensor(PLACES[:4]), torch.full((4,), 400.0), None)
    np.testing.assert_allclose(energy, found.mean_energy, rtol=1e-5)
    np.testing.assert_allclose(capacity, found.heat_capacity, rtol=1e-4, atol=1e-6)
    assert len(module.members) == 2


def test_the_prior_is_that_of_the_middle_temperature_and_part_of_the_first_term():
    """Fitted to the frames nearest to T_0 (359 K), it adds its energy to W and to U at every temperature alike."""
    system = load_system("helix")
    network, beads, generator = system.network, system.beads(), np.random.default_rng(0)
    chain = 0.3 * np.cumsum(np.ones((10, 3)) + 0.3 * generator.standard_normal((10, 3)), axis=0)
    batches = []
    for kelvin in (280.0, 350.0, 500.0):
        places = chain + 0.0001 * kelvin * generator.standard_normal((1, 300, 10, 3))
        batches.append(Frames.of_replicas(np.arange(300), [0], temperature=kelvin, positions=places.astype(np.float32)))
    fit = fitted_prior(network, beads, batches)
    cg_map, points = beads.cg_map, batches[1].positions
    assert fit.config() == fit_prior(points, cg_map.bonds, cg_map.bead_names, network.chain_prior).config()
    config = potential_config(network, beads, 0, batches)
    alone, joined = (build_potential(about) for about in (config, {**config, "prior": fit.config()}))
    positions = torch.as_tensor(points[:20])
    prior = joined["prior"].energy(positions)
    for kelvin in (280.0, 500.0):
        pairs = zip(alone.energies(positions, kelvin), joined.energies(positions, kelvin), (1.0, 1.0, 0.0), strict=True)
        for without, value, share in pairs:
            torch.testing.assert_close(value - without, share * prior, rtol=1e-4, atol=0.05)
