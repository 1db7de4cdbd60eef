"""The prepared script for a machine with a GPU runs from end to end without one."""

import importlib.util
import sys
from pathlib import Path

import cg_assets
from cg_assets.potentials.settings import PotentialSettings

BENCHMARKS = Path(cg_assets.__file__).parent.parent / "benchmarks"


def test_the_script_for_a_gpu_measures_everything_on_a_cpu(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu", script)
    spec.loader.exec_module(script)
    script.main(["--device", "cpu", "--tiny"])
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.count("|") == 6][2:]
    assert len(rows) >= 10
    assert "not measured" not in printed
    for name, _, ours, bare, _ in rows:
        assert min(float(rate.replace(",", "")) for rate in (ours, bare)) > 0, name
    own = {kind for kind, one in PotentialSettings.members().items() if one.__module__.startswith("cg_assets.")}
    assert own == {kind for kind in own if f"CG steps, {kind}" in printed}
