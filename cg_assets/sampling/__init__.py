"""Atomistic and model-potential sampling with and without biases."""
