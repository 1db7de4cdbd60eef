"""Biases of collective variables, one file each, found by being there: settings, numbers, OpenMM force, deposition."""

import importlib
import pkgutil

from cg_assets.biases.adaptive import AdaptiveBias
from cg_assets.biases.base import Bias, BiasFormula, BiasFunction, bias_from_definition
from cg_assets.biases.grid import GridBias
from cg_assets.biases.metadynamics import MetadynamicsBias
from cg_assets.biases.opes import OpesBias
from cg_assets.biases.static import FormulaBias, StaticBias
from cg_assets.biases.umbrella import UmbrellaBias, Windows

__all__ = [
    "AdaptiveBias",
    "Bias",
    "BiasFormula",
    "BiasFunction",
    "FormulaBias",
    "GridBias",
    "MetadynamicsBias",
    "OpesBias",
    "StaticBias",
    "UmbrellaBias",
    "Windows",
    "bias_from_definition",
]

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
