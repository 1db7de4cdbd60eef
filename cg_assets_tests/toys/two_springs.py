"""A toy kind of system: two springs whose frames are drawn, not simulated."""

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import PositiveFloat, model_validator

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.sampling.model_potential.model import ModelPotential
from cg_assets.sampling.piecewise import DynamicsSummary, PiecewiseSampler, cut


class Springs(ModelPotential):
    """V(x, y) = stiffness x² / 2 + (y - x)² / 2."""

    type: Literal["toy_springs"]
    stiffness: PositiveFloat
    """Of both springs [reduced]."""

    @model_validator(mode="before")
    @classmethod
    def _formula(cls, content):
        energy = f"{content['stiffness']}*x**2/2 + (y - x)**2/2"
        return {"coordinates": ["x", "y"], "expression": energy, "domain": {"x": [-8, 8], "y": [-12, 12]}} | content

    def sampler(self, structure, beads, plan, seed, snapshots=0):
        return Draws(self.stiffness, plan, beads.temperature, seed)


class Draws(PiecewiseSampler):
    def __init__(self, stiffness, plan, temperature, seed):
        super().__init__(cut("frames", plan.replicas * plan.frames_per_replica, 1), seed)
        self.stiffness, self.replicas, self.temperature = stiffness, plan.replicas, temperature

    def _identity(self):
        return f"seed {self._seed}"

    def _do(self, piece):
        bend, x = np.random.default_rng(self._seed).normal(scale=self.temperature**0.5, size=(2, piece.amount))
        x, number = x / self.stiffness**0.5, np.arange(piece.amount, dtype=np.int32)
        positions, forces = np.stack([x, x + bend], axis=1), np.stack([bend - self.stiffness * x, -bend], axis=1)
        whole = [array[:, None].astype(np.float32) for array in (positions, forces)]
        zero, kelvin = 0 * number, np.full(len(number), self.temperature)
        frames = Frames(
            whole[0], number // self.replicas + 1.0, number % self.replicas, kelvin, zero, zero > 0, whole[1]
        )
        energy, variables = (self.stiffness * x**2 + bend**2) / 2, {"x": x.astype(np.float32)}
        return replace(frames, bias_energy=0.0 * x, potential_energy=energy, collective_variables=variables)

    def summary(self):
        return DynamicsSummary({self.temperature: Estimate(self.temperature, 0.0)}, None, 0.0, 0)
