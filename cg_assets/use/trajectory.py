"""`cg-assets trajectory`: the CG simulation of a model as PDB and XTC, for VMD, NGLView, MDAnalysis and mdtraj."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cg_assets.assets.soundness import Recipes
from cg_assets.core.errors import CgAssetsError
from cg_assets.core.frames import Frames
from cg_assets.mapping.maps import CGMap
from cg_assets.storage.atomic import new_folder
from cg_assets.storage.dataset import read_frames
from cg_assets.storage.parquet import describe
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system

XTC_LIMIT = 2e6
"""Largest coordinate, a little below 2^31 times the precision of 0.001 nm [nm]."""
_REMEDY = "leave this replica out with --replicas, or read the frames with cg-assets query"


def write_trajectory(home: Path, model: str, folder: Path, replicas: Sequence[int] | None = None) -> list[Path]:
    """Write the stored CG simulation of a model: its newest version, replica after replica.

    Args:
        home: the home folder.
        model: `<system>.<potential>`.
        folder: new, or empty.
        replicas: only these; all where None.

    Returns:
        `beads.pdb` (the first frame, with bonds as CONECT and the box as CRYST1) [Å], `beads.xtc` (all frames with
        their times and boxes) [nm, ps; positions to 0.001 nm] and `frames.csv` (replica, time and temperature of each).

    Raises:
        SystemSpecError: there is no such system.
        CgAssetsError: it has no such potential or replica, its beads have no places in space, or the folder is not
            empty.
        StorageError: the potential has not been simulated yet.
    """
    import mdtraj

    name, _, potential = model.partition(".")
    system = load_system(name)
    if potential not in system.potentials:
        known = ", ".join(f"{name}.{key}" for key in system.potentials)
        raise CgAssetsError(f"no model {model!r}; there are: {known}. The simulation of the newest version is kept")
    file = ParquetStore(home).file(name, f"cg_simulation_{potential}")
    frames = read_frames(file)
    if frames.positions.shape[2] != 3:
        raise CgAssetsError(f"{model}: its beads have no places in space; read its frames with cg-assets query")
    cg_map, changed = system.beads().cg_map, Recipes(system).changes(describe(file).metadata, None)
    if frames.positions.shape[1] != cg_map.n_beads or {"model", "mapping"} & set(changed):
        raise CgAssetsError(
            f"{model}: the beads of {name} changed since {file} was made; cg-assets refresh {name} makes it again"
        )
    frames = _ordered(frames, replicas)
    boxes = None if frames.box is None else _vectors(frames.box)
    _require_near(model, frames, cg_map.bead_names)
    first = _pdb(cg_map, model, frames, boxes)
    names = ("beads.pdb", "beads.xtc", "frames.csv")
    with new_folder(folder) as part:
        pdb, xtc, table = (part / file for file in names)
        pdb.write_text(first, encoding="ascii")
        with mdtraj.formats.XTCTrajectoryFile(str(xtc), "w") as file:
            file.write(frames.positions, time=frames.time.astype(np.float32), step=np.arange(len(frames)), box=boxes)
        with open(table, "w", newline="", encoding="ascii") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["frame", "replica", "time [ps]", "temperature [K]"])
            columns = frames.replica.tolist(), frames.time.tolist(), frames.temperature.tolist()
            writer.writerows(zip(range(len(frames)), *columns, strict=True))
    return [folder / file for file in names]


def _ordered(frames: Frames, replicas: Sequence[int] | None) -> Frames:
    """Frames of some replicas, replica after replica, each in the order of time."""
    there = np.unique(frames.replica)
    if unknown := sorted(set(replicas or []) - set(there.tolist())):
        raise CgAssetsError(f"--replicas {unknown[0]}: there are {there[0]} to {there[-1]}")
    order = np.lexsort((frames.time, frames.replica))
    if replicas:
        order = order[np.isin(frames.replica[order], replicas)]
    return frames.select(order)


def _require_near(model: str, frames: Frames, names: Sequence[str]) -> None:
    """Refuse positions that an XTC file cannot hold; the library writes others in their place.

    Raises:
        CgAssetsError: a bead is too far, or nowhere.
    """
    for frame, bead, axis in np.argwhere(~(np.abs(frames.positions) < XTC_LIMIT))[:1]:
        what = f"{_frame(model, frames, frame)}, bead {bead + 1} ({names[bead]})"
        raise CgAssetsError(
            f"{what}: {frames.positions[frame, bead, axis]:g} nm does not fit into an XTC file; {_REMEDY}"
        )


def _frame(model: str, frames: Frames, number: int) -> str:
    return f"{model}: frame {number} (replica {frames.replica[number]}, {frames.time[number]:g} ps)"


def _vectors(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Box vectors in rows `(n_frames, 3, 3)` [nm]."""
    return box if box.ndim == 3 else box[:, :, None] * np.eye(3, dtype=np.float32)


def _pdb(cg_map: CGMap, title: str, frames: Frames, boxes: NDArray[np.float32] | None) -> str:
    """The first frame as a PDB file; a bead on an atom has the residue of that.

    Raises:
        CgAssetsError: a number is too long for its columns.
    """
    lines = [f"TITLE     {title}"]
    place = _frame(title, frames, 0)
    if boxes is not None:
        box = boxes[0]
        lengths = np.linalg.norm(box, axis=1)
        unit = box / lengths[:, None]
        angles = np.degrees(np.arccos([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]))
        edges = "".join(_angstrom(length, 9, f"{place}, edge of the box") for length in lengths)
        lines.append(f"CRYST1{edges}{''.join(f'{angle:7.2f}' for angle in angles)} P 1           1")
    for number, (name, position) in enumerate(zip(cg_map.bead_names, frames.positions[0], strict=True), start=1):
        before, _, atom = name.rpartition(":")
        chain, _, residue = before.rpartition("/")
        residue = residue if residue.isdigit() else str(number)
        columns = "".join(_angstrom(value, 8, f"{place}, bead {number} ({name})") for value in position)
        lines.append(
            f"HETATM{number % 100_000:5d} {atom[:4]:<4} CG  {chain[:1]:1}{int(residue) % 10_000:4d}    "
            f"{columns}  1.00  0.00"
        )
    bonded: dict[int, list[int]] = {}
    for one, other in cg_map.bonds:
        bonded.setdefault(one, []).append(other)
        bonded.setdefault(other, []).append(one)
    for one, others in sorted(bonded.items()):
        for first in range(0, len(others), 4):
            lines.append("CONECT" + "".join(f"{bead + 1:5d}" for bead in [one, *others[first : first + 4]]))
    return "\n".join([*lines, "END", ""])


def _angstrom(length: float, width: int, what: str) -> str:
    """A length [nm] in Å, right-aligned in its columns of a PDB file."""
    text = f"{10 * float(length):{width}.3f}"
    if len(text) > width or not np.isfinite(length):
        raise CgAssetsError(f"{what}: {length:g} nm does not fit into the {width} columns of a PDB file; {_REMEDY}")
    return text
