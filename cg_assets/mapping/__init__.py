"""CG maps and force maps."""
