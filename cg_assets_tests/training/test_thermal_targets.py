"""The table of thermal response targets: shapes are checked, and it comes back from Parquet as it was."""

from dataclasses import replace

import numpy as np
import pytest

from cg_assets.storage.parquet import describe, read_arrays, write_table
from cg_assets.storage.schemas import FileMetadata
from cg_assets.training.thermal_targets import UNITS, ThermalTargets


def targets(rows=4, beads=3, seed=0):
    generator = np.random.default_rng(seed)

    def vectors():
        return generator.normal(size=(rows, beads, 3))

    return ThermalTargets(
        positions=vectors(),
        box=np.full((rows, 3), 1.2),
        temperature=np.linspace(300.0, 400.0, rows),
        frame=np.arange(rows) // 2,
        origin_temperature=np.full(rows, 350.0),
        forces=vectors(),
        forces_error=abs(vectors()),
        first_order=vectors(),
        first_order_error=abs(vectors()),
        second_order=vectors(),
        second_order_error=abs(vectors()),
        mean_energy=generator.normal(size=rows),
        mean_energy_error=np.ones(rows),
        heat_capacity=np.ones(rows),
        heat_capacity_error=np.ones(rows),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((4, 3))}, r"positions must have shape \(n_rows, n_beads, d\)"),
        ({"first_order": np.zeros((4, 2, 3))}, r"first_order must have shape \(4, 3, 3\), not \(4, 2, 3\)"),
        ({"second_order_error": -np.ones((4, 3, 3))}, "second_order_error must be at least 0"),
        ({"box": np.ones((4,))}, r"box must have shape \(4, 3\)"),
        ({"temperature": np.zeros(4)}, "temperature must be above 0"),
        ({"mean_energy": np.full(4, np.nan)}, "mean_energy of CG frame 0 at .* is nan"),
        ({"heat_capacity": np.zeros(5)}, r"heat_capacity must have shape \(4,\)"),
    ],
)
def test_wrong_arrays_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        replace(targets(), **change)


def test_parquet_gives_back_the_same_numbers_with_units(tmp_path):
    one = targets()
    metadata = FileMetadata(system="water", stage="thermal_response_targets", units="molar")
    write_table(tmp_path / "targets.parquet", one.columns(), metadata, UNITS)
    found = ThermalTargets.from_columns(read_arrays(tmp_path / "targets.parquet"))
    for name, values in one.columns().items():
        np.testing.assert_array_equal(found.columns()[name], values)
    units = {column["name"]: column["unit"] for column in describe(tmp_path / "targets.parquet").columns}
    assert units == {name: UNITS.get(name, "") for name in one.columns()}
    assert units["second_order"] == "kJ/mol/nm/K^2"


def test_rows_are_picked_and_joined_with_their_frames_kept_apart():
    one, two = targets(seed=1), targets(seed=2)
    both = ThermalTargets.concatenate([one, two])
    assert len(both) == 8
    assert both.frame.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(both.select(both.frame == 2).forces, two.forces[:2])
    with pytest.raises(ValueError, match="lack the columns box, frame"):
        ThermalTargets.from_columns({name: v for name, v in one.columns().items() if name not in {"box", "frame"}})
