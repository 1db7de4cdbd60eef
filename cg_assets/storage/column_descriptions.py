"""What each column of a data file holds, for its readers; no part of the content hash."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

from cg_assets.core.units import UnitSystem, unit

DESCRIPTION = b"description"
"""Key of a column's description in the metadata of its field."""

_FRAMES = {
    "batch": "name of the batch",
    "replica": "number of the replica within the batch",
    "window": "number of the umbrella window; empty without windows",
    "start": "number of the start state that the replica came from",
    "probe": "whether the replica was run only to test conditional equilibration",
    "time": "time of the frame within its replica",
    "temperature": "temperature",
    "bias_energy": "energy of the bias",
    "potential_energy": "potential energy without the bias",
    "positions": "x, y, z (or the model's coordinates) of each site, site after site",
    "forces": "force without the bias on each site, ordered as positions",
    "force_variance": "variance of each force component's label, one for each site",
    "first_order": "derivative of the mean force by temperature at fixed beads, ordered as positions",
    "second_order": "second derivative of the mean force by temperature at fixed beads, ordered as positions",
    "box": "edges of the periodic box, or its three vectors one after the other",
}
_EVALUATION = {
    "potential": "name of the potential",
    "metric": "name of the quantity",
    "quantity": "name of the quantity",
    "of": "whose number it is: of the model, its training data, their labels, or the committee",
    "where": "basin, bond, coordinate or run that the number is of; empty where there is one",
    "coordinate": "coordinate of a profile; empty for single numbers",
    "value": "the number, in the unit of the column unit",
    "standard_error": "standard error of the number",
    "reference": "the same of the reference, or what noise alone would give",
    "reference_error": "standard error of the reference's number",
    "bound": "largest value that passes (smallest where at_least is true); empty where every value does",
    "at_least": "whether the bound is the smallest value that passes",
    "decides": "whether the number decides which model becomes champion",
    "headline": "whether the number is shown first",
    "unit": "unit of value, standard_error, reference, reference_error and bound",
    "coordinate_unit": "unit of coordinate",
    "result": "whether the number is within its bound",
    "axis": "what the points of a learning curve differ in: sampled time or number of frames",
    "sampled_time": "atomistic time of the frames that the point learned from",
    "frames": "number of frames that the point learned from",
}
_TABLES = {
    "run": "number of the independent reference run",
    "probability": "probability of the bin",
    "blocks": "probability of the bin in each block of time, weighted; they add up to probability",
    "pmf": "potential of mean force [{energy}], 0 at its minimum",
    "epoch": "number of the epoch, from 1",
    "training_loss": "mean squared error of the training labels [({force})^2]",
    "held_out_loss": "the same of labels that were held out",
    "learning_rate": "step of the optimiser",
    "noise_floor": "loss of a perfect potential: the noise of the held-out labels",
    "model": "name of the registered model",
    "version": "version of the registered model",
    "data": "key of the data, SYSTEM/STAGE[/BATCH]",
    "file": "path of the file within the home folder",
    "content_hash": "hash of the content of the data",
    "made_from": "key of the data that it was made from",
    "content_hash_of_that": "hash of the content of those when it was made",
    "same": "whether those still have that content",
    "made_into": "key of the data made from it, or the model",
    "trained_on": "whether the model was trained on the file itself",
    "frame": "number of the CG frame",
    "origin_temperature": "temperature of the dynamics that the CG frame was taken from",
    "mean_energy": "mean potential energy at fixed beads",
    "heat_capacity": "derivative of the mean energy by temperature at fixed beads",
    "second_order_third_moment": "second derivative of the mean force from the third moment of the energy",
    "second_order_local_regression": "second derivative of the mean force from the slope of the first",
    "effective_samples": "number of independent samples",
    "inflation": "factor by which errors were enlarged because runs disagree",
    "term": "kind of the term of the prior: bond, angle, dihedral or repulsion",
    "beads": "beads of the term",
    "parameters": "parameters of the term",
    "divergence": "Jensen-Shannon divergence of the fitted distribution from that of the data",
    "divergence_alone": "the same of a simulation with the prior alone",
    "remark": "how the term was fitted",
}
_KNOWN = _TABLES | _EVALUATION | _FRAMES


def column_description(name: str, units: UnitSystem) -> str:
    """What a column holds; empty where it is not known."""
    if name.startswith("cv_"):
        return f"collective variable {name.removeprefix('cv_')}"
    if match := re.fullmatch(r"strength_(\d+)", name):
        return f"strength of term {match[1]} of the prior"
    if name.endswith("_error") and name not in _KNOWN:
        return f"standard error of {name.removesuffix('_error')}"
    return _KNOWN.get(name, "").format(energy=unit("energy", units), force=unit("force", units))


def described(fields: Iterable[pa.Field], units: UnitSystem) -> pa.Schema:
    """A schema whose columns carry their descriptions."""
    return pa.schema(
        item.with_metadata({**(item.metadata or {}), DESCRIPTION: text.encode()})
        if (text := column_description(item.name, units))
        else item
        for item in fields
    )


def content_facts(item: pa.Field) -> dict[bytes, bytes]:
    """Metadata of a column that belong to its content: all but the description."""
    return {key: value for key, value in (item.metadata or {}).items() if key != DESCRIPTION}
