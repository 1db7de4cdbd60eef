"""How beads are held where they are: atoms of immense mass, or rigid water about its centres.

Both leave the density of everything else, p(r | R; T), as it is. A stiff restraint of a bead of several atoms
(`conditional.FixedBeads`) does so for mean forces, but the bead moves in it, and energy and force change together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.mapping.cells import cell_vectors
from cg_assets.mapping.force_maps import ForceMap
from cg_assets.mapping.liquids.water import FROZEN_MASS, Water

if TYPE_CHECKING:
    import openmm

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class HeldBeads:
    """Particles whose beads are held, in some CG frames.

    Attributes:
        system: OpenMM System in which the carriers of the beads do not move.
        starts: `(n_frames, n_particles, 3)` particles at the start [nm].
        positions: `(n_frames, n_beads, 3)` beads [nm].
        stored: `(n_stored,)` particles whose forces labels are made of.
        carriers: `(n_beads,)` stored particle that each bead sits on, as a number among `stored`.
        force_map: `(n_beads, n_stored)` labels from the forces on the stored particles.
        n_degrees_of_freedom: momenta of what moves.
        box: edge of the periodic box, or its vectors in rows [nm]; None without one.
        facts: about the labels, in plain JSON types.
    """

    system: openmm.System
    starts: FloatArray
    positions: FloatArray
    stored: NDArray[np.int64]
    carriers: NDArray[np.int64]
    force_map: FloatArray
    n_degrees_of_freedom: int
    box: float | FloatArray | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def drift(self, frame: int, positions: NDArray) -> float:
        """Largest distance of a bead from its place in a frame; positions `(n, n_stored, 3)` up to a common shift [nm].

        Of an isolated molecule frames are stored about the centre.
        """
        moved = positions[:, self.carriers].astype(np.float64) - self.positions[frame]
        if self.box is not None:
            vectors = cell_vectors(self.box)
            moved -= np.round(moved @ np.linalg.inv(vectors)) @ vectors
        moved -= moved.mean(axis=1, keepdims=True)
        return float(np.sqrt((moved**2).sum(axis=-1)).max())


def held_water(water: Water, starts: NDArray) -> HeldBeads:
    """Rigid molecules that rotate about their centres (`Water.frozen_system`).

    Args:
        water: the molecules.
        starts: `(n_frames, n_sites, 3)` sites of free molecules [nm].

    Raises:
        SamplingError: the starts do not have the sites of the water.
    """
    sites = np.asarray(starts, dtype=np.float64)
    if sites.shape[1:] != (water.n_sites, 3):
        raise SamplingError(
            f"frames to hold the beads of have shape {sites.shape[1:]}, the water ({water.n_sites}, 3); "
            "sample the reference again"
        )
    system = water.frozen_system()
    particles = system.getNumParticles()
    each = particles // water.n_molecules
    return HeldBeads(
        system,
        np.stack([water.frozen_positions(frame) for frame in sites]),
        water.beads(sites),
        stored=np.arange(particles),
        carriers=np.arange(0, particles, each),
        force_map=np.kron(np.eye(water.n_molecules), np.ones(each)).astype(np.float64),
        n_degrees_of_freedom=3 * water.n_molecules,
        box=water.box,
    )


def held_atoms(molecule: MoleculeModel, beads: Beads, force_map: ForceMap, starts: NDArray) -> HeldBeads:
    """A molecule, with its solvent, whose beads sit on one atom each (`several_atoms` names others).

    Args:
        molecule: the molecule.
        beads: where its beads are.
        force_map: of the labels, valid under the constraints.
        starts: `(n_frames, n_atoms, 3)` all atoms [nm].

    Raises:
        SamplingError: the starts do not have all atoms.
    """
    import openmm

    places = np.asarray(starts, dtype=np.float64)
    if places.shape[1:] != (molecule.n_atoms, 3):
        raise SamplingError(
            f"frames to hold the beads of have shape {places.shape[1:]}, the molecule with its solvent "
            f"({molecule.n_atoms}, 3); sample the batch again"
        )
    carriers = np.argmax(beads.cg_map.matrix != 0, axis=1)
    held = molecule.stored[carriers]
    system = openmm.XmlSerializer.clone(molecule.system)
    for atom in held.tolist():
        system.setParticleMass(atom, FROZEN_MASS)
    fixed = set(held.tolist())
    moving = int(np.count_nonzero(molecule.masses)) - len(fixed)
    rigid = sum(not {first, second} <= fixed for first, second in molecule.constraints)
    return HeldBeads(
        system,
        places,
        places[:, held],
        stored=molecule.stored,
        carriers=carriers,
        force_map=force_map.matrix,
        n_degrees_of_freedom=3 * moving - rigid,
        box=molecule.box,
        facts={"force_map": force_map.to_json()},
    )


def several_atoms(beads: Beads) -> list[str]:
    """Names of beads that hold several atoms and so cannot be held by one."""
    counts = np.count_nonzero(beads.cg_map.matrix, axis=1)
    return [name for name, count in zip(beads.cg_map.bead_names, counts, strict=True) if count > 1]
