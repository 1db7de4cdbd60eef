"""Check a system as far as it can be checked without running it."""

from __future__ import annotations

from cg_assets.evaluation.settings import LongRunReference
from cg_assets.systems.load import AnySystem
from cg_assets.systems.thermal_spec import ThermalSystem


def check_system(system: AnySystem) -> None:
    """Build the molecule, its map and a force map that needs no frames; look at imported files and the reference.

    Raises:
        SystemSpecError: a field does not fit the topology or the force field.
        ForceMapError: the force map is not valid under the constraints.
        SamplingError: an imported file is missing or does not fit the molecule.
        StorageError: the reference cannot be read, or belongs to another model or plan.
    """
    if isinstance(system, ThermalSystem):
        system.water.frozen_system()
        return
    beads = system.beads()
    if system.imported is not None:
        from cg_assets.sampling.imported import ImportedReader

        ImportedReader(system, "0000")
    if not system.mapping.needs_frames:
        from cg_assets.mapping.run import fit_force_map

        fit_force_map(system.mapping, beads, None)
    if system.evaluation.native is not None:
        from cg_assets.evaluation.native import native_beads

        native_beads(system)
    reference = system.evaluation.reference
    if isinstance(reference, LongRunReference) and reference.file is not None:
        from cg_assets.evaluation.long_runs import read_reference

        read_reference(system)
