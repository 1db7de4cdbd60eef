"""Numbers that no dynamics gives are named with their frame, before anything learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cg_assets.assets.data import sane
from cg_assets.assets.imports import ImportJudge
from cg_assets.core.checks import FINITE_BEADS, Check, absurd, finite_verdict, frame_fault
from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.training.thermal_targets import ThermalTargets


def frames(seed=0, n_replicas=4, n_times=50, n_beads=3):
    rng = np.random.default_rng(seed)
    n = n_replicas * n_times
    return Frames(
        positions=rng.normal(size=(n, n_beads, 3)).astype(np.float32),
        time=np.tile(np.arange(n_times) * 0.5, n_replicas),
        replica=np.repeat(np.arange(n_replicas), n_times).astype(np.int32),
        temperature=np.full(n, 300.0),
        start=np.zeros(n, np.int32),
        probe=np.zeros(n, bool),
        forces=(1000 * rng.standard_t(3, size=(n, n_beads, 3))).astype(np.float32),
        bias_energy=rng.normal(size=n),
    )


def spoiled(name, value, row=67, seed=0):
    """Frames with one wrong number, of the second site where there are sites."""
    clean = frames(seed)
    array = getattr(clean, name).copy()
    array[(row, 1, 2) if array.ndim == 3 else row] = value
    return replace(clean, **{name: array})


@pytest.mark.parametrize("seed", range(20))
def test_heavy_tails_are_not_absurd(seed):
    assert frame_fault(frames(seed)) == ""
    assert finite_verdict(FINITE_BEADS, frames(seed)).passed


@pytest.mark.parametrize("value", [1e12, -1e9, np.nan, np.inf])
@pytest.mark.parametrize("name", ["forces", "positions"])
def test_one_wrong_number_is_named_with_its_frame(name, value):
    verdict = finite_verdict(FINITE_BEADS, spoiled(name, value))
    assert not verdict.passed
    for part in (f"{name} of site 1 in frame 67", "replica 1", "time 8.5", "1 of 200 frames"):
        assert part in verdict.message, verdict.message


def test_a_number_stands_with_its_error_and_unit():
    check = Check("pmf_error", "", remedy="sample longer")
    verdict = check.verdict(False, bound=0.5, pmf_error=Estimate(4.833, 0.6903, "(kT)²"))
    assert verdict.message == "pmf_error failed: bound 0.5, pmf error 4.83 ± 0.69 (kT)²; sample longer"
    error = {"pmf_error_standard_error": 0.6903, "pmf_error_unit": "(kT)²"}
    assert verdict.plain_facts == {"bound": 0.5, "pmf_error": 4.833} | error
    assert check.verdict(True, pmf_error=Estimate(2.0, np.nan)).message == "pmf_error passed: pmf error 2 ± ?"


def test_an_error_belongs_to_no_other_number():
    """By itself, as any number: it is not taken for the error of the first."""
    message = Check("slope", "").verdict(True, bound=0.5, slope=2.0, standard_error=0.1, unit="kJ").message
    assert message == "slope passed: bound 0.5, slope 2, standard error 0.1, unit kJ"


def test_energies_must_be_finite_only():
    assert "bias_energy in frame 5" in frame_fault(spoiled("bias_energy", np.nan, row=5))
    assert frame_fault(spoiled("bias_energy", 1e6)) == ""


@pytest.mark.parametrize("name", ["time", "temperature", "box"])
def test_what_stands_next_to_the_positions_must_be_finite(name):
    clean = replace(frames(), box=np.full((200, 3), 2.5, np.float32))
    array = getattr(clean, name).copy()
    array[67] = np.nan
    assert frame_fault(replace(clean, **{name: array})).startswith(f"{name} in frame 67 (replica 1")
    assert frame_fault(clean) == ""


def test_forces_that_are_zero_almost_everywhere_are_not_judged_by_their_median():
    flat = frames()
    assert frame_fault(replace(flat, forces=np.where(np.arange(200)[:, None, None] < 150, 0.0, flat.forces))) == ""


def test_imported_frames_are_named_with_their_file():
    good, broken = frames(1), spoiled("positions", np.nan, row=120)
    judge = ImportJudge(["a.xtc", "b.xtc", "c.xtc", "d.xtc"])
    for block in (good, broken, spoiled("positions", 1e12, row=7)):
        judge.see(block)
    verdict = judge.verdicts()[0]
    assert not verdict.passed and verdict.facts["frames_not_finite_or_absurd"] == 2
    assert verdict.facts["first"] == "the frame at time 10 of c.xtc"
    fine = ImportJudge()
    fine.see(good)
    assert fine.verdicts()[0].passed


def test_the_figure_of_an_import_has_evenly_spread_frames_without_positions():
    judge, block = ImportJudge(n_frames=1_000_000), frames()
    judge.see(block)
    judge.see(block)
    np.testing.assert_array_equal(judge.drawn.time, np.tile(block.time[::2], 2))
    assert judge.drawn.positions.shape == (200, 0, 3)


@pytest.mark.parametrize("value", [np.nan, -np.inf, -1e9])
@pytest.mark.parametrize("place", [(7, 0, 0), (7, 1, 2)])
def test_one_absurd_number_is_found_wherever_it_stands(value, place):
    numbers = np.random.default_rng(4).normal(size=(50, 2, 3))
    assert not absurd(numbers).any()
    numbers[place] = value
    assert np.flatnonzero(absurd(numbers)).tolist() == [7]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 0, 3), (0,)])
def test_nothing_is_absurd_where_there_are_no_numbers(shape):
    found = absurd(np.zeros(shape, np.float32))
    assert (found.tolist(), found.dtype) == ([False] * shape[0], bool)


def test_training_names_the_file_and_the_frame():
    path = Path("mapped_forces/0000.parquet")
    with pytest.raises(TrainingError, match=r"0000\.parquet: forces of site 1 in frame 67 .* is 1e\+12"):
        sane(spoiled("forces", 1e12), path)
    clean = frames()
    assert sane(clean, path) is clean


@pytest.mark.parametrize("name, value", [("first_order", 1e12), ("forces", np.nan), ("mean_energy", np.inf)])
def test_response_targets_name_the_frame_and_the_temperature(name, value):
    rng = np.random.default_rng(2)
    vectors, scalars = ["positions", "forces", "first_order", "second_order"], ["mean_energy", "heat_capacity"]
    columns = {item: rng.normal(size=(12, 2, 3)) for item in vectors} | {item: rng.normal(size=12) for item in scalars}
    columns |= {f"{item}_error": np.ones_like(columns[item]) for item in (*vectors[1:], *scalars)}
    columns |= {"box": np.full((12, 3), np.inf), "origin_temperature": np.full(12, 400.0)}
    columns |= {"frame": np.repeat([3, 4, 9], 4), "temperature": np.tile([300.0, 400.0, 500.0, 600.0], 3)}
    assert len(ThermalTargets.from_columns(columns)) == 12
    columns[name][6] = value
    with pytest.raises(ValueError, match=f"{name} of CG frame 4 at 500 K"):
        ThermalTargets.from_columns(columns)


def test_numbers_of_numpy_become_plain():
    """Dagster stores no others."""
    facts = Check("any", "Anything.").verdict(True, value=np.float64(1.5), count=np.int32(2), left_out=None).facts
    assert {name: type(value) for name, value in facts.items()} == {"value": float, "count": int}
