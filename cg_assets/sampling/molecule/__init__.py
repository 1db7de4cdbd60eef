"""Molecules under OpenMM: replicas, starts, workers, biases and replica exchange."""
