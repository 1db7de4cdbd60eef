"""Long: the shipped box of capped alanine in water has atmospheric pressure, and long steps give its mean force."""

import numpy as np
import pytest

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.mapping.force_maps import group_map, optimal_map, slice_map, validate_force_map
from cg_assets.sampling.conditional import sample_conditional_forces
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


def test_density_at_atmospheric_pressure():
    system = load_system("capped_alanine_water")
    edge = system.measure_box(1)
    print(edge)
    assert abs(edge.value - system.model.box) < 4 * edge.standard_error + 0.001


def variant(system, model, timestep):
    """The system with other settings of its molecule and of its unbiased plan."""
    content = system.model_dump(mode="json")
    content["model"] |= model
    content["sampling"]["unbiased"] |= {"timestep": timestep}
    return SystemSpec.model_validate(content | {"folder": system.folder})


def test_mean_forces_with_and_without_constraints_agree():
    rigid = load_system("capped_alanine_water")
    flexible = variant(rigid, {"constraints": "none", "hydrogen_mass": None}, 0.0005)
    plan = rigid.sampling.unbiased.model_copy(update={"burn_in": 20.0, "duration": 40.0, "frame_interval": 0.04})
    sampler = rigid.sampler(plan, 11)
    blocks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    frames = Frames.concatenate([block for block in blocks if block is not None])
    snapshots = sampler.snapshots()
    results = {}
    for name, system in (("rigid", rigid), ("flexible", flexible)):
        cg_map, molecule = system.beads().cg_map, system.structure()
        constraints = molecule.stored_pairs(molecule.constraints)
        maps = [group_map(cg_map, constraints), slice_map(cg_map)]
        if name == "rigid":
            maps.append(optimal_map(cg_map, constraints, frames.forces))
        for force_map in maps if name == "flexible" else (maps[0], maps[2]):
            validate_force_map(force_map, cg_map, constraints)
        found = sample_conditional_forces(
            molecule, system.beads(), snapshots, maps, system.sampling.dynamics, 5, n_configurations=16, n_samples=150
        )
        results[name] = [conditional_noise(forces) for forces in found.forces]
    group, sliced, optimal = results["rigid"]
    free = results["flexible"][0]
    difference = optimal.mean_force - free.mean_force
    error = np.sqrt(optimal.mean_force_variance + free.mean_force_variance)[..., None]
    z_rms = np.sqrt(np.mean((difference / error) ** 2))
    relative = np.sqrt(np.mean(difference**2) / np.mean(free.mean_force**2))
    print(f"4 fs with constraints against 0.5 fs without: z RMS {z_rms:.2f}, {relative:.1%} of the mean force")
    for name, noise in (("slice", sliced), ("group", group), ("optimal", optimal), ("flexible slice", free)):
        print(f"noise floor {name}: {noise.noise_floor} ({np.sqrt(noise.noise_floor.value):.0f} kJ/mol/nm)")
    assert z_rms < 1.3
    assert optimal.noise_floor.value < 0.8 * sliced.noise_floor.value
