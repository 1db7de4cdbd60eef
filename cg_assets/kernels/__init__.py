"""Operator forces: kernels that perturb configurations and know the force of what they make (arXiv 2506.19628)."""
