"""A classical force field of a chain of beads, fitted to its configurations."""
