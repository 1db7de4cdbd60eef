"""Umbrella windows of PLUMED: found from COLVAR, weighted as our own windows are, refused where they do not touch."""

import math
from dataclasses import replace

import numpy as np
import pytest
from plain_runs import make, system_of
from test_imported import MINE, read
from test_imported_bias import HEADER, biased_run, home, lines, stored  # noqa: F401 - a fixture

from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.work import Inputs
from cg_assets.biases.reweighting import pooled_batches
from cg_assets.biases.umbrella import UmbrellaBias, Windows
from cg_assets.core.errors import SamplingError, StorageError, SystemSpecError
from cg_assets.labels.quality import ImportedReplicas
from cg_assets.sampling.imported.restraints import Restraint, fitted_restraint
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

KT = 300 * 0.00831446261815324
WINDOWS = {"type": "umbrella", "files": ["COLVAR.*"], "columns": ["ext.bias"]}
ANGLES = ["phi", "psi"]


def umbrella(centers, constant=20.0):
    return UmbrellaBias(type="umbrella", centers=[{"psi": center} for center in centers], force_constant=constant)


def colvars(folder, frames, decimals=6):
    for replica in np.unique(frames.replica):
        mine = lines(frames.select(frames.replica == replica))
        rounded = [" ".join(f"{float(word):.{decimals}f}" for word in line.split()) + "\n" for line in mine]
        (folder / f"COLVAR.{replica:02d}").write_text(HEADER + "".join(rounded))


@pytest.fixture(scope="module")
def run():
    """Six windows that reach around psi, and two replicas in the first of them."""
    return biased_run(3, replicas=6, duration=8.0, bias=umbrella(np.linspace(-2.9, 2.3, 6)))


@pytest.mark.parametrize("decimals", [6, 3])
def test_frames_have_the_weights_of_our_own_windows(run, home, decimals):  # noqa: F811
    _, own = run
    colvars(home, own, decimals)
    reader = stored(home, run, bias=WINDOWS).imported_reader("0000")
    frames, windows = read(reader), reader.bias.function
    np.testing.assert_array_equal(frames.window, own.window)
    np.testing.assert_allclose(frames.bias_energy, own.bias_energy, atol=0.01)
    centers = [center["psi"] for center in windows.centers]
    np.testing.assert_allclose(centers, np.linspace(-2.9, 2.3, 6), atol=1e-3)
    exact = umbrella(np.linspace(-2.9, 2.3, 6)).function(stored(home, run, bias=WINDOWS).beads())
    weights, expected = (
        np.exp(pooled_batches([item], KT, [bias], apart=True).bias_energy / KT)
        for item, bias in ((frames, windows), (own, exact))
    )
    np.testing.assert_allclose(weights, expected, rtol=0.02)
    assert sum("umbrella window 3, psi 0.2" in note for note in reader.notes) == 1


def test_halves_of_the_reference_hold_all_windows(run, home):  # noqa: F811
    """Halves of the replicas would be windows of one side each, and their mean no population."""
    colvars(home, run[1])
    system = stored(home, run, bias=WINDOWS)
    reader = system.imported_reader("0000")
    frames = pooled_batches([read(reader)], KT, [reader.bias.function], apart=True)
    reference = system.compute_reference(0, home, None, frames)
    weights, psi = np.exp(frames.bias_energy / KT), frames.collective_variables["psi"]
    late = frames.time > 3.95
    shares = [weights[half & (psi > -2) & (psi < 1)].sum() / weights[half].sum() for half in (late, ~late)]
    assert reference.populations["alpha"].value == pytest.approx(np.mean(shares), abs=1e-4)


def test_windows_that_do_not_touch_are_named_and_their_batch_is_not_used(home):  # noqa: F811
    run = biased_run(3, replicas=2, duration=4.0, bias=umbrella([-0.7, 2.4]))
    colvars(home, run[1])
    system = stored(home, run, bias=WINDOWS)
    done = make(home.parent, system, "imported_samples")
    (verdict,) = [item for item in done.verdicts if item.check.name == "umbrella_windows"]
    assert not verdict.passed
    assert "window 0 (psi -0.7" in verdict.facts["fault"]
    assert "window 1 (psi 2.4" in verdict.facts["fault"]
    with pytest.raises(StorageError, match="umbrella_windows"):
        make(home.parent, system, "imported_forces")
    with pytest.raises(SamplingError, match="umbrella windows do not touch"):
        reader = system.imported_reader("0000")
        pooled_batches([read(reader)], KT, [reader.bias.function])


def test_windows_are_compared_by_replicas_or_by_halves(run, home):  # noqa: F811
    _, own = run
    alone = ImportedReplicas.of(own)
    assert (alone.halves, alone.windows) == (True, 6)
    pairs = ImportedReplicas.of(replace(own, window=own.window // 2))
    assert (pairs.halves, pairs.windows) == (False, 3)
    lone = ImportedReplicas.of(replace(own, window=own.window // 5))
    assert (lone.halves, lone.windows) == (True, 2)
    colvars(home, own)
    done = make(home.parent, stored(home, run, bias=WINDOWS, forces="file"), "imported_samples")
    (verdict,) = [item for item in done.verdicts if item.check.name == "conditional_equilibration"]
    assert "of each half" in verdict.facts["reason"], verdict.facts["reason"]


def walk(seed, count=500):
    random = np.random.default_rng(seed)
    return {
        "phi": random.normal(3.0, 0.3, count),
        "psi": random.normal(-1.0, 0.2, count),
        "d": random.normal(1, 0.1, count),
    }


@pytest.mark.parametrize(
    ("energy", "center", "constant"),
    [
        (lambda p: 100.0 * (p["phi"] - 3.1) ** 2, {"phi": 3.1}, {"phi": 200.0}),
        (lambda p: 50 * (p["psi"] + 1.2) ** 2 + 10 * (p["d"] - 1) ** 2, {"psi": -1.2, "d": 1.0}, {"psi": 100, "d": 20}),
        (lambda p: 50 * (p["d"] - 0.9) ** 2 + 5 * p["d"], {"d": 0.85}, {"d": 100.0}),
        (lambda p: np.zeros(len(p["d"])), {}, {}),
    ],
)
def test_a_restraint_is_found_from_energies_at_places(energy, center, constant):
    """Across the end of an angle, on two variables with constants of their own, with a slope, and none."""
    places = walk(0)
    wrapped = places | {"phi": np.angle(np.exp(1j * places["phi"]))}
    found = fitted_restraint(wrapped, ANGLES, energy(places), KT)
    assert found.center == pytest.approx(center, abs=1e-6)
    assert found.constant == pytest.approx(constant, rel=1e-6)


def test_only_angles_are_the_same_after_a_turn():
    """Windows of a distance 6.28 nm apart are two."""
    one = Restraint({"d": 1.0, "phi": 3.0}, {"d": 1000.0, "phi": 100.0}, 0.0)
    turned, far = ({"d": 1.0, "phi": 3.0 - 2 * math.pi}, {"d": 1.0 + 2 * math.pi, "phi": 3.0})
    assert one.same(replace(one, center=turned), ANGLES, KT)
    assert not one.same(replace(one, center=far), ANGLES, KT)


@pytest.mark.parametrize(
    "energy",
    [
        lambda p: 20.0 * np.cos(p["psi"] + 1.0),
        lambda p: 100.0 * (p["psi"] - np.linspace(-1.5, -0.5, len(p["psi"]))) ** 2,
        lambda p: np.where(p["d"] > 1.0, 500.0 * (p["d"] - 1.0) ** 2, 0.0),
        lambda p: -30.0 * (p["d"] - 1.0) ** 2,
    ],
)
def test_other_biases_are_no_restraint(energy):
    """A cosine, a restraint that moves, a wall, a parabola that pushes away."""
    assert fitted_restraint(walk(1), ANGLES, energy(walk(1)), KT) is None


def test_windows_with_constants_of_their_own_survive_json_and_are_joined():
    one = Windows([{"phi": 3.0}, {}], [{"phi": 4.0}, {}], ["phi"])
    both = one.joined([Windows([{"phi": 1.0, "d": 0.5}], 7.0, ["phi"])])
    again = Windows.from_definition(both.definition())
    points = {"phi": np.array([-3.0, 0.4, 2.0]), "d": np.array([0.1, 0.2, 0.6])}
    np.testing.assert_allclose(
        again.energy(points, np.arange(3)), [2.0 * (2 * math.pi - 6.0) ** 2, 0.0, 3.5 * (1.0 + 0.01)], atol=1e-12
    )


def with_distance(folder, own, unit):
    """The COLVAR of a restraint of 50 kJ/mol/nm² on a distance, printed in some unit [nm]."""
    header = "#! FIELDS time far ext.bias\n"
    far = np.linalg.norm(own.positions[:, 4].astype(float) - own.positions[:, 16], axis=1)
    for replica in np.unique(own.replica):
        mine = far[own.replica == replica]
        rows = np.column_stack([0.1 * np.arange(len(mine)), mine / unit, 500.0 * (mine - 0.45) ** 2])
        (folder / f"COLVAR.{replica:02d}").write_text(
            header + "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows)
        )


@pytest.mark.parametrize("unit", [1.0, 0.1])
def test_restraints_of_distances_have_the_unit_of_the_files(run, home, unit):  # noqa: F811
    molecule, own = run
    names = [f"{atom.residue.index + 1}:{atom.name}" for atom in molecule.topology.atoms()]
    distance = {"far": {"type": "distance", "atoms": [names[4], names[16]], "range": [0.2, 1.0]}}
    with_distance(home, own, unit)
    bias = WINDOWS | {"length_unit": "nm" if unit == 1.0 else "angstrom"}
    reader = stored(home, run, distance, bias=bias).imported_reader("0000")
    read(reader)
    assert reader.bias.function.n_windows == 1
    assert reader.bias.function.centers[0]["far"] == pytest.approx(0.45, abs=1e-3)
    assert reader.bias.function.constants[0]["far"] == pytest.approx(1000.0, rel=1e-3)
    wrong = "angstrom" if unit == 1.0 else "nm"
    with pytest.raises(SamplingError, match=r"off at the frames of trajectory 0: correct bias\.length_unit"):
        read(stored(home, run, distance, bias=WINDOWS | {"length_unit": wrong}).imported_reader("0000"))
    with pytest.raises(SamplingError, match="restrains far, but the collective variables are phi, psi"):
        stored(home, run, bias=bias).imported_reader("0000")


@pytest.mark.parametrize("kind", ["umbrella", "colvar"])
def test_kernels_are_not_trained_on_frames_whose_bias_force_is_not_known(kind):
    """It would stay in their labels: those of the biased density would pass for unbiased."""
    with pytest.raises(SystemSpecError, match=r"labels.flow.of.* is imported, whose frames have no one density"):
        system_of(MINE.replace("frame_interval: 0.05}", f"bias: {{type: {kind}, files: [COLVAR], columns: [b]}}}}", 1))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_windows_give_the_free_energy_of_the_unbiased_reference(home):  # noqa: F811
    """Two runs in each of 14 windows around psi, from COLVAR to the reference, by the stages."""
    own = load_system("capped_alanine_quick")
    run = biased_run(1, 28, 60.0, 10.0, umbrella(np.linspace(-math.pi, math.pi, 14, endpoint=False), 40.0))
    colvars(home, run[1])
    system = stored(home, run, bias=WINDOWS)
    for stage in ("imported_samples", "imported_forces", "reference"):
        make(home.parent, system, stage)
    found = read_reference(Inputs(ParquetStore(home.parent), system), system).surface.marginal(1)
    truth = own.compute_reference(0, home, None, None).surface.marginal(1)
    known = truth.probability.reshape(20, 3).sum(axis=1)
    apart = KT * np.log(known / found.probability)
    z = apart / found.standard_error
    print(f"off by {apart.std():.2f} kJ/mol rms, z rms {np.sqrt(np.mean(z**2)):.2f}")
    assert apart.std() < 1.0
    assert np.sqrt(np.mean(z**2)) < 2.0
