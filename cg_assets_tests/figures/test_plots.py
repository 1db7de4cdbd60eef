"""Every figure is a PNG of the right size, the same bytes each time, whatever is missing from its input."""

import struct
import warnings

import numpy as np
import pytest

from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.equilibration import conditional_equilibration
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.core.statistics.noise import bin_labels
from cg_assets.core.statistics.surfaces import free_energy_surface
from cg_assets.evaluation.metrics.bonds import bond_monitor
from cg_assets.figures.comparison import comparison_plot
from cg_assets.figures.evaluation import bond_length_plot, free_energy_maps, marginals_plot, pmf_plot
from cg_assets.figures.labels import bead_noise_plot, binned_noise_plot
from cg_assets.figures.samples import equilibration_plot, sampling_plot
from cg_assets.figures.simulation import cg_simulation_plot
from cg_assets.figures.style import Curve, above_lowest, axis_label, colours_of, in_radians, nice_ceiling
from cg_assets.figures.training import training_plot

RNG = np.random.default_rng(0)
GRID = np.linspace(-2, 2, 81)
WELL = Curve("exact", GRID, 3 * (GRID**2 - 1) ** 2)
MODELS = [
    Curve("unbiased", GRID, WELL.values + 0.2 * GRID + 7.0, np.full(81, 0.1)),
    Curve("biased", GRID, np.where(GRID > 1.8, np.inf, WELL.values + 0.1), np.where(GRID < -1.5, np.nan, 0.05)),
]
ANGLES = (RNG.normal([-1.4, 2.6], 0.6, size=(3000, 2)) + np.pi) % (2 * np.pi) - np.pi
REPLICA = np.arange(3000) % 30
FULL_TURNS = Bins.between([(-np.pi, np.pi)] * 2, 20)
SURFACE = free_energy_surface(ANGLES, FULL_TURNS, 2.494, REPLICA, unit="kJ/mol")
OTHER = free_energy_surface(ANGLES[::3], FULL_TURNS, 2.494, REPLICA[::3], unit="kJ/mol")
ANGULAR = {"variables": ("phi", "psi"), "variable_units": ("rad", "rad")}
HISTORY = [
    {"epoch": i, "training_loss": 0.4 + 1 / i, "held_out_loss": 0.42 + 1 / i, "learning_rate": 1e-3}
    for i in range(1, 9)
]
FLOOR = Estimate(0.41, 0.02, "kT²/nm²")


def equilibration(groups, two_dimensional):
    force = RNG.normal(size=(3000, 2)) if two_dimensional else RNG.normal(size=3000)
    bins = Bins.between([(-np.pi, np.pi)] * 2, 4) if two_dimensional else Bins.between([(-np.pi, np.pi)], 20)
    variables = ANGLES if two_dimensional else ANGLES[:, 0]
    return conditional_equilibration(variables, force, REPLICA % groups, REPLICA, bins=bins)


def pmf():
    return pmf_plot(
        WELL,
        MODELS,
        variable="s",
        variable_unit="nm",
        energy_unit="kT",
        interval=(-1.6, 1.6),
        samples={"unbiased": RNG.normal(size=500), "all": RNG.normal(size=500)},
        title="A title",
    )


def pmf_alone():
    return pmf_plot(WELL, [], variable="s", variable_unit="nm", energy_unit="kT", interval=(-1.5, 1.5))


def maps():
    surfaces = {"reference": SURFACE, "data": SURFACE, "model": OTHER}
    return free_energy_maps(surfaces, reference="reference", title="Maps", **ANGULAR)


def one_map():
    return free_energy_maps({"reference": SURFACE}, **ANGULAR)


def marginals():
    return marginals_plot({"reference": SURFACE, "model": OTHER}, reference="reference", **ANGULAR)


def marginal_of_one_variable():
    return marginals_plot({"model": SURFACE.marginal(1)}, variables=["psi"], variable_units=["rad"])


def comparison():
    values = {"unbiased": Estimate(0.15, 0.02, "kT"), "biased": Estimate(np.inf, np.nan, "kT")}
    return comparison_plot(
        {"PMF RMSE": values, "barrier": values},
        references={"barrier": Estimate(0.1, 0.01, "kT")},
        curves={"s [nm]": MODELS},
        reference_curves={"s [nm]": WELL},
        energy_unit="kT",
        interval=(-1.5, 1.5),
        highest=8.0,
    )


def bars_only():
    return comparison_plot({"JSD": {"one": Estimate(0.1, 0.01), "two": Estimate(0.2, 0.01)}})


def training():
    return training_plot(HISTORY, FLOOR, title="Training")


def training_below_the_floor_for_one_epoch():
    return training_plot(HISTORY[-1:], Estimate(5.0, np.nan))


def equilibration_figure(groups, two_dimensional):
    settings = ANGULAR if two_dimensional else {"variables": ["phi"], "variable_units": ["rad"]}
    return equilibration_plot(equilibration(groups, two_dimensional), force_unit="kJ/mol/rad", **settings)


def noise_by_bin():
    labels = bin_labels(ANGLES[:, 0], RNG.normal(size=3000), REPLICA, bins=Bins.between([(-3, 3)], 30), unit="kT²")
    return binned_noise_plot(labels, labels.noise_floor, variable="s", variable_unit="nm", force_unit="kT/nm")


def noise_by_bead():
    beads = {"1:CA": Estimate(3e5, 1e4, "u"), "2:CA": Estimate(2e5, np.nan, "u")}
    maps = {"optimal (used)": beads, "slice (not valid)": beads}
    return bead_noise_plot(maps, Estimate(2.5e5, 1e4, "u"))


def bonds():
    beads = np.cumsum(RNG.normal([0.15, 0, 0], 0.003, size=(200, 14, 3)), axis=1)
    pairs = [(i, i + 1) for i in range(13)]
    return bond_length_plot(
        bond_monitor(beads[:100], beads[100:], pairs), [f"{i}:CA" for i in range(14)], tolerated=0.05
    )


def simulation():
    exploded = np.arange(50) == 3
    temperatures = np.where(exploded, np.nan, RNG.normal(300, 4, 50))
    energies = RNG.normal(size=(50, 40))
    return cg_simulation_plot(
        temperatures, 300.0, "K", mean=Estimate(300.1, 0.5, "K"), energies=energies,
        time=np.arange(40) * 0.5, time_unit="ps", energy_unit="kJ/mol",
    )  # fmt: skip


def simulation_in_brief():
    return cg_simulation_plot([1.01, 0.99], 1.0, "reduced temperature", mean=Estimate(1.0, np.nan))


def sampling():
    return sampling_plot(
        np.arange(3000) // 30, REPLICA, {"phi": ANGLES[:, 0], "distance": ANGLES[:, 1]}, start=REPLICA % 2,
        variable_units={"phi": "rad", "distance": "nm"}, time_unit="ps", limits={"phi": (-np.pi, np.pi)},
    )  # fmt: skip


def sampling_without_starts():
    values = {"x": ANGLES[:, 0]}
    return sampling_plot(np.arange(3000) // 30, REPLICA, values, variable_units={"x": "nm"}, time_unit="ps")


FIGURES = [
    pmf,
    pmf_alone,
    maps,
    one_map,
    marginals,
    marginal_of_one_variable,
    comparison,
    bars_only,
    training,
    training_below_the_floor_for_one_epoch,
    noise_by_bin,
    noise_by_bead,
    bonds,
    simulation,
    simulation_in_brief,
    sampling,
    sampling_without_starts,
]


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("figure", FIGURES, ids=lambda function: function.__name__)
def test_figures(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width, height = size(figure())
    assert 400 <= width <= 1400 and 300 <= height <= 1000


@pytest.mark.parametrize("two_dimensional", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_equilibration_figures(groups, two_dimensional):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width, _ = size(equilibration_figure(groups, two_dimensional))
    assert 1000 <= width <= 1400


def test_the_same_input_gives_the_same_bytes_and_no_global_state():
    import matplotlib

    before = matplotlib.rcParams["font.size"]
    assert marginals() == marginals()
    assert matplotlib.rcParams["font.size"] == before


def test_helpers():
    assert axis_label("phi", "rad") == "φ [rad]" and axis_label("end_to_end") == "end to end"
    assert in_radians(-np.pi, np.pi) and not in_radians(0, np.pi)
    assert [nice_ceiling(value) for value in (0.03, 0.21, 1.0, 7.0, np.nan)] == [0.05, 0.25, 1.0, 10.0, 1.0]
    assert above_lowest([3.0, np.inf, 5.0]).tolist() == [0.0, np.inf, 2.0]


def test_no_two_potentials_of_a_figure_have_one_colour():
    """Also where two of them usually have the same."""
    found = colours_of(["unbiased", "forces", "flow", "products"])
    assert len(set(found.values())) == 4 and [*found] == ["unbiased", "forces", "flow", "products"]
    assert found["unbiased"] == colours_of(["unbiased"])["unbiased"] == colours_of(["forces"])["forces"]
    assert found["flow"] == colours_of(["flow"])["flow"]
