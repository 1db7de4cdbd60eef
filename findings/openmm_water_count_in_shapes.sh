#!/usr/bin/env bash
# OpenMM 8.6.1: Modeller.addSolvent with numAdded and the shape of a dodecahedron or octahedron gives a box a quarter
# too large, with a layer of vacuum between the images.
#
# Valid input: pure water, numAdded=1000, boxShape="cube", "dodecahedron" or "octahedron", which the documentation
# allows together with numAdded.
# Expected: the same density in each shape.
# Seen: 0.89, 0.64 and 0.71 g/cm³. The waters that are kept lie in a brick, whose largest edge becomes that of the shape:
# 3.94 x 3.94 x 1.94 nm of water in a dodecahedron that is 2.86 nm high. No warning.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openmm==8.6.1 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import numpy as np
from openmm import app, unit

field = app.ForceField("amber14/tip3p.xml")
density, gap = {}, {}
for shape in ("cube", "dodecahedron", "octahedron"):
    water = app.Modeller(app.Topology(), [] * unit.nanometer)
    water.addSolvent(field, numAdded=1000, boxShape=shape)
    box = np.array(water.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    heights = np.array(water.positions.value_in_unit(unit.nanometer))[::3, 2]
    assert water.topology.getNumResidues() == 1000
    density[shape] = 1000 * 18.01528 * 1.66054e-3 / np.linalg.det(box)  # [g/cm³]
    gap[shape] = box[2, 2] - np.ptp(heights)  # between the layers of water [nm]
    print(f"{shape:13} {density[shape]:.2f} g/cm³, {gap[shape]:.2f} nm without water")
assert density["cube"] > 0.85 and gap["cube"] < 0.2
assert density["dodecahedron"] < 0.8 * density["cube"] and gap["dodecahedron"] > 0.8
assert density["octahedron"] < 0.85 * density["cube"] and gap["octahedron"] > 0.5
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
