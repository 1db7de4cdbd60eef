"""What is simulated: one YAML file per system, and the specification that reads it."""

from cg_assets.systems.base import System, seed_of
from cg_assets.systems.load import change_fields, find_systems, load_all_systems, load_system, name_of, system_files
from cg_assets.systems.spec import SystemSpec

__all__ = [
    "System",
    "SystemSpec",
    "change_fields",
    "find_systems",
    "load_all_systems",
    "load_system",
    "name_of",
    "seed_of",
    "system_files",
]
