"""A Fourier series in torsions, and the torques that it is solved from."""
