"""Two states that melt: energies whose thermodynamics is exact at every temperature."""

import numpy as np

from cg_assets.core.units import BOLTZMANN

TEMPERATURES = np.array([280.0, 330.0, 390.0, 460.0])
GAP, ENTROPY = 20.0, 20.0 / 350.0
"""Energy [kJ/mol] and entropy [kJ/mol/K] of the unfolded state above the folded one, which melts at 350 K."""
CAPACITY = 0.25
"""Heat capacity of each state [kJ/mol/K]."""


def folded_share(kelvin):
    """Of two states of equal heat capacity: exact."""
    return 1.0 / (1.0 + np.exp(-(GAP - kelvin * ENTROPY) / (BOLTZMANN * kelvin)))


def two_states(seed, per_rung=5000, ladders=2, temperatures=TEMPERATURES):
    """Independent samples of two states whose energies are Gamma distributed, as those of n harmonic oscillators.

    The density of states is u^(n - 1): energies at T have mean n kT and variance n (kT)², so C = n k.
    """
    generator, shape = np.random.default_rng(seed), CAPACITY / BOLTZMANN
    kelvin = np.repeat(temperatures, per_rung)
    folded = generator.random(len(kelvin)) < folded_share(kelvin)
    energy = generator.gamma(shape, BOLTZMANN * kelvin) + np.where(folded, 0.0, GAP)
    place = np.tile(np.arange(per_rung), len(temperatures))
    return energy, kelvin, folded.astype(float), place % ladders, (place // ladders).astype(float)


def exact(kelvin):
    share = folded_share(kelvin)
    slope = -GAP * share * (1 - share) / (BOLTZMANN * kelvin**2)
    return {
        "share": share,
        "energy": CAPACITY * kelvin + (1 - share) * GAP,
        "slope": slope,
        "capacity": CAPACITY - slope * GAP,
    }
