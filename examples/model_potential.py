"""A coarse-grained potential of a model potential: sample, map the forces, train, simulate, judge. Ten seconds."""

from pathlib import Path

from cg_assets import evaluate, label, load_system, sample, simulate, train


def main() -> None:
    """Print every figure of merit with its error."""
    system = load_system(Path(__file__).with_name("two_wells.yaml"))

    # Langevin dynamics of (x, y); each frame has its position and its force.
    samples = sample(system, "unbiased", seed=1)
    print(f"{len(samples.frames)} frames of {samples.frames.positions.shape[2]} coordinates")

    # The bead x, and the force along it: its mean at given x is the mean force.
    labelled = label(system, samples)

    # The potential whose forces are nearest to the labels, and a simulation with it.
    potential = train(system, labelled)
    simulation = simulate(system, potential, labelled)

    # Against the exact free energy, by quadrature.
    for row in evaluate(system, potential, simulation, labelled).rows():
        print("  ".join(f"{value:<24}" for value in row.values()))


if __name__ == "__main__":
    main()
