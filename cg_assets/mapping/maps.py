"""The CG map: which linear combination of atoms each bead is, and the settings that ask for one."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cg_assets.core.errors import SystemSpecError, shortened
from cg_assets.core.family import Family
from cg_assets.core.settings import Built, Fact, Fault, Name, Scope

if TYPE_CHECKING:
    from cg_assets.mapping.force_maps import ForceMap


class MapJson(TypedDict):
    """A `CGMap` in the metadata of a file."""

    matrix: list[list[float]]
    bead_names: list[str]
    bead_types: list[int]
    bead_masses: list[float]
    """[amu or reduced]."""
    atom_names: list[str]
    bead_elements: list[str]
    bonds: list[list[int]]


@dataclass(frozen=True)
class CGMap:
    """A linear map from atoms to beads, R = M r.

    The atoms are those that frames store: a molecule's solvent is not among them. For a model potential the "atoms" are
    its coordinates, each of one dimension.

    Attributes:
        matrix: `(n_beads, n_atoms)` M; each row of a molecule's map sums to 1.
        bead_names: name of each bead: its own, or that of the heavy atom that it sits on (`2:CA`).
        bead_types: `(n_beads,)` number of each bead's type; beads of one type share parameters.
        bead_masses: `(n_beads,)` [amu or reduced].
        atom_names: name of each atom (`2:CA`) or coordinate (`x`).
        bead_elements: chemical elements of each bead's atoms, for example `C` or `CHHH`; empty for model potentials.
        bonds: pairs of beads whose atoms are bonded, or joined by at most two atoms of no bead (a chain of alpha
            carbons).
    """

    matrix: NDArray[np.float64]
    bead_names: list[str]
    bead_types: list[int]
    bead_masses: NDArray[np.float64]
    atom_names: list[str]
    bead_elements: list[str]
    bonds: list[tuple[int, int]]

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.matrix)

    @property
    def n_atoms(self) -> int:
        """Number of atoms, or of coordinates of a model potential."""
        return self.matrix.shape[1]

    def site(self, name: str) -> int:
        """Index of a bead by its name or by the atom that it sits on; errors as of `bead_on_atom`."""
        return self.bead_names.index(name) if name in self.bead_names else self.bead_on_atom(name)

    def bead_on_atom(self, atom: str) -> int:
        """Index of the bead that sits exactly on an atom.

        Raises:
            SystemSpecError: no bead sits on it.
        """
        column = self.matrix[:, self.atom_names.index(atom)] if atom in self.atom_names else np.zeros(self.n_beads)
        alone = np.flatnonzero((column == 1.0) & (np.count_nonzero(self.matrix, axis=1) == 1))
        if len(alone) == 0:
            raise SystemSpecError(f"no bead sits on atom {atom}; beads are {', '.join(self.bead_names)}")
        return int(alone[0])

    def apply(self, positions: NDArray) -> NDArray[np.float64]:
        """Bead positions `(..., n_beads, dimension)` from atom positions `(..., n_atoms, dimension)`."""
        beads, atoms = np.nonzero(self.matrix)
        if np.array_equal(beads, np.arange(self.n_beads)) and (self.matrix[beads, atoms] == 1.0).all():
            # each bead is an atom; adding 0 makes -0 to 0, as the product does
            return np.add(np.take(positions, atoms, axis=-2), 0.0, dtype=np.float64)
        return np.matmul(self.matrix, positions)

    def to_json(self) -> MapJson:
        """Plain JSON types."""
        return {
            "matrix": self.matrix.tolist(),
            "bead_names": self.bead_names,
            "bead_types": self.bead_types,
            "bead_masses": self.bead_masses.tolist(),
            "atom_names": self.atom_names,
            "bead_elements": self.bead_elements,
            "bonds": [list(pair) for pair in self.bonds],
        }

    @classmethod
    def from_json(cls, content: MapJson) -> CGMap:
        """The map that `to_json` described."""
        return cls(
            matrix=np.array(content["matrix"], dtype=np.float64),
            bead_names=list(content["bead_names"]),
            bead_types=list(content["bead_types"]),
            bead_masses=np.array(content["bead_masses"], dtype=np.float64),
            atom_names=list(content["atom_names"]),
            bead_elements=list(content["bead_elements"]),
            bonds=[(int(first), int(second)) for first, second in content["bonds"]],
        )

    @property
    def hash(self) -> str:
        """Hash of the whole map."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


class Mapping(Family, family="mapping"):
    """What the CG coordinates are."""

    @property
    def needs_frames(self) -> bool:
        """Whether the force map is fitted to frames."""
        return False

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where a force map that needs no frames is valid.

        Raises:
            ForceMapError: it is not valid under the constraints.
        """
        from cg_assets.mapping.run import fit_force_map

        if not self.needs_frames:
            fit_force_map(self, built.beads, None)
        return iter(())

    def facts(self, built: Built) -> Iterator[Fact]:
        """The beads and their bonds."""
        cg_map = built.beads.cg_map
        names = cg_map.bead_names
        yield "beads", f"{cg_map.n_beads}: {shortened(names)}"
        if cg_map.bead_elements:
            bonds = [f"{names[first]}-{names[second]}" for first, second in cg_map.bonds]
            yield "bonds of beads", f"{len(bonds)}: {shortened(bonds)}" if bonds else "none"

    def holds_atom(self, atom: str) -> bool:
        """Whether a bead sits exactly on this atom, going by names."""
        return False

    def variable_names(self, variables: Iterable[str]) -> list[str]:
        """Names of the collective variables, of which those of the specification are `variables`."""
        return list(variables)

    @abstractmethod
    def cg_map(self, structure: Any) -> CGMap:
        """The CG map of what is simulated: a `MoleculeModel`, a `ModelPotential` or `Water`.

        Raises:
            SystemSpecError: a bead names atoms that do not exist.
        """

    @abstractmethod
    def fitted_force_map(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> ForceMap:
        """The force map that the settings ask for, not yet validated.

        Args:
            cg_map: the map of positions.
            constraints: pairs of atoms at fixed distance.
            forces: `(n_frames, n_atoms, 3)` unbiased forces to fit it to, where `needs_frames`.

        Raises:
            ForceMapError: there are no forces, too few frames, or no valid map.
        """

    @abstractmethod
    def plainest_force_map(self, cg_map: CGMap) -> ForceMap:
        """A force map that is valid enough to compare replicas with each other, and needs no frames."""

    def further_force_maps(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> dict[str, ForceMap]:
        """Force maps that could be asked for instead, by their kinds; arguments as of `fitted_force_map`."""
        return {}


class LinearMapping(Mapping):
    """One or two CG coordinates of a model potential."""

    goes_with: ClassVar[tuple[str, ...]] = ("model_potential",)

    type: Literal["linear"]
    coordinates: dict[Name, dict[Name, float]] = Field(min_length=1, max_length=2)
    """Name of each CG coordinate to its weights, for example {s: {x: 0.7071, y: -0.7071}}. Where there are two, each is
    one coordinate of the model potential: {x: {x: 1}, y: {y: 1}}."""

    @model_validator(mode="after")
    def _two_are_kept_whole(self) -> LinearMapping:
        kept = [name for weights in self.coordinates.values() for name, weight in weights.items() if weight]
        if len(self.coordinates) == 2 and (
            len(set(kept)) != 2 or any([*weights.values()] != [1.0] for weights in self.coordinates.values())
        ):
            raise ValueError(
                f"coordinates are {self.coordinates}; of two CG coordinates, each must be a separate one of the "
                "model potential with weight 1"
            )
        if empty := [name for name, weights in self.coordinates.items() if not any(weights.values())]:
            raise ValueError(f"coordinates.{empty[0]} has no weight other than zero")
        return self

    def faults(self, scope: Scope) -> Iterator[Fault]:
        """Weights of coordinates that the model potential does not have."""
        for name, weights in self.coordinates.items():
            yield from scope.unknown(f"coordinates.{name}", weights, scope.coordinates)

    def variable_names(self, variables: Iterable[str]) -> list[str]:
        """The CG coordinates themselves."""
        return list(self.coordinates)

    def cg_map(self, structure: Any) -> CGMap:
        """The weights of each coordinate of a model potential, which gives `coordinates` and `mass`."""
        names = structure.coordinates
        matrix = np.array([[weights.get(name, 0.0) for name in names] for weights in self.coordinates.values()])
        return CGMap(
            matrix=matrix,
            bead_names=list(self.coordinates),
            bead_types=list(range(len(matrix))),
            bead_masses=structure.mass / (matrix**2).sum(axis=1),
            atom_names=list(names),
            bead_elements=[],
            bonds=[],
        )

    def fitted_force_map(
        self, cg_map: CGMap, constraints: Sequence[tuple[int, int]], forces: NDArray | None
    ) -> ForceMap:
        """The force along the gradient of each coordinate."""
        return self.plainest_force_map(cg_map)

    def plainest_force_map(self, cg_map: CGMap) -> ForceMap:
        """The same."""
        from cg_assets.mapping.force_maps import linear_map

        return linear_map(cg_map)
