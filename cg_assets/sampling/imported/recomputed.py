"""Forces recomputed from the force field of a system, for frames that were made elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cg_assets.core.errors import SamplingError
from cg_assets.mapping.builders import MoleculeModel
from cg_assets.sampling.imported.formats import AtomBlock
from cg_assets.sampling.molecule.platforms import choose_platform


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

    def rounding_noise(self, block: AtomBlock, grid: float, stored: NDArray[np.int64], seed: int) -> float:
        """Root mean square change of the forces on the stored atoms when positions are rounded [kJ/mol/nm].

        Args:
            block: some frames with forces.
            grid: on which positions lie [nm].
            stored: the atoms.
            seed: of the displacements.
        """
        shift = np.random.default_rng(seed).uniform(-0.5 * grid, 0.5 * grid, block.positions.shape)
        moved = self.apply(replace(block, positions=block.positions + shift))
        change = np.asarray(moved.forces)[:, stored] - np.asarray(block.forces)[:, stored]
        return float(np.sqrt((change**2).mean()))
