"""The reference of a molecule at every temperature of its ladders: a helix and a coil whose melting is exact."""

from dataclasses import replace

import numpy as np
import pytest
from two_states import TEMPERATURES, exact, folded_share, two_states

from cg_assets.assets.evaluations import agreement_verdict
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.evaluation.ladder import _share
from cg_assets.evaluation.reference import Reference
from cg_assets.systems.load import load_system


@pytest.fixture(scope="module")
def helix():
    return load_system("helix")


def melting(system, seed, per_rung=2000, ladders=2, **more):
    """Frames of a helix, and of it twice as large, at temperatures of ladders, in the order of time."""
    energy, kelvin, folded, replica, time = two_states(seed, per_rung, ladders, **more)
    stretch = np.where(folded > 0, 1.0, 2.0)[:, None, None]
    noise = np.random.default_rng(seed).normal(0, 0.01, (len(energy), 10, 3))
    positions = system.native_beads() * stretch + noise
    variables = system.beads().variables(positions)
    return Frames(
        positions=positions.astype(np.float32),
        time=1.0 + time,
        replica=replica.astype(np.int32),
        temperature=kelvin,
        start=np.zeros(len(energy), np.int32),
        probe=np.zeros(len(energy), bool),
        potential_energy=energy,
        collective_variables={name: values.astype(np.float32) for name, values in variables.items()},
    )


def lowest(system):
    """The system at the lowest temperature of the toy, which is that of the helix."""
    assert system.temperature == TEMPERATURES[0]
    return system


@pytest.fixture(scope="module")
def reference(helix):
    return lowest(helix).compute_reference(0, helix.folder, data=melting(helix, 1))


def test_native_helix_is_right_handed_with_bonds_of_alpha_carbons(helix):
    beads = helix.native_beads()
    steps = np.diff(beads, axis=0)
    assert np.linalg.norm(steps, axis=1) == pytest.approx(0.381, abs=0.003)
    assert (np.einsum("ni,ni->n", np.cross(steps[:-2], steps[1:-1]), steps[2:]) > 0).all()


def test_every_temperature_has_its_numbers(reference):
    """Folded share, energy, heat capacity and slope by MBAR over rungs, against formulas."""
    assert list(reference.rungs) == list(TEMPERATURES)
    for kelvin in TEMPERATURES:
        known, at = exact(kelvin), reference.at(kelvin)
        numbers = {
            "share": at.number("folded_share"),
            "energy": at.number("potential_energy"),
            "capacity": at.number("heat_capacity"),
            "slope": at.number("folded_share_slope"),
        }
        for name, found in numbers.items():
            assert abs(found.z(known[name])) < 4, (name, kelvin)
        assert at.number("population", "helix_length").value == pytest.approx(numbers["share"].value, abs=1e-6)
        kt = reference.rungs[kelvin].surface.thermal_energy
        energy = -kt * np.log(known["share"] / (1 - known["share"]))
        assert abs(at.free_energies["helix_length"].z(energy)) < 4
        assert at.number("jsd", "slow coordinates").value < 0.1


def test_all_temperatures_are_better_than_one(reference):
    shares = [item for item in reference.quantities if item.name == "folded_share"]
    assert len(shares) == len(TEMPERATURES)
    gains = [item.value.standard_error / item.reference.standard_error for item in shares]
    assert np.mean(gains) < 0.9
    for item in shares:
        assert abs(item.reference.z(folded_share(item.temperature))) < 4


def test_reference_is_read_back(helix, reference):
    columns = {name: np.asarray(values) for name, values in reference.columns().items()}
    again = Reference.read(helix.beads(), columns, reference.metadata())
    assert again.quantities == reference.quantities and list(again.rungs) == list(reference.rungs)
    for kelvin, rung in reference.rungs.items():
        np.testing.assert_allclose(again.rungs[kelvin].surface.free_energy, rung.surface.free_energy)
        assert again.rungs[kelvin].surface.thermal_energy == pytest.approx(rung.surface.thermal_energy)
    with pytest.raises(ValueError, match="no frames at 310 K, only at 280, 330, 390, 460"):
        again.at(310.0)


def test_ladders_that_differ_fail_the_check(helix, reference):
    """The second ladder folds as at a temperature 25 K higher: the check fails, and errors cover the difference."""
    assert agreement_verdict(reference, 0.05).passed
    data = melting(helix, 1)
    generator = np.random.default_rng(0)
    changed = data.positions.copy()
    second = (data.replica == 1) & (data.collective_variables["end_to_end"] < 1.6) & (generator.random(len(data)) < 0.4)
    changed[second] *= 2.0
    variables = helix.beads().variables(changed)
    data = replace(
        data, positions=changed, collective_variables={k: v.astype(np.float32) for k, v in variables.items()}
    )
    found = helix.compute_reference(0, helix.folder, data=data)
    verdict = agreement_verdict(found, 0.05)
    assert not verdict.passed and "sample longer" in verdict.message
    share = found.at(280.0).number("folded_share")
    assert share.standard_error > 0.1


def test_what_cannot_be_joined_is_refused(helix):
    data = melting(helix, 1, per_rung=300)
    with pytest.raises(SamplingError, match="need their potential energies"):
        helix.compute_reference(0, helix.folder, data=replace(data, potential_energy=None))
    apart = melting(helix, 1, per_rung=300, temperatures=np.array([280.0, 1400.0]))
    with pytest.raises(SamplingError, match="280 K and 1400 K have"):
        helix.compute_reference(0, helix.folder, data=apart)


def test_a_state_that_all_frames_are_in_has_an_error(helix):
    """The error of its share is that of a population: what no block has seen may be as likely as one of them."""
    frames = melting(helix, 0, 100)
    share = _share(np.ones(len(frames)), frames)
    assert share.value == 1.0 and share.standard_error == pytest.approx(0.02)
    assert _share(np.arange(len(frames)) % 4 == 0, frames).value == pytest.approx(0.25)
