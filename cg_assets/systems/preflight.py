"""Check a system as far as it can be checked without running it."""

from __future__ import annotations

from cg_assets.systems.spec import Molecule, SystemSpec


def check_system(system: SystemSpec) -> None:
    """Build the molecule, its map and the first potential, so that a mistake shows before any long work.

    Raises:
        SystemSpecError: a field does not fit the topology or the force field.
    """
    if isinstance(system.model, Molecule):
        from cg_assets.systems.builders import build_molecule

        build_molecule(system)
    from cg_assets.mapping.maps import build_map

    build_map(system)
