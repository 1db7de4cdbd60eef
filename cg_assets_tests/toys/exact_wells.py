"""A toy source of labels: the exact mean force of two wells."""

from dataclasses import replace
from typing import Literal

import numpy as np

from cg_assets.core.checks import Check, finite_verdict
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.labels.quality import LabelNoise
from cg_assets.labels.source import Labelled, LabelSource

FINITE = Check("finite", "Every force is a finite number.")


class ExactWells(LabelSource):
    """-dW/dx of W(x) = height (x² - 1)²."""

    type: Literal["exact_wells"]
    height: float
    """Of the barrier [kT]."""

    @property
    def checks(self):
        return (FINITE,)

    def label(self, inputs):
        x = inputs.frames.positions.astype(np.float64)
        frames = replace(inputs.frames, forces=(-4.0 * self.height * x * (x**2 - 1.0)).astype(np.float32))
        noise = LabelNoise(Estimate(0.0, 0.0), "exact")
        return Labelled(frames, noise, lambda stored: [finite_verdict(FINITE, stored)], {"height": self.height})
