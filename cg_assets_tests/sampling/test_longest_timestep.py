"""Longest time step of a model potential: that of its stiffest harmonic motion."""

from __future__ import annotations

import pytest

from cg_assets.sampling.model_potential.landscape import Landscape


@pytest.mark.parametrize(
    ("expression", "mass", "stiffest"),
    [
        ("2*x**2 + 50*y**2", 1.0, 100.0),
        ("2*x**2 + 50*y**2", 4.0, 25.0),
        ("8*(x + y)**2 + (x - y)**2", 1.0, 32.0),  # along the diagonal, in no coordinate
        ("x**2 + y**2 + 100*exp(-200*((x - 3)**2 + y**2))", 1.0, 2.0),  # stiff where no walker gets
    ],
)
def test_it_is_the_inverse_of_the_largest_frequency(expression, mass, stiffest):
    domain = ((-5.0, 5.0), (-5.0, 5.0))
    landscape = Landscape(("x", "y"), expression, ("x",), ((1.0, 0.0),), domain, thermal_energy=0.3)
    assert landscape.longest_timestep(mass) == pytest.approx(stiffest**-0.5, rel=1e-5)


@pytest.mark.parametrize(("expression", "low"), [("4*abs(x)", -4.0), ("0.5*(x - 2)**2 + 0.1*sqrt(x)", 0.0)])
def test_a_kink_or_the_edge_of_a_formula_refuses_no_step_that_serves(expression, low):
    landscape = Landscape(("x",), expression, ("x",), ((1.0,),), ((low, 4.0),), thermal_energy=1.0)
    assert 0.02 < landscape.longest_timestep(1.0) < 1.1
