"""Settings of imported trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from cg_assets.core.settings import Built, Fact, Fault, Strict, distinct
from cg_assets.sampling.imported import colvar, frozen, windows  # noqa: F401 - biases are found where they are imported
from cg_assets.sampling.imported.bias import ImportedBias

if TYPE_CHECKING:
    from cg_assets.sampling.imported.reader import ImportedReader

IMPORTED = "imported_beads"
IMPORTED_SAMPLES, IMPORTED_LABELS = "imported_samples", "imported_forces"
"""Stages of imported trajectories: of beads where there are no forces, else of atoms and of force labels."""


class ImportedTrajectories(Strict):
    """Existing trajectories: stage `imported_beads`, or with forces `imported_samples` and `imported_forces`."""

    goes_with: ClassVar[tuple[str, ...]] = ("molecule",)

    files: list[str] = Field(min_length=1)
    """Trajectories, relative to the folder of the YAML file, in the formats of docs/own_simulations.md. Wildcards are
    filled in, and `{batch}` by the name of the batch."""
    frame_interval: PositiveFloat | None = None
    """Time between two frames of the files [ps]; null takes it from the clock of the files."""
    stride: PositiveInt = 1
    """Every how many frames one is taken."""
    forces: Literal["file", "recomputed"] | None = None
    """`file` reads them from the files, `recomputed` computes them from the force field; null for positions alone."""
    force_files: list[str] | None = None
    """Files with the forces, one for each of `files`, where they are not in the same file (AMBER's mdfrc)."""
    length_unit: Literal["nm", "angstrom", "bohr"] | None = None
    """Unit of positions; null for that of the format."""
    force_unit: Literal["kJ/mol/nm", "kJ/mol/angstrom", "kcal/mol/angstrom", "eV/angstrom", "hartree/bohr"] | None = (
        None
    )
    """Unit of forces; null for that of the format. A format without one, such as a LAMMPS dump, needs it."""
    bias: ImportedBias | None = None
    """The bias under which the trajectories were run; null: none, whatever lies beside them."""

    @property
    def labels(self) -> str | None:
        """Stage of the force labels; None without forces."""
        return None if self.forces is None else IMPORTED_LABELS

    @property
    def stage(self) -> str:
        """Stage of the CG frames."""
        return self.labels or IMPORTED

    def built_faults(self, built: Built) -> Iterator[Fault]:
        """None, where the files of the first batch fit the molecule.

        Raises:
            SamplingError: a file is missing or does not fit.
            ForceMapError: the force map is not valid under the constraints of the run.
        """
        from cg_assets.mapping.run import fit_force_map

        reader = self._reader(built)
        if self.forces is not None and not built.mapping.needs_frames:
            fit_force_map(built.mapping, reader.beads, None)
        return iter(())

    def facts(self, built: Built) -> Iterator[Fact]:
        """What the first batch holds, and what is left out, joined or taken on trust."""
        reader = self._reader(built)
        yield "", f"{reader.n_frames} frames in {reader.n_replicas} replica(s), {reader.interval:.6g} ps apart"
        for note in reader.notes:
            yield "", note

    def _reader(self, built: Built) -> ImportedReader:
        """The reader of the first batch, made once."""
        from cg_assets.sampling.imported.reader import ImportedReader

        if "imported" not in built.examined:
            built.examined["imported"] = ImportedReader(self, built.scope.folder, built.structure, built.beads, "0000")
        return built.examined["imported"]

    _distinct = field_validator("files")(distinct)
