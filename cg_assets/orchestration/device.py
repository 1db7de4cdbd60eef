"""Lease a compute device for one step: one GPU by a file lock, or the CPU."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cg_assets.core.errors import DeviceError
from cg_assets.settings import installation


@dataclass(frozen=True)
class Device:
    """A leased device: torch's name for it, and its description."""

    torch_name: str
    description: str


def count_gpus() -> int:
    """Number of GPUs that torch can use under `CG_DEVICE`."""
    if installation().device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


@contextmanager
def lease_device(home: Path) -> Iterator[Device]:
    """Hold one GPU until the block ends; the CPU where there is none or `CG_DEVICE=cpu`.

    The lock belongs to the process, so a killed step frees its GPU at once. It bears the GPU's own name (UUID), since
    several machines can share a home, and jobs see GPUs under numbers of their own (`CUDA_VISIBLE_DEVICES`).

    Raises:
        DeviceError: `CG_DEVICE=cuda` without a GPU, or every GPU is leased.
    """
    n_gpus = count_gpus()
    if n_gpus == 0:
        if installation().device == "cuda":
            raise DeviceError("CG_DEVICE is cuda, but torch sees no GPU; set CG_DEVICE=auto or install a CUDA build")
        yield Device("cpu", f"CPU, {os.cpu_count()} cores")
        return
    import torch

    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_gpus):
        with open(folder / f"gpu-{torch.cuda.get_device_properties(index).uuid}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            torch.cuda.set_device(index)
            yield Device("cuda", f"GPU {index}, {torch.cuda.get_device_name(index)}")
            return
    raise DeviceError(f"all {n_gpus} GPUs are leased; set the slots of the pool {'gpu'!r} to the number of GPUs")
