"""W(s, T) of one CG coordinate at all temperatures: cubic B-splines."""
