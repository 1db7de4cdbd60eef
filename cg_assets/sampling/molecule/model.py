"""Settings of a simulated molecule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cg_assets.core.settings import NANOMETRES, Built, Fact, Fault, Scope
from cg_assets.mapping.ball_and_stick import BallsAndSticks
from cg_assets.mapping.bead_mapping import WATER, BeadMapping
from cg_assets.mapping.beads import Beads
from cg_assets.mapping.builders import MoleculeModel, MoleculeSettings, build_molecule
from cg_assets.mapping.cells import cell_vectors, shown_cell
from cg_assets.mapping.collective_variables import CollectiveVariable
from cg_assets.mapping.description import molecule_facts
from cg_assets.mapping.pdb_residues import molecules_in_solvent
from cg_assets.sampling.model import Model
from cg_assets.sampling.molecule.platforms import measured_step

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.core.progress import Progress
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.mapping.force_maps import ForceMap
    from cg_assets.sampling.conditional import ConditionalForces
    from cg_assets.sampling.held_beads import HeldBeads
    from cg_assets.sampling.molecule.sampler import MoleculeSampler
    from cg_assets.sampling.settings import Dynamics, SamplingPlan


class Molecule(MoleculeSettings, Model):
    """A molecule, isolated, solvated or in a periodic box."""

    type: Literal["molecule"]

    @property
    def is_simulated(self) -> bool:
        """Whether there is a force field."""
        return self.has_forces

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """A PDB file that is missing, and lengths in Å."""
        yield from scope.missing("pdb", self.pdb)
        for path in [] if self.topology is None else self.topology.files(scope.folder):
            yield from scope.missing("topology", path.absolute())
        yield from scope.unlikely("cutoff", self.cutoff, 0.3, 5, NANOMETRES)
        if self.box is not None:
            edge = cell_vectors(self.box)[0, 0]
            yield from scope.unlikely("box", edge, 0.5, 100, NANOMETRES)

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """Water of another density than that of a liquid, and beads of several molecules in a cell that is no cube."""
        several = len(set(built.structure.stored_groups.tolist())) > 1
        if built.structure.box is not None and several and self.bead_box is None:
            yield Fault(
                "box",
                "is no cube that model.box gives, but several molecules with beads share it; potentials find images in "
                "cubic boxes only: give the edge of a cube, or choose one molecule in mapping.molecules",
            )
        names = {residue.name for residue in built.structure.topology.residues()}
        density = built.structure.density
        if density is not None and names & WATER and not 700 < density < 1400:
            yield Fault(
                "box",
                f"{shown_cell(built.structure.box)} gives a density of {density:.0f} kg/m³ where water has 997; "
                "correct box or waters (cg-assets box finds the edge at atmospheric pressure)",
            )

    def facts(self, built: Built) -> Iterator[Fact]:
        """Molecules, conformer, box and forces."""
        yield from molecule_facts(self, built.structure, built.scope.folder)

    def step_seconds(self, structure: MoleculeModel, beads: Beads) -> float:
        """Measured for half a second; NaN where nothing is simulated [s]."""
        if structure.system is None:
            return math.nan
        return measured_step(structure.system, structure.positions, structure.box is not None)

    def largest_values(self, structure: MoleculeModel, beads: Beads) -> dict[str, float]:
        """Of lengths: the way along the bonds from the first of its atoms to the last, a tenth longer [nm]."""
        return {
            name: 1.1 * structure.way(structure.atom_index(variable.atoms[0]), structure.atom_index(variable.atoms[-1]))
            for name, variable in beads.collective_variables.items()
            if variable.type == "distance" and all(":" in site for site in variable.atoms)
        }

    def start_values(self, structure: MoleculeModel, beads: Beads) -> dict[str, float]:
        """In the built or read structure [rad or nm]."""
        frame = beads.cg_map.apply(structure.positions[structure.stored])[None]
        return {name: float(values[0]) for name, values in beads.variables(frame).items()}

    def balls_and_sticks(self, structure: MoleculeModel, beads: Beads) -> BallsAndSticks:
        """The stored atoms of the built or read structure."""
        place = {int(atom): number for number, atom in enumerate(structure.stored)}
        atoms = [atom for atom in structure.topology.atoms() if atom.index in place]
        pairs = [(one.index, other.index) for one, other in structure.topology.bonds()]
        positions = structure.positions[structure.stored]
        return BallsAndSticks(
            atoms=positions,
            elements=["" if atom.element is None else atom.element.symbol for atom in atoms],
            atom_bonds=[(place[one], place[other]) for one, other in pairs if one in place and other in place],
            beads=beads.cg_map.apply(positions),
            bead_names=beads.cg_map.bead_names,
            bead_bonds=beads.cg_map.bonds,
        )

    @property
    def bead_box(self) -> float | None:
        """Edge of the cubic box [nm], in which all molecules carry beads where no water was added."""
        if self.box is None or self.waters is not None:
            return None
        box = cell_vectors(self.box)
        return float(box[0, 0]) if np.array_equal(box, np.eye(3) * box[0, 0]) else None

    def is_solvated(self, mapping: BeadMapping, folder: Path) -> bool:
        """Whether the files hold one molecule with beads in a solvent, or solvent is added."""
        if self.topology is not None and all(path.is_file() for path in self.files(folder)):
            return len(set(build_molecule(self, mapping, {}, folder).stored_groups.tolist())) == 1
        if self.pdb is None or not (path := folder / self.pdb).is_file():
            return self.waters is not None
        named = mapping.named
        residues = {int(atom.split(":")[0]) for atoms in named.values() for atom in atoms}
        return molecules_in_solvent(path, residues, set(mapping.molecules or ())) == 1

    def repeated_labels(
        self,
        structure: MoleculeModel,
        beads: Beads,
        samples: Frames,
        frames: Frames,
        force_maps: Sequence[ForceMap],
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
    ) -> ConditionalForces | None:
        """Dynamics of the other atoms with the beads held; None without a force field or all atoms."""
        if structure.system is None or samples.n_sites != structure.n_atoms:
            return None
        from cg_assets.sampling.conditional import sample_conditional_forces

        return sample_conditional_forces(structure, beads, samples, force_maps, dynamics, seed, progress=progress)

    def hold_fault(self, structure: MoleculeModel, beads: Beads) -> str:
        """Beads of several atoms: one that is held by a restraint moves, and changes energy and force together."""
        from cg_assets.sampling.held_beads import several_atoms

        names = several_atoms(beads)
        return f"needs beads on single atoms, and {names[0]} holds several; map it to one of them" if names else ""

    def held_beads(
        self, structure: MoleculeModel, beads: Beads, mapping: BeadMapping, samples: Frames | None, starts: Frames
    ) -> HeldBeads:
        """Beads of immense mass; labels of the force map of the mapping."""
        from cg_assets.mapping.run import fit_force_map
        from cg_assets.sampling.held_beads import held_atoms

        return held_atoms(structure, beads, fit_force_map(mapping, beads, samples), starts.positions)

    def sampler(
        self, structure: MoleculeModel, beads: Beads, plan: SamplingPlan, seed: int, snapshots: int = 0
    ) -> MoleculeSampler:
        """Dynamics with OpenMM."""
        from cg_assets.sampling.molecule.sampler import MoleculeSampler

        return MoleculeSampler(structure, beads, plan, seed, snapshots=snapshots)

    def measured_box(
        self,
        structure: MoleculeModel,
        temperature: float,
        dynamics: Dynamics,
        seed: int,
        progress: Progress | None = None,
        folder: Path | None = None,
    ) -> Estimate:
        """By dynamics with a barostat."""
        from cg_assets.sampling.pressure import measure_box

        return measure_box(structure, temperature, dynamics, seed, progress, folder)

    def structure(
        self, mapping: BeadMapping, variables: Mapping[str, CollectiveVariable], folder: Path
    ) -> MoleculeModel:
        """The built molecule."""
        return build_molecule(self, mapping, variables, folder)
