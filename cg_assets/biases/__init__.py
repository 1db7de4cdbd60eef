"""Bias potentials of collective variables: settings, numbers, and forces for OpenMM and for beads."""
