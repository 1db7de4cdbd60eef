"""Operator forces: kernels that perturb configurations and give the force of what they make (arXiv 2506.19628)."""
