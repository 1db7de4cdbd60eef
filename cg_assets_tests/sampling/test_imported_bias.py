"""Runs biased by PLUMED: frames get the energy of their bias from its files, or are refused with the reason."""

import math
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from plain_runs import make, stage_of
from test_imported import MINE, read, topology_of

import cg_assets.systems
from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.work import Inputs
from cg_assets.biases.plumed_biases import read_hills
from cg_assets.biases.reweighting import bias_weights
from cg_assets.biases.static import StaticBias
from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.core.statistics.surfaces import free_energy_surface
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

SYSTEMS = Path(cg_assets.systems.__file__).parent
BIAS = "3*cos(psi + 0.4) - 4.3*cos(2*psi - 2.4)"
"""Lowers the barrier of psi, and the beta basin by 6 kJ/mol against the alpha basin."""
HEADER = (
    "#! FIELDS time phi psi ext.bias\n#! SET min_phi -pi\n#! SET max_phi pi\n#! SET min_psi -pi\n#! SET max_psi pi\n"
)
COLVAR = {"type": "colvar", "files": ["COLVAR.*"], "columns": ["ext.bias"]}


def biased_run(seed, replicas, duration, burn_in=1.0, bias=None, starts=None):
    """A run of the own engine under a bias: the molecule, and frames of all its atoms."""
    system = load_system("capped_alanine_quick")
    plan = system.sampling.unbiased.model_copy(
        update={
            "replicas": replicas,
            "burn_in": burn_in,
            "duration": duration,
            "frame_interval": 0.1,
            "bias": bias or StaticBias(type="static", expression=BIAS),
            "starts": starts or system.sampling.unbiased.starts,
        }
    )
    sampler = system.sampler(plan, seed=seed)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return system.structure(), Frames.concatenate([part for part in parts if part is not None])


@pytest.fixture(scope="module")
def run():
    return biased_run(seed=1, replicas=2, duration=8.0)


def lines(frames, energy=1.0, time=1.0):
    """A line of COLVAR for each frame, with the bias in some unit."""
    columns = [frames.collective_variables[name] for name in ("phi", "psi")]
    table = np.column_stack([0.1 * time * np.arange(len(frames)), *columns, frames.bias_energy / energy])
    return "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in table).splitlines(keepends=True)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    (tmp_path / "systems").mkdir()
    return tmp_path / "systems"


def stored(folder, run, variables=None, **imported):
    """The system of a run whose replicas are written as trajectories with forces, beside COLVAR where it is there."""
    molecule, frames = run
    mdtraj.Trajectory(frames.positions[:1], topology_of(molecule)).save_pdb(str(folder / "alanine.pdb"))
    for replica in np.unique(frames.replica):
        mine = frames.select(frames.replica == replica)
        np.savez(
            folder / f"run_0000_{replica:02d}.npz",
            positions=mine.positions,
            forces=mine.forces,
            time=0.1 * np.arange(len(mine)),
        )
    content = yaml.safe_load(MINE)
    content["imported"] = {"files": ["run_{batch}_*"], "frame_interval": 0.1} | imported
    content["collective_variables"] |= variables or {}
    if (imported.get("bias") or {}).get("type") in ("colvar", "umbrella"):  # kernels need the force of the bias
        del content["labels"]
        content["potentials"], content["imported"]["forces"] = {"mine": {"labels": "imported_forces"}}, "file"
    (folder / "my_alanine.yaml").write_text(yaml.safe_dump(content))
    return load_system("my_alanine")


def with_restart(text):
    """A run killed within line 50 that went on from line 40 on: header and times again, other values before."""
    wrong = [line.rsplit(" ", 1)[0] + " 99.0\n" for line in text[40:50]]
    return HEADER + "".join(text[:40] + wrong) + text[50][:9] + HEADER + "".join(text[40:])


def each(frames):
    return [(replica, frames.select(frames.replica == replica)) for replica in np.unique(frames.replica)]


@pytest.mark.parametrize(("unit", "size"), [("kJ/mol", 1.0), ("kcal/mol", 4.184), ("kT", 300 * 0.00831446261815324)])
def test_frames_get_the_energy_of_their_bias_through_a_restart(run, home, unit, size):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(with_restart(lines(mine, energy=size)))
    system = stored(home, run, bias=COLVAR | {"energy_unit": unit})
    reader = system.imported_reader("0000")
    beads = read(reader)
    np.testing.assert_allclose(beads.bias_energy, run[1].bias_energy, atol=5e-6 * size)
    assert sum("restart repeats 10 times" in note for note in reader.notes) == 2
    assert sum("was cut" in note for note in reader.notes) == 2
    assert any("effective of 80 frames" in note for note in reader.notes)
    assert str(home / "COLVAR.0") in reader.files


def test_forces_come_with_the_bias(run, home):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(mine)))
    atoms = read(stored(home, run, bias=COLVAR, forces="file").imported_reader("0000"))
    np.testing.assert_array_equal(atoms.forces, run[1].forces)
    np.testing.assert_allclose(atoms.bias_energy, run[1].bias_energy, atol=5e-6)


def test_the_reference_of_a_biased_run_is_weighted(run, home):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(mine)))
    system = stored(home, run, bias=COLVAR)
    beads = read(system.imported_reader("0000"))
    reference = system.compute_reference(0, home, None, beads)
    shares = []
    for _, mine in each(run[1]):  # the halves
        weights, psi = bias_weights(mine.bias_energy, system.thermal_energy), mine.collective_variables["psi"]
        shares.append(weights[(psi > -2) & (psi < 1)].sum() / weights.sum())
    assert reference.populations["alpha"].value == pytest.approx(np.mean(shares), abs=1e-4)


def test_lines_more_often_than_frames_and_times_in_other_units(run, home):
    """Every fourth frame is taken, COLVAR has a line for every second, in fs."""
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(mine, time=1000.0)[::2]))
    beads = read(stored(home, run, stride=4, bias=COLVAR | {"time_unit": "fs"}).imported_reader("0000"))
    expected = np.concatenate([mine.bias_energy[::4] for _, mine in each(run[1])])
    np.testing.assert_allclose(beads.bias_energy, expected, atol=5e-6)


def test_frames_after_the_last_line_are_left_out_and_counted(run, home):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text((HEADER + "".join(lines(mine)[:70]))[:-4])
    reader = stored(home, run, bias=COLVAR).imported_reader("0000")
    assert [int((read_all.replica == 0).sum()) for read_all in [read(reader)]] == [69]
    assert sum("ends before 11 frames" in note for note in reader.notes) == 2


def in_parts(folder, run, names):
    """Each replica in three files, the last of which begins again from frame 50 of 60."""
    for path in folder.glob("run_0000_*.npz"):
        path.unlink()
    for replica, mine in each(run[1]):
        for number, rows in enumerate((slice(0, 30), slice(30, 60), slice(50, 80))):
            np.savez(
                folder / names.format(replica=replica, number=number + 1),
                positions=mine.positions[rows],
                forces=mine.forces[rows],
                time=0.1 * np.arange(80)[rows],
            )


@pytest.mark.parametrize("names", ["run_0000_{replica}.part000{number}.npz", "run_0000_{replica}{number}.npz"])
def test_one_colvar_covers_the_parts_of_its_run(run, home, names):
    """Parts by the names that GROMACS gives them, or by their times alone."""
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(with_restart(lines(mine)))
    system = stored(home, run, bias=COLVAR)
    in_parts(home, run, names)
    reader = system.imported_reader("0000")
    frames = read(reader)
    assert [int((frames.replica == replica).sum()) for replica in (0, 1)] == [80, 80]
    np.testing.assert_allclose(frames.bias_energy, run[1].bias_energy, atol=5e-6)
    (home / "COLVAR.1").unlink()
    with pytest.raises(SamplingError, match="1 COLVAR files for 6 trajectories; give one for each, or for the parts"):
        system.imported_reader("0000")


@pytest.mark.parametrize(
    ("change", "imported", "message"),
    [
        (lambda text: text[:20] + text[21:], {}, "no line at time 2 ps of frame 20 of .*run_0000_00.npz"),
        (lambda text: text[::3], {}, "nor for 5[0-9] further frames; set imported.stride"),
        (lambda text: text, {"time_unit": "fs"}, "ends at 0.0079 ps, before 79 of 80 frames"),
        (lambda text: text, {"columns": ["metad.bias"]}, "no column metad.bias; its columns are time, phi, psi, ext"),
        (lambda text: [*text[:9], "0.9 1 1 nan\n", *text[10:]], {}, "line 15: ext.bias is nan"),
        (lambda text: [*text[:30], *text[20:]], {}, "time does not rise"),
        (lambda text: text, {"files": ["COLVAR.0"]}, "1 COLVAR files for 2 trajectories"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_frames_is_named(run, home, change, imported, message):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(change(lines(mine))))
    with pytest.raises(SamplingError, match=message):
        stored(home, run, bias=COLVAR | imported).imported_reader("0000")


def test_colvar_files_in_another_order_are_refused(run, home):
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{1 - replica}").write_text(HEADER + "".join(lines(mine)))
    with pytest.raises(SamplingError, match=r"COLVAR.0: p[hs]i differs by .* another run"):
        read(stored(home, run, bias=COLVAR).imported_reader("0000"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("COLVAR", HEADER + "0 1 1 2\n"),
        ("HILLS", "#! FIELDS time phi sigma_phi height biasf\n1 1 0.3 1 10\n"),
        ("plumed.dat", "phi: TORSION ATOMS=1,2,3,4\nRESTRAINT ARG=phi AT=0 KAPPA=10\n"),
    ],
)
def test_a_biased_run_without_its_bias_is_refused_as_reference(run, home, name, content):
    (home / name).write_text(content)
    with pytest.raises(SamplingError, match=f"{name} .*no reference without their bias; declare it in imported.bias"):
        stored(home, run).imported_reader("0000")
    assert read(stored(home, run, bias=None).imported_reader("0000")).bias_energy is None


def test_files_of_plumed_without_a_bias_are_no_sign_of_one(run, home):
    (home / "COLVAR").write_text("#! FIELDS time phi\n0 1\n")
    (home / "plumed.dat").write_text("phi: TORSION ATOMS=1,2,3,4\nPRINT ARG=phi FILE=COLVAR # METAD later\n")
    assert stored(home, run).imported_reader("0000").bias is None


def test_a_bias_that_was_still_being_built_is_refused_unless_corrected(run, home):
    """A bias that rises by 15 kJ/mol over the run: c(t) of metadynamics, which rbias takes off."""
    header = HEADER.replace("ext.bias", "metad.bias metad.rbias").replace("phi", "one").replace("psi", "two")
    random = np.random.default_rng(0)
    time, phi, psi = 0.01 * np.arange(800), random.normal(-1.2, 0.3, 800), random.uniform(-math.pi, math.pi, 800)
    energy = 3 * np.cos(psi + 0.4)
    table = np.column_stack([time, phi, psi, energy + 15 * time / 8, energy])
    for replica in (0, 1):
        (home / f"COLVAR.{replica}").write_text(
            header + "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in table)
        )
    with pytest.raises(SamplingError, match=r"at the same one, two changes by [345].* kT .*was still being built"):
        stored(home, run, bias=COLVAR | {"columns": ["metad.bias"]}).imported_reader("0000")
    beads = read(stored(home, run, bias=COLVAR | {"columns": ["metad.rbias"]}).imported_reader("0000"))
    np.testing.assert_allclose(beads.bias_energy, np.tile(energy[::10], 2), atol=1e-6)
    with pytest.raises(SamplingError, match="are the same bias"):
        stored(home, run, bias=COLVAR | {"columns": ["metad.*"]}).imported_reader("0000")


def test_hills_of_an_earlier_run_are_the_bias_of_its_frames_and_of_cg_runs(run, home):
    header = (
        "#! FIELDS time tors sigma_tors height biasf\n#! SET multivariate false\n#! SET min_tors -pi\n"
        "#! SET max_tors pi\n"
    )
    centers = np.random.default_rng(0).uniform(-math.pi, math.pi, 50)
    (home / "HILLS").write_text(header + "".join(f"{i + 1} {s:.9f} 0.35 2.0 10\n" for i, s in enumerate(centers)))
    bias = {"type": "hills", "files": ["HILLS"], "variables": {"tors": "psi"}}
    with pytest.raises(SamplingError, match=r"hills after 0 ps change the bias by .*was still being built"):
        stored(home, run, bias=bias).imported_reader("0000")
    reader = stored(home, run, bias=bias | {"frozen": True}).imported_reader("0000")
    beads = read(reader)
    psi = beads.collective_variables["psi"].astype(np.float64)
    exact = read_hills([home / "HILLS"])[0].energy(psi[:, None])
    np.testing.assert_allclose(beads.bias_energy, exact, atol=0.01)
    assert reader.bias.function.definition()["collective_variables"] == ["psi"]
    labelled = stored(home, run, bias=bias | {"frozen": True}, forces="file")
    enhanced = labelled.cg_simulation.model_copy(update={"enhanced_duration": 1.0})
    simulation = stage_of(labelled.model_copy(update={"cg_simulation": enhanced}), "cg_simulation_flow")
    assert "imported_forces" in [item.stage for item in simulation.reads]
    with pytest.raises(SamplingError, match="acts on tors, but the collective variables are phi, psi"):
        stored(home, run, bias=bias | {"frozen": True, "variables": {}}).imported_reader("0000")


def test_the_files_of_the_bias_belong_to_the_import(run, home):
    for replica in (0, 1):
        mine = run[1].select(run[1].replica == replica)
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(mine)))
    system = stored(home, run, bias=COLVAR)
    names = [path.name for path in system.imported_files("0000")]
    assert names == ["run_0000_00.npz", "run_0000_01.npz", "COLVAR.0", "COLVAR.1"]
    assert list(map(str, system.imported_files("0000"))) == list(system.imported_reader("0000").files)


def test_replicas_of_a_biased_run_are_compared(run, home):
    """Of 8 ps each, which is too short for the labels to be trusted."""
    for replica in (0, 1):
        mine = run[1].select(run[1].replica == replica)
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(mine)))
    done = make(home.parent, stored(home, run, bias=COLVAR, forces="file"), "imported_samples")
    (verdict,) = [item for item in done.verdicts if item.check.name == "conditional_equilibration"]
    assert not verdict.passed


def test_runs_under_different_biases_are_refused(run, home):
    """Two umbrella windows, of which each file holds its own energies."""
    for replica, centre in ((0, -1.0), (1, 1.0)):
        mine = run[1].select(run[1].replica == replica)
        away = mine.collective_variables["psi"] - centre
        window = replace(mine, bias_energy=20.0 * away.astype(float) ** 2)
        (home / f"COLVAR.{replica}").write_text(HEADER + "".join(lines(window)))
    with pytest.raises(SamplingError, match=r"COLVAR.0 and .*COLVAR.1: their biases differ by .* umbrella windows"):
        stored(home, run, bias=COLVAR).imported_reader("0000")


def series(path, psi, energy):
    """A COLVAR of a run at one phi and some psi."""
    rows = np.column_stack([0.1 * np.arange(80), np.full(80, -1.2), psi, energy])
    path.write_text(HEADER + "".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (lambda psi, centre: 20.0 * (psi - centre) ** 2, "COLVAR.0 and .*COLVAR.1: are umbrella windows, at psi -1 .*"),
        (lambda psi, centre: 3.0 * np.cos(psi), ""),
    ],
)
def test_runs_that_share_no_places_do_not_go_unnoticed(run, home, bias, message):
    """Windows 2 rad apart are refused; two basins under one bias are listed as taken on trust."""
    for replica, centre in ((0, -1.0), (1, 1.0)):
        psi = centre + 0.7 * np.sin(np.arange(80))
        series(home / f"COLVAR.{replica}", psi, bias(psi, centre))
    system = stored(home, run, bias=COLVAR)
    if message:
        with pytest.raises(SamplingError, match=message + "set bias.type to umbrella"):
            system.imported_reader("0000")
    else:
        notes = system.imported_reader("0000").notes
        assert sum("shares no places" in note and "taken on trust" in note for note in notes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_biased_run_gives_the_free_energy_of_the_unbiased_reference(home, seed):
    """The alpha basin of capped alanine holds 40 % of the long reference a tenth of the biased frames."""
    run = biased_run(seed, replicas=8, duration=100.0, burn_in=10.0)
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica}").write_text(with_restart(lines(mine)))
    system = stored(home, run, bias=COLVAR, forces="file")
    frames = read(system.imported_reader("0000"))
    table = pq.read_table(SYSTEMS / "capped_alanine_implicit_reference.parquet")
    phi, psi, probability = (np.array(table[name]) for name in ("cv_phi", "cv_psi", "probability"))
    exact = probability * ((psi > -2) & (psi < 1) & (phi < 0))
    truth = float(exact.sum() / (probability * (phi < 0)).sum())
    weights = bias_weights(frames.bias_energy, system.thermal_energy)
    inside = (frames.collective_variables["psi"] > -2) & (frames.collective_variables["psi"] < 1)
    left = frames.collective_variables["phi"] < 0
    sums = np.array(
        [
            [(weights * inside)[left & (frames.replica == r)].sum(), weights[left & (frames.replica == r)].sum()]
            for r in np.unique(frames.replica)
        ]
    )

    def energy(parts):
        share = parts[:, 0].sum() / parts[:, 1].sum()
        return -system.thermal_energy * math.log(share / (1 - share))

    without = np.array([energy(np.delete(sums, r, axis=0)) for r in range(len(sums))])
    error = math.sqrt((len(sums) - 1) * without.var())
    expected = -system.thermal_energy * math.log(truth / (1 - truth))
    assert abs(energy(sums) - expected) < 3 * error
    assert error < 1.5
    plain = inside[left].mean()
    assert abs(-system.thermal_energy * math.log(plain / (1 - plain)) - expected) > 3 * error


def coarse(surface):
    """Free energy [kJ/mol] and its error over 10 x 10 bins."""
    n = surface.bins.shape[0] // 10
    edges = tuple(edge[::n] for edge in surface.bins.edges)
    found = replace(surface, bins=Bins(edges), blocks=surface.blocks.reshape(-1, 10, n, 10, n).sum(axis=(2, 4)))
    with np.errstate(divide="ignore"):
        return -found.thermal_energy * np.log(found.probability), found.standard_error


def deviations(surface, truth):
    """Deviations from another free energy in their errors, where that is within 20 kJ/mol of its minimum."""
    (mine, error), (known, its_error) = coarse(surface), coarse(truth)
    within = (known < known.min() + 20.0) & np.isfinite(mine)
    assert within.sum() > 0.95 * (known < known.min() + 20.0).sum()
    return ((mine - known) / np.hypot(error, its_error))[within], error[within]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_stages_give_the_whole_free_energy_of_the_unbiased_reference(home, seed):
    """Frozen metadynamics of 16 replicas, each with a restart, against the long reference; 11 minutes each."""
    own = load_system("capped_alanine_quick")
    metadynamics = own.sampling.biased.bias.model_copy(update={"deposition": 40.0})
    run = biased_run(seed, 16, 150.0, 30.0, metadynamics, own.sampling.biased.starts)
    for replica, mine in each(run[1]):
        (home / f"COLVAR.{replica:02d}").write_text(with_restart(lines(mine)))
    system = stored(home, run, bias=COLVAR)
    for stage in ("imported_samples", "imported_forces", "reference"):
        make(home.parent, system, stage)
    found = read_reference(Inputs(ParquetStore(home.parent), system), system)
    truth = own.compute_reference(0, home, None, None).surface
    z, error = deviations(found.surface, truth)
    plain, _ = deviations(data_without_bias(found, run[1]), truth)
    rms, worst = np.sqrt(np.mean(z**2)), np.abs(z).max()
    print(f"seed {seed}: z rms {rms:.2f}, largest {worst:.1f} in {len(z)} bins, median error {np.median(error):.2f}")
    assert rms < 2.0
    assert worst < 5.0
    assert np.median(error) < 1.0
    assert np.sqrt(np.mean(plain**2)) > 5.0


def data_without_bias(found, frames):
    """The free energy of frames as they come."""
    values = np.stack([frames.collective_variables[name].astype(float) for name in found.names], axis=1)
    return free_energy_surface(values, found.bins, found.surface.thermal_energy, frames.replica, frames.time)
