"""Thermal response forces: how the mean force of the beads changes with temperature (arXiv 2602.23198)."""
