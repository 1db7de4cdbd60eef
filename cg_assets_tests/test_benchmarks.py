"""Benchmarks: the script for a machine with a GPU runs without one, and few events give no error bar."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import cg_assets
from cg_assets.potentials.settings import PotentialSettings

BENCHMARKS = Path(cg_assets.__file__).parent.parent / "benchmarks"


def loaded(monkeypatch, name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, script)
    spec.loader.exec_module(script)
    return script


def test_the_script_for_a_gpu_measures_everything_on_a_cpu(capsys, monkeypatch):
    script = loaded(monkeypatch, "gpu")
    script.main(["--device", "cpu", "--tiny"])
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.count("|") == 6][2:]
    assert len(rows) >= 10
    assert "not measured" not in printed
    for name, _, ours, bare, _ in rows:
        assert min(float(rate.replace(",", "")) for rate in (ours, bare)) > 0, name
    own = {kind for kind, one in PotentialSettings.members().items() if one.__module__.startswith("cg_assets.")}
    assert own == {kind for kind in own if f"CG steps, {kind}" in printed}


def test_a_time_needs_five_events(monkeypatch):
    samples = loaded(monkeypatch, "samples")
    phi = np.full((10, 6), 1.0)
    phi[4:, :5] = -1.5
    tau, error = samples.Leaving.of(phi).tau(0.25)
    inside = samples.INTERVAL * (5 * 4 + 10)
    assert (tau, error) == (pytest.approx(0.75 * inside / 5), pytest.approx(0.75 * inside / 5**1.5))
    phi[:, 4] = 1.0
    with pytest.raises(SystemExit, match=r"4 replicas left .* --duration or more --starts"):
        samples.Leaving.of(phi).tau(0.25)
