"""What is simulated: one YAML per system, the specification that reads it, and builders."""

from cg_assets.systems.load import home, load_all_systems, load_system, system_files
from cg_assets.systems.spec import SystemSpec, seed_of

__all__ = ["SystemSpec", "home", "load_all_systems", "load_system", "seed_of", "system_files"]
