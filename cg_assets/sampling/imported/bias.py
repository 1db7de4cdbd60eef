"""The bias under which imported trajectories were run, from files of PLUMED."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cg_assets.biases.base import BiasFunction
from cg_assets.biases.plumed_files import ENERGY_UNITS, is_backup
from cg_assets.core.family import Family
from cg_assets.sampling.imported.files import found_files

FloatArray = NDArray[np.float64]
EnergyUnit = Literal["kJ/mol", "kcal/mol", "eV", "kT"]

_ACTIONS = ("METAD", "OPES", "RESTRAINT", "WALLS", "EXTERNAL", "BIASVALUE", "ABMD", "DRR", "VES", "PBMETAD", "MAXENT")
"""Parts of the names of PLUMED's biases, in its input."""


@dataclass(frozen=True)
class Run:
    """The trajectories of a batch, as a bias needs them.

    Attributes:
        folder: against which paths are read.
        batch: its name.
        paths: of the trajectories.
        times: `(n_frames,)` of each trajectory by its own clock [ps].
        stride: every how many frames one is taken.
        thermal_energy: kT [kJ/mol].
        periodic: name of each collective variable of the system to whether it is an angle.
    """

    folder: Path
    batch: str
    paths: Sequence[Path]
    times: Sequence[FloatArray]
    stride: int
    thermal_energy: float
    periodic: Mapping[str, bool]


class FrameBias(ABC):
    """The bias of the frames of a batch.

    Attributes:
        paths: its files.
        notes: what was left out or taken on trust, in sentences.
        function: as a function of the collective variables; None where only its energies are known.
        windows: umbrella window of each file; None without windows.
    """

    paths: list[Path]
    notes: list[str]
    function: BiasFunction | None
    windows: Sequence[int] | None

    @abstractmethod
    def usable(self, file: int) -> NDArray[np.bool_]:
        """Whether each frame `(n_frames,)` of a file may be taken."""

    @abstractmethod
    def energy(self, file: int, frames: NDArray[np.int64], variables: Mapping[str, ArrayLike]) -> FloatArray:
        """Energies `(n,)` [kJ/mol] of some frames of a file with their collective variables `(n,)`.

        Raises:
            SamplingError: a frame has none.
        """


class ImportedBias(Family, family="imported bias"):
    """The bias of imported trajectories."""

    is_function: ClassVar[bool] = True
    """Whether it is known as one function of the collective variables, not only by its energies or in windows."""
    windowed: ClassVar[bool] = False
    """Whether runs are in umbrella windows."""

    files: list[str] = Field(min_length=1)
    """Files of PLUMED, relative to the folder of the YAML file; wildcards and `{batch}` as in `imported.files`."""
    energy_unit: EnergyUnit = "kJ/mol"
    """That of the files; PLUMED's `UNITS ENERGY`."""
    time_unit: Literal["ps", "fs", "ns"] = "ps"
    """That of the files; PLUMED's `UNITS TIME`."""
    start: float | None = None
    """Frames before this time of the trajectories' clock [ps] are left out, as those of a bias still being built."""

    @abstractmethod
    def of(self, run: Run) -> FrameBias:
        """The bias of the frames of a batch.

        Raises:
            SamplingError: a file is missing or does not fit, or the bias was still being built.
        """

    @property
    def since(self) -> float:
        """Time from which frames count [ps]."""
        return -math.inf if self.start is None else self.start

    def own_files(self, folder: Path, batch: str) -> list[Path]:
        """Its files of a batch, without the backups that a wildcard caught.

        Raises:
            SamplingError: there are none.
        """
        return self._kept_and_left(folder, batch)[0]

    def _kept_and_left(self, folder: Path, batch: str) -> tuple[list[Path], list[Path]]:
        """Its files, and the backups that a wildcard caught."""
        named = {folder / name.replace("{batch}", batch) for name in self.files}
        found = found_files("bias.files", self.files, folder, batch)
        left = [path for path in found if path not in named and is_backup(path)]
        return [path for path in found if path not in left], left

    def _found(self, run: Run) -> tuple[list[Path], list[str]]:
        """Its files, without the backups that a wildcard caught, and a sentence on each of these."""
        kept, left = self._kept_and_left(run.folder, run.batch)
        notes = [f"{path}: a backup of an earlier run, left out; name it without wildcards to use it" for path in left]
        return kept, notes

    def _energy(self, run: Run) -> float:
        return run.thermal_energy if self.energy_unit == "kT" else ENERGY_UNITS[self.energy_unit]


def undeclared_bias(trajectories: Sequence[Path]) -> str:
    """Which file next to the trajectories shows that they were biased, in a sentence; empty where none does."""
    for folder in dict.fromkeys(path.parent for path in trajectories):
        for path in sorted(folder.iterdir()):
            if path in trajectories or not path.is_file() or path.stat().st_size > 1 << 30:
                continue
            if path.suffix == ".dat" and "plumed" in path.name.lower():
                words = [line.split("#")[0].upper() for line in _head(path, 1000)]
                if any(action in line for action in _ACTIONS for line in words):
                    return f"{path} is a PLUMED input with a bias"
            header = next(iter(_head(path, 1)), "")
            if header.startswith("#! FIELDS"):
                names = header.split()[2:]
                if any(name.endswith((".bias", ".rbias")) for name in names) or {"height", "biasf"} <= set(names):
                    return f"{path} holds a bias (columns {', '.join(names)})"
    return ""


def _head(path: Path, lines: int) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return [file.readline(500) for _ in range(lines)]
