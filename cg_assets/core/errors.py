"""The named errors of the project: each message names the field or file, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class CgAssetsError(Exception):
    """Base of every error that a user can correct."""


class SystemSpecError(CgAssetsError):
    """A system's YAML is wrong; raised when the system is loaded, before any work."""


class ExpressionError(SystemSpecError):
    """An expression of a model potential or a static bias cannot be used."""


class ForceMapError(CgAssetsError):
    """A force map is not valid for its coordinate map or violates a constraint."""


class StorageError(CgAssetsError):
    """A Parquet file is missing, truncated, or does not follow its schema."""


class VersionError(StorageError):
    """A file and its object on the object store cannot be made equal; others can."""


class SamplingError(CgAssetsError):
    """A simulation could not be started or its checkpoint does not fit the plan."""


class NoForcesError(SamplingError):
    """Forces are asked for that trajectories do not hold."""


class ExplosionError(SamplingError):
    """Too few replicas of a CG simulation stayed stable."""


class TrainingError(CgAssetsError):
    """A data set cannot train this potential, or training diverged."""


class DeviceError(CgAssetsError):
    """The requested compute device is missing."""


class TrackingError(CgAssetsError):
    """MLflow cannot be reached, or a model or alias is not registered."""


def one_line(value: object, longest: int = 200) -> str:
    """A value or a library's message as text on one line, cut where it is too long."""
    text = value if isinstance(value, str) else str(value)
    flat = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def shortened(names: Sequence[str], most: int = 12) -> str:
    """Names in a row, and how many are left out."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def library_errors(kind: type[CgAssetsError], what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever a library raises within into one of our errors, on one line.

    Libraries raise more than they document: OpenMM a bare `Exception` for some force fields, `AssertionError` or
    `IndexError` for some PDB files.

    Args:
        kind: of the error that is raised instead.
        what: was wrong; the library's words follow.
        remedy: what to do, put after them.

    Raises:
        CgAssetsError: of that kind, or the one that was raised within.
    """
    try:
        yield
    except CgAssetsError:
        raise
    except Exception as error:
        words = one_line(error) or type(error).__name__
        raise kind(f"{what}: {words}{'; ' if remedy else ''}{remedy}") from error
