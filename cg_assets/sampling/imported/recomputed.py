"""Forces recomputed from the force field of a system, for frames that were made elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.core.frames import Frames, cell_vectors_of
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.imported.formats import AtomBlock
from cg_assets.sampling.molecule.platforms import choose_platform

_FRAMES = 48
"""Frames at most in which the effect of rounding is measured."""


class RecomputedForces:
    """Unbiased forces and energies of frames with all atoms."""

    def __init__(self, molecule: MoleculeModel) -> None:
        """Prepare the force field.

        Raises:
            SamplingError: the system has no force field.
        """
        import openmm

        if molecule.system is None:
            raise SamplingError(
                "imported.forces is recomputed, but the model has no force field; name its force_fields or topology"
            )
        platform, properties = choose_platform(molecule.n_atoms, molecule.box is not None)
        self._periodic = molecule.system.usesPeriodicBoundaryConditions()
        self._context = openmm.Context(
            molecule.system,
            openmm.VerletIntegrator(0.001),
            openmm.Platform.getPlatformByName(platform),
            properties,
        )

    def apply(self, block: AtomBlock) -> AtomBlock:
        """The same frames with forces [kJ/mol/nm] and energies [kJ/mol].

        Args:
            block: all atoms of whole molecules, and the box where there is one.

        Raises:
            SamplingError: a periodic force field and frames without a box.
        """
        if self._periodic and block.box is None:
            raise SamplingError(
                "imported.forces is recomputed, and the force field is periodic, but the frames have no box; write "
                "trajectories with their boxes, or read the forces from the file"
            )
        forces, energy = np.empty(block.positions.shape), np.empty(len(block.positions))
        for index, positions in enumerate(block.positions):
            if self._periodic and block.box is not None:
                self._context.setPeriodicBoxVectors(*block.box[index])
            self._context.setPositions(positions)
            self._context.computeVirtualSites()
            state = self._context.getState(forces=True, energy=True)
            forces[index] = state.getForces(asNumpy=True)._value
            energy[index] = state.getPotentialEnergy()._value
        return replace(block, forces=forces, energy=energy)

    def rounding_changes(self, block: AtomBlock, grid: float, seed: int) -> NDArray[np.float64]:
        """How positions that lie on a grid change the forces: `(n_frames, n_atoms, 3)` [kJ/mol/nm].

        The curvature of the energy is that of the rounded positions, so a further rounding changes the forces as the
        first one did.

        Args:
            block: some frames with all atoms of whole molecules, and the box where there is one.
            grid: on which positions lie [nm].
            seed: of the displacements.
        """
        shift = np.random.default_rng(seed).uniform(-0.5 * grid, 0.5 * grid, block.positions.shape)
        exact, moved = (self.apply(replace(block, positions=block.positions + part)) for part in (0.0, shift))
        return np.asarray(moved.forces) - np.asarray(exact.forces)


def label_rounding(molecule: MoleculeModel, frames: Frames, grid: float, seed: int) -> NDArray[np.float64]:
    """How rounded positions change recomputed forces on the atoms that are stored, in some frames.

    Args:
        molecule: with its force field.
        frames: with all its atoms.
        grid: on which positions lie [nm].
        seed: of the displacements.

    Returns:
        Changes `(n_frames, n_stored, 3)` [kJ/mol/nm].
    """
    some = frames.select(np.arange(0, len(frames), -(-len(frames) // _FRAMES)))
    vectors = None if some.box is None else cell_vectors_of(some.box.astype(np.float64))
    block = AtomBlock(some.positions.astype(np.float64), box=vectors)
    return RecomputedForces(molecule).rounding_changes(block, grid, seed)[:, molecule.stored]
