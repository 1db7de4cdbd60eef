"""CHARMM files of an OpenMM System: a psf and its parameters, with an atom type for each atom of the peptide.

CHARMM documentation, io and parmfile. For CHARMM27 as OpenMM reads it from GROMACS's files, without constraints.
"""

import numpy as np

KCAL = 4.184
_WATER = {"BONDS": ["OW HW 450.0 0.9572", "HW HW 0.0 1.5139"], "ANGLES": ["HW OW HW 55.0 104.52"]}
"""TIP3P: Jorgensen et al., J. Chem. Phys. 79, 926 (1983)."""
_FORCES = {
    "BONDS": "HarmonicBondForce",
    "ANGLES": "HarmonicAngleForce",
    "DIHEDRALS": "PeriodicTorsionForce",
    "IMPROPER": "CustomTorsionForce",
    "CMAP": "CMAPTorsionForce",
}


def kinds_of(topology):
    water = {"O": "OW", "H": "HW"}
    return [water[atom.name[0]] if atom.residue.name == "HOH" else f"T{atom.index}" for atom in topology.atoms()]


def forces_of(system):
    return {type(force).__name__: force for force in system.getForces()}


def terms_of(system, section):
    """Atoms and parameters of each bond, angle, torsion or map."""
    name = {"BONDS": "Bond", "ANGLES": "Angle"}.get(section, "Torsion")
    return [
        getattr(force, f"get{name}Parameters")(index)
        for force in system.getForces()
        if type(force).__name__ == _FORCES[section]
        for index in range(getattr(force, f"getNum{name}s")())
    ]


def bonded_of(topology):
    return {frozenset((one.index, other.index)) for one, other in topology.bonds()}


def nonbonded(system, kinds):
    """Lines of depths and sizes, of all pairs and of those three bonds apart."""
    force = forces_of(system)["NonbondedForce"]
    own = np.array([[part._value for part in force.getParticleParameters(atom)[1:]] for atom in range(len(kinds))])
    pairs = [force.getExceptionParameters(index) for index in range(force.getNumExceptions())]
    pairs = [(first, second, size._value, depth._value) for first, second, _, size, depth in pairs if depth._value > 0]
    rows = np.zeros((len(pairs), len(kinds)))
    for row, (first, second, *_) in zip(rows, pairs, strict=True):
        row[[first, second]] = 0.5
    near = own.copy()
    inside = rows.any(axis=0)
    near[inside, 0] = np.linalg.lstsq(rows, [pair[2] for pair in pairs], rcond=None)[0][inside]
    near[inside, 1] = np.exp(np.linalg.lstsq(rows, np.log([pair[3] for pair in pairs]), rcond=None)[0][inside])
    for kind in dict.fromkeys(kinds):
        atom = kinds.index(kind)
        parts = [f"0.0 {-depth / KCAL:.8f} {5 * 2 ** (1 / 6) * size:.8f}" for size, depth in (own[atom], near[atom])]
        yield f"{kind} {' '.join(parts)}"


def write_parameters(path, topology, system):
    kinds, bonded = kinds_of(topology), bonded_of(topology)
    found = {name: list(_WATER.get(name, [])) for name in _FORCES}

    def add(section, places, *numbers):
        found[section].append(" ".join([*(kinds[place] for place in places), *(f"{number:.8f}" for number in numbers)]))

    springs = {}  # between the ends of an angle (Urey and Bradley)
    for *ends, length, strength in terms_of(system, "BONDS"):
        values = strength._value / (200 * KCAL), 10 * length._value
        if frozenset(ends) not in bonded:
            springs[frozenset(ends)] = values
        elif "W" not in kinds[ends[0]]:
            add("BONDS", ends, *values)
    for *three, angle, strength in terms_of(system, "ANGLES"):
        further = springs.get(frozenset((three[0], three[2])), ())
        if "W" not in kinds[three[0]]:
            add("ANGLES", three, strength._value / (2 * KCAL), np.degrees(angle._value), *further)
    for *four, count, phase, strength in terms_of(system, "DIHEDRALS"):
        add("DIHEDRALS", four, strength._value / KCAL)
        found["DIHEDRALS"][-1] += f" {count} {np.degrees(phase._value):.4f}"
    for *four, (angle, strength) in terms_of(system, "IMPROPER"):
        add("IMPROPER", four, strength / (2 * KCAL))
        found["IMPROPER"][-1] += f" 0 {np.degrees(angle):.4f}"
    for number, *eight in terms_of(system, "CMAP"):
        size, energy = forces_of(system)["CMAPTorsionForce"].getMapParameters(number)
        grid = np.roll(np.reshape(energy._value, (size, size)).T, (size // 2, size // 2), (0, 1)) / KCAL
        add("CMAP", eight)
        found["CMAP"][-1] += f" {size}"
        found["CMAP"] += [f"{value:.8f}" for value in grid.ravel()]
    found["NONBONDED nbxmod 5 atom"] = list(nonbonded(system, kinds))
    masses = {kind: atom.element.mass._value for kind, atom in zip(kinds, topology.atoms(), strict=True)}
    lines = ["* written by a test", "*", "ATOMS", *(f"MASS -1 {kind} {mass:.5f}" for kind, mass in masses.items())]
    for name, content in found.items():
        lines += ["", name, *content]
    path.write_text("\n".join([*lines, "", "END", ""]))


def write_psf(path, topology, system):
    force = forces_of(system)["NonbondedForce"]
    lines = ["PSF EXT CMAP XPLOR", "", f"{1:10d} !NTITLE", "* written by a test", ""]
    lines.append(f"{topology.getNumAtoms():10d} !NATOM")
    for atom, kind in zip(topology.atoms(), kinds_of(topology), strict=True):
        charge, residue = force.getParticleParameters(atom.index)[0]._value, atom.residue
        lines.append(
            f"{atom.index + 1:10d} SYS      {residue.index + 1:<8d} {residue.name:8s} {atom.name:8s} {kind:8s} "
            f"{charge:10.6f} {atom.element.mass._value:13.4f} {0:11d}"
        )
    lists = {
        "NBOND: bonds": [sorted(pair) for pair in bonded_of(topology)],
        "NTHETA: angles": [term[:3] for term in terms_of(system, "ANGLES")],
        "NPHI: dihedrals": [*dict.fromkeys(tuple(term[:4]) for term in terms_of(system, "DIHEDRALS"))],
        "NIMPHI: impropers": [term[:4] for term in terms_of(system, "IMPROPER")],
        "NDON: donors": [],
        "NACC: acceptors": [],
        "NNB": [],
        "NCRTERM: cross-terms": [term[1:] for term in terms_of(system, "CMAP")],
    }
    for name, items in lists.items():
        numbers = [place + 1 for item in items for place in item]
        lines += ["", f"{len(items):10d} !{name}"]
        lines += ["".join(f"{part:10d}" for part in numbers[i : i + 8]) for i in range(0, len(numbers), 8)] or [""]
    path.write_text("\n".join([*lines, "", ""]))
