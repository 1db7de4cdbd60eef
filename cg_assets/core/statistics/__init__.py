"""Estimators with error bars, on plain arrays."""
