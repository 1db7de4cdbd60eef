"""Coarse-grained molecular simulation as Dagster data assets with full lineage."""

__version__ = "0.1.0"
