"""Evaluation of potentials: references, metrics with errors, comparisons and learning curves."""
