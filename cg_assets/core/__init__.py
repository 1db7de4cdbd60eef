"""Frames, units, errors, formulas, progress and statistics: the basis of every other package."""
