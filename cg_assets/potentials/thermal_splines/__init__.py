"""W(R, T) of cubic splines in pairs and triples of beads, solved for: the fast form."""
