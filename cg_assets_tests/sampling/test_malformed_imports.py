"""Damaged files of simulations give one line that names the file, or are read as if nothing had happened."""

import numpy as np
import yaml
from malformed_imports import Malformed, malformed, molecule, pdb, sound

from cg_assets.core.errors import CgAssetsError
from cg_assets.core.frames import Frames
from cg_assets.systems import load_system

SEED = 1
NAMED = {"alanine.pdb": ("alanine.pdb", "model.pdb", "collective_variables.")}
"""What else than its file a fault may be named by: missing atoms of a structure show first where they are used."""


def distances(positions):
    return np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)


def refused(home, case: Malformed, monkeypatch) -> bool:
    """Whether a case is refused, in one line; what is read instead are frames of the run."""
    systems = home / "systems"
    systems.mkdir(parents=True)
    monkeypatch.setenv("CG_ASSETS_HOME", str(home))
    (systems / "alanine.pdb").write_text(pdb())
    (systems / "my_alanine.yaml").write_text(yaml.safe_dump(case.system))
    for name, content in case.files.items():
        (systems / name).write_bytes(content)
    try:
        system = load_system("my_alanine")
        system.understood(system.check())
        reader = system.imported_reader("0000")
        frames = Frames.concatenate([reader.next_chunk() for _ in range(reader.n_chunks)])
    except CgAssetsError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 800, (case.kind, text)
        assert any(name in text for name in NAMED.get(case.file, (case.file,))), (case.kind, text)
        return True
    cg_map = system.beads().cg_map
    beads = frames.positions if frames.forces is None else cg_map.apply(frames.positions)
    exact = distances(cg_map.apply(molecule()[1].astype(np.float64)))
    apart = [np.abs(exact - mine).max(axis=(1, 2)).min() for mine in distances(beads)]
    assert max(apart) < 0.003, case.kind  # an XTC file is rounded to 0.001 nm
    assert np.isfinite(frames.time).all() and (frames.bias_energy is None or np.isfinite(frames.bias_energy).all())
    return False


def test_two_hundred_damaged_files_give_one_line_each_or_are_read_rightly(tmp_path, monkeypatch):
    cases = malformed(SEED, tmp_path)
    assert len(cases) == 200
    lines = sum(refused(tmp_path / str(number), case, monkeypatch) for number, case in enumerate(cases))
    print(f"{lines} of {len(cases)} refused, {len(cases) - lines} read rightly")
    assert lines >= 150


def test_what_is_damaged_was_sound(tmp_path, monkeypatch):
    for number, case in enumerate(sound(tmp_path)):
        assert not refused(tmp_path / str(number), case, monkeypatch), case.kind
