"""Every metric: what it declares it yields, right and with a real standard error."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.metrics import jensen_shannon_divergence, squared_log_error
from cg_assets.core.statistics.noise import integrate_mean_force
from cg_assets.core.statistics.surfaces import FreeEnergySurface, free_energy_surface
from cg_assets.core.units import BOLTZMANN, unit
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.evaluation import Evaluation, checks_of, evaluate
from cg_assets.evaluation.metric import Metric, metrics_of
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.reference import Reference
from cg_assets.evaluation.settings import FreeEnergySettings, LiquidSettings
from cg_assets.labels.quality import bin_model_labels
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.maps import CGMap
from cg_assets.simulation.run import Run
from cg_assets.systems import load_system

TESTS = Path(__file__).parent
ELSEWHERE = {
    "RadialDistribution": "test_liquid_evaluation.py",
    "AngularDistribution": "test_liquid_response.py",
    "SelfDiffusion": "test_liquid_response.py",
    "PlanePMF": "test_planes.py",
    "PMFAtTemperatures": "test_other_temperatures.py",
    "SlowFreeEnergy": "test_slow_coordinates.py",
    "Native": "test_slow_coordinates.py",
}
"""Metrics whose numbers another test compares with exact answers."""
LINE = {"reference": {"type": "quadrature", "range": [-1.4, 1.4]}, "collective_variables": ["x"], "max_pmf_error": 0.5}
LINE["basins"] = {"left": {"limits": {"x": [-1.45, 0]}}, "right": {"limits": {"x": [0, 1.45]}}}
RING = {"reference": {"type": "data"}, "collective_variables": ["phi"], "max_pmf_error": 1.0}
RING["basins"] = {"up": {"limits": {"phi": [0.0, math.pi]}}}
TILT, KT = 0.4, 300.0 * BOLTZMANN
SEEDS = range(24)


def frames_of(positions, replicas, **more):
    """Frames of independent replicas of equal length."""
    count = len(positions)
    more = {"window": np.zeros(count, np.int32), "temperature": np.full(count, 300.0)} | more
    return Frames(
        positions=np.asarray(positions, np.float32),
        time=np.tile(np.arange(count // replicas, dtype=float), replicas),
        replica=np.repeat(np.arange(replicas, dtype=np.int32), count // replicas),
        start=np.zeros(count, np.int32),
        probe=np.zeros(count, bool),
        **more,
    )


def beads_of(names, units="reduced", temperature=1.0, bonds=()):
    matrix, n = np.eye(len(names)), len(names)
    return Beads("toy", "Toy", units, temperature, CGMap(matrix, names, [0] * n, np.ones(n), names, [], list(bonds)))


def runs(share=1.0, seed=0, of="K"):
    stable = np.random.default_rng(seed).binomial(400, share)
    kinetic = Estimate(1.0 + 0.02 * np.random.default_rng([seed, 1]).normal(), 0.02, of)
    return (Run(1.0, False, 400, stable, kinetic, 1.0),)


def well(x):
    return 3.0 * (x**2 - 1.0) ** 2


def line(seed):
    """The PMF that labels alone give, tilted: what is measured scatters as the labels do."""
    generator, beads = np.random.default_rng(seed), beads_of(["x"])
    x = generator.uniform(-1.5, 1.5, 20_000)
    forces = (-12.0 * x * (x**2 - 1.0) + generator.normal(0.0, 3.0, len(x))).astype(np.float32)[:, None, None]
    data = frames_of(x[:, None, None], 200, forces=forces, collective_variables={"x": x.astype(np.float32)})
    labels = integrate_mean_force(bin_model_labels(beads, data))
    bins = Bins.between([(-1.4, 1.4)], 60)
    exact = well(bins.centres[0])
    density = np.exp(-exact) / np.exp(-exact).sum()
    reference = Reference(
        names=("x",),
        runs=(FreeEnergySurface(bins, density[None], 1.0),),
        exact=True,
        source="a formula",
        populations={name: Estimate(0.5, 0.0) for name in LINE["basins"]},
        free_energies={},
        pmf=exact,
    )

    def energy(positions):
        place = positions[:, 0, 0]
        return np.interp(place, labels.grid, labels.pmf) + TILT * place

    fine = np.linspace(-1.45, 1.45, 4001)
    weight = np.exp(-well(fine) - TILT * fine)
    drawn = generator.choice(fine, 20_000, p=weight / weight.sum())
    simulation = frames_of(drawn[:, None, None], 200, collective_variables={"x": drawn.astype(np.float32)})
    settings = FreeEnergySettings.model_validate(LINE)
    case = Case(
        beads,
        settings,
        energy,
        simulation,
        runs(0.9, seed, "reduced temperature"),
        data,
        reference=reference,
        domain=(-1.45, 1.45),
    )
    share = weight[fine <= 0].sum() / weight.sum()
    barrier = (well(fine) + TILT * fine)[np.abs(fine) < 0.3].max() - (well(fine) + TILT * fine).min()
    return case, {
        "pmf_rmse": TILT * 1.4 / math.sqrt(3.0),
        "population.left": share,
        "population.right": 1.0 - share,
        "barrier": barrier,
        "stable_replicas": 0.9,
        "kinetic_temperature": 1.0,
    }


def ring(seed):
    """Angles of 100 replicas against a reference of two runs, with bonds that are a little long and wrong hands."""
    generator = np.random.default_rng(seed)
    bins = Bins.between([(-math.pi, math.pi)], 12)
    beads = beads_of(["A", "B", "C", "D"], "molar", 300.0, [(0, 1), (0, 2), (0, 3)])

    def angles(strength, count):
        grid = np.linspace(-math.pi, math.pi, 12 * 200 + 1)
        grid = 0.5 * (grid[1:] + grid[:-1])
        weight = np.exp(strength * np.sin(grid))
        return generator.choice(grid, count, p=weight / weight.sum()), weight.reshape(12, 200).sum(1) / weight.sum()

    def molecule(phi, length, wrong):
        legs = length * np.eye(3)[None] * (1.0 + 0.05 * generator.normal(size=(len(phi), 3, 1)))
        legs = np.where((generator.random(100) < wrong).repeat(len(phi) // 100)[:, None, None], -legs, legs)
        places = np.concatenate([np.zeros((len(phi), 1, 3)), legs], axis=1)
        return frames_of(places, 100, collective_variables={"phi": phi.astype(np.float32)})

    phi, model = angles(1.0, 10_000)
    known = [angles(-0.5, 10_000)[0] for _ in range(2)]
    truth = angles(-0.5, 12)[1]
    surfaces = [free_energy_surface(item, bins, KT, np.arange(10_000) // 100, unit="kJ/mol") for item in known]
    up = float(model[6:].sum())
    reference = Reference(
        ("phi",), tuple(surfaces), False, "drawn", {"up": Estimate(0.3, 0.01)}, {"up": Estimate(1.0, 0.1, "kJ/mol")}
    )
    beads = replace(beads, collective_variables={"phi": Angle()})
    data = molecule(known[0], 1.0, 0.0)
    simulation = molecule(phi, 1.02, 0.1)
    settings = FreeEnergySettings.model_validate(RING)
    case = Case(beads, settings, lambda places: np.zeros(len(places)), simulation, runs(), data, reference=reference)
    return case, {
        "pmf_error": squared_log_error(model, truth),
        "jsd": jensen_shannon_divergence(model, truth),
        "population.up": up,
        "free_energy.up": -KT * math.log(up / (1.0 - up)),
        "largest_flipped_share": 0.1,
        "flipped_share.A": 0.1,
    }


class Angle:
    """A variable that frames already hold."""

    quantity, periodic, atoms = "angle", False, ()


def gas(seed):
    """Energies of frozen beads that are normal numbers, and those of atoms."""
    generator, n, kelvin = np.random.default_rng(seed), 20_000, 300.0
    zeros = np.zeros((n, 27, 3))
    box = np.full((n, 3), 2.0, np.float32)
    atoms = frames_of(zeros, 100, box=box, potential_energy=generator.normal(-27.0, 5.0, n))
    energies = generator.normal(-54.0, 4.0, n), np.full(n, 0.27)
    settings = LiquidSettings()
    beads, run = beads_of([str(item) for item in range(27)], "molar", kelvin), runs()
    case = Case(
        *(beads, settings, lambda places: np.zeros(len(places)), frames_of(zeros, 100, box=box), run, atoms, atoms),
        thermodynamics=lambda frames: energies,
    )
    return case, {
        "potential_energy.300K": -2.0,
        "heat_capacity.300K": (0.27 + 16.0 / (BOLTZMANN * kelvin**2)) / 27,
    }


MADE = {"line": line, "ring": ring, "gas": gas}
CHOSEN = {"gas": ["LiquidEnergies", "Stability"]}


def measured(name, seed):
    case, exact = MADE[name](seed)
    chosen = [
        item for item in metrics_of(case.settings) if type(item).__name__ in CHOSEN.get(name, [type(item).__name__])
    ]
    return case, chosen, evaluate(case, chosen), exact


@pytest.mark.parametrize("name", MADE)
def test_values_are_exact_within_their_errors(name):
    """Mean and scatter of z over independent sets of data."""
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        _, _, result, exact = measured(name, seed)
        for key, value in exact.items():
            found.setdefault(key, []).append(result[key].value.z(value))
    for key, z in found.items():
        assert abs(np.mean(z)) < 4.0 / math.sqrt(len(z)), (key, np.mean(z))
        assert 0.5 < np.std(z) < 1.6, (key, np.std(z))


@pytest.mark.parametrize("name", MADE)
def test_metrics_yield_what_they_declare(name):
    case, chosen, result, _ = measured(name, 0)
    declared = {measure.name: measure for metric in chosen for measure in metric.measures}
    for item in result.quantities:
        measure = declared[item.name]
        known = {"energy", "length", "temperature"}
        expected = unit(measure.unit, case.beads.units) if measure.unit in known else measure.unit
        assert item.value.unit == expected, item.key
        assert bool(item.where) <= bool(measure.where), item.key
        assert item.value.standard_error != 0.0 or item.value.value == 0.0, f"{item.key} is not exact"
    if name != "gas":
        bounded = {item.name for item in result.quantities if item.bound is not None}
        assert bounded == {check.name for check in checks_of(case.settings)}
        assert len(result.decisive) == 1


def test_every_metric_is_compared_with_an_exact_answer():
    covered = {type(metric).__name__ for name in MADE for metric in measured(name, 0)[1]}
    for key, member in Metric._members.items():
        if not key.startswith("cg_assets."):
            continue
        assert member.__doc__ and all(measure.meaning for measure in member.measures)
        if member.__name__ not in covered:
            assert (TESTS / ELSEWHERE[member.__name__]).is_file()


def test_bonds_are_as_far_as_shifted_normal_numbers():
    """Lengths of 1.02 ± 0.05 against 1.00 ± 0.05, in bins over six standard deviations."""
    _, _, result, _ = measured("ring", 1)
    edges = np.linspace(-6.0, 6.0, 61)
    cumulative = [
        np.array([0.5 * (1 + math.erf((edge - shift) / math.sqrt(2))) for edge in edges]) for shift in (0.4, 0)
    ]
    expected = jensen_shannon_divergence(*(np.diff(item) for item in cumulative))
    found = [item.value.value for item in result.quantities if item.name == "bond_jsd"]
    assert len(found) == 3 and np.mean(found) == pytest.approx(expected, rel=0.25)
    assert result["largest_bond_jsd"].value.value == max(found)


def test_the_error_where_frames_are_is_stated_where_the_range_reaches_beyond_them():
    case, _ = line(0)
    x = case.data.collective_variables["x"]
    narrow = replace(case, data=case.data.select(np.abs(x) < 1.0), _made={})
    found = {item.key: item for item in evaluate(narrow).quantities}
    low, high = (found[f"sampled_range.{end}"].value.value for end in ("low", "high"))
    assert -1.0 < low < -0.9 < 0.9 < high < 1.0
    inside = found["pmf_rmse.where_frames_are"]
    assert math.isnan(found["pmf_rmse"].value.standard_error)
    assert inside.bound is None
    tilt = TILT * (high - low) / 2.0 / math.sqrt(3.0)
    assert abs(inside.value.value - tilt) < 3.5 * inside.value.standard_error + 0.02
    (verdict,) = evaluate(narrow).verdicts([item for item in checks_of(narrow.settings) if item.name == "pmf_rmse"])
    assert "where frames are" in verdict.facts
    assert "narrow it to that" in verdict.check.remedy


def test_barriers_of_three_basins_are_those_between_neighbours():
    case, _ = line(0)
    limits = {"right": (0.5, 1.5), "left": (-1.5, -0.5), "top": (-0.05, 0.05)}
    basins = {name: case.settings.basins["left"].model_copy(update={"limits": {"x": x}}) for name, x in limits.items()}
    reference = replace(case.reference, populations={name: Estimate(0.3, 0.0) for name in basins})
    settings = case.settings.model_copy(update={"basins": basins})
    of_three = replace(case, settings=settings, reference=reference, _made={})
    found = {item.key: item for item in evaluate(of_three).quantities if item.name == "barrier"}
    assert found.keys() == {"barrier.left_to_top", "barrier.top_to_right"}
    up, down = (found[f"barrier.{name}"] for name in ("left_to_top", "top_to_right"))
    assert up.reference.value == pytest.approx(3.0, abs=0.05) and down.reference.value == pytest.approx(0.0, abs=0.05)
    assert abs(up.value.value - 3.0 - TILT) < 4.0 * up.value.standard_error + 0.05


def test_a_failed_check_states_what_noise_alone_gives_and_its_own_remedy():
    error, between = Estimate(4.83, 0.69, "(kT)²"), Estimate(7.92, 0.87, "(kT)²")
    found = Evaluation(
        (Quantity("pmf_error", error, between, bound=0.5), Quantity("reference_error", error, bound=0.5)), (), (), 2.5
    )
    checks = [check for check in checks_of(load_system("capped_alanine_quick").evaluation) if "error" in check.name]
    of_model, of_reference = (verdict.message for verdict in found.verdicts(checks))
    assert of_model.startswith(
        "pmf_error failed: pmf error 4.83 ± 0.69 (kT)², bound 0.5, noise alone 7.92 ± 0.87 (kT)²;"
    )
    assert "lengthen the reference" in of_reference and "noise" not in of_reference
