"""Formats of trajectories, one file each, chosen by the end of a file's name."""

from __future__ import annotations

from cg_assets.core.errors import SamplingError
from cg_assets.sampling.imported.formats.base import AtomBlock, Contents, Source, TrajectoryFile

__all__ = ["AtomBlock", "Contents", "Source", "TrajectoryFile", "open_trajectory"]


def open_trajectory(source: Source) -> TrajectoryFile:
    """The reader of a file, by its name in small letters.

    Raises:
        SamplingError: no format is known by such a name, or it cannot give what is asked for.
    """
    from cg_assets.sampling.imported.formats.amber_netcdf import AmberNetcdfFile
    from cg_assets.sampling.imported.formats.amber_text import AmberTextFile
    from cg_assets.sampling.imported.formats.extended_xyz import ExtendedXyzFile
    from cg_assets.sampling.imported.formats.hdf5 import Hdf5File
    from cg_assets.sampling.imported.formats.lammps import LammpsDump
    from cg_assets.sampling.imported.formats.mdtraj_formats import DcdFile, OtherFile, XtcFile
    from cg_assets.sampling.imported.formats.npz import NpzFile
    from cg_assets.sampling.imported.formats.trr import TrrFile

    formats: tuple[type[TrajectoryFile], ...] = (
        XtcFile,
        DcdFile,
        TrrFile,
        NpzFile,
        AmberNetcdfFile,
        AmberTextFile,
        LammpsDump,
        ExtendedXyzFile,
        Hdf5File,
        OtherFile,
    )
    name = source.path.name.lower()
    for kind in formats:
        if name.endswith(kind.suffixes):
            return kind(source)
    known = ", ".join(suffix.removeprefix(".") for kind in formats for suffix in kind.suffixes)
    raise SamplingError(f"{source.path}: its name ends in no known format; known are {known}")
