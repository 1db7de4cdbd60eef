"""The free energy of torsions from force labels alone, against exact surfaces."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.clusters import Bins
from cg_assets.evaluation.torque_surface import has_torque_surface, torque_surface
from cg_assets.systems import load_system

BINS = Bins.between([(-math.pi, math.pi)] * 2, 30)
NAMES = ["phi", "psi"]
NOISE = 15.0
"""Noise of a label along each axis [kJ/mol/nm]."""


@pytest.fixture(scope="module")
def system():
    return load_system("capped_alanine_implicit")


def turned(beads, axis, side, angles):
    """Frames `(n_frames, n_beads, 3)` with one side turned about a bond."""
    first, second = beads[:, axis[0]], beads[:, axis[1]]
    along = (second - first) / np.linalg.norm(second - first, axis=1, keepdims=True)
    turn = Rotation.from_rotvec(along * angles[:, None])
    moved = beads.copy()
    for bead in side:
        moved[:, bead] = second + turn.apply(beads[:, bead] - second)
    return moved


def energy_and_slopes(phi, psi):
    """A surface of two torsions and its slopes [kJ/mol]."""
    energy = 6 * np.cos(phi) + 3 * np.sin(phi - psi) + 4 * np.cos(2 * psi) + 2 * np.sin(phi + 3 * psi)
    by_phi = -6 * np.sin(phi) + 3 * np.cos(phi - psi) + 2 * np.cos(phi + 3 * psi)
    by_psi = -3 * np.cos(phi - psi) - 8 * np.sin(2 * psi) + 6 * np.cos(phi + 3 * psi)
    return energy, by_phi, by_psi


def labelled(system, n_frames, seed):
    """Frames anywhere in (phi, psi) whose forces are those of the surface and noise that no torsion feels as well."""
    generator = np.random.default_rng(seed)
    cg_map, molecule = system.beads().cg_map, system.structure()
    beads = np.tile((cg_map.matrix @ molecule.positions)[None], (n_frames, 1, 1))
    phi, psi = (
        [cg_map.bead_on_atom(atom) for atom in system.collective_variables[name].atoms] for name in ("phi", "psi")
    )
    for sites in (phi, psi):
        side, front = set(), {sites[2]}
        while front:
            bead = front.pop()
            side.add(bead)
            ends = {pair for pair in cg_map.bonds if bead in pair and set(pair) != {sites[1], sites[2]}}
            front |= {other for pair in ends for other in pair} - side
        beads = turned(beads, sites[1:3], sorted(side - {sites[2]}), generator.uniform(-math.pi, math.pi, n_frames))
    values, gradients = system.beads().variable_gradients(beads)
    _, by_phi, by_psi = energy_and_slopes(values["phi"], values["psi"])
    forces = -by_phi[:, None, None] * gradients["phi"] - by_psi[:, None, None] * gradients["psi"]
    forces = forces + NOISE * generator.standard_normal(beads.shape)
    zeros = np.zeros(n_frames, dtype=np.int32)
    return Frames(
        positions=beads.astype(np.float32),
        forces=forces.astype(np.float32),
        time=np.arange(n_frames, dtype=np.float64),
        replica=zeros,
        start=zeros,
        probe=np.zeros(n_frames, dtype=bool),
        temperature=np.full(n_frames, 300.0),
        collective_variables={name: value.astype(np.float32) for name, value in values.items()},
    )


def exact_probability(system):
    fine = Bins.between([(-math.pi, math.pi)] * 2, 300)
    energy, _, _ = energy_and_slopes(*np.meshgrid(*fine.centres, indexing="ij"))
    weight = np.exp(-energy / system.thermal_energy).reshape(30, 10, 30, 10).sum(axis=(1, 3))
    return weight / weight.sum()


def test_surface_and_its_errors_are_right(system):
    exact, z, basins = exact_probability(system), [], []
    known = -system.thermal_energy * math.log(exact[15:].sum() / exact[:15].sum())
    for seed in range(12):
        surface = torque_surface(system.beads(), NAMES, [labelled(system, 2000, seed)], BINS, order=4)
        likely = exact > 1e-4
        difference = np.log(surface.probability / exact) * system.thermal_energy
        z.append((difference / surface.standard_error)[likely])
        basins.append(surface.basin_free_energy({"phi": (0.0, math.pi)}).z(known))
    z_rms = math.sqrt(np.mean(np.square(z)))
    # 12 independent data sets, each with some tens of independent coefficients.
    assert 0.8 < z_rms < 1.25, z_rms
    assert math.sqrt(np.mean(np.square(basins))) < 1.7, "12 data sets: standard error 0.2"
    assert surface.estimate(lambda p: float(np.abs(p - exact).sum())).value < 0.1


def test_mixed_batches_count_as_one(system):
    frames = labelled(system, 2000, 1)
    halves = [frames.select(np.arange(1000)), frames.select(np.arange(1000, 2000))]
    whole, joined = (
        torque_surface(system.beads(), NAMES, [frames], BINS, order=3),
        torque_surface(system.beads(), NAMES, halves, BINS, order=3),
    )
    assert np.allclose(whole.probability, joined.probability, rtol=1e-6)
    assert np.allclose(whole.standard_error, joined.standard_error, rtol=0.5)


def test_which_systems_have_one(system):
    assert has_torque_surface(system.beads(), NAMES)
    assert not has_torque_surface(load_system("muller_brown").beads(), ["x"])
    with pytest.raises(ValueError, match="no forces"):
        torque_surface(system.beads(), NAMES, [replace(labelled(system, 10, 0), forces=None)], BINS)
