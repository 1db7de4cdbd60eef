"""What is simulated: one YAML file per system, and the specification that reads it."""

from cg_assets.systems.base import System
from cg_assets.systems.load import AnySystem, find_systems, load_all_systems, load_system, system_files
from cg_assets.systems.spec import SystemSpec, seed_of
from cg_assets.systems.thermal_spec import ThermalSystem

__all__ = [
    "AnySystem",
    "System",
    "SystemSpec",
    "ThermalSystem",
    "find_systems",
    "load_all_systems",
    "load_system",
    "seed_of",
    "system_files",
]
