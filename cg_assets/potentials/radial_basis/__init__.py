"""PMF of one CG coordinate: Gaussian basis functions and a dense network."""
