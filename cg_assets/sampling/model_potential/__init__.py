"""Model potentials: compiled walkers, and the exact answers that quadrature gives."""
