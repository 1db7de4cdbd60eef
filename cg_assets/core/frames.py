"""Frames: the arrays that travel together from a sampler to Parquet to training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Frames:
    """A block of frames of one system.

    Sites are atoms (or the one walker of a model potential) before mapping and beads after it.

    Attributes:
        positions: `(n_frames, n_sites, dimension)` float32 [nm or reduced].
        time: `(n_frames,)` float64 [ps or reduced], time of the frame within its replica.
        replica: `(n_frames,)` int32.
        temperature: `(n_frames,)` float64 [K or reduced].
        start: `(n_frames,)` int32, index of the start state that the replica came from.
        probe: `(n_frames,)` bool, True for replicas run only to test conditional equilibration.
        forces: unbiased forces, same shape as positions [kJ/mol/nm or reduced]; None where unknown.
        force_variance: `(n_frames, n_sites)` variance of each force component's label, where known.
        first_order: labels of dF/dT, the derivative of the mean force at fixed beads, same shape as positions
            [kJ/mol/nm/K or reduced]; None without.
        second_order: labels of d²F/dT², same shape [kJ/mol/nm/K² or reduced].
        window: `(n_frames,)` int32 umbrella window.
        bias_energy: `(n_frames,)` float64 energy of the bias [kJ/mol or reduced].
        potential_energy: `(n_frames,)` float64 unbiased potential energy [kJ/mol or reduced].
        box: `(n_frames, 3)` float32 edges of the periodic box, or `(n_frames, 3, 3)` its vectors in rows where it has
            oblique ones [nm].
        collective_variables: name to `(n_frames,)` float32 [rad, nm or reduced].
    """

    positions: NDArray[np.float32]
    time: NDArray[np.float64]
    replica: NDArray[np.int32]
    temperature: NDArray[np.float64]
    start: NDArray[np.int32]
    probe: NDArray[np.bool_]
    forces: NDArray[np.float32] | None = None
    force_variance: NDArray[np.float32] | None = None
    first_order: NDArray[np.float32] | None = None
    second_order: NDArray[np.float32] | None = None
    window: NDArray[np.int32] | None = None
    bias_energy: NDArray[np.float64] | None = None
    potential_energy: NDArray[np.float64] | None = None
    box: NDArray[np.float32] | None = None
    collective_variables: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays of different length."""
        n_frames = len(self.positions)
        if self.positions.ndim != 3:
            raise ValueError(f"positions must have shape (n_frames, n_sites, dimension), not {self.positions.shape}")
        for name, value in self.arrays().items():
            if len(value) != n_frames:
                raise ValueError(f"{name} has {len(value)} frames where positions has {n_frames}")
        if self.forces is not None and self.forces.shape != self.positions.shape:
            raise ValueError(f"forces {self.forces.shape} and positions {self.positions.shape} differ in shape")

    @classmethod
    def of_replicas(
        cls,
        times: ArrayLike,
        replica: ArrayLike,
        *,
        temperature: ArrayLike,
        start: ArrayLike = 0,
        probe: ArrayLike = False,
        window: ArrayLike | None = None,
        box: float | NDArray[np.float64] | None = None,
        **columns: Any,
    ) -> Frames:
        """Frames of replicas at the same times, replica after replica.

        Args:
            times: `(n_times,)` of each replica.
            replica: `(n,)` numbers of the replicas.
            temperature: of all or `(n,)` of each.
            start: of all or `(n,)` of each.
            probe: of all or `(n,)` of each.
            window: `(n,)` of each; None without windows.
            box: edge of the periodic box, or its vectors `(3, 3)` [nm], or None.
            columns: `(n, n_times, ...)` further columns.
        """
        n, n_times = np.size(replica), np.size(times)

        def each(values: ArrayLike, dtype: type) -> NDArray:
            return np.repeat(np.broadcast_to(np.asarray(values, dtype=dtype), n), n_times)

        return cls(
            time=np.tile(times, n),
            replica=each(replica, np.int32),
            temperature=each(temperature, np.float64),
            start=each(start, np.int32),
            probe=each(probe, np.bool_),
            window=None if window is None else each(window, np.int32),
            box=None if box is None else cell_columns(np.broadcast_to(_vectors(box), (n * n_times, 3, 3))),
            **{name: values.reshape(n * n_times, *values.shape[2:]) for name, values in columns.items()},
        )

    def arrays(self) -> dict[str, NDArray]:
        """The columns that are there by name, collective variables with `cv_` before theirs."""
        arrays = {
            item.name: value
            for item in fields(self)
            if item.name != "collective_variables" and (value := getattr(self, item.name)) is not None
        }
        return arrays | {f"cv_{name}": value for name, value in self.collective_variables.items()}

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def __repr__(self) -> str:
        """Numbers of frames and sites, and the names of the columns; not the arrays, which fill the screen."""
        return f"Frames({len(self)} frames of {self.n_sites} site(s): {', '.join(self.arrays())})"

    @property
    def n_sites(self) -> int:
        """Number of atoms or beads."""
        return self.positions.shape[1]

    @property
    def dimension(self) -> int:
        """Number of Cartesian components of a site."""
        return self.positions.shape[2]

    def select(self, index: NDArray) -> Frames:
        """The frames picked by an index or boolean mask, in that order."""
        arrays = {name: value[index] for name, value in self.arrays().items() if not name.startswith("cv_")}
        variables = {name: value[index] for name, value in self.collective_variables.items()}
        return replace(self, **arrays, collective_variables=variables)

    def at_temperature(self, temperature: float) -> Frames:
        """The frames at one of several temperatures [K]; frames that have one temperature only, as they are."""
        kelvin = self.temperature
        return self if len(self) == 0 or (kelvin == kelvin[0]).all() else self.select(kelvin == temperature)

    def by_temperature(self) -> dict[float, Frames]:
        """The frames at each temperature, from the lowest up."""
        return {float(kelvin): self.select(self.temperature == kelvin) for kelvin in np.unique(self.temperature)}

    def of_window(self, window: int) -> Frames:
        """The frames of one window; none where frames have no windows."""
        mask = np.zeros(len(self), dtype=bool) if self.window is None else self.window == window
        return self.select(mask)

    @staticmethod
    def concatenate(parts: Sequence[Frames]) -> Frames:
        """Join blocks that carry the same columns."""
        if not parts:
            raise ValueError("no frames to join")
        columns = [part.arrays() for part in parts]
        joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
        variables = {name: joined.pop(f"cv_{name}") for name in parts[0].collective_variables}
        return replace(parts[0], **joined, collective_variables=variables)


def cell_columns(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """The column `box` of vectors `(n_frames, 3, 3)`: the edges `(n_frames, 3)` of rectangular cells, else vectors."""
    edges = np.diagonal(vectors, axis1=1, axis2=2)
    oblique = np.count_nonzero(vectors) > np.count_nonzero(edges)
    return np.array(vectors if oblique else edges, dtype=np.float32)


def cell_vectors_of(columns: NDArray) -> NDArray:
    """Vectors `(n_frames, 3, 3)` of cells, which `cell_columns` made edges `(n_frames, 3)` of where they could be."""
    return columns if columns.ndim == 3 else columns[..., None] * np.eye(3)


def _vectors(box: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.eye(3) * box if np.ndim(box) == 0 else np.asarray(box)
