"""NetCDF files of the classic kind, which end within a record where a run was killed.

The NetCDF Classic Format Specification (Unidata): a header of dimensions, attributes and variables; then variables of
fixed shape; then records, each with its part of every variable that grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8"}
_STREAMING = 0xFFFFFFFF


@dataclass(frozen=True)
class NetcdfVariable:
    """A variable: its array, on disk as it is, and its attributes; text as `str`, a number or several as an array."""

    values: NDArray
    attributes: dict[str, str | NDArray]

    @property
    def units(self) -> str:
        """Its unit; empty where none is stated."""
        return str(self.attributes.get("units", ""))

    def __getitem__(self, part: slice) -> NDArray:
        """Some of it in numbers of this machine, times its scale factor where it has one."""
        scale = self.attributes.get("scale_factor")
        values = np.array(self.values[part], dtype=self.values.dtype.newbyteorder("="))
        return values if scale is None else values * np.ravel(scale)[0]


class _Header:
    """Reads the header from its begin."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        version = file.read(4)
        if version not in (b"CDF\x01", b"CDF\x02"):
            raise ValueError(f"it begins with {version!r}, not with CDF 1 or 2")
        self._offset = 4 if version[3] == 1 else 8
        self.n_records = self._integer()
        self.dimensions = [(self._name(), self._integer()) for _ in range(self._count())]
        self._attributes()
        self.variables = [self._variable() for _ in range(self._count())]

    def _integer(self, size: int = 4) -> int:
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError("it ends within its header")
        return int.from_bytes(content, "big")

    def _count(self) -> int:
        self._integer()  # the tag of the list
        return self._integer()

    def _padded(self, size: int) -> bytes:
        return self._file.read(size + -size % 4)[:size]

    def _name(self) -> str:
        return self._padded(self._integer()).decode()

    def _attributes(self) -> dict[str, str | NDArray]:
        found: dict[str, str | NDArray] = {}
        for _ in range(self._count()):
            name, kind, count = self._name(), self._integer(), self._integer()
            content = self._padded(count * np.dtype(_TYPES[kind]).itemsize)
            found[name] = content.decode("utf-8", "replace") if kind == 2 else np.frombuffer(content, _TYPES[kind])
        return found

    def _variable(self) -> tuple[str, list[int], dict[str, str | NDArray], np.dtype, int]:
        """Name, lengths (0 for records), attributes, kind and begin."""
        name = self._name()
        lengths = [self.dimensions[self._integer()][1] for _ in range(self._integer())]
        attributes, kind = self._attributes(), np.dtype(_TYPES[self._integer()])
        self._integer()  # its size, which is wrong beyond 4 GB
        return name, lengths, attributes, kind, self._integer(self._offset)


def read_netcdf(path: Path) -> tuple[dict[str, NetcdfVariable], bool]:
    """The variables of a file, and whether it ends within a record; those that grow have the length of whole records.

    Raises:
        ValueError: it is no such file, or ends before its records.
    """
    with path.open("rb") as file:
        header = _Header(file)
    size = path.stat().st_size
    growing = [item for item in header.variables if item[1] and item[1][0] == 0]
    parts = {name: math.prod(lengths[1:]) * kind.itemsize for name, lengths, _, kind, _ in growing}
    record = sum(part + -part % 4 for part in parts.values()) if len(parts) > 1 else sum(parts.values())
    begin = min((item[4] for item in growing), default=size)
    whole = max(0, size - begin) // record if record else 0
    stated = whole if header.n_records == _STREAMING else header.n_records
    count, cut = min(stated, whole), bool(growing) and whole < stated
    content = np.memmap(path, np.uint8, "r")
    found = {}
    for name, lengths, attributes, kind, start in header.variables:
        shape = [count if name in parts else lengths[0], *lengths[1:]] if lengths else []
        steps = [kind.itemsize * math.prod(shape[place + 1 :]) for place in range(len(shape))]
        if name in parts:
            steps[0] = record
        elif start + math.prod(shape) * kind.itemsize > size:
            raise ValueError(f"it ends before its {name}")
        found[name] = NetcdfVariable(
            np.ndarray(shape, kind, content, start if math.prod(shape) else 0, steps), attributes
        )
    return found, cut
