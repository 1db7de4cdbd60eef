"""Atoms and the beads that stand for them, as they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BallsAndSticks:
    """A molecule with its beads in one configuration.

    Attributes:
        atoms: `(n_atoms, 3)` [nm].
        elements: symbol of each atom.
        atom_bonds: pairs of atoms.
        beads: `(n_beads, 3)` [nm].
        bead_names: name of each bead.
        bead_bonds: pairs of beads.
    """

    atoms: NDArray[np.float64]
    elements: Sequence[str]
    atom_bonds: Sequence[tuple[int, int]]
    beads: NDArray[np.float64]
    bead_names: Sequence[str]
    bead_bonds: Sequence[tuple[int, int]]
