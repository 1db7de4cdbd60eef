"""Whether frames made elsewhere are those of a molecule: unit, order of atoms, and handedness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.bonds import RADII
from cg_assets.mapping.builders import MoleculeModel

_COVALENT = 1.3
"""Longest bond of two atoms, relative to the sum of their radii."""
_ATOMS, _ONE_FRAME, _BEADS = 0.2, 0.4, 0.4
"""Largest relative deviation of the mean length of a bond of atoms, of its length in a frame, and of the mean of
beads."""
_PLANAR = 0.35
"""Triple product of the unit vectors to three neighbours below which a centre counts as planar; 0.77 if tetrahedral."""
_FEWEST_BEADS = 8
"""Beads that a mirror image without chiral centres is found with."""
_ROUNDS = 12


def check_first_frames(molecule: MoleculeModel, positions: NDArray[np.float64], file: str) -> list[tuple[int, ...]]:
    """Refuse frames in another unit, with atoms in another order, or of the mirror image.

    Lengths are compared with those of the structure of the model and, of atoms, with the sums of their covalent radii;
    the hand of each chiral centre with that of the structure.

    Args:
        molecule: the molecule.
        positions: `(n_frames, n_stored, 3)` of whole molecules [nm], all finite.
        file: where they are from, to name it.

    Returns:
        The chiral centres, for `check_hand`.

    Raises:
        SamplingError: they are not frames of this molecule.
    """
    names = [molecule.atom_names[atom] for atom in molecule.stored]
    elements = [molecule.elements[atom] for atom in molecule.stored]
    structure = molecule.positions[molecule.stored]
    pairs = np.array(molecule.stored_pairs(molecule.bonds), dtype=int).reshape(-1, 2)
    _check_unit(positions, structure, pairs, file)
    _check_bonds(positions, structure, pairs, names, elements, file)
    centres = chiral_centres(structure, pairs, elements)
    _check_hands(positions, structure, centres, names, file)
    if not centres and len(names) >= _FEWEST_BEADS and all(_nearer_mirrored(frame, structure) for frame in positions):
        raise SamplingError(
            f"{file}: its first frames are mirror images of the structure of the model; change the sign of one "
            "coordinate, or correct the structure"
        )
    return centres


def check_hand(
    molecule: MoleculeModel, centres: Sequence[Sequence[int]], frame: NDArray[np.float64], number: int, file: str
) -> None:
    """Refuse a later frame with atoms in another order, or of the mirror image, by the hand of its chiral centres.

    Args:
        molecule: the molecule.
        centres: what `check_first_frames` returned.
        frame: `(n_stored, 3)` of whole molecules [nm].
        number: of the frame in its file.
        file: where it is from, to name it.

    Raises:
        SamplingError: it is not a frame of this molecule.
    """
    names = [molecule.atom_names[atom] for atom in molecule.stored]
    structure = molecule.positions[molecule.stored]
    _check_hands(frame[None], structure, centres, names, file, number)


def _check_unit(positions: NDArray, structure: NDArray, pairs: NDArray, file: str) -> None:
    """Refuse lengths that differ all by one factor: of bonds, or of nearest neighbours where there are none."""
    from scipy.spatial import cKDTree

    if len(structure) < 2:
        return
    if len(pairs):
        seen, expected = (float(np.median(_lengths(places, pairs))) for places in (positions, structure))
    else:
        seen, expected = (
            float(np.median(cKDTree(places).query(places, 2)[0][:, 1])) for places in (positions[0], structure)
        )
    ratio = seen / max(expected, 1e-9)
    if not 0.3 < ratio < 3.3:
        remedy = "divide Å by 10" if 7 < ratio < 14 else f"multiply them by {1 / max(ratio, 1e-9):.3g}"
        kind = "bonded" if len(pairs) else "neighbouring"
        raise SamplingError(
            f"{file}: {kind} atoms are {seen:.3g} apart where the model has {expected:.3g} nm; positions must be in "
            f"nm ({remedy}) and in the order of the atoms of the model"
        )


def _check_bonds(
    positions: NDArray, structure: NDArray, pairs: NDArray, names: Sequence[str], elements: Sequence[str], file: str
) -> None:
    """Name the first bond, and its first frame, that is too short or too long."""
    if not len(pairs):
        return
    known = _lengths(structure, pairs)
    radii = np.array([RADII.get(element, np.nan) for element in elements])
    sums = radii[pairs].sum(axis=1)
    covalent = known < _COVALENT * sums  # not of alpha carbons, nor where a radius is unknown
    low = np.where(covalent, np.fmin(known, sums), known)
    high = np.where(covalent, np.fmax(known, sums), known)
    lengths = _lengths(positions, pairs)
    mean, most = lengths.mean(axis=0), np.where(covalent, _ATOMS, _BEADS)
    wrong = (mean < (1 - most) * low) | (mean > (1 + most) * high)
    off = (lengths < (1 - _ONE_FRAME) * low) | (lengths > (1 + _ONE_FRAME) * high)
    wrong |= covalent & off.any(axis=0)
    if not wrong.any():
        return
    bond = int(np.argmax(wrong))
    worst = off[:, bond] if off[:, bond].any() else np.abs(lengths[:, bond] - known[bond]) > most[bond] * known[bond]
    frame = int(np.argmax(worst))
    first, second = (names[atom] for atom in pairs[bond])
    raise SamplingError(
        f"{file}: frame {frame}: the bond {first}-{second} is {lengths[frame, bond]:.3g} nm long where the model has "
        f"{known[bond]:.3g} ({int(wrong.sum())} of {len(pairs)} bonds do not fit); give its atoms in the order of the "
        "model (or model.pdb in the order of the file), and molecules that are whole"
    )


def _check_hands(
    positions: NDArray,
    structure: NDArray,
    centres: Sequence[Sequence[int]],
    names: Sequence[str],
    file: str,
    begin: int = 0,
) -> None:
    """Name the first chiral centre, and its first frame, with the other hand; `begin` is the number of the first."""
    if not centres:
        return
    sites = np.array(centres)
    here, expected = _triple(positions, sites), _triple(structure, sites)
    turned = (here * np.sign(expected)) < -_PLANAR / 2
    if not turned.any():
        return
    centre = int(np.argmax(turned.any(axis=0)))
    frame = int(np.argmax(turned[:, centre]))
    several, place = f"{int(turned[frame].sum())} of {len(sites)} centres", f"{file}: frame {begin + frame}"
    raise SamplingError(
        f"{place}: the atoms around {names[sites[centre, 0]]} are the mirror image of those of the model "
        f"({several}); its atoms are in another order, its handedness is wrong, or it is another isomer"
    )


def chiral_centres(
    structure: NDArray[np.float64], bonds: NDArray[np.int64], elements: Sequence[str]
) -> list[tuple[int, ...]]:
    """Atoms other than nitrogen with different neighbours that are not in a plane.

    Neighbours differ where their surroundings do, by the refinement of H. L. Morgan, J. Chem. Doc. 5, 107 (1965); one
    hydrogen may be missing.

    Args:
        structure: `(n_atoms, 3)`.
        bonds: `(n_bonds, 2)`.
        elements: of each atom.

    Returns:
        Each centre, with three of its neighbours.
    """
    near: list[list[int]] = [[] for _ in elements]
    for first, second in np.asarray(bonds).tolist():
        near[first].append(second)
        near[second].append(first)
    kinds: list[int] = _numbered(list(elements))
    for _ in range(_ROUNDS):
        kinds = _numbered([(kind, *sorted(kinds[other] for other in near[atom])) for atom, kind in enumerate(kinds)])
    found = [
        (atom, *sorted(others)[:3])
        for atom, others in enumerate(near)
        if elements[atom] in {"C", "Si", "P", "S", "Se"}
        and len(others) in {3, 4}
        and len({kinds[other] for other in others}) == len(others)
    ]
    if not found:
        return []
    bent = np.abs(_triple(structure, np.array(found))) > _PLANAR
    return [centre for centre, is_bent in zip(found, bent, strict=True) if is_bent]


def _numbered(kinds: Sequence[object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(kind, len(numbers)) for kind in kinds]


def _lengths(positions: NDArray, pairs: NDArray) -> NDArray[np.float64]:
    return np.linalg.norm(positions[..., pairs[:, 0], :] - positions[..., pairs[:, 1], :], axis=-1)


def _triple(positions: NDArray, sites: NDArray) -> NDArray[np.float64]:
    """Triple products `(..., n_centres)` of the unit vectors from each centre to its three neighbours."""
    arms = positions[..., sites[:, 1:], :] - positions[..., sites[:, :1], :]
    arms /= np.maximum(np.linalg.norm(arms, axis=-1, keepdims=True), 1e-12)
    return np.linalg.det(arms)


def _nearer_mirrored(frame: NDArray, structure: NDArray) -> bool:
    """Whether a frame fits the mirrored structure far better: RMSD below 0.4 of that to the structure itself.

    W. Kabsch, Acta Cryst. A 34, 827 (1978).
    """
    one, other = frame - frame.mean(axis=0), structure - structure.mean(axis=0)
    covariance = one.T @ other
    first, second, third = np.linalg.svd(covariance, compute_uv=False)
    hand = 1.0 if np.linalg.det(covariance) > 0 else -1.0
    size = float((one**2).sum() + (other**2).sum())
    direct, mirrored = (max(size - 2 * (first + second + sign * hand * third), 0.0) for sign in (1.0, -1.0))
    return bool(mirrored < 0.16 * direct)
