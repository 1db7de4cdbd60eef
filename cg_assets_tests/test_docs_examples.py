"""Every example of the documentation: systems load and are built, fragments fit a system, commands are understood."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, Command

from cg_assets.cli.parser import command_parser
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCKS = [
    (str(page.relative_to(REPOSITORY)), block)
    for page in PAGES
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
]
SYSTEMS = {yaml.safe_load(block)["name"]: block for _, block in BLOCKS if "\nname: " in f"\n{block}"}
FRAGMENTS = {
    "docs/evaluation.md": {"extends": "helix"},
    "docs/operations.md": {"extends": "muller_brown"},
    "docs/operator_forces.md": {"extends": "capped_alanine_quick"},
    "docs/thermal_potentials.md": {"extends": "water"},
    "docs/training.md": {"extends": "helix"},
}
"""The system that the fragments of a page belong to."""
AT_FIXED_BEADS = {
    "sampling": {
        "conditional": {"frames": 4, "temperatures": [300, 330, 360, 390, 430], "relaxation": 4, "duration": 100}
    },
    "labels": {"flow": {"type": "flow", "noise": 0.007, "labels": "clean"}},
}
"""What fragments with targets need besides."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "systems").mkdir()
    monkeypatch.setenv("CG_ASSETS_HOME", str(tmp_path))
    for block in SYSTEMS.values():
        (tmp_path / "systems" / f"{yaml.safe_load(block)['name']}.yaml").write_text(block, encoding="utf-8")
    shutil.copy(REPOSITORY / "examples" / "gromacs" / "alanine.pdb", tmp_path / "systems")
    return tmp_path


def test_names_are_unique():
    names = [yaml.safe_load(block)["name"] for _, block in BLOCKS if "\nname: " in f"\n{block}"]
    assert len(names) == len(set(names)) >= 10


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_systems_load(home, name):
    assert load_system(name).title


@pytest.mark.parametrize(
    ("page", "block"), [item for item in BLOCKS if item[0] in FRAGMENTS and "name:" not in item[1]]
)
def test_fragments_fit_a_system(home, page, block):
    if "slurm.yaml" in block:
        return
    content = {"name": "fragment", "title": "Fragment", **FRAGMENTS[page], **yaml.safe_load(block)}
    if "targets" in content:
        content |= AT_FIXED_BEADS
    (home / "systems" / "fragment.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert load_system("fragment").title


def test_commands_are_understood():
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^ {4}(cg-assets .*(?:\n {5,}.*)*)", text, flags=re.MULTILINE)
        lines += re.findall(r"^(cg-assets .*)", text, flags=re.MULTILINE)
        inline = re.findall(r"`(cg-assets \w+ [^`]+)`", text)
        lines += [line for line in inline if not re.search(r"[\[…|]|COMMAND", line)]
        for line in lines:
            words = shlex.split(line.replace("\n", " "), comments=True)[1:]
            try:
                command_parser().parse_args(words)
            except SystemExit as error:
                assert error.code == 0, f"{page}: {line}"
            found += 1
    assert found > 40


def test_hydrogens_are_added_as_the_tutorial_does(home):
    text = (REPOSITORY / "docs" / "tutorials" / "own_molecule.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (home / "examples" / "gromacs").mkdir(parents=True)
    shutil.copy(REPOSITORY / "examples" / "gromacs" / "alanine.pdb", home / "examples" / "gromacs")
    subprocess.run([sys.executable, "-c", code], cwd=home, check=True)
    shutil.move(home / "cg_assets_home" / "systems" / "alanine.pdb", home / "systems" / "alanine.pdb")
    assert load_system("pdb_alanine").beads().cg_map.n_atoms == 22


QUICK = {
    "two_wells": {},
    "muller_brown_hot": {},
    "pdb_alanine": {"sampling": {"unbiased": {"duration": 20}}, "cg_simulation": {"duration": 5}},
    "capped_alanine_ladder": {"sampling": {"unbiased": {"duration": 20}}, "cg_simulation": {"duration": 5}},
    "capped_alanine_means": {"sampling": {"mean_forces": {"fixed": {"configurations": 20}}}},
    "capped_alanine_plans": {},
    "small_methanol": {},
    "water_tip4p": {},
}
"""Systems of the documentation that run on two cores, and what is shortened; the others take hours."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(QUICK))
def test_systems_run(home, name):
    test_hydrogens_are_added_as_the_tutorial_does(home)
    quick = {"extends": name, "name": f"quick_{name}", "title": "Quick", **QUICK[name]}
    (home / "systems" / f"quick_{name}.yaml").write_text(yaml.safe_dump(quick), encoding="utf-8")
    done = Command(home)("run", f"quick_{name}", timeout=3500.0)
    assert done.returncode in (0, 3), done.stderr[-2000:]  # 3: too few data for a good model
    assert ParquetStore(home).file(f"quick_{name}", "comparison").is_file()
