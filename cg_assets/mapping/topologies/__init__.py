"""Topologies with their parameters, from the files of other engines; one file for each kind."""

from cg_assets.mapping.topologies import amber, charmm, gromacs, openmm_system
from cg_assets.mapping.topologies.base import Parameterised, Topology

__all__ = ["Parameterised", "Topology", "amber", "charmm", "gromacs", "openmm_system"]
