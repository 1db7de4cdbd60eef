"""What a plan of molecular dynamics costs, by estimate."""

from __future__ import annotations

from dataclasses import dataclass

from cg_assets.core.settings import Built

_TIMES = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """A time with two digits in the largest unit that it fills."""
    size, length = next((size, name) for size, name in _TIMES if seconds >= size or size == 1)
    return f"{seconds / size:.2g} {length}"


@dataclass(frozen=True)
class PlanCost:
    """Frames and steps of a plan; training and evaluation come on top.

    Attributes:
        built: the system.
        frames: that are kept.
        steps: of single replicas.
    """

    built: Built
    frames: int
    steps: float

    @property
    def seconds(self) -> float:
        """Of one core or GPU, by rates measured when the models were written [s]."""
        return self.steps * self.built.step_seconds

    @property
    def megabytes(self) -> float:
        """Of positions and forces in single precision [MB]."""
        cg_map = self.built.beads.cg_map
        dimension = 3 if cg_map.bead_elements else 1
        return self.frames * 2 * 4e-6 * dimension * (cg_map.n_atoms + cg_map.n_beads)

    def __str__(self) -> str:
        """In words."""
        time = duration(self.seconds) if self.seconds >= 1.0 else "less than 1 s"
        cost = f"{time} of one core or GPU, {self.megabytes:.2g} MB"
        return f"{self.frames} frames from {self.steps:.3g} steps; estimated: {cost}"
