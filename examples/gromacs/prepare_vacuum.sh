#!/bin/bash
# Capped alanine in vacuum at 650 K with GROMACS: one run of 20 ns with forces in its TRR.
# Usage: prepare_vacuum.sh FOLDER [STEPS [SEED]]; needs gmx, and takes about 4 minutes on one core for 10,000,000 steps.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 steps=${2:-10000000} seed=${3:-1}
mkdir -p "$folder"
cp "$here"/alanine.pdb "$here"/vacuum_alanine.yaml "$folder"
cd "$folder"

# The cutoff is longer than the molecule, and the box wider than twice the cutoff: all pairs, and no image.
common="cutoff-scheme = Verlet
coulombtype = cut-off
coulomb-modifier = none
vdw-modifier = none
rcoulomb = 2.0
rvdw = 2.0"
cat > vacuum_minimise.mdp <<END
integrator = steep
nsteps = 500
$common
END
cat > vacuum_run.mdp <<END
integrator = sd
dt = 0.002
nsteps = $steps
constraints = h-bonds
tc-grps = System
tau-t = 1
ref-t = 650
gen-vel = yes
gen-temp = 650
gen-seed = $seed
ld-seed = $seed
comm-mode = none
nstcalcenergy = 100
nstxout = 100
nstfout = 100
$common
END

gmx -quiet pdb2gmx -f alanine.pdb -ff amber99sb-ildn -water none -ignh -o vacuum_built.gro -p vacuum.top -i vacuum_posre.itp
gmx -quiet editconf -f vacuum_built.gro -bt cubic -box 5 -c -o vacuum_box.gro
gmx -quiet grompp -f vacuum_minimise.mdp -c vacuum_box.gro -p vacuum.top -po vacuum_out.mdp -o vacuum_minimise.tpr
gmx -quiet mdrun -deffnm vacuum_minimise -ntmpi 1 -ntomp 1
gmx -quiet editconf -f vacuum_minimise.gro -box 0 -noc -o vacuum.gro # an isolated molecule
gmx -quiet grompp -f vacuum_run.mdp -c vacuum_minimise.gro -p vacuum.top -po vacuum_out.mdp -o vacuum_run.tpr
gmx -quiet mdrun -deffnm vacuum_run -ntmpi 1 -ntomp 1
