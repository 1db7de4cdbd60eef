"""A potential from configurations alone: a flow learns their density, and labels them with forces. Half a minute."""

from dataclasses import replace
from pathlib import Path

from cg_assets import Samples, evaluate, label, load_system, sample, simulate, train


def main() -> None:
    """Print every figure of merit with its error."""
    system = load_system(Path(__file__).with_name("two_wells.yaml"))

    # Configurations of any origin; here the forces of the simulation are thrown away.
    frames = replace(sample(system, "unbiased", seed=1).frames, forces=None, potential_energy=None)

    # The kernel perturbs each configuration, and knows the force of what it makes (arXiv 2506.19628).
    labelled = label(system, Samples(frames), source="flow", seed=2)
    print(f"{len(frames)} configurations, {len(labelled.frames)} labelled draws")

    potential = train(system, labelled)
    simulation = simulate(system, potential, labelled)
    for row in evaluate(system, potential, simulation, labelled).rows():
        print("  ".join(f"{value:<24}" for value in row.values()))


if __name__ == "__main__":
    main()
