"""The sampler that fits a system's model."""

from __future__ import annotations

from cg_assets.sampling.model_potential.model import ModelPotential
from cg_assets.sampling.run import Sampler
from cg_assets.sampling.settings import SamplingPlan
from cg_assets.systems.spec import SystemSpec


def build_sampler(system: SystemSpec, plan: SamplingPlan, seed: int, snapshots: int = 0) -> Sampler:
    """A sampler of one batch of a plan; nothing is simulated yet.

    Args:
        system: the system.
        plan: what to sample.
        seed: seed of the batch.
        snapshots: frames with all atoms that a solvated molecule should keep at least.

    Raises:
        SystemSpecError: the specification does not fit the molecule.
        SamplingError: the simulation cannot be set up.
    """
    if isinstance(system.model, ModelPotential):
        from cg_assets.sampling.model_potential.sampler import ModelPotentialSampler

        return ModelPotentialSampler(system, plan, seed)
    from cg_assets.sampling.molecule.sampler import MoleculeSampler
    from cg_assets.sampling.molecule.tempering import TemperedSampler

    sampler = MoleculeSampler if plan.tempering is None else TemperedSampler
    return sampler(system, plan, seed, snapshots=snapshots)
