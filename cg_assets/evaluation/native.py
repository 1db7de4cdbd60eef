"""How far beads are from a folded structure: root mean square deviation after superposition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.errors import SystemSpecError

if TYPE_CHECKING:
    from cg_assets.systems.spec import SystemSpec


def native_beads(system: SystemSpec) -> NDArray[np.float64]:
    """Bead positions `(n_beads, 3)` [nm] of the structure that `evaluation.native` names.

    Raises:
        SystemSpecError: the file cannot be read, or lacks the atom of a bead.
    """
    from openmm import app, unit

    native = system.evaluation.native
    if native is None:
        raise SystemSpecError(f"{system.name}: evaluation.native is missing")
    path = system.folder / native.file
    try:
        pdb = app.PDBFile(str(path))
    except (OSError, ValueError, IndexError, KeyError, AssertionError) as error:
        raise SystemSpecError(f"evaluation.native.file: {path} cannot be read as a PDB file: {error}") from None
    places = np.array(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)
    index = {f"{atom.residue.index + 1}:{atom.name}": atom.index for atom in pdb.topology.atoms()}
    cg_map = system.beads().cg_map
    rows = []
    for name, weights in zip(cg_map.bead_names, cg_map.matrix, strict=True):
        atoms = [cg_map.atom_names[atom] for atom in np.flatnonzero(weights)]
        if len(atoms) != 1 or atoms[0] not in index:
            raise SystemSpecError(
                f"evaluation.native.file: bead {name} sits on {', '.join(atoms)}, of which {path.name} must hold "
                "exactly one atom; name a structure with the atoms of all beads"
            )
        rows.append(index[atoms[0]])
    return places[rows]


def rmsd(positions: ArrayLike, native: ArrayLike) -> NDArray[np.float64]:
    """Root mean square deviation of each frame from a structure after the best rotation (W. Kabsch, 1976).

    Mirror images are not superposed.

    Args:
        positions: `(n_frames, n_beads, 3)` [nm].
        native: `(n_beads, 3)` [nm].

    Returns:
        `(n_frames,)` [nm].
    """
    points, target = np.asarray(positions, dtype=np.float64), np.asarray(native, dtype=np.float64)
    points = points - points.mean(axis=1, keepdims=True)
    target = target - target.mean(axis=0)
    product = np.einsum("fnd,ne->fde", points, target)
    values = np.linalg.svd(product, compute_uv=False)
    values[:, -1] *= np.where(np.linalg.det(product) < 0, -1.0, 1.0)
    square = (points**2).sum(axis=(1, 2)) + (target**2).sum() - 2.0 * values.sum(axis=1)
    return np.sqrt(np.maximum(square, 0.0) / points.shape[1])
