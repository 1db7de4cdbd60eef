"""PMF of two CG coordinates: products of cubic B-splines."""
