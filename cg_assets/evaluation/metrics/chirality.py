"""Handedness of tetrahedral centres in a CG simulation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.case import Case
from cg_assets.evaluation.metric import Found, Measure, Metric, OfMolecules
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import FreeEnergySettings

FloatArray = NDArray[np.float64]

MAX_FLIPPED = 0.001
"""Largest share of frames with a flipped chiral centre that passes."""
SAME_HAND = 0.99
"""A centre is chiral where this fraction of the data has the same sign."""
PLANAR = 0.25
"""Mean size of the triple product of unit vectors below which a centre is flat (0.77 for a tetrahedron)."""


class Chirality(OfMolecules, Metric[FreeEnergySettings]):
    """Whether chiral centres keep the hand that they have in the data."""

    measures = (
        Measure("flipped_share", "share of frames in which a chiral centre has the wrong hand", where="bead"),
        Measure("largest_flipped_share", "largest of all centres"),
    )

    def checks(self, settings: FreeEnergySettings) -> Mapping[str, str]:
        """The worst centre has a bound."""
        return {"largest_flipped_share": "No chiral centre of the CG simulation has flipped."}

    def measure(self, case: Case[FreeEnergySettings]) -> Iterable[Found]:
        """Of the CG simulation without a bias."""
        cg_map, free = case.beads.cg_map, case.free
        found = chirality_monitor(free.positions, case.true_frames.positions, cg_map.bonds, free.replica)
        for bead, flipped in found.items():
            yield Quantity("flipped_share", flipped, where=cg_map.bead_names[bead])
        worst = max(found.values(), key=lambda item: item.value, default=Estimate(0.0, 0.0))
        yield Quantity("largest_flipped_share", worst, bound=MAX_FLIPPED)


def chirality_monitor(
    simulation: ArrayLike,
    data: ArrayLike,
    pairs: Sequence[tuple[int, int]],
    replica: ArrayLike | None = None,
) -> dict[int, Estimate]:
    """Each chiral centre to the fraction of simulation frames with the hand that it does not have in the data.

    An energy of distances alone is the same for both hands, so only the barrier keeps them apart. A centre has at
    least three bonded neighbours and, in the data, one sign of their triple product.

    Args:
        simulation: `(n_frames, n_beads, 3)` [nm].
        data: `(n_data_frames, n_beads, 3)` [nm].
        pairs: bonds.
        replica: `(n_frames,)` replica of each simulation frame, for the error; None takes frames as independent.
    """
    simulated, reference = (np.asarray(item, dtype=np.float64) for item in (simulation, data))
    neighbours: dict[int, list[int]] = {}
    for i, j in pairs:
        neighbours.setdefault(int(i), []).append(int(j))
        neighbours.setdefault(int(j), []).append(int(i))
    found: dict[int, Estimate] = {}
    for bead in sorted(neighbours):
        if len(neighbours[bead]) < 3:
            continue
        legs = tuple(sorted(neighbours[bead])[:3])
        product = triple_product(reference, bead, legs)
        sign = 1 if product.mean() > 0 else -1
        if (np.sign(product) == sign).mean() < SAME_HAND or abs(product.mean()) < PLANAR:
            continue
        found[bead] = _fraction(np.sign(triple_product(simulated, bead, legs)) == -sign, replica)
    return found


def triple_product(positions: ArrayLike, centre: int, neighbours: tuple[int, ...]) -> FloatArray:
    """u₁·(u₂ × u₃) of the unit vectors from a centre to three neighbours, `(n_frames,)`."""
    points = np.asarray(positions, dtype=np.float64)
    vectors = points[:, list(neighbours)] - points[:, centre : centre + 1]
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    return np.einsum("fi,fi->f", unit[:, 0], np.cross(unit[:, 1], unit[:, 2]))


def _fraction(wrong: NDArray[np.bool_], replica: ArrayLike | None) -> Estimate:
    """Mean of a flag with the error between replicas."""
    member = np.arange(len(wrong)) if replica is None else np.unique(np.asarray(replica), return_inverse=True)[1]
    count = np.bincount(member)
    value = float(wrong.mean())
    n = len(count)
    if n < 2:
        return Estimate(value, math.nan)
    influence = (np.bincount(member, wrong.astype(np.float64)) - count * value) / len(wrong)
    return Estimate(value, float(np.sqrt((influence**2).sum() * n / (n - 1))))
