"""Settings of `ChainPrior`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from cg_assets.core.settings import Strict


class ChainPriorSettings(Strict):
    """Terms of a classical force field, fitted to the training configurations (docs/training.md)."""

    terms: list[Literal["bonds", "angles", "dihedrals", "repulsion"]] = Field(
        default=["bonds", "angles", "dihedrals", "repulsion"]
    )
    """Harmonic bonds, polynomials in the cosines of angles, Fourier series of dihedrals, (sigma/r)^6 of pairs more than
    three bonds apart."""
    dihedral_order: int = Field(default=3, ge=1, le=8)
    """Order of the Fourier series."""

    @field_validator("terms")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) < len(value):
            raise ValueError(f"{value} must name at least one term, and each once; leave prior out for none")
        return value
