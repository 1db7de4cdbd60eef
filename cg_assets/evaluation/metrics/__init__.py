"""The metrics of evaluations, one file for each family."""
