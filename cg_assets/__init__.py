"""Coarse-grained molecular simulation as Dagster data assets with full lineage.

from cg_assets import load_system, sample, label, train, simulate, evaluate
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Frames", "Samples", "evaluate", "label", "load_model", "load_system", "run", "sample", "simulate", "train"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for, so that importing the package stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cg_assets import api

    return getattr(api, name)
