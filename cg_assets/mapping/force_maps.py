"""Force maps: which linear combination of atomistic forces is the force label of each bead.

A label B f has the mean force as its conditional mean when B Mᵀ is the identity and when atoms joined by a rigid bond
carry equal coefficients, so that constraint forces drop out and the constraints are kept by the motion that B
describes: Ciccotti, Kapral, Vanden-Eijnden, ChemPhysChem 6, 1809 (2005); Noid et al., J. Chem. Phys. 128, 244114
(2008); Krämer et al., J. Phys. Chem. Lett. 14, 3970 (2023), arXiv 2302.07071.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import ForceMapError
from cg_assets.mapping.chains import connected_groups
from cg_assets.mapping.maps import CGMap

TOLERANCE = 1e-6
"""Largest error of a coefficient in the validity conditions."""
_BLOCK = 4096

Constraints = Sequence[tuple[int, int]]


class ForceMapJson(TypedDict):
    """A `ForceMap` in the metadata of a file."""

    kind: str
    matrix: list[list[float]]


@dataclass(frozen=True)
class ForceMap:
    """A linear map from atomistic forces to bead forces, F = B f.

    Attributes:
        matrix: `(n_beads, n_atoms)` B.
        kind: `slice`, `group`, `optimal` or `linear`.
    """

    matrix: NDArray[np.float64]
    kind: str

    def apply(self, forces: NDArray) -> NDArray[np.float64]:
        """Bead forces `(..., n_beads, dimension)` from atomistic forces `(..., n_atoms, dimension)`."""
        return np.matmul(self.matrix, forces)

    def to_json(self) -> ForceMapJson:
        """Plain JSON types."""
        return {"kind": self.kind, "matrix": self.matrix.tolist()}

    @classmethod
    def from_json(cls, content: ForceMapJson) -> ForceMap:
        """The map that `to_json` described."""
        return cls(np.array(content["matrix"], dtype=np.float64), str(content["kind"]))

    @property
    def hash(self) -> str:
        """Hash of the map."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def slice_map(cg_map: CGMap) -> ForceMap:
    """The force on a bead is the total force on its own atoms."""
    return ForceMap((cg_map.matrix != 0).astype(np.float64), "slice")


def group_map(cg_map: CGMap, constraints: Constraints) -> ForceMap:
    """As `slice_map`, and each atom takes along the atoms that are rigidly bound to it."""
    group = connected_groups(cg_map.n_atoms, constraints)
    rows = [np.isin(group, group[np.flatnonzero(row)]).astype(np.float64) for row in cg_map.matrix]
    return ForceMap(np.stack(rows), "group")


def linear_map(cg_map: CGMap) -> ForceMap:
    """B = (M Mᵀ)⁻¹ M: the force along the gradient of each linear coordinate."""
    matrix = np.linalg.solve(cg_map.matrix @ cg_map.matrix.T, cg_map.matrix)
    return ForceMap(matrix.astype(np.float64), "linear")


def optimal_map(cg_map: CGMap, constraints: Constraints, forces: NDArray, max_frames: int = 20000) -> ForceMap:
    """The valid map whose labels have the smallest mean square on these forces.

    With c the coefficients of rigid groups, minimises <|c F|²> under c A = identity, A the sum of M over each group:
    a quadratic programme per bead that one linear system solves (Karush-Kuhn-Tucker). The mean square of labels is
    that of the mean force plus that of the noise, and the mean force is the same for all valid maps: the noise is
    least.

    Args:
        cg_map: the map of positions.
        constraints: pairs of atoms at fixed distance.
        forces: `(n_frames, n_atoms, 3)` unbiased forces [kJ/mol/nm].
        max_frames: frames used at most, evenly spaced.

    Raises:
        ForceMapError: no valid map exists, or there are too few frames.
    """
    group = connected_groups(cg_map.n_atoms, constraints)
    n_groups = int(group.max()) + 1
    stride = max(1, -(-len(forces) // max_frames))
    second_moment = np.zeros((n_groups, n_groups))
    membership = np.zeros((n_groups, cg_map.n_atoms))
    membership[group, np.arange(cg_map.n_atoms)] = 1.0
    used = forces[::stride]
    for start in range(0, len(used), _BLOCK):
        summed = np.matmul(membership, used[start : start + _BLOCK].astype(np.float64))
        flat = summed.transpose(1, 0, 2).reshape(n_groups, -1)
        second_moment += flat @ flat.T
    active = np.flatnonzero(np.diag(second_moment) > 0)
    if 3 * len(used) < 10 * len(active):
        raise ForceMapError(
            f"{len(used)} frames are too few to fit the {len(active)} coefficients of an optimal force map; sample "
            "more frames or set mapping.force_map to group"
        )
    weights = (membership @ cg_map.matrix.T)[active]
    if np.linalg.matrix_rank(weights) < cg_map.n_beads:
        raise ForceMapError(_no_valid_map(cg_map, group))
    quadratic = second_moment[np.ix_(active, active)]
    quadratic = quadratic / np.trace(quadratic) * len(active)
    quadratic[np.diag_indices_from(quadratic)] += 1e-9
    n_active, n_beads = weights.shape
    system = np.block([[quadratic, weights], [weights.T, np.zeros((n_beads, n_beads))]])
    right = np.concatenate([np.zeros((n_active, n_beads)), np.eye(n_beads)])
    coefficients = np.linalg.solve(system, right)[:n_active].T
    coefficients += (np.eye(n_beads) - coefficients @ weights) @ np.linalg.pinv(weights)
    matrix = np.zeros((n_beads, n_groups))
    matrix[:, active] = coefficients
    return ForceMap(matrix @ membership, "optimal")


def validate_force_map(
    force_map: ForceMap, cg_map: CGMap, constraints: Constraints, atom_names: Sequence[str] | None = None
) -> None:
    """Refuse a force map whose labels would not average to the mean force.

    Raises:
        ForceMapError: names the beads or the pair of atoms that violate a condition.
    """
    names = cg_map.atom_names if atom_names is None else atom_names
    matrix = force_map.matrix
    if matrix.shape != cg_map.matrix.shape:
        raise ForceMapError(f"force map has shape {matrix.shape}, the CG map {cg_map.matrix.shape}; they must agree")
    error = matrix @ cg_map.matrix.T - np.eye(cg_map.n_beads)
    worst = np.unravel_index(np.argmax(np.abs(error)), error.shape)
    if not abs(error[worst]) <= TOLERANCE:
        first, second = (cg_map.bead_names[bead] for bead in worst)
        shared = [names[int(atom)] for atom in np.flatnonzero((matrix[worst[0]] != 0) & (cg_map.matrix[worst[1]] != 0))]
        raise ForceMapError(
            f"{force_map.kind} force map: the force label of bead {first} responds to a shift of bead {second} with "
            f"{error[worst] + float(worst[0] == worst[1]):.4g} instead of {float(worst[0] == worst[1]):g} (through "
            f"atoms {', '.join(shared[:4])}); put atoms that are rigidly bound into the same bead, or set "
            "mapping.force_map to optimal"
        )
    for first_atom, second_atom in constraints:
        difference = np.abs(matrix[:, first_atom] - matrix[:, second_atom])
        bead = int(np.argmax(difference))
        if not difference[bead] <= TOLERANCE:
            raise ForceMapError(
                f"{force_map.kind} force map: atoms {names[first_atom]} and {names[second_atom]} are rigidly bound but "
                f"enter the force of bead {cg_map.bead_names[bead]} with different coefficients "
                f"({matrix[bead, first_atom]:.4g} and {matrix[bead, second_atom]:.4g}), so its mean is not the mean "
                "force; set mapping.force_map to group or optimal, or run without constraints (model.constraints: none)"
            )


def _no_valid_map(cg_map: CGMap, group: NDArray[np.int64]) -> str:
    for first in range(cg_map.n_beads):
        for second in range(first + 1, cg_map.n_beads):
            both = set(group[cg_map.matrix[first] != 0]) & set(group[cg_map.matrix[second] != 0])
            if both:
                atoms = [cg_map.atom_names[int(atom)] for atom in np.flatnonzero(np.isin(group, list(both)))]
                return (
                    f"beads {cg_map.bead_names[first]} and {cg_map.bead_names[second]} share the rigidly bound atoms "
                    f"{', '.join(atoms)}, so no force map is valid for both; merge the beads, or run without "
                    "constraints (model.constraints: none)"
                )
    return "the beads are not linearly independent functions of the atoms; remove one of them from mapping.beads"
