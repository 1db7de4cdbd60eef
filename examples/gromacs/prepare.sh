#!/bin/bash
# Capped alanine in TIP3P water in a rhombic dodecahedron with GROMACS: forces in the TRR, two restarts.
# Usage: prepare.sh FOLDER [STEPS OF EACH PART]; needs gmx, and takes about 2 minutes on two cores for 10,000 steps.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 steps=${2:-10000}
mkdir -p "$folder"
cp "$here"/alanine.pdb "$here"/gromacs_alanine.yaml "$folder"
cd "$folder"

common="cutoff-scheme = Verlet
coulombtype = PME
rcoulomb = 0.9
rvdw = 0.9"
cat > minimise.mdp <<END
integrator = steep
nsteps = 500
$common
END
cat > run.mdp <<END
integrator = md
dt = 0.002
nsteps = $steps
constraints = h-bonds
tcoupl = v-rescale
tc-grps = System
tau-t = 0.5
ref-t = 300
gen-vel = yes
gen-temp = 300
gen-seed = 1
nstxout = 50
nstfout = 50
$common
END

gmx -quiet pdb2gmx -f alanine.pdb -ff amber99sb-ildn -water tip3p -ignh -o built.gro -p topol.top
gmx -quiet editconf -f built.gro -bt dodecahedron -d 0.9 -o box.gro
gmx -quiet solvate -cp box.gro -cs spc216.gro -p topol.top -o solvated.gro
gmx -quiet grompp -f minimise.mdp -c solvated.gro -p topol.top -o minimise.tpr
gmx -quiet mdrun -deffnm minimise -ntmpi 1
gmx -quiet grompp -f run.mdp -c minimise.gro -p topol.top -o run.tpr
gmx -quiet mdrun -deffnm run -ntmpi 1 -noappend
for part in 2 3; do # two restarts, each with a file of its own
  gmx -quiet convert-tpr -s run.tpr -nsteps $((part * steps)) -o next.tpr
  mv next.tpr run.tpr
  gmx -quiet mdrun -deffnm run -ntmpi 1 -cpi run.cpt -noappend
done
