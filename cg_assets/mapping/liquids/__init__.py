"""Liquids whose molecules are beads, as OpenMM Systems."""
