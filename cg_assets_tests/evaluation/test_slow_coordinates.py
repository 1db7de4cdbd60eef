"""Slow coordinates, time scales and deviations from a structure, against exact answers and MDTraj."""

import math
from dataclasses import replace

import mdtraj
import numpy as np
import pytest

from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.geometry import deviation
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.evaluation import evaluate
from cg_assets.evaluation.free_energies import SurfacesDrawing
from cg_assets.evaluation.metrics.bonds import Bonds
from cg_assets.evaluation.metrics.native import Native
from cg_assets.evaluation.metrics.slow_coordinates import SlowCoordinates, SlowFreeEnergy, lag_steps, time_scale
from cg_assets.systems.load import load_system


@pytest.fixture(scope="module")
def chignolin():
    return load_system("chignolin")


def _native(system):
    return system.native_beads()


def _frames(positions, n_replicas, interval=1.0):
    count = len(positions)
    per_replica = count // n_replicas
    return Frames(
        positions=positions.astype(np.float32),
        time=np.tile(interval * (1.0 + np.arange(per_replica)), n_replicas),
        replica=np.repeat(np.arange(n_replicas, dtype=np.int32), per_replica),
        temperature=np.full(count, 500.0),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
    )


def _process(decay, n_replicas, length, seed):
    """Gaussian processes with autocorrelation exp(-t / decay), `(n_replicas * length,)`."""
    generator, keep = np.random.default_rng(seed), np.exp(-1.0 / decay)
    values = np.zeros((length, n_replicas))
    values[0] = generator.normal(size=n_replicas)
    for step in range(1, length):
        values[step] = keep * values[step - 1] + np.sqrt(1 - keep**2) * generator.normal(size=n_replicas)
    return values.T.ravel()


def _hairpin(system, slow, fast, seed):
    """The folded chain, of which the last three beads swing slowly and the first two fast, with noise on all."""
    native = _native(system)
    moved = native + np.random.default_rng(seed).normal(0, 0.004, (len(slow), 10, 3))
    moved[:, 7:] += 0.05 * slow[:, None, None] * np.array([1.0, 0.3, -0.2])
    moved[:, :2] += 0.05 * fast[:, None, None] * np.array([-0.4, 1.0, 0.5])
    return moved


def test_time_scale_of_a_process_is_exact():
    """Decay 12 frames of 2 ps; the error comes from the 40 replicas."""
    values = _process(12.0, 40, 2000, 1)
    frames = _frames(np.zeros((len(values), 2, 3)), 40, interval=2.0)
    assert lag_steps(frames, 8.0) == 4
    found = time_scale(values, frames, lag=8.0)
    assert found.standard_error < 0.6
    assert abs(found.z(24.0)) < 4
    noise = np.random.default_rng(0).normal(size=len(values))
    assert not time_scale(noise, frames, lag=8.0).value > 8.0
    assert math.isnan(time_scale(values[:8], frames.select(np.arange(8)), lag=40.0).value)


def test_slowest_coordinate_is_found(chignolin):
    slow, fast = _process(60.0, 8, 1500, 2), _process(3.0, 8, 1500, 3)
    frames = _frames(_hairpin(chignolin, slow, fast, 4), 8)
    coordinates = SlowCoordinates(chignolin.beads().cg_map, frames, lag=10.0)
    values = coordinates(frames.positions)
    assert abs(np.corrcoef(values[:, 0], slow)[0, 1]) > 0.97
    found = time_scale(values[:, 0], frames, 10.0)
    assert abs(found.z(60.0)) < 4
    with pytest.raises(ValueError, match="longer than the lag"):
        SlowCoordinates(chignolin.beads().cg_map, frames, lag=2000.0)


def _judged(chignolin, simulation, reference, dynamics=None):
    simulation = replace(simulation, window=np.zeros(len(simulation), np.int32))
    zero = lambda positions: np.zeros(len(positions))  # noqa: E731
    case = Case(
        *(chignolin.beads(), chignolin.evaluation, zero, simulation, (), reference, reference),
        native=_native(chignolin),
        dynamics=dynamics,
    )
    return evaluate(case, [SlowFreeEnergy(), Native(), Bonds()])


def test_biased_data_are_weighted_and_have_no_time_scales(chignolin):
    """A pull that moves the slow process by one standard deviation: without its bias the data are the simulation's."""
    slow, kt = 1.0 + _process(20.0, 8, 1500, 5), chignolin.beads().thermal_energy
    biased = replace(_frames(_hairpin(chignolin, slow, _process(3.0, 8, 1500, 6), 7), 8), bias_energy=kt * (0.5 - slow))
    free = _frames(_hairpin(chignolin, _process(20.0, 40, 300, 8), _process(3.0, 40, 300, 9), 10), 40)
    found = _judged(chignolin, free, biased)
    plain = _judged(chignolin, free, replace(biased, bias_energy=None))
    for key in ("jsd.slow_coordinates", "largest_bond_jsd", "largest_1_3_jsd"):
        assert found[key].value.value < 0.3 * plain[key].value.value
    mean, shifted = found["native_rmsd"], plain["native_rmsd"]
    assert abs(mean.value.z(mean.reference)) < 4 < abs(shifted.value.z(shifted.reference))
    scales = [item for item in found.quantities if item.name == "time_scale"]
    assert [item.reference for item in scales] == [None, None]


def test_comparison_with_a_right_and_a_wrong_model(chignolin):
    """A model from the same process is as far as the halves are from each other; one that stays on one side is not."""
    reference = _frames(_hairpin(chignolin, _process(20.0, 8, 1500, 5), _process(3.0, 8, 1500, 6), 7), 8)
    right = _frames(_hairpin(chignolin, _process(20.0, 40, 300, 8), _process(3.0, 40, 300, 9), 10), 40)

    found = _judged(chignolin, right, reference)
    model = found["jsd.slow_coordinates"]
    between = model.reference
    assert model.value.value < 2.0 * between.value
    assert model.value.standard_error > 0
    folded = found["folded_share"]
    assert abs(folded.value.z(folded.reference)) < 4
    assert found["native_rmsd"].value.unit == "nm"
    surfaces = [drawing for drawing in found.drawings if isinstance(drawing, SurfacesDrawing)]
    assert len(surfaces) == 2
    for drawing in surfaces:
        assert set(drawing.surfaces) == {"reference", "CG model"}
        assert all(surface.probability.sum() == pytest.approx(1.0) for surface in drawing.surfaces.values())
    stuck = _hairpin(chignolin, 2.0 + 0.3 * _process(20.0, 40, 300, 8), _process(3.0, 40, 300, 9), 10)
    assert _judged(chignolin, _frames(stuck, 40), reference)["jsd.slow_coordinates"].value.value > 5.0 * between.value


def test_the_speed_up_is_that_of_dynamics_without_exchange(chignolin):
    """Frames of ladders forget themselves in 40 ps, atoms without exchange in 80, beads in 20: a factor of 4."""

    def chain(decay, seed, replicas=40, length=600):
        slow, fast = (_process(time, replicas, length, seed + place) for place, time in enumerate((decay, 1.0)))
        return _frames(_hairpin(chignolin, slow, fast, seed), replicas)

    beads, ladders, atoms = chain(20.0, 11), chain(40.0, 21, 8, 3000), chain(80.0, 31)
    found = _judged(chignolin, beads, ladders, atoms)
    item = found["time_scale.TIC_1"]
    assert abs(item.value.z(20.0)) < 4 and abs(item.reference.z(80.0)) < 4
    assert abs(found["speed_up.TIC_1"].value.z(4.0)) < 4 and found["speed_up.TIC_1"].value.standard_error < 1.0
    alone = _judged(chignolin, beads, ladders)
    assert abs(alone["time_scale.TIC_1"].reference.z(40.0)) < 4
    assert not [item for item in alone.quantities if item.name == "speed_up"]


def test_rmsd_is_that_of_mdtraj(chignolin):
    native = _native(chignolin)
    generator = np.random.default_rng(0)
    positions = native + generator.normal(0, 0.1, (50, 10, 3)) + generator.normal(0, 2.0, (50, 1, 3))
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(10):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    expected = mdtraj.rmsd(mdtraj.Trajectory(positions, topology), mdtraj.Trajectory(native[None], topology))
    rmsd = lambda places: deviation(places, range(10), native)[0]  # noqa: E731
    np.testing.assert_allclose(rmsd(positions), expected, atol=2e-4)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    assert rmsd(native[None] @ turn.T + 1.0)[0] < 1e-6
    assert rmsd(-native[None])[0] > 0.05  # a mirror image is another structure


def _content(system):
    return system.model_dump(mode="json", exclude_unset=True)


def test_native_structures_are_checked(chignolin, tmp_path):
    assert np.linalg.norm(np.diff(_native(chignolin), axis=0), axis=1) == pytest.approx(0.38, abs=0.01)
    lines = (chignolin.folder / "chignolin_native.pdb").read_text().splitlines()
    (tmp_path / "short.pdb").write_text("\n".join(lines[:8]) + "\n")
    native = chignolin.evaluation.native.model_copy(update={"file": tmp_path / "short.pdb"})
    evaluation = chignolin.evaluation.model_copy(update={"native": native})
    with pytest.raises(SystemSpecError, match=r"short\.pdb lacks 8:CA, 9:CA, 10:CA, on which beads sit"):
        _native(chignolin.model_copy(update={"evaluation": evaluation}))
    (tmp_path / "short.pdb").write_text("ATOM  nonsense\n")
    with pytest.raises(SystemSpecError, match="cannot be read as a PDB file"):
        _native(chignolin.model_copy(update={"evaluation": evaluation}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slow_coordinates": {"lag": 0.3}}, "not a multiple of cg_simulation.frame_interval"),
        ({"slow_coordinates": {"lag": 400}}, "is not shorter than cg_simulation.duration 250"),
        ({"slow_coordinates": None}, "native requires slow_coordinates"),
        ({"native": {"file": "nowhere.pdb"}}, "no file"),
    ],
)
def test_settings_are_checked(chignolin, change, message):
    content = _content(chignolin)
    content["evaluation"] |= change
    with pytest.raises((ValueError, SystemSpecError), match=message):
        type(chignolin).model_validate(content | {"folder": chignolin.folder})
