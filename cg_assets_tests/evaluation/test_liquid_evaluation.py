"""CG liquids judged against themselves: two runs of one potential differ by noise alone, two potentials by more."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from test_response_assets import WATER
from thermal_models import EDGE, known_potential, liquid

from cg_assets.assets.evaluations import judge
from cg_assets.assets.simulations import judge_simulation
from cg_assets.core.errors import ExplosionError, SamplingError
from cg_assets.core.frames import Frames
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation, checks_of
from cg_assets.figures.comparison import comparison_figures
from cg_assets.potentials.base import Potential
from cg_assets.simulation.run import run_cg_simulation
from cg_assets.systems import SystemSpec
from cg_assets.systems.load import SHIPPED

KELVIN = [380.0, 500.0]


@pytest.fixture(scope="module")
def system():
    content = yaml.safe_load((SHIPPED / "water.yaml").read_text())
    own = yaml.safe_load(WATER)
    content |= {"model": content["model"] | own["model"], "potentials": {}, "targets": own["targets"]}
    content |= {"temperatures": KELVIN, "network": content["network"] | own["network"]}
    content["sampling"]["unbiased"] |= {"replicas": 2, "frame_interval": 0.2}
    content["sampling"]["conditional"] |= {"frames": 3}
    run = {"replicas": 2, "timestep": 0.004, "friction": 2.0, "burn_in": 2, "duration": 14, "frame_interval": 0.1}
    return SystemSpec.model_validate(content | {"cg_simulation": run, "evaluation": {"longest_lag": 1.0}})


def weak_potential(hard=0.25):
    """The known potential, weak enough for its beads to forget their places soon, and hard near `hard` [nm]."""
    module = known_potential()
    with torch.no_grad():
        module.coefficients.mul_(0.15)
        module.prior.copy_(torch.tensor([200.0, hard]))
    return module


def starts():
    """Frames of jittered lattices at each temperature."""
    count = 4 * len(KELVIN)
    zeros = np.zeros(count, np.int32)
    return Frames(
        positions=liquid(count, seed=3).astype(np.float32),
        time=np.arange(count, dtype=float),
        replica=zeros,
        temperature=np.repeat(KELVIN, 4),
        start=zeros,
        probe=zeros > 0,
        box=np.full((count, 3), EDGE, np.float32),
    )


def with_energies(module, frames):
    """The frames with the mean energy of the atoms in place of W, as dynamics of atoms have it."""
    kelvin, places = torch.as_tensor(frames.temperature), torch.as_tensor(frames.positions).double()
    energy = module.energies(places, kelvin, torch.full((3,), EDGE, dtype=torch.float64))[1]
    return replace(frames, potential_energy=energy.numpy())


def simulated(system, potential, frames, progress=None):
    """The beads of a system at each temperature of its reference."""
    kelvins = system.temperatures
    return run_cg_simulation(potential, system.beads(), system.cg_simulation, frames, kelvins, progress=progress)


@pytest.fixture(scope="module")
def judged(system):
    module = weak_potential()
    one = simulated(system, module, starts())
    other = system.model_copy(update={"cg_simulation": system.cg_simulation.model_copy(update={"seed": 7})})
    two = simulated(other, module, starts())
    atoms = with_energies(module, two.frames)
    return module, one, atoms, judge(system, module, None, one.frames, one.runs, atoms)


def test_two_runs_of_one_potential_differ_by_noise(system, judged):
    module, run, _, found = judged
    assert found.temperatures == KELVIN

    def pair(name, kelvin):
        item = found[f"{name}.{kelvin:g}K"]
        return item.value, item.reference

    for kelvin in KELVIN:
        error, floor = pair("rdf_error", kelvin)
        excess = found[f"rdf_excess.{kelvin:g}K"].value
        assert excess.value == error.value - floor.value and excess.standard_error == error.standard_error
        assert abs(error.value - floor.value) < 4 * error.standard_error
        assert floor.value < 0.1
        for name in ("potential_energy", "diffusion"):
            beads, atoms = pair(name, kelvin)
            assert abs(beads.z(atoms)) < 4, name
        for name in ("rdf", "rdf_slope"):
            line = found.profile(name, temperature=kelvin)
            width = np.hypot(line.standard_error, line.reference_error)
            z = (line.values - line.reference)[width > 0] / width[width > 0]
            assert math.sqrt(np.mean(z**2)) < 1.6, name
        # C_v = C_W + Var(U_W)/(kT²), and the "atoms" here have the second part alone
        capacity, fluctuation = pair("heat_capacity", kelvin)
        of_frozen = module.energies(torch.as_tensor(run.frames.positions[:1]), kelvin, torch.full((3,), EDGE))[2]
        assert abs((capacity.value - float(of_frozen) / 27) - fluctuation.value) < 4 * math.hypot(
            capacity.standard_error, fluctuation.standard_error
        )
        measured, exact = pair("kinetic_temperature", kelvin)
        assert abs(measured.z(exact)) < 4 and measured.standard_error < 0.04 * kelvin
    assert all(check.passed for check in judge_simulation(system, run.runs))
    assert all(verdict.passed for verdict in found.verdicts(checks_of(system.evaluation)))


def test_another_potential_is_told_apart(system, judged):
    _, _, atoms, own = judged
    wrong = weak_potential(0.3)
    run = simulated(system, wrong, starts())
    found = judge(system, wrong, None, run.frames, run.runs, atoms)
    excess = found[f"rdf_excess.{KELVIN[0]:g}K"].value
    assert excess.value > 6 * excess.standard_error
    assert found.metrics()["rdf_error"] > own.metrics()["rdf_error"]
    strict = system.model_copy(update={"evaluation": system.evaluation.model_copy(update={"max_rdf_error": 0.001})})
    again = judge(strict, wrong, None, run.frames, run.runs, atoms)
    assert not again.verdicts(checks_of(strict.evaluation))[0].passed
    comparison = Comparison({"right": own, "wrong": found})
    shown = comparison.rows()
    assert shown[0]["metric"] == "rdf_error" and all(row["right"] for row in shown)
    assert len(shown) < len(comparison.rows(everything=True)) == len(found.quantities)
    columns = {name: np.array(values) for name, values in comparison.columns().items()}
    assert Comparison.from_columns(columns).rows() == shown
    for name, png in comparison_figures(comparison, "known water").items():
        assert png.startswith(b"\x89PNG") and len(png) > 10_000, name
    assert "accuracy and speed" not in comparison_figures(Comparison({"right": own}, {"right": 1e3}), "known water")


def test_an_evaluation_is_read_back_as_it_was_written(judged):
    found = judged[3]
    again = Evaluation.from_columns({name: np.array(rows) for name, rows in found.columns().items()})
    assert again.rows() == found.rows() and again.metrics() == found.metrics()
    assert again.quantities == found.quantities
    one, other = (item.profile("rdf_slope", temperature=500.0) for item in (again, found))
    np.testing.assert_array_equal(one.reference, other.reference)


def test_same_seed_same_frames_and_progress_is_told(system, judged):
    told, short = [], system.cg_simulation.model_copy(update={"burn_in": 0.0, "duration": 4.0})
    quick = system.model_copy(update={"cg_simulation": short})
    one, two = (simulated(quick, judged[0], starts(), progress=lambda *item: told.append(item)) for _ in range(2))
    np.testing.assert_array_equal(one.frames.positions, two.frames.positions)
    assert told[-1][0] == told[-1][1] and len({total for _, total, _ in told}) == 1


def test_a_temperature_at_which_all_explode_is_infinitely_wrong(system, judged):
    module, _, atoms, _ = judged

    class Hot(type(module)):
        """Explodes at one temperature."""

        def evaluate(self, positions, temperature=None, box=None):
            energy, forces = super().evaluate(positions, temperature, box)
            return (energy, forces) if temperature < 450 else (energy, forces + 1e9)

    class Everywhere(type(module)):
        """Explodes everywhere."""

        def evaluate(self, positions, temperature=None, box=None):
            energy, forces = super().evaluate(positions, temperature, box)
            return energy, forces + 1e9

    short = system.cg_simulation.model_copy(update={"duration": 4.0, "burn_in": 0.0})
    quick = system.model_copy(update={"cg_simulation": short})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(module), "engine", Potential.engine)  # not the compiled splines
        hot = weak_potential()
        hot.__class__ = Hot
        run = simulated(quick, hot, starts())
        hot.__class__ = Everywhere
        with pytest.raises(ExplosionError, match=r"0 of 4 replicas .* stayed stable"):
            simulated(quick, hot, starts())
    assert {one.temperature: one.stable_replicas for one in run.runs} == {380.0: 2, 500.0: 0}
    stability = judge_simulation(system, run.runs)[1]
    assert not stability.passed
    found = judge(quick, module, None, run.frames, run.runs, atoms)
    assert found.metrics()["rdf_error"] == found.metrics()["rdf_excess.500K"] == math.inf
    assert found["stable_replicas.500K"].value.value == 0.0
    assert not found.verdicts(checks_of(quick.evaluation))[0].passed


def test_starts_must_be_there_at_each_temperature(system, judged):
    frames = starts()
    with pytest.raises(SamplingError, match="no frames at 500 K to start from"):
        simulated(system, judged[0], frames.select(frames.temperature < 500))
