"""Registered potentials in other simulation packages."""
