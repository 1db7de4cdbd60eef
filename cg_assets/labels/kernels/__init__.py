"""Operator forces: kernels that perturb configurations and label the result with forces (arXiv 2506.19628)."""
