#!/usr/bin/env bash
# MDTraj 1.11.1.post2: the PDB file of a slice of atoms bonds the wrong ones.
#
# Valid input: a PDB file of capped alanine with its hydrogens; its heavy atoms are sliced and saved as PDB.
# Expected: CONECT records of the slice hold the serial numbers of its ATOM records, or its atoms are renumbered.
# Seen: ATOM records keep the serial numbers of the whole structure (1, 5, 6, 7, 9, ...), CONECT records count the atoms
# of the slice (1, 2, 3, ...). Two records point to numbers that no atom has, and serial numbers 6 and 9 are bonded: the
# oxygen of the first cap and CA, 0.28 nm apart. MDTraj and OpenMM 8.6.1 read that bond without a warning; MDTraj's
# topology of the slice in memory has the right nine bonds.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mdtraj==1.11.1.post2 openmm==8.6.1 numpy==2.4.6
cat > "$folder/whole.pdb" <<'PDB'
ATOM      1  CH3 ACE A   1       0.126  -0.090   0.062  1.00  0.00           C
ATOM      2  H1  ACE A   1      -0.230   0.930   0.190  1.00  0.00           H
ATOM      3  H2  ACE A   1      -0.260  -0.480  -0.880  1.00  0.00           H
ATOM      4  H3  ACE A   1      -0.210  -0.700   0.900  1.00  0.00           H
ATOM      5  C   ACE A   1       1.633  -0.019  -0.030  1.00  0.00           C
ATOM      6  O   ACE A   1       2.299  -1.046  -0.059  1.00  0.00           O
ATOM      7  N   ALA A   2       2.172   1.196  -0.082  1.00  0.00           N
ATOM      8  H   ALA A   2       1.560   1.990  -0.070  1.00  0.00           H
ATOM      9  CA  ALA A   2       3.615   1.423  -0.033  1.00  0.00           C
ATOM     10  HA  ALA A   2       4.100   0.720  -0.700  1.00  0.00           H
ATOM     11  C   ALA A   2       4.161   1.234   1.397  1.00  0.00           C
ATOM     12  O   ALA A   2       3.631   1.812   2.346  1.00  0.00           O
ATOM     13  CB  ALA A   2       3.915   2.826  -0.576  1.00  0.00           C
ATOM     14  HB1 ALA A   2       4.990   2.990  -0.540  1.00  0.00           H
ATOM     15  HB2 ALA A   2       3.560   2.900  -1.600  1.00  0.00           H
ATOM     16  HB3 ALA A   2       3.410   3.560   0.050  1.00  0.00           H
ATOM     17  N   NME A   3       5.244   0.461   1.540  1.00  0.00           N
ATOM     18  H   NME A   3       5.610   0.030   0.700  1.00  0.00           H
ATOM     19  C   NME A   3       5.891   0.189   2.822  1.00  0.00           C
ATOM     20  H1  NME A   3       5.140   0.150   3.610  1.00  0.00           H
ATOM     21  H2  NME A   3       6.610   0.980   3.030  1.00  0.00           H
ATOM     22  H3  NME A   3       6.410  -0.770   2.760  1.00  0.00           H
END
PDB
cat > "$folder/check.py" <<'PYTHON'
import sys

import mdtraj
from openmm import app

folder = sys.argv[1]
whole = mdtraj.load(f"{folder}/whole.pdb")
heavy = whole.atom_slice(whole.topology.select("not element H"))
heavy.save_pdb(f"{folder}/heavy.pdb")
lines = open(f"{folder}/heavy.pdb").read().splitlines()
serials = [int(line[6:11]) for line in lines if line.startswith("ATOM")]
print("serial numbers of ATOM:", serials)
print(*(line for line in lines if line.startswith("CONECT")), sep="\n")
wanted = {frozenset(map(str, bond)) for bond in heavy.topology.bonds}
read = {frozenset(map(str, bond)) for bond in mdtraj.load(f"{folder}/heavy.pdb").topology.bonds}
other = {
    frozenset(f"{atom.residue.name}{atom.residue.id}-{atom.name}" for atom in bond)
    for bond in app.PDBFile(f"{folder}/heavy.pdb").topology.bonds()
}
for name, bonds in (("MDTraj", read), ("OpenMM", other)):
    print(f"{name} reads {len(bonds)} bonds instead of {len(wanted)}; too many:", [sorted(pair) for pair in bonds - wanted])
    assert bonds - wanted == {frozenset(("ACE1-O", "ALA2-CA"))}
assert serials[:5] == [1, 5, 6, 7, 9]
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
