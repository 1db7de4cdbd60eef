#!/usr/bin/env bash
# OpenMM 8.6.1: in a dipeptide of CHARMM, which is one residue with both caps, the methyl hydrogens of the second cap
# are bonded to the nitrogen of the residue, half a nanometre away.
#
# Valid input: a PDB file of capped alanine with the atom names of CHARMM36 (caps ACE and CT3 within residue ALA).
# Expected: atoms of the caps have no bonds, as their names are not those of the template, or the right ones.
# Seen: HT1, HT2 and HT3 are read as the hydrogens of a free N-terminus (H, H2, H3) and bonded to N over 0.49 to
# 0.56 nm; the other atoms of the caps have no bonds. No warning.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openmm==8.6.1 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import io

import numpy as np
from openmm import app, unit

# Å; a fully extended chain.
atoms = {
    "CAY": (0.0, 0.0, 0.0), "HY1": (-0.4, 1.0, 0.0), "HY2": (-0.4, -0.5, 0.9), "HY3": (-0.4, -0.5, -0.9),
    "CY": (1.53, 0.0, 0.0), "OY": (2.14, -1.07, 0.0), "N": (2.18, 1.16, 0.0), "HN": (1.66, 2.03, 0.0),
    "CA": (3.63, 1.25, 0.0), "HA": (4.04, 0.73, -0.87), "CB": (4.10, 2.70, -0.05), "HB1": (5.19, 2.74, -0.05),
    "HB2": (3.72, 3.20, -0.95), "HB3": (3.72, 3.24, 0.82), "C": (4.19, 0.60, 1.26), "O": (3.45, 0.20, 2.15),
    "NT": (5.52, 0.50, 1.33), "HNT": (6.08, 0.83, 0.57), "CAT": (6.20, -0.09, 2.47), "HT1": (6.90, 0.62, 2.91),
    "HT2": (6.75, -0.97, 2.14), "HT3": (5.47, -0.38, 3.22),
}
text = "".join(
    f"ATOM  {number:5d} {name:>4} ALA A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]}\n"
    for number, (name, (x, y, z)) in enumerate(atoms.items(), 1)
)
pdb = app.PDBFile(io.StringIO(text + "END\n"))
names, places = list(atoms), np.array(pdb.positions.value_in_unit(unit.nanometer))
caps = {"CAY", "HY1", "HY2", "HY3", "CY", "OY", "NT", "HNT", "CAT", "HT1", "HT2", "HT3"}
far = []
for one, other in pdb.topology.bonds():
    pair, apart = (names[one.index], names[other.index]), np.linalg.norm(places[one.index] - places[other.index])
    if caps & set(pair):
        far.append((set(pair), round(float(apart), 2)))
        print(f"bond of a cap: {pair}, read as {one.name}-{other.name}, {apart:.2f} nm")
print("bonds:", pdb.topology.getNumBonds(), "of 21")
assert [pair for pair, _ in far] == [{"N", "HT1"}, {"N", "HT2"}, {"N", "HT3"}]
assert min(apart for _, apart in far) > 0.4
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
