"""Units of the project: nm, ps, kJ/mol, K, amu, radians; model systems use reduced units with k_B = 1."""

from __future__ import annotations

from typing import Literal

UnitSystem = Literal["molar", "reduced"]

BOLTZMANN = 0.00831446261815324
"""Molar gas constant [kJ/mol/K] (CODATA 2018)."""

_UNITS: dict[str, dict[str, str]] = {
    "molar": {
        "length": "nm",
        "time": "ps",
        "energy": "kJ/mol",
        "temperature": "K",
        "mass": "amu",
        "force": "kJ/mol/nm",
        "angle": "rad",
    },
    "reduced": {
        "length": "reduced length",
        "time": "reduced time",
        "energy": "reduced energy",
        "temperature": "reduced temperature",
        "mass": "reduced mass",
        "force": "reduced energy/length",
        "angle": "rad",
    },
}


def unit(quantity: str, units: UnitSystem) -> str:
    """Name of the unit of `quantity` ("length", "time", "energy", "force", ...) in a unit system."""
    return _UNITS[units][quantity]


def thermal_energy(temperature: float, units: UnitSystem) -> float:
    """k_B T in the energy unit of the unit system ([kJ/mol], or reduced with k_B = 1)."""
    return temperature * (BOLTZMANN if units == "molar" else 1.0)
