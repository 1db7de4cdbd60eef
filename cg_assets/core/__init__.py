"""Frames, units, errors, formulas, progress and statistics: what every other package stands on."""
