"""Turn frames of atoms into frames of beads with force labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import ForceMapError
from cg_assets.core.frames import Frames
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.force_maps import ForceMap, validate_force_map
from cg_assets.mapping.maps import CGMap, Mapping

_BLOCK = 8192


def fit_force_map(mapping: Mapping, beads: Beads, frames: Frames | None) -> ForceMap:
    """The force map that a mapping asks for, checked to be valid.

    Args:
        mapping: settings of the beads.
        beads: the beads.
        frames: atomistic frames with unbiased forces; None where `mapping.needs_frames` is false.

    Raises:
        ForceMapError: the map is not valid under the molecule's constraints; the message names the atoms.
    """
    forces = None if frames is None else frames.forces
    if frames is not None and forces is not None:
        _check_sites(beads.cg_map, frames)
    force_map = mapping.fitted_force_map(beads.cg_map, beads.constraints, forces)
    validate_force_map(force_map, beads.cg_map, beads.constraints)
    return force_map


def map_frames(beads: Beads, frames: Frames, force_map: ForceMap) -> Frames:
    """CG frames from atomistic ones: beads, force labels, collective variables of the beads; other columns are kept.

    Args:
        beads: the beads.
        frames: atomistic frames, or frames of one walker of a model potential `(n_frames, 1, n_coordinates)`.
        force_map: a valid force map.

    Returns:
        Frames with positions `(n_frames, n_beads, 3)`, or `(n_frames, 1, 1)` for a model potential.

    Raises:
        ForceMapError: the frames do not have the atoms of the map, or the force map is not valid.
    """
    cg_map = beads.cg_map
    validate_force_map(force_map, cg_map, beads.constraints)
    _check_sites(cg_map, frames)
    positions = _in_blocks(cg_map.matrix, _as_atoms(cg_map, frames.positions))
    forces = None if frames.forces is None else _in_blocks(force_map.matrix, _as_atoms(cg_map, frames.forces))
    variables = beads.variables(positions.astype(np.float64))
    return replace(
        frames,
        box=None if beads.box is None else frames.box,
        positions=positions,
        forces=forces,
        force_variance=None,
        collective_variables={name: np.asarray(value, dtype=np.float32) for name, value in variables.items()},
    )


def map_coordinates(beads: Beads, frames: Frames, force_map: ForceMap) -> tuple[NDArray, NDArray]:
    """Beads and labels of a force map, valid or not, `(n_frames, n_beads, dimension)` in double precision."""
    atoms = [_as_atoms(beads.cg_map, np.asarray(item, dtype=np.float64)) for item in (frames.positions, frames.forces)]
    return beads.cg_map.apply(atoms[0]), force_map.apply(atoms[1])


def force_map_fault(beads: Beads, force_map: ForceMap) -> str:
    """Why a force map is not valid for some beads, naming the atoms; empty where it is valid."""
    try:
        validate_force_map(force_map, beads.cg_map, beads.constraints)
    except ForceMapError as error:
        return str(error)
    return ""


def _check_sites(cg_map: CGMap, frames: Frames) -> None:
    n_sites = frames.n_sites if cg_map.bead_elements else frames.dimension
    if n_sites != cg_map.n_atoms:
        raise ForceMapError(
            f"the frames have {n_sites} atoms or coordinates, the CG map has {cg_map.n_atoms}; sample the system again"
        )


def _as_atoms(cg_map: CGMap, values: NDArray) -> NDArray:
    """A walker's coordinates as one-dimensional atoms `(n_frames, n_coordinates, 1)`; atoms as they are."""
    return values if cg_map.bead_elements else values.reshape(len(values), -1, 1)


def _in_blocks(matrix: NDArray[np.float64], values: NDArray) -> NDArray[np.float32]:
    """Matrix times each frame in double precision, stored as float32."""
    mapped = np.empty((len(values), len(matrix), values.shape[2]), dtype=np.float32)
    for start in range(0, len(values), _BLOCK):
        mapped[start : start + _BLOCK] = np.matmul(matrix, values[start : start + _BLOCK].astype(np.float64))
    return mapped
