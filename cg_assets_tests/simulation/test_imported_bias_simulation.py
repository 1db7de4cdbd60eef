"""CG simulations under the bias of imported runs, from PLUMED's files to the evaluation."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml
from plain_runs import make
from test_imported_bias import biased_run, home, stored  # noqa: F401 - a fixture

from cg_assets.biases import Bias
from cg_assets.biases.plumed_biases import hills_bias, read_hills
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.simulation.settings import ENHANCED, UNBIASED
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

HILLS = "#! FIELDS time psi sigma_psi height biasf\n#! SET multivariate false\n#! SET min_psi -pi\n#! SET max_psi pi\n"
CENTERS = np.repeat([-0.7, 0.0, 2.3, 2.9], 5)
SECTIONS = {
    "cg_simulation": {"replicas": 20, "burn_in": 1, "duration": 4, "enhanced_duration": 4, "frame_interval": 0.1},
    "training": {"epochs": 4, "batch_size": 256, "learning_rate": 0.01},
}


class HillsOfPlumed(Bias):
    """The sum of hills in a file."""

    type: Literal["toy_hills"]
    file: Path

    def faults(self, scope):
        """None."""
        return iter(())

    def function(self, beads):
        """The sum."""
        return hills_bias(read_hills([self.file])[0], {}, {})


def energy(psi):
    """Hills of 1 kJ/mol and 0.4 rad, one by one, as PLUMED cuts them."""
    half = np.angle(np.exp(1j * (psi[:, None] - CENTERS))) ** 2 / (2 * 0.4**2)
    return np.where(half < 6.25, np.exp(-half), 0.0).sum(axis=1)


def grid():
    """The same on a grid of PLUMED."""
    nodes = np.linspace(-math.pi, math.pi, 120, endpoint=False)
    rows = "".join(f"{place:.9f} {value:.9f}\n" for place, value in zip(nodes, energy(nodes), strict=True))
    header = "#! FIELDS psi metad.bias\n#! SET min_psi -pi\n#! SET max_psi pi\n#! SET nbins_psi 120\n"
    return header + "#! SET periodic_psi true\n" + rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("hills") / "HILLS"
    path.write_text(HILLS + "".join(f"{i + 1} {center:.3f} 0.4 1.0 -1\n" for i, center in enumerate(CENTERS)))
    return path.read_text(), biased_run(1, 8, 60.0, 10.0, HillsOfPlumed(type="toy_hills", file=path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hills", "grid"])
def test_cg_simulations_run_under_the_bias_of_imported_runs(run, home, kind):  # noqa: F811
    """Four minutes each: import, labels, training, CG simulation without and under the bias, evaluation."""
    text, sampled = run
    (home / "BIAS").write_text(text if kind == "hills" else grid())
    frozen = {"frozen": True} if kind == "hills" else {}
    stored(home, sampled, bias={"type": kind, "files": ["BIAS"]} | frozen, forces="file")
    path = home / "my_alanine.yaml"
    content = yaml.safe_load(path.read_text())
    content |= {name: content[name] | values for name, values in SECTIONS.items()}
    content |= {"potentials": {"mine": {"labels": "imported_forces"}}}
    del content["labels"]
    path.write_text(yaml.safe_dump(content))
    system, store = load_system("my_alanine"), ParquetStore(home.parent)
    stages = ["imported_samples", "imported_forces", "reference", "potential_mine", "cg_simulation_mine"]
    for stage in [*stages, "evaluation_mine"]:
        make(home.parent, system, stage)
    imported = read_frames([store.file("my_alanine", "imported_forces", "0000")])
    np.testing.assert_allclose(
        imported.bias_energy, energy(imported.collective_variables["psi"].astype(float)), atol=0.01
    )
    frames = read_frames([store.file("my_alanine", "cg_simulation_mine")])
    enhanced = frames.of_window(ENHANCED)
    assert len(enhanced) == 20 * 40
    psi = enhanced.collective_variables["psi"].astype(float)
    np.testing.assert_allclose(enhanced.bias_energy, energy(psi), atol=0.01)
    assert not frames.of_window(UNBIASED).bias_energy.any()
    found = Evaluation.from_columns(read_arrays(store.file("my_alanine", "evaluation_mine")))
    assert np.isfinite(found["pmf_error"].value.value)
