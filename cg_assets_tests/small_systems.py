"""System files that finish in seconds, and the parts of them that tests change."""

from __future__ import annotations

SMALL_WELLS = """
name: small_wells
title: Two wells, small
temperature: 1.0
model:
  type: model_potential
  coordinates: [x, y]
  expression: 3*(x**2 - 1)**2 + 2*(y - x)**2
  domain: {x: [-3, 3], y: [-5, 5]}
mapping: {type: linear, coordinates: {x: {x: 1.0}}}
sampling:
  unbiased: {replicas: 256, starts: equilibrium, timestep: 0.02, friction: 1.0,
             burn_in: 10, duration: 40, frame_interval: 1}
  biased: {replicas: 256, starts: equilibrium, timestep: 0.02, friction: 1.0,
           burn_in: 10, duration: 40, frame_interval: 1,
           bias: {type: static, expression: "2*exp(-x**2)"}}
network: {type: radial_basis, range: [-3, 3], basis_functions: 30, basis_width: 0.3, hidden: [32, 32]}
training: {epochs: 20, batch_size: 256, learning_rate: 0.01}
cg_simulation: {replicas: 200, timestep: 0.02, friction: 1.0, burn_in: 5, duration: 20, frame_interval: 1}
potentials:
  unbiased: {labels: mapped_forces}
  biased: {labels: relabelled_forces}
evaluation:
  reference: {type: quadrature, range: [-1.4, 1.4]}
  collective_variables: [x]
  basins:
    left: {limits: {x: [-3, 0]}}
    right: {limits: {x: [0, 3]}}
  max_pmf_error: 0.5
"""

LEFT_ONLY = """
# A bias on x drives no one over the barrier along y: replicas that start on both sides of it cannot agree.
extends: muller_brown
name: left_only
title: Müller-Brown potential, biased along x from one basin
sampling:
  unbiased: {replicas: 64, duration: 400}
  biased:
    replicas: 1024
    starts: [{x: 24, y: 31}]
    burn_in: 400
    duration: 1000
    frame_interval: 20
    probe: {replicas: 256, starts: [{x: 44, y: 9}]}
    bias:
      type: metadynamics
      collective_variables: [x]
      height: 0.0005
      width: {x: 1.0}
      bias_factor: 10
      pace: 4
      deposition: 1000
      grid_range: {x: [0, 60]}
"""

HOTTER = """
extends: small_wells
name: hot_wells
title: Two wells at twice the temperature
temperature: 2.0
sampling: {unbiased: {duration: 20}, biased: {duration: 20}}
"""

GLYCINE = """
name: own_glycine
title: Capped glycine in vacuum, another force field
temperature: 300.0
model:
  type: molecule
  pdb: own_glycine.pdb
  force_fields: [amber99sbildn.xml]
  implicit_solvent: null
  constraints: h_bonds
mapping: {type: beads, beads: heavy_atoms, force_map: optimal}
collective_variables:
  phi: {type: torsion, atoms: ["1:C", "2:N", "2:CA", "2:C"]}
  psi: {type: torsion, atoms: ["2:N", "2:CA", "2:C", "3:N"]}
sampling:
  unbiased: {replicas: 2, starts: [{phi: -1.4, psi: 1.4}, {phi: 1.4, psi: -1.4}], timestep: 0.004, friction: 1.0,
             burn_in: 2, duration: 20, frame_interval: 0.04}
network: {type: message_passing, features: 16, interactions: 1, basis_functions: 8}
training: {epochs: 3, batch_size: 16, learning_rate: 0.01}
cg_simulation: {replicas: 10, timestep: 0.001, friction: 1.0, burn_in: 0.2, duration: 1, frame_interval: 0.1}
potentials:
  unbiased: {labels: mapped_forces}
evaluation:
  reference:
    type: long_runs
    runs: 2
    plan: {replicas: 2, starts: [{phi: -1.4, psi: 1.4}, {phi: 1.4, psi: -1.4}], timestep: 0.004, friction: 1.0,
           burn_in: 1, duration: 10, frame_interval: 0.1,
           bias: {type: metadynamics, collective_variables: [phi, psi], height: 1.0, width: {phi: 0.35, psi: 0.35},
                  bias_factor: 10, pace: 0.4, deposition: 4}}
  collective_variables: [phi, psi]
  bins: 20
  max_pmf_error: 5.0
"""


def landscape_of(system):
    """The potential of a model system, for exact answers."""
    return system.model.landscape(system.beads())
