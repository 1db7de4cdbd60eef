"""Forces averaged at fixed beads: right means with right errors, exact resumption, labels like any other."""

import dagster as dg
import numpy as np
import pytest
from test_pipeline import materialize, metadata_of, verdicts_of

from cg_assets.core.errors import SamplingError, SystemSpecError
from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.labels.mean_forces import MeanForceSampler
from cg_assets.mapping.force_maps import optimal_map, slice_map
from cg_assets.sampling.conditional import FixedBeads
from cg_assets.sampling.piecewise import Piece
from cg_assets.sampling.settings import MeanForcePlan
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec

FIXED = """
extends: capped_alanine_quick
name: fixed_alanine
title: Capped alanine, forces averaged at fixed beads
sampling:
  mean_forces:
    fixed: {of: biased, configurations: 50, relaxation: 0.2, duration: 1, interval: 0.04}
network: {features: 16, interactions: 1, basis_functions: 8}
training: {epochs: 2, batch_size: 10}
potentials:
  fixed: {labels: fixed_forces}
"""


@pytest.fixture(scope="module")
def flexible():
    """Capped alanine without rigid bonds, under which the slice map is valid too; and frames of it."""
    content = load_system("capped_alanine_quick").model_dump()
    content["model"] |= {"constraints": "none", "hydrogen_mass": None}
    for plan in (content["sampling"]["unbiased"], content["evaluation"]["reference"]["plan"]):
        plan |= {"timestep": 0.001}
    content["sampling"] |= {"biased": None}
    content["potentials"] = {"unbiased": {"labels": "mapped_forces"}}
    content["cg_simulation"] |= {"enhanced_duration": 0.0}
    system = SystemSpec.model_validate(content)
    plan = system.sampling.unbiased.model_copy(update={"burn_in": 2.0, "duration": 20.0, "frame_interval": 0.04})
    sampler = system.sampler(plan, seed=1)
    parts = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    return system, plan, Frames.concatenate([part for part in parts if part is not None])


def test_two_force_maps_have_one_mean_at_fixed_beads(flexible):
    """Forces on the beads' own atoms and of the optimal map differ by much, their conditional means do not."""
    system, plan, frames = flexible
    cg_map = system.beads().cg_map
    maps = [slice_map(cg_map), optimal_map(cg_map, [], frames.forces)]
    starts = frames.positions[:: len(frames) // 8][:8]
    fixed = FixedBeads(system.structure(), system.beads(), starts, plan.timestep, plan.friction, seed=4)
    forces = fixed.forces(range(8), relaxation=1.0, n_samples=400, interval=0.05)
    fixed.close()
    assert forces.shape == (8, 400, 22, 3)
    noise = conditional_noise((maps[0].matrix - maps[1].matrix) @ forces)
    assert noise.effective_samples > 2.0
    deviation = noise.mean_force / np.sqrt(noise.mean_force_variance)[..., None]
    assert np.sqrt(noise.noise_floor.value) > 300  # what must average to zero
    assert np.sqrt((deviation**2).mean()) == pytest.approx(1.0, abs=0.2)  # 240 components, correlated in each bead


def test_labels_their_variance_and_resumption(flexible):
    system, plan, frames = flexible
    mean_force = MeanForcePlan(of="unbiased", configurations=12, relaxation=0.5, duration=4.0, interval=0.05)
    force_map = optimal_map(system.beads().cg_map, [], frames.forces)

    def sampler():
        new = MeanForceSampler(system.structure(), system.beads(), mean_force, plan, frames, force_map, seed=7)
        new._pieces = [Piece("configurations", 4, first) for first in (0, 4, 8)]
        return new

    whole = sampler()
    labels = Frames.concatenate([whole.next_chunk() for _ in range(3)])
    assert labels.positions.shape == labels.forces.shape == (12, 10, 3)
    assert labels.force_variance.shape == (12, 10)
    assert len(np.unique(labels.time)) == 3  # spread over the time of all four replicas
    assert list(np.bincount(labels.replica)) == [3, 3, 3, 3]
    place = np.flatnonzero((frames.replica == labels.replica[5]) & np.isclose(frames.time, labels.time[5]))
    beads = system.beads().cg_map.apply(frames.positions[place])
    assert np.allclose(labels.positions[5], beads[0], atol=1e-6)

    state, parts = None, []
    for _ in range(3):
        again = sampler()
        if state is not None:
            again.restore(state)
        parts.append(again.next_chunk())
        state = {name: value.copy() for name, value in again.state().items()}
        again.close()
    assert np.array_equal(Frames.concatenate(parts).forces, labels.forces)
    assert again.summary().noise.noise_floor == whole.summary().noise.noise_floor
    assert again.summary().sampled_time == pytest.approx(12 * 4.5)
    with pytest.raises(StopIteration):
        again.next_chunk()

    # other velocities and noise: the labels scatter by what they say
    other = MeanForceSampler(system.structure(), system.beads(), mean_force, plan, frames, force_map, seed=8)
    second = Frames.concatenate([other.next_chunk() for _ in range(other.n_chunks)])
    variance = (labels.force_variance + second.force_variance)[..., None]
    assert np.sqrt(((labels.forces - second.forces) ** 2 / variance).mean()) == pytest.approx(1.0, abs=0.25)
    with pytest.raises(SamplingError, match="12 configurations are needed, but unbiased kept only 5"):
        MeanForceSampler(
            system.structure(), system.beads(), mean_force, plan, frames.select(np.arange(5)), force_map, seed=7
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"of": "sideways"}, "of is sideways; the plans are unbiased, biased"),
        ({"configurations": 10**6}, "configurations is 1000000, but biased keeps only 80000 frames"),
        ({"interval": 0.041}, "interval 0.041 is not a whole number of timesteps"),
        ({"duration": 0.1}, "duration 0.1 is not a whole number, of at least 4"),
    ],
)
def test_wrong_plans_are_refused(command, change, message):
    fields = {"of": "biased", "configurations": 50, "relaxation": 0.2, "duration": 1, "interval": 0.04} | change
    lines = FIXED.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("    fixed:")]
    lines[place] = f"    fixed: {fields}"
    command.add_system("\n".join(lines))
    with pytest.raises(SystemSpecError, match=message):
        load_system("fixed_alanine")


def test_a_model_potential_has_no_mean_forces_at_fixed_beads(command):
    command.add_system(
        "name: fixed_wells\ntitle: t\nextends: muller_brown\nsampling: {mean_forces: {fixed: {of: biased, "
        "configurations: 5, relaxation: 0, duration: 40, interval: 4}}}\n"
    )
    with pytest.raises(SystemSpecError, match=r"mean_forces\.fixed is for model.type molecule alone; leave it out"):
        load_system("fixed_wells")


def test_the_asset_makes_labels_that_a_potential_learns_from(command):
    command.add_system(FIXED)
    system = load_system("fixed_alanine")
    stages = ["biased_samples", "fixed_forces", "potential_fixed"]
    result = materialize(system, command.home, dg.DagsterInstance.ephemeral(), stages=stages)
    assert result.success
    assert all(verdicts_of(result).values())
    store = ParquetStore(command.home)
    frames = store.read_frames("fixed_alanine", "fixed_forces", ["0000"])
    assert len(frames) == 50 and frames.bias_energy is not None
    metadata = store.describe("fixed_alanine", "fixed_forces", "0000").metadata
    assert metadata.upstream_data_versions == {
        "fixed_alanine/biased_samples/0000": store.data_version("fixed_alanine", "biased_samples", "0000")
    }
    floor = metadata.extra["noise_floor"]
    assert floor["value"] == pytest.approx(float(frames.force_variance.mean()), rel=1e-5)
    assert floor["value"] < 1e4  # a single force has 3.6e4 (kJ/mol/nm)²
    assert "independent" in floor["method"]
    assert "(/files/figures/" in metadata_of(result)["fixed_forces"]["figure"].value
