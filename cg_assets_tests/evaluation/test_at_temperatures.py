"""Potentials of a molecule judged at several temperatures: a helix and a coil whose melting is exact."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_ladder import melting
from two_states import CAPACITY, GAP, TEMPERATURES, exact, folded_share

from cg_assets.assets.evaluations import _judged_by, judge
from cg_assets.assets.work import Inputs
from cg_assets.core.errors import SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.units import BOLTZMANN
from cg_assets.evaluation.at_temperatures import _mean, melting_temperature, slope_error
from cg_assets.evaluation.free_energies import SurfacesDrawing
from cg_assets.evaluation.metrics.energies import liquid_energy
from cg_assets.evaluation.quantity import Quantity
from cg_assets.figures.evaluation import evaluation_figures
from cg_assets.potentials.base import Potential
from cg_assets.potentials.thermal.dependent import TemperatureDependent
from cg_assets.simulation.run import Run, run_cg_simulation
from cg_assets.simulation.settings import CGSimulation
from cg_assets.storage.store import ParquetStore
from cg_assets.systems.load import load_system

KELVINS = [float(kelvin) for kelvin in TEMPERATURES]


class TwoStates(Potential):
    """U_W and C_W of the helix and of the coil, which is longer than 1.6 nm."""

    conditions = frozenset({"temperature"})

    def __init__(self, factor=1.0):
        torch.nn.Module.__init__(self)
        self.register_buffer("factor", torch.tensor(factor))

    def energy(self, positions, temperature=None, box=None):
        return 0 * positions[:, 0, 0]

    def energies(self, positions, temperature, box=None):
        unfolded = ((positions[:, 0] - positions[:, -1]).norm(dim=1) > 1.6).double()
        constant = torch.full_like(unfolded, CAPACITY)
        return 0 * unfolded, self.factor * (CAPACITY * temperature + GAP * unfolded), self.factor * constant


@pytest.fixture(scope="module")
def system():
    helix = load_system("helix")
    simulated = helix.cg_simulation.model_copy(update={"temperatures": KELVINS})
    return helix.model_copy(update={"cg_simulation": simulated})


def simulation(system, seed, temperatures=TEMPERATURES):
    frames = melting(system, seed, per_rung=3000, ladders=30, temperatures=np.asarray(temperatures))
    return replace(frames, window=np.zeros(len(frames), np.int32), potential_energy=None)


def runs(stable=30):
    counts = dict.fromkeys(KELVINS, 30) | {KELVINS[-1]: stable}
    return [Run(kelvin, False, 30, count, Estimate(kelvin, 1.0, "K"), 1.0) for kelvin, count in counts.items()]


@pytest.fixture(scope="module")
def judged(system):
    data = melting(system, 1)
    reference = system.compute_reference(0, system.folder, data=data)
    own = data.select(data.temperature == KELVINS[0])
    found = judge(system, TwoStates(), reference, simulation(system, 2), runs(), own, data)
    return data, reference, found


def test_one_simulation_at_each_temperature_gives_the_thermodynamics_of_the_atoms(judged):
    _, _, found = judged
    assert found.temperatures == KELVINS
    names = {
        "folded_share": "share",
        "folded_share_slope": "slope",
        "potential_energy": "energy",
        "heat_capacity": "capacity",
    }
    for name, of in names.items():
        at = found.at_temperatures(name)
        assert list(at) == KELVINS
        for kelvin, item in at.items():
            assert abs(item.value.z(exact(kelvin)[of])) < 4, item
            assert abs(item.reference.z(exact(kelvin)[of])) < 4, item
            assert item.value.standard_error > 0
    for kelvin, item in found.at_temperatures("population_slope", "helix_length").items():
        assert abs(item.value.z(exact(kelvin)["slope"])) < 4


def test_melting_temperature_and_slopes(judged):
    _, _, found = judged
    line = {kelvin: Estimate(folded_share(kelvin), 0.0) for kelvin in KELVINS}
    interpolated = melting_temperature(line).value
    assert abs(interpolated - 350.0) < 3.0
    item = found["melting_temperature"]
    assert abs(item.value.z(interpolated)) < 4 and abs(item.reference.z(interpolated)) < 4
    assert 0 < item.value.standard_error < 3
    assert found["folded_share_error"].value.value < 0.05
    error = found["folded_share_slope_error"]
    exact_error = slope_error(line, {kelvin: Estimate(exact(kelvin)["slope"], 0.0) for kelvin in KELVINS})
    assert error.value.value < exact_error.value + 3 * error.value.standard_error
    assert math.isnan(melting_temperature({280.0: Estimate(0.4, 0.1), 300.0: Estimate(0.2, 0.1)}).value)


def test_the_table_has_a_column_for_each_temperature(judged):
    _, _, found = judged
    rows = {(row["metric"], row["where"]): row for row in found.rows() if row["of"] == "model"}
    assert {"all", "280 K", "460 K"} <= set(rows["folded_share", ""])
    for name, where in (("pmf_error", "slow coordinates"), ("jsd", "slow coordinates"), ("time_scale", "TIC 1")):
        assert rows[name, where]["390 K"]
    (decisive,) = found.decisive
    per_temperature = [item.value.value for item in found.at_temperatures("pmf_error").values()]
    assert decisive.name == "pmf_error" and decisive.temperature is None
    assert decisive.value.value == pytest.approx(np.mean(per_temperature))
    errors = [item.value.standard_error for item in found.at_temperatures("pmf_error").values()]
    assert np.linalg.norm(errors) / len(errors) < decisive.value.standard_error < np.mean(errors)
    assert all(item.bound == 0.5 and not item.decides for item in found.at_temperatures("pmf_error").values())


def test_frames_that_were_not_learnt_are_not_shown_as_training_data(judged):
    """The toy's potential learned at the lowest temperature alone."""
    _, _, found = judged
    shown = [item for item in found.drawings if isinstance(item, SurfacesDrawing) and item.marginals == "marginals"]
    assert {item.temperature for item in shown if "training data" in item.surfaces} == {KELVINS[0]}
    assert {item.temperature for item in shown} == set(KELVINS)


def test_figures_show_melting(judged):
    _, _, found = judged
    figures = evaluation_figures("two", found, "Toy")
    assert {"melting", "slow coordinates at three temperatures", "errors"} <= set(figures)
    for name, png in figures.items():
        assert png.startswith(b"\x89PNG") and len(png) > 10_000, name


def test_a_potential_of_one_temperature_is_worse_at_the_others(system, judged):
    """The density of the lowest temperature at all of them: what one W(R) for all temperatures would come near to."""
    data, reference, right = judged
    frames = [replace(simulation(system, 3, [280.0]), temperature=np.full(3000, kelvin)) for kelvin in KELVINS]
    found = judge(system, FixedSprings(), reference, Frames.concatenate(frames), runs(), data, data)
    assert found["folded_share_error"].value.value > 0.5
    assert math.isnan(found["melting_temperature"].value.value)
    assert not found.at_temperatures("potential_energy") and not found.at_temperatures("folded_share_slope")
    for kelvin in KELVINS[2:]:
        worse, better = (item.at_temperatures("jsd", "slow coordinates")[kelvin].value for item in (found, right))
        assert worse.value > 3 * better.value
    assert found.decisive[0].value.value > 10 * right.decisive[0].value.value


def test_a_temperature_without_a_stable_replica_is_infinitely_wrong(system, judged):
    data, reference, _ = judged
    frames = simulation(system, 2)
    found = judge(system, TwoStates(), reference, frames.select(frames.temperature < 460.0), runs(0), data, data)
    assert found["stable_replicas.460K"].value.value == 0.0
    assert math.isinf(found["pmf_error.460K"].value.value) and math.isinf(found["pmf_error"].value.value)
    assert not found["pmf_error.460K"].passed and found["pmf_error.280K"].passed
    for name in ("folded_share_error", "melting_temperature", "folded_share_slope_error"):
        assert math.isinf(found[name].value.value), name


def test_errors_of_the_same_reference_do_not_average_out():
    """Nine simulations that err by 3 each give a mean that errs by 1; their reference errs by 4 at all of them."""
    found = Quantity("pmf_error", Estimate(0.2, 5.0), Estimate(0.1, 4.0), decides=True, own_error=3.0)
    mean = _mean(found, {float(kelvin): [found] for kelvin in range(300, 390, 10)})
    assert mean.value.value == pytest.approx(0.2) and mean.value.standard_error == pytest.approx(math.sqrt(17.0))
    assert mean.reference.standard_error == pytest.approx(4.0)


def test_melting_is_where_the_share_falls_last():
    """A share that rises before it falls; shares of the same samples err together."""
    shares = {kelvin: Estimate(value, 0.1) for kelvin, value in zip(KELVINS, (0.40, 0.52, 0.48, 0.30), strict=True)}
    assert melting_temperature(shares).value == pytest.approx(360.0)
    steepness = 0.04 / 60.0
    assert melting_temperature(shares).standard_error == pytest.approx(0.1 / math.sqrt(2.0) / steepness)
    assert melting_temperature(shares, shared=True).standard_error == pytest.approx(0.1 / steepness)
    assert math.isnan(melting_temperature({280.0: Estimate(0.4, 0.1), 300.0: Estimate(0.6, 0.1)}).value)


def test_results_at_other_temperatures_are_not_compared(system, tmp_path):
    """What a potential was judged by is the reference together with the temperatures of its CG simulations."""
    inputs, found = Inputs(ParquetStore(tmp_path), system), []
    inputs.versions["helix/reference"] = "a version"
    for kelvins in (None, KELVINS[:1], KELVINS):
        simulated = system.cg_simulation.model_copy(update={"temperatures": kelvins})
        found.append(_judged_by(inputs, system.model_copy(update={"cg_simulation": simulated}), "all"))
    assert found[0] == "a version" and len(set(found)) == 3


class Springs(TemperatureDependent):
    """Three beads on two springs whose constant falls with temperature: W = k(T) Σ r²/2."""

    stiffness, softening, origin = 4000.0, 0.7, 350.0

    def __init__(self):
        dependence = {"form": "taylor_temperature", "origin": self.origin, "order": 1}
        super().__init__({"type": "springs", "temperature_dependence": dependence}, torch.Generator())
        self.register_buffer("constant", torch.tensor([self.stiffness, -self.softening * self.stiffness]))

    def terms(self, positions, box=None):
        squares = (positions[:, 1:] - positions[:, :-1]).square().sum(dim=(1, 2))
        return 0.5 * squares[:, None] * self.constant.to(positions)

    def add_constants(self, values):
        raise ValueError("no constants")

    def mean_energy(self, kelvin):
        """Exact <U_W>: U = (k - T k') q with <q> = 3 kT/k for two springs."""
        k = self.stiffness * (1 - self.softening * (kelvin / self.origin - 1))
        slope = -self.softening * self.stiffness / self.origin
        return (k - kelvin * slope) / k * 3.0 * BOLTZMANN * kelvin


class FixedSprings(Potential):
    """The same at one temperature."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.register_buffer("constant", torch.tensor(Springs.stiffness))

    def energy(self, positions, temperature=None, box=None):
        return 0.5 * self.constant * (positions[:, 1:] - positions[:, :-1]).square().sum(dim=(1, 2))


def on_springs(system, kelvins, duration, spread, springs):
    """A CG simulation of beads on springs, from starts that spread by so much at each temperature [nm]."""
    cg_map = replace(system.beads().cg_map, bead_names=["a", "b", "c"], bead_masses=np.full(3, 50.0))
    beads = replace(system.beads(), cg_map=cg_map, collective_variables={})
    starts = np.random.default_rng(0).normal(0, 1.0, (2, 2, 3, 3)).astype(np.float32)
    frames = Frames.of_replicas(np.arange(2.0), np.arange(2), temperature=0.0, positions=starts)
    at = zip(kelvins, spread, strict=True)
    parts = [
        replace(frames, temperature=np.full(4, kelvin), positions=np.float32(size) * frames.positions)
        for kelvin, size in at
    ]
    settings = CGSimulation(replicas=64, timestep=0.005, friction=5.0, burn_in=2, duration=duration, frame_interval=0.1)
    return run_cg_simulation(springs, beads, settings, Frames.concatenate(parts), kelvins)


def test_dynamics_at_several_temperatures_give_energy_and_heat_capacity(system):
    """Beads on springs, whose energies at each temperature are exact; the heat capacity is that of differences."""
    springs, kelvins = Springs(), [280.0, 420.0]
    result = on_springs(system, kelvins, 10.0, [0.02, 0.02], springs)
    assert [run.temperature for run in result.runs] == kelvins
    for kelvin, part in result.frames.by_temperature().items():
        _, energy, capacity = springs.energies(torch.as_tensor(part.positions), kelvin)
        found = liquid_energy(energy.numpy(), capacity.numpy(), kelvin, part.replica, part.time)
        assert abs(found.energy.z(springs.mean_energy(kelvin))) < 4
        difference = (springs.mean_energy(kelvin + 1) - springs.mean_energy(kelvin - 1)) / 2
        assert abs(found.heat_capacity.z(difference)) < 4


def test_a_potential_of_one_temperature_runs_at_all(system):
    """The baseline of all comparisons: its energy is 3 kT at each temperature, by two springs."""
    result = on_springs(system, [280.0, 420.0], 10.0, [0.02, 0.02], FixedSprings())
    for kelvin, part in result.frames.by_temperature().items():
        found = liquid_energy(part.potential_energy, np.zeros(len(part)), kelvin, part.replica, part.time)
        assert abs(found.energy.z(3 * BOLTZMANN * kelvin)) < 4 and found.energy.standard_error < 0.3
    with pytest.raises(ValueError, match="the energy of its atoms is not known"):
        FixedSprings().energies(torch.zeros(1, 3, 3), 300.0)


def test_a_temperature_at_which_all_explode_at_once_is_stored(system):
    result = on_springs(system, [280.0, 420.0], 0.2, [0.02, 1e4], Springs())
    stable, lost = (Run.from_json(json.loads(json.dumps(run.to_json(), allow_nan=False))) for run in result.runs)
    assert stable.is_stable and lost.stable_replicas == 0 and lost.replica_steps_per_second == 0.0
    assert set(result.frames.temperature) == {280.0} and math.isfinite(result.steps_per_second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": [280, 310]}, "holds 310, at which there are no frames to start from.*choose from 280, 304"),
        ({"temperatures": [304, 280]}, "does not rise"),
        ({"temperatures": [280, 304], "displacement": 0.1}, "temperatures excludes displacement"),
        ({"temperatures": [280], "tempering": {"temperatures": [280, 300], "pace": 1}}, "excludes tempering"),
    ],
)
def test_wrong_temperatures_are_refused(system, change, message):
    content = load_system("helix").model_dump(mode="json", exclude_unset=True)
    content["cg_simulation"] |= change
    with pytest.raises((ValueError, SystemSpecError), match=message):
        type(system).model_validate(content | {"folder": system.folder})


def with_dynamics(system, **change):
    content = load_system("helix").model_dump(mode="json", exclude_unset=True)
    ladder = content["sampling"]["unbiased"]
    own = {"burn_in": 500, "duration": 500} | {k: v for k, v in change.items() if k != "tempering"}
    tempering = ladder["tempering"] | {"pace": 500} | change.get("tempering", {})
    content["sampling"]["further"] = {"free": ladder | own | {"tempering": tempering}}
    content["evaluation"]["slow_coordinates"]["dynamics"] = "free"
    return type(system).model_validate(content | {"folder": system.folder})


def test_dynamics_without_exchange_are_a_further_plan(system):
    assert with_dynamics(system).dynamics_stage == "free_forces"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tempering": {"pace": 1}}, "free, whose frames are those of a bias or of replica exchange; set its temper"),
        ({"tempering": {"kept_rungs": None}}, "free, which keeps no frames at 304 K; give it the same ladder"),
    ],
)
def test_dynamics_with_exchange_are_refused(system, change, message):
    with pytest.raises((ValueError, SystemSpecError), match=message):
        with_dynamics(system, **change)
