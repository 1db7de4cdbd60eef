#!/usr/bin/env bash
# OpenMM 8.6.1: a valid residue name of CHARMM has no bonds, and the error names its neighbour.
#
# Valid input: GLY-HSE-GLY, with all hydrogens, HSE being CHARMM's name of a histidine that is protonated at N-epsilon
# (HSD and HSP are known); and the capped alanine ACE-ALA-NME with charmm36.xml, which describes it twice.
# Seen: PDBFile joins no atom of HSE and no residue to it from before, and createSystem says that residue 0 (GLY) has no
# template, counting from 0. charmm36.xml raises a bare Exception about "residue -1 (Merged)", which code that expects
# ValueError, as other force fields raise it, does not catch.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openmm==8.6.1 numpy==2.4.6 PeptideBuilder==1.1.0 biopython==1.88
cat > "$folder/check.py" <<'PYTHON'
import io
import random

import PeptideBuilder
from Bio.PDB import PDBIO
from openmm import app

structure = PeptideBuilder.make_extended_structure("GHG")
PeptideBuilder.add_terminal_OXT(structure)
text, writer = io.StringIO(), PDBIO()
writer.set_structure(structure)
writer.save(text)
pdb = app.PDBFile(io.StringIO(text.getvalue()))
modeller = app.Modeller(pdb.topology, pdb.positions)
random.seed(1)
modeller.addHydrogens()
text = io.StringIO()
app.PDBFile.writeFile(modeller.topology, modeller.positions, text)
lines = [line for line in text.getvalue().splitlines() if not line.startswith("CONECT")]
seen = {}
for name in ("HIS", "HSD", "HSE"):
    renamed = "\n".join(line[:17] + name + line[20:] if line[17:20] == "HIS" else line for line in lines)
    topology = app.PDBFile(io.StringIO(renamed)).topology
    inside = sum(1 for one, other in topology.bonds() if one.residue == other.residue and one.residue.index == 1)
    try:
        app.ForceField("amber14-all.xml").createSystem(topology)
        words = "works"
    except ValueError as error:
        words = str(error).partition(".")[0]
    seen[name] = (inside, words)
    print(f"{name}: {inside} bonds inside; {words}")
assert seen["HIS"][0] == seen["HSD"][0] > 0 and "works" == seen["HIS"][1] == seen["HSD"][1]
assert seen["HSE"] == (0, "No template found for residue 0 (GLY)")

topology = app.Topology()
chain = topology.addChain()
atoms = {
    "ACE": "CH3 H1 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
for name, names in atoms.items():
    residue = topology.addResidue(name, chain)
    for atom in names.split():
        symbol = "H" if atom.startswith("H") else atom[0]
        topology.addAtom(atom, app.Element.getBySymbol(symbol), residue)
topology.createStandardBonds()
app.ForceField("amber14-all.xml").createSystem(topology)
try:
    app.ForceField("charmm36.xml").createSystem(topology)
except Exception as error:
    print(f"charmm36.xml: {type(error).__name__}: {error}")
    assert type(error) is Exception and "residue -1 (Merged)" in str(error)
else:
    raise SystemExit("charmm36.xml works now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
