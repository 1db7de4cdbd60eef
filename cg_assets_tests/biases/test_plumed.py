"""Files of PLUMED: read as documented, with what restarts and kills leave, into the frozen bias on a grid."""

import math

import numpy as np
import pytest

from cg_assets.biases.metadynamics import MetadynamicsBias
from cg_assets.biases.plumed_biases import hills_bias, read_grid_bias, read_hills
from cg_assets.biases.plumed_files import read_plumed
from cg_assets.core.errors import SamplingError
from cg_assets.systems import load_system

PHI_PSI = "#! SET min_phi -pi\n#! SET max_phi pi\n#! SET min_psi -pi\n#! SET max_psi pi\n"
HEADER = f"#! FIELDS time phi psi sigma_phi sigma_psi height biasf\n#! SET multivariate false\n{PHI_PSI}"


def written(path, header, rows):
    path.write_text(header + "".join(" ".join(f"{value:.12g}" for value in row) + "\n" for row in rows))
    return path


def direct(points, rows, factor, cut=True):
    """The sum of Gaussians over hills, one by one."""
    energy = np.zeros(len(points))
    for _, phi, psi, wide, narrow, height, _ in rows:
        one = (points[:, 0] - phi + math.pi) % (2 * math.pi) - math.pi
        two = (points[:, 1] - psi + math.pi) % (2 * math.pi) - math.pi
        half = one**2 / (2 * wide**2) + two**2 / (2 * narrow**2)
        energy += np.where(half < 6.25, height * factor * np.exp(-half), 0.0)
    return energy


@pytest.fixture
def hills(tmp_path):
    random = np.random.default_rng(0)
    rows = [
        [0.5 * (i + 1), *random.uniform(-math.pi, math.pi, 2), 0.3, 0.4, random.uniform(0.5, 1.5), 10.0]
        for i in range(40)
    ]
    return written(tmp_path / "HILLS", HEADER, rows), rows, random.uniform(-math.pi, math.pi, (500, 2))


@pytest.mark.parametrize(("unit", "scale"), [(1.0, 1.0), (4.184, 4.184)])
def test_well_tempered_hills_are_summed_as_the_bias_that_acted(hills, unit, scale):
    path, rows, points = hills
    read, notes = read_hills([path], energy=unit)
    assert notes == []
    np.testing.assert_allclose(read.energy(points), scale * direct(points, rows, 0.9), atol=1e-10)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_plain_hills_keep_their_height(hills, tmp_path, factor):
    _, rows, points = hills
    plain = [[*row[:-1], factor] for row in rows]
    read, _ = read_hills([written(tmp_path / "PLAIN", HEADER, plain)])
    np.testing.assert_allclose(read.energy(points), direct(points, rows, 1.0), atol=1e-10)


def test_stretched_hills_end_at_zero_and_keep_their_height(tmp_path):
    header = "#! FIELDS time d sigma_d height biasf\n#! SET multivariate false\n#! SET kerneltype stretched-gaussian\n"
    hills, _ = read_hills([written(tmp_path / "HILLS", header, [[1, 0.5, 0.1, 2.0, -1]])])
    edge = 0.5 + 0.1 * math.sqrt(12.5)
    energy = hills.energy(np.array([[0.5], [edge - 1e-9], [edge + 1e-9], [0.6]]))
    np.testing.assert_allclose(energy[:3], [2.0, 0.0, 0.0], atol=1e-7)
    assert energy[3] == pytest.approx(2.0 * (math.exp(-0.5) - math.exp(-6.25)) / (1 - math.exp(-6.25)))


def test_multivariate_hills_have_the_covariance_of_their_cholesky_factor(tmp_path):
    header = (
        "#! FIELDS time phi psi sigma_phi_phi sigma_psi_psi sigma_psi_phi height biasf\n#! SET multivariate true\n"
        + PHI_PSI
    )
    lower = np.array([[0.3, 0.0], [0.1, 0.2]])
    hills, _ = read_hills([written(tmp_path / "HILLS", header, [[1, 0.2, -0.3, 0.3, 0.2, 0.1, 1.5, -1]])])
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (100, 2))
    away = points - [0.2, -0.3]
    half = 0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(lower @ lower.T), away)
    np.testing.assert_allclose(hills.energy(points), np.where(half < 6.25, 1.5 * np.exp(-half), 0), atol=1e-12)


def test_the_grid_of_hills_agrees_with_their_direct_sum(hills):
    """But for the step of two thousandths of a height where PLUMED cuts a Gaussian off."""
    path, rows, points = hills
    bias = hills_bias(read_hills([path])[0], {}, {})
    exact = direct(points, rows, 0.9)
    found = bias.energy({"phi": points[:, 0], "psi": points[:, 1]})
    assert np.abs(found - exact).max() < 0.01
    assert np.sqrt(np.mean((found - exact) ** 2)) < 1.5e-3


def test_a_restart_that_lays_hills_again_counts_them_once(hills, tmp_path):
    path, rows, points = hills
    text = path.read_text()
    again = written(tmp_path / "again", HEADER, rows[30:]).read_text()
    path.write_text(text + again)  # 0.5 to 20 ps, then 15.5 to 20 ps again
    read, notes = read_hills([path])
    np.testing.assert_allclose(read.energy(points), direct(points, rows, 0.9), atol=1e-10)
    assert "lays 10 hills again" in notes[0]


def test_walkers_are_summed_and_backups_left_out(hills, tmp_path):
    _, rows, points = hills
    one = written(tmp_path / "HILLS.0", HEADER, rows[::2])
    two = written(tmp_path / "HILLS.1", HEADER, rows[1::2])
    backup = written(tmp_path / "bck.0.HILLS.0", HEADER, rows)
    read, notes = read_hills([backup, one, two])
    np.testing.assert_allclose(read.energy(points), direct(points, rows, 0.9), atol=1e-10)
    assert np.all(np.diff(read.time) > 0)
    assert "backup" in notes[0]


def test_a_bias_of_the_own_engine_written_as_hills_comes_back(tmp_path):
    """Well-tempered hills on the project's grid, and the same ones through a file."""
    beads = load_system("capped_alanine_quick").beads()
    names = [name for name in beads.variable_names if beads.is_periodic(name)][:1]
    (name,) = names
    settings = MetadynamicsBias(
        type="metadynamics", collective_variables=names, width={name: 0.3}, pace=1.0, deposition=60.0, height=1.5,
        bias_factor=8.0,
    )  # fmt: skip
    grid, random, rows = settings.grid(beads), np.random.default_rng(3), []
    for number in range(60):
        point = random.uniform(-math.pi, math.pi, (1, 1))
        energy = grid.energies(point)
        height = 1.5 * math.exp(-energy[0] / (7.0 * beads.thermal_energy))
        rows.append([number + 1.0, point[0, 0], 0.3, height * 8.0 / 7.0, 8.0])
        grid.deposit(point, energy)
    header = (
        "#! FIELDS time tors sigma_tors height biasf\n#! SET multivariate false\n#! SET kerneltype gaussian\n"
        "#! SET min_tors -pi\n#! SET max_tors pi\n"
    )
    read, _ = read_hills([written(tmp_path / "HILLS", header, rows)])
    points = np.linspace(-math.pi, math.pi, 400)
    mine = grid.bias().energy({name: points})
    found = hills_bias(read, {"tors": name}, {}).energy({name: points})
    assert np.abs(found - mine).max() < 60 * 1.5 * math.exp(-6.25) / 10  # what the cut leaves out
    assert np.corrcoef(found, mine)[0, 1] > 0.999999


def test_grids_are_read_with_the_first_variable_fastest(tmp_path):
    def energy(phi, distance):
        return np.cos(phi) + distance**2 + 0.3 * np.sin(phi) * distance

    header = (
        "#! FIELDS phi d ext.bias der_phi der_d\n#! SET min_phi -pi\n#! SET max_phi pi\n#! SET nbins_phi 60\n"
        "#! SET periodic_phi true\n#! SET min_d 1\n#! SET max_d 11\n#! SET nbins_d 50\n#! SET periodic_d false\n"
    )
    phis, distances = np.linspace(-math.pi, math.pi, 60, endpoint=False), np.linspace(1, 11, 51)
    rows = [[phi, d, energy(phi, 0.1 * d), 0, 0] for d in distances for phi in phis]
    path = written(tmp_path / "grid.dat", header, rows)
    bias = read_grid_bias(path, {"phi": "psi"}, length=0.1)
    random = np.random.default_rng(0)
    phi, d = random.uniform(-math.pi, math.pi, 200), random.uniform(0.2, 1.0, 200)
    np.testing.assert_allclose(bias.energy({"psi": phi, "d": d}), energy(phi, d), atol=1e-4)
    turned = sorted(rows, key=lambda row: (row[0], row[1]))
    with pytest.raises(SamplingError, match="first variable running fastest"):
        read_grid_bias(written(tmp_path / "turned.dat", header, turned), {})
    with pytest.raises(SamplingError, match="has 3059 nodes"):
        read_grid_bias(written(tmp_path / "short.dat", header, rows[:-1]), {})


def test_what_a_kill_left_is_left_out_and_named(tmp_path):
    path = tmp_path / "COLVAR"
    header = "#! FIELDS time phi metad.bias\n#! SET min_phi -pi\n#! SET max_phi pi\n"
    path.write_text(f"{header} 0 0.1 1\n 1 0.2 2\n 2 0.{header} 2 0.3 3\n 3 0.4 4\n 4 0.5 5")
    tables, notes = read_plumed(path)
    assert [list(table.column("time")) for table in tables] == [[0, 1], [2, 3]]
    assert [note.split(":")[0].rsplit(" ")[-1] for note in notes] == ["6", "11"]
    assert tables[1].limits("phi") == (-math.pi, math.pi)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no line of numbers"),
        ("1 2 3\n", "no line `#! FIELDS ...` before it"),
        ("#! FIELDS time a\n1 2 3\n2 3\n", "line 2: has 3 numbers where line 1 names 2"),
        ("#! FIELDS time a\n1 2\n2 x\n", "line 3: could not convert"),
        ("#! FIELDS time a\n1 2\n2 nan\n", "line 3: a is nan"),
        ("#! FIELDS time b\n1 2\n", "has no column a; its columns are time, b"),
        ("#! FIELDS time time\n1 2\n", "each column needs its own"),
    ],
)
def test_lines_that_cannot_be_are_named(tmp_path, text, message):
    path = tmp_path / "COLVAR"
    path.write_text(text)
    with pytest.raises(SamplingError, match=message):
        read_plumed(path)[0][0].column("a")
