"""Forces that a file states, tested frame by frame: they cancel over all atoms, and are those of the force field."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.chains import connected_groups
from cg_assets.sampling.imported.bad_frames import BadFrames
from cg_assets.sampling.imported.formats import AtomBlock, TrajectoryFile
from cg_assets.sampling.imported.formats.streamed import joined
from cg_assets.sampling.imported.formats.units import unit_slip
from cg_assets.sampling.imported.recomputed import RecomputedForces

TESTED, _COMPARED = 10, 2
"""Frames of a file that are tested, and those that are compared with the force field."""
_NET, _APART = 0.05, 0.02
"""Largest net force, and largest difference from the force field, as parts of the root mean square force."""
_ALIKE, _RELATED = 0.9, 0.2
"""Correlation with the force field of forces in a wrong unit, and the least of forces of the same frames."""
_FIXES = "LAMMPS adds forces of its fixes; noise of fix langevin, which widens the labels without shifting their mean,"


def force_notes(
    molecule: MoleculeModel,
    bad: BadFrames,
    file: TrajectoryFile,
    blocks: Sequence[AtomBlock],
    force_field: RecomputedForces | None,
) -> list[str]:
    """What frames show of the forces that a file states: of noise, and against the force field; empty for nothing.

    Args:
        molecule: of which they hold all atoms.
        bad: finds damaged frames, which are left out.
        file: the file.
        blocks: whole molecules.
        force_field: of the model, or None.

    Raises:
        SamplingError: they are no forces of these frames.
    """
    sound = [block.select(_sound(molecule, bad, block)) for block in blocks]
    if not any(len(block.positions) for block in sound):
        return []
    block, path = joined(sound), str(file.path)
    net, apart = net_force_note(molecule, block, path), ""
    if not net and file.holds_fixes:
        net = f"{path}: {_FIXES} would show, unless it was set to zero yes; forces on all atoms cancel"
    if force_field is not None and (block.box is not None or molecule.box is None):
        apart = force_field_note(molecule, force_field, block.select(slice(0, _COMPARED)), path)
    return [net, apart]


def unseen_note(file: TrajectoryFile) -> str:
    """What cannot be tested where a file lacks atoms; empty where there is nothing to say."""
    return f"{file.path}: {_FIXES} cannot be seen without all atoms" if file.holds_fixes else ""


def shortened(notes: Sequence[Sequence[str]]) -> list[str]:
    """Of the notes on each file the first of each kind, with the number of the others."""
    kinds = [[note for note in kind if note] for kind in itertools.zip_longest(*notes)]
    return [kind[0] + (f" (and of {len(kind) - 1} more files)" if kind[1:] else "") for kind in kinds if kind]


def _sound(molecule: MoleculeModel, bad: BadFrames, block: AtomBlock) -> NDArray[np.int64]:
    """Frames with forces of which no number is damaged."""
    atoms, forces = molecule.stored, np.asarray(block.forces)
    damaged = list(bad.find(AtomBlock(block.positions[:, atoms], forces=forces[:, atoms])))
    finite = (np.isfinite(block.positions) & np.isfinite(forces)).all(axis=(1, 2))
    return np.setdiff1d(np.flatnonzero(finite), damaged)


def net_force(forces: NDArray[np.floating]) -> float:
    """Net force of all atoms: 0 for forces between them (Newton's third law), 1 for noise that is independent on each.

    Args:
        forces: `(n_frames, n_atoms, 3)`.
    """
    return float(np.sqrt((forces.sum(axis=1) ** 2).sum() / (forces**2).sum()))


def net_force_note(molecule: MoleculeModel, block: AtomBlock, path: str) -> str:
    """What a net force on all atoms of a system means; empty where there is none.

    Args:
        molecule: whose atoms they are.
        block: some frames with forces on all of them.
        path: of the file, for the message.

    Raises:
        SamplingError: there is one although the file holds the solvent.
    """
    net = net_force(np.asarray(block.forces)[:, molecule.masses > 0])
    if not net > _NET:
        return ""
    found = (
        f"{path}: the forces on all atoms of a frame, which cancel where the atoms act on each other alone, add up to "
        f"{net:.2g} of what independent forces would: they hold the noise of a thermostat (fix langevin of LAMMPS), a "
        "restraint or a wall"
    )
    if len(molecule.stored) < molecule.n_atoms:
        raise SamplingError(f"{found}; write the forces again in a rerun without it")
    return f"{found}, or act from atoms that the file leaves out"


def force_field_note(molecule: MoleculeModel, recomputed: RecomputedForces, block: AtomBlock, path: str) -> str:
    """How forces differ from those of the force field; empty where they hardly do.

    Forces are added up over atoms that are rigidly bound, so that those of constraints and of rigid bonds drop out.

    Args:
        molecule: with its force field.
        recomputed: its forces.
        block: some frames of whole molecules with forces on all atoms.
        path: of the file, for the message.

    Raises:
        SamplingError: they are in another unit, or have nothing to do with it.
    """
    group = connected_groups(molecule.n_atoms, molecule.constraints)
    massive = molecule.masses > 0
    sums = (np.arange(group.max() + 1)[:, None] == group)[:, massive].astype(float)
    found, expected = (
        sums @ np.asarray(part.forces, dtype=np.float64)[:, massive] for part in (block, recomputed.apply(block))
    )
    product, square, own = (expected * found).sum(), (expected**2).sum(), (found**2).sum()
    scale, correlation = product / square, product / np.sqrt(square * own)
    if abs(correlation) > _ALIKE and (slip := unit_slip(scale, 0.1)):
        raise SamplingError(f"{path}: forces are {scale:.6g} times those of the force field of the model: {slip}")
    if not correlation > _RELATED:
        raise SamplingError(
            f"{path}: forces have a correlation of {correlation:.2g} with those of the force field of the model in the "
            "same frames: they are of other frames, positions were turned without them (trjconv -fit), or the force "
            "field is another one"
        )
    apart = np.sqrt(((found - expected) ** 2).sum() / square)
    if apart < _APART:
        return ""
    return (
        f"{path}: forces differ by {apart:.2g} of their root mean square from those of the force field of the model: "
        "they hold a bias or the noise of a thermostat, or the run had other parameters or cutoffs"
    )
