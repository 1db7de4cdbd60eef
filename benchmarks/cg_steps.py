"""CG steps of message-passing networks per CPU second: compiled kernels, and the same potential in eager torch.

    python benchmarks/cg_steps.py [--model FOLDER] [--repeats 5] [--seconds 2]

Untrained networks of the default size with all that is added to them: 10 unlike beads with walls and a series in two
torsions, and chains of 20 and 60 beads of twelve types with a prior, as of alpha carbons. `--model` adds a stored
potential of an isolated molecule (a folder with `config.json` and `weights.pt`). 100 replicas, one core; both take
turns; the table has medians and lowest to highest, and the largest errors of the forces of both against those in double
precision, in parts of the largest force.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import Tensor

from cg_assets.potentials.base import Potential
from cg_assets.potentials.model_format import load_potential
from cg_assets.potentials.settings import build_potential
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

REPLICAS = 100
TIMESTEP = 1e-5
"""These networks are untrained: nothing may move far [ps]."""


class Eager(Potential):
    """A potential without its compiled kernels."""

    def __init__(self, potential: Potential) -> None:
        """Of an isolated molecule."""
        torch.nn.Module.__init__(self)
        self.potential, self.n_beads, self.dimension = potential, potential.n_beads, 3

    def energy(self, positions: Tensor, temperature: Any = None, box: Any = None) -> Tensor:
        """Energy `(f,)`."""
        return self.potential.energy(positions)

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Any = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)`."""
        return self.potential.evaluate(positions)


def chain(beads: int, count: int) -> Tensor:
    """Jittered frames `(count, n, 3)` of a helix of beads 0.38 nm apart."""
    turn = np.arange(beads) * 1.75
    helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(beads)], axis=1)
    noise = 0.01 * np.random.default_rng(0).standard_normal((count, beads, 3))
    return torch.tensor(helix + noise, dtype=torch.float32)


def config(beads: int) -> dict[str, Any]:
    """Ten unlike beads with a series, more of twelve types with a prior."""
    found: dict[str, Any] = {
        **{"type": "message_passing", "features": 32, "interactions": 2, "basis_functions": 4, "cutoff": None},
        "bead_types": [number if beads == 10 else 7 * number % 12 for number in range(beads)],
        "bonds": [[number, number + 1] for number in range(beads - 1)],
        "thermal_energy": 2.494,
    }
    if beads == 10:
        return found | {"torsions": [[2, 3, 4, 5], [3, 4, 5, 6]], "torsion_order": 6}
    prior = {
        "bonds": [[number, number + 1, 0.38, 5000.0] for number in range(beads - 1)],
        "angles": [[number, number + 1, number + 2, 3.0, 5.0, -2.0, 1.0] for number in range(beads - 2)],
        "dihedrals": [[*range(number, number + 4), 1.0, -0.5, 0.3, 0.2, 0.1, 0.0] for number in range(beads - 3)],
        "repulsion": [[one, two, 0.4] for one in range(beads) for two in range(one + 4, beads)],
    }
    return found | {"prior": prior}


def network(beads: int) -> Potential:
    """An untrained network with all that is added to it."""
    potential = build_potential(config(beads), torch.Generator().manual_seed(1))
    potential.fit_statistics(chain(beads, 500))
    series = potential.state_dict().get("parts.series.series")
    if series is not None:
        series.copy_(0.1 * torch.randn(series.shape, generator=torch.Generator().manual_seed(2)))
    return potential.requires_grad_(False)


def relaxed(potential: Potential) -> Tensor:
    """Frames brought to where the forces of a stored potential are small."""
    positions = 0.3 * torch.randn(REPLICAS, potential.n_beads, 3, generator=torch.Generator().manual_seed(3))
    engine = potential.engine()
    for _ in range(2000):
        forces = engine(positions)[1]
        positions = positions + 0.001 * forces / forces.norm(dim=2, keepdim=True).clamp_min(1.0)
    return positions


def steps_per_second(potential: Potential, starts: Tensor, steps: int) -> float:
    """Replica-steps per CPU second."""
    settings = CGSimulation(
        **{"replicas": REPLICAS, "timestep": TIMESTEP, "friction": 1.0},
        **{"duration": steps * TIMESTEP, "frame_interval": steps * TIMESTEP},
    )
    begin = time.process_time()
    simulate(potential, starts[:REPLICAS].numpy(), np.full(starts.shape[1], 50.0), 2.494, settings, seed=0)
    return REPLICAS * steps / (time.process_time() - begin)


def differences(potential: Potential, positions: Tensor) -> list[float]:
    """Largest difference of forces to those in double precision, in parts of the largest: compiled, and eager."""
    with torch.no_grad():
        found = [evaluate(positions)[1] for evaluate in (potential.engine(), potential.energy_and_forces)]
        exact = potential.double().energy_and_forces(positions.double())[1]
    potential.float()
    return [float((forces - exact).abs().max() / exact.abs().max()) for forces in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a stored potential")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    systems = {f"{beads} beads": (network(beads), chain(beads, REPLICAS)) for beads in (10, 20, 60)}
    if arguments.model is not None:
        stored, _ = load_potential(arguments.model)
        assert isinstance(stored, Potential)
        systems[f"{stored.n_beads} beads, {arguments.model.name}"] = stored, relaxed(stored)
    print("| system | compiled, replica-steps per CPU second | eager | ratio | force errors |")
    print("|---|---|---|---|---|")
    for name, (potential, starts) in systems.items():
        pair = potential, Eager(potential)
        speeds: list[list[float]] = [[], []]
        for one in pair:  # compiles, where anything is compiled
            steps_per_second(one, starts, 2)
        counts = [max(5, int(arguments.seconds * steps_per_second(one, starts, 20) / REPLICAS)) for one in pair]
        for _ in range(arguments.repeats):
            for one, count, found in zip(pair, counts, speeds, strict=True):
                found.append(steps_per_second(one, starts, count))
        cells = [f"{statistics.median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f})" for found in speeds]
        ratios = [fast / slow for fast, slow in zip(*speeds, strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        errors = " and ".join(f"{error:.1e}" for error in differences(potential, starts))
        print("| " + " | ".join([name, *cells, errors]) + " |", flush=True)


if __name__ == "__main__":
    main()
