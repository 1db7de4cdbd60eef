"""Units in which trajectories give lengths, forces and energies, and what they are in nm and kJ/mol."""

from __future__ import annotations

import re

_KCAL = 4.184
_EV = 96.48533212331
"""[kJ/mol], CODATA 2018."""

LENGTH = {"nm": 1.0, "angstrom": 0.1, "bohr": 0.0529177210903, "pm": 0.001, "m": 1e9}
ENERGY = {"kJ/mol": 1.0, "kcal/mol": _KCAL, "eV": _EV, "hartree": 2625.4996394799}
FORCE = {
    "kJ/mol/nm": 1.0,
    "kJ/mol/angstrom": 10.0,
    "kcal/mol/angstrom": 10 * _KCAL,
    "eV/angstrom": 10 * _EV,
    "hartree/bohr": 49614.7526045429,
}
TIME = {"ps": 1.0, "fs": 1e-3, "ns": 1e3, "us": 1e6, "s": 1e12}
_NAMES = {
    "nanometer": "nm",
    "nanometers": "nm",
    "a": "angstrom",
    "å": "angstrom",
    "angstroms": "angstrom",
    "ångström": "angstrom",
    "kilocalorie": "kcal",
    "kilojoule": "kj",
    "mole": "mol",
    "picosecond": "ps",
    "picoseconds": "ps",
    "femtosecond": "fs",
    "femtoseconds": "fs",
    "ha": "hartree",
    "a0": "bohr",
}


def same_unit(stated: str, known: dict[str, float]) -> str | None:
    """Which of some units a text names, however its powers are written; None for another.

    `kJ/mol/nm`, `kJ mol-1 nm-1`, `kJ*mol^-1*nm^-1` and `kilojoule/mole/nanometer` are one unit.
    """
    powers = _powers(stated)
    return next((name for name in known if _powers(name) == powers), None)


def unit_slip(factor: float, tolerance: float) -> str:
    """Which unit of force was read as which, in words, where forces are too large by a factor; empty for no such pair.

    Args:
        factor: of the forces.
        tolerance: relative error of the factor.
    """
    for read, size in FORCE.items():
        for unit, own in FORCE.items():
            if unit != read and abs(factor * own / size - 1.0) <= tolerance:
                return (
                    f"{unit} was read as {read}, a factor of {own / size:.6g}; set imported.force_unit to {unit} where "
                    f"the file was read in {read}"
                )
    return ""


def _powers(text: str) -> dict[str, int]:
    powers: dict[str, int] = {}
    for operator, name, power in re.findall(r"([/*\s]*)([A-Za-zÅåö]+0?)\s*(?:\^|\*\*)?\s*([+-]?\d+)?", text.strip()):
        name = _NAMES.get(name.lower(), name.lower())
        powers[name] = powers.get(name, 0) + int(power or 1) * (-1 if "/" in operator else 1)
    return powers
