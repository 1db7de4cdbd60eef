"""What potentials W(R, T) share: their dependence on temperature, pairs of neighbours, exact derivatives."""
