"""Malformed files of simulations, each damaged in one place, drawn with a seed: trajectories, structures, PLUMED."""

import copy
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import yaml
from openmm import app, unit
from test_imported import MINE
from test_imported_forces import write_dump, write_extxyz, write_h5md, write_netcdf, write_trr

from cg_assets.mapping.peptides import build_peptide

N_FRAMES, INTERVAL = 40, 0.05
COLVAR = (
    "#! FIELDS time phi psi ext.bias\n#! SET min_phi -pi\n#! SET max_phi pi\n#! SET min_psi -pi\n#! SET max_psi pi\n"
)
HILLS = "#! FIELDS time phi sigma_phi height biasf\n#! SET multivariate false\n#! SET min_phi -pi\n#! SET max_phi pi\n"


@lru_cache
def molecule():
    """Topology of capped alanine, frames in which it shakes, and forces."""
    topology, start = build_peptide(["ACE", "ALA", "NME"])
    rng = np.random.default_rng(0)
    frames = np.asarray(start) + 0.003 * rng.normal(size=(N_FRAMES, len(start), 3)) + 1.0
    return topology, frames.astype(np.float32), (100 * rng.normal(size=frames.shape)).astype(np.float32)


@lru_cache
def pdb() -> str:
    topology, frames, _ = molecule()
    text = io.StringIO()
    app.PDBFile.writeFile(topology, unit.Quantity(frames[0].astype(float), unit.nanometer), text)
    return text.getvalue()


def elements(topology) -> str:
    return "".join(atom.element.symbol for atom in topology.atoms())


def _by_mdtraj(path: Path, frames, _) -> None:
    topology = mdtraj.Topology.from_openmm(molecule()[0])
    while topology.n_atoms > frames.shape[1]:
        topology.delete_atom_by_index(topology.n_atoms - 1)
    mdtraj.Trajectory(frames, topology, time=INTERVAL * np.arange(len(frames))).save(str(path))


def _trr(path, frames, forces):
    write_trr(path, frames, forces, INTERVAL * np.arange(len(frames)))


def _npz(path, frames, forces):
    np.savez(path, positions=frames, forces=forces, time=INTERVAL * np.arange(len(frames)))


def _extxyz(path, frames, forces):
    write_extxyz(path, frames, forces, elements(molecule()[0])[: frames.shape[1]])


TEXTS: dict[str, Callable] = {
    "dump": lambda path, x, f: write_dump(path, x, f, "real"),
    "extxyz": _extxyz,
    "pdb": _by_mdtraj,
    "gro": _by_mdtraj,
}
BINARIES: dict[str, Callable] = {"trr": _trr, "xtc": _by_mdtraj, "dcd": _by_mdtraj, "nc": write_netcdf, "npz": _npz}
HEADS = {
    "trr": range(84),
    "xtc": [*range(60), *range(88, 92)],
    "dcd": [*range(92), *range(256, 276)],
    "nc": range(60),
    "npz": range(128),
}
"""Bytes of the first header that a flip damages; of XTC not those by which coordinates are decompressed."""
FORCES = ("trr", "nc", "npz", "dump", "extxyz", "h5md")


@dataclass(frozen=True)
class Malformed:
    """A system and its files.

    Attributes:
        kind: what was done.
        file: the damaged one.
        system: the YAML.
        files: contents by name.
    """

    kind: str
    file: str
    system: dict
    files: dict[str, bytes]


def _content(kind: str, frames, forces, folder: Path) -> bytes:
    path = folder / f"it.{kind}"
    (TEXTS | BINARIES | {"h5md": write_h5md})[kind](path, frames, forces)
    return path.read_bytes()


def _system(**imported) -> dict:
    content = yaml.safe_load(MINE)
    content["imported"] = {"frame_interval": INTERVAL} | imported
    return content


def _of_trajectory(damage: str, kind: str, content: bytes) -> Malformed:
    forces = {"forces": "file"} if kind in FORCES else {}
    system = _system(files=[f"run_0000.{kind}"], **forces)
    return Malformed(f"{kind}: {damage}", f"run_0000.{kind}", system, {f"run_0000.{kind}": content})


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(1, len(content))]


def replaced(content: bytes, draw: random.Random) -> bytes:
    return draw.choice(
        [b"", b"<html>404 Not Found</html>\n", bytes(len(content)), b"\x89PNG\r\n\x1a\n" + content[:500]]
    )


def hole(content: bytes, draw: random.Random) -> bytes:
    """What an interrupted download leaves: zeros from some place on."""
    begin = draw.randrange(len(content) // 2)
    return content[:begin] + bytes(len(content) - begin)


def _flipped(content: bytes, draw: random.Random, places) -> bytes:
    changed = bytearray(content)
    for place in draw.sample(list(places), draw.choice([1, 2, 4])):
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _without_bytes(content: bytes, draw: random.Random) -> bytes:
    """Some bytes are lost, as in a transfer as text."""
    place = draw.randrange(len(content) // 4, len(content))
    return content[:place] + content[place + draw.choice([1, 2, 4, 12]) :]


def _word(lines: list[str], draw: random.Random, word: str) -> list[str]:
    at = draw.choice([number for number, line in enumerate(lines) if line.strip()])
    words = lines[at].split(" ")
    words[draw.choice([number for number, part in enumerate(words) if part.strip()])] = word
    return [*lines[:at], " ".join(words).rstrip("\n") + "\n", *lines[at + 1 :]]


def _text(content: bytes, draw: random.Random) -> bytes:
    """A line is lost, written twice or of letters, or one number is none."""
    lines = content.decode().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    changes = [
        lambda: lines[:at] + lines[at + 1 :],
        lambda: [*lines[:at], lines[at], *lines[at:]],
        lambda: [*lines[:at], "lost lost lost\n", *lines[at + 1 :]],
        lambda: _word(lines, draw, draw.choice(["nan", "*********", "1.2.3", "x", "1e999"])),
    ]
    return "".join(draw.choice(changes)()).encode()


def trajectory(draw: random.Random, folder: Path) -> Malformed:
    """A damaged trajectory in any format."""
    _, frames, forces = molecule()
    kind = draw.choice([*TEXTS, *BINARIES, "h5md"])
    damages = ["cut", "replaced", "hole", "other atoms", "not numbers", "format"]
    damages += ["bytes lost", *["flip"] * 4] if kind in BINARIES else []
    damages += ["text"] * 5 if kind in TEXTS else []
    damage = draw.choice(damages)
    if damage == "other atoms":
        n_atoms = draw.choice([1, 5, 10, 21])
        return _of_trajectory(
            f"{n_atoms} atoms", kind, _content(kind, frames[:, :n_atoms], forces[:, :n_atoms], folder)
        )
    if damage == "not numbers":
        frames, forces = frames.copy(), forces.copy()
        array = forces if kind in FORCES and draw.random() < 0.3 else frames
        array[draw.sample(range(N_FRAMES), draw.choice([1, 5, 40]))] = draw.choice([np.nan, np.inf, 1e30])
        if kind in ("xtc", "gro", "pdb"):
            return trajectory(draw, folder)  # cannot be written
        return _of_trajectory("not numbers", kind, _content(kind, frames, forces, folder))
    if damage == "format":
        other = draw.choice([item for item in [*TEXTS, *BINARIES, "h5md"] if item != kind])
        return _of_trajectory(f"holds {other}", kind, _content(other, frames, forces, folder))
    content = _content(kind, frames, forces, folder)
    if damage == "flip":
        return _of_trajectory(damage, kind, _flipped(content, draw, HEADS[kind]))
    change = {"cut": cut, "replaced": replaced, "hole": hole, "bytes lost": _without_bytes, "text": _text}[damage]
    return _of_trajectory(damage, kind, change(content, draw))


def hdf5(draw: random.Random, folder: Path) -> Malformed:
    """An H5MD file that lacks something."""
    _, frames, forces = molecule()
    path = folder / "it.h5md"
    write_h5md(path, frames, forces)
    number = draw.randrange(8)
    with h5py.File(path, "r+") as file:
        group = file["particles/all"]
        if number == 0:
            del group["position"]
        elif number == 1:
            del group["force/value"]
        elif number == 2:
            del group["position/value"]
            group["position/value"] = frames.reshape(N_FRAMES, -1)
        elif number == 3:
            group["position/value"].attrs["unit"] = "parsec"
        elif number == 4:
            file.copy(group, "particles/second")
        elif number == 5:
            del group["position/value"]
            group["position/value"] = np.array([b"x"] * N_FRAMES)
        elif number == 6:
            del group["force/value"]
            group["force/value"] = forces[:, :5]
            group["force/value"].attrs["unit"] = "kJ mol-1 nm-1"
        else:
            del group["box/edges"]
            group["box/edges"] = np.zeros((2, 2, 2))
    return _of_trajectory(f"lacks {number}", "h5md", path.read_bytes())


def archive(draw: random.Random, folder: Path) -> Malformed:
    """An archive of NumPy with the wrong arrays."""
    _, frames, forces = molecule()
    choices: list[dict[str, object]] = [
        {"xyz": frames, "forces": forces},
        {"positions": frames},
        {"positions": frames, "forces": forces[:-1]},
        {"positions": frames.reshape(-1, 3), "forces": forces.reshape(-1, 3)},
        {"positions": np.array([["a", "b", "c"]] * N_FRAMES), "forces": forces},
        {"positions": frames, "forces": forces, "time": np.zeros(3)},
        {"positions": frames, "forces": forces, "box": np.zeros((N_FRAMES, 2))},
        {"positions": frames[:0], "forces": forces[:0]},
        {"positions": frames.transpose(1, 0, 2), "forces": forces.transpose(1, 0, 2)},
        {"positions": np.float32(1.0), "forces": forces},
        {"positions": frames + 1j, "forces": forces},
        {"positions": frames, "forces": forces, "time": np.full(N_FRAMES, np.nan)},
        {"positions": frames[:, ::-1], "forces": forces},
        {"positions": -frames, "forces": forces},
        {"positions": 10 * frames, "forces": forces},
    ]
    number = draw.randrange(len(choices))
    np.savez(folder / "it.npz", **choices[number])  # type: ignore[arg-type]
    return _of_trajectory(f"arrays {number}", "npz", (folder / "it.npz").read_bytes())


def structure(draw: random.Random, folder: Path) -> Malformed:
    """A damaged PDB file next to a sound trajectory."""
    _, frames, forces = molecule()
    damage = draw.choice([cut, replaced, hole, _text, _text, _text])
    files = {"alanine.pdb": damage(pdb().encode(), draw), "run_0000.npz": _content("npz", frames, forces, folder)}
    return Malformed(f"structure: {damage.__name__}", "alanine.pdb", _system(files=["run_0000.npz"]), files)


def plumed(draw: random.Random, folder: Path) -> Malformed:
    """A damaged COLVAR or HILLS file next to a sound trajectory."""
    _, frames, forces = molecule()
    rng = np.random.default_rng(draw.randrange(1000))
    trajectory = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(molecule()[0]))
    phi, psi = (function(trajectory)[1][:, 0] for function in (mdtraj.compute_phi, mdtraj.compute_psi))
    if draw.random() < 0.6:
        name, header = "COLVAR", COLVAR
        rows = np.column_stack([INTERVAL * np.arange(N_FRAMES), phi, psi, np.cos(psi)])
        bias: dict[str, object] = {"type": "colvar", "files": [name], "columns": ["ext.bias"]}
    else:
        name, header = "HILLS", HILLS
        ones = np.ones(N_FRAMES)
        rows = np.column_stack([np.arange(N_FRAMES), rng.uniform(-3, 3, N_FRAMES), 0.3 * ones, 0.5 * ones, 10 * ones])
        bias = {"type": "hills", "files": [name], "frozen": True}
    damage = draw.choice(["cut", "replaced", "hole", "text", "text", "columns", "counts", "absurd"])
    if damage == "columns":
        one, other = draw.sample(range(rows.shape[1]), 2)
        rows[:, [one, other]] = rows[:, [other, one]]
    elif damage == "counts":
        rows = rows[:, :-1]
    elif damage == "absurd":
        rows[draw.randrange(N_FRAMES), -1] = draw.choice([np.nan, np.inf, 1e300])
    text = (header + "".join(" ".join(f"{value:.7g}" for value in row) + "\n" for row in rows)).encode()
    changes = {"cut": cut, "replaced": replaced, "hole": hole, "text": _text}
    content = changes[damage](text, draw) if damage in changes else text
    system = _system(files=["run_0000.npz"], forces="file", bias=bias)
    del system["labels"]
    system["potentials"] = {"mine": {"labels": "imported_forces"}}
    return Malformed(
        f"{name}: {damage}", name, system, {name: content, "run_0000.npz": _content("npz", frames, forces, folder)}
    )


KINDS: dict[Callable[[random.Random, Path], Malformed], int] = {
    trajectory: 120,
    hdf5: 10,
    archive: 20,
    structure: 20,
    plumed: 30,
}
"""What is done to how many of two hundred."""


def malformed(seed: int, folder: Path) -> list[Malformed]:
    """Two hundred malformed files of simulations, the same for a seed."""
    draw = random.Random(seed)
    found = [kind(draw, folder) for kind, number in KINDS.items() for _ in range(number)]
    return [copy.deepcopy(item) for item in found]


def sound(folder: Path) -> list[Malformed]:
    """The trajectories before anything is done to them."""
    _, frames, forces = molecule()
    return [
        _of_trajectory("sound", kind, _content(kind, frames, forces, folder)) for kind in [*TEXTS, *BINARIES, "h5md"]
    ]
