"""Force matching of a small molecule: OpenMM dynamics, beads on heavy atoms, a network. Half a minute."""

from pathlib import Path

import torch

from cg_assets import label, load_system, sample, simulate, train


def main() -> None:
    """Print what each step gives."""
    system = load_system(Path(__file__).with_name("alanine.yaml"))
    beads = system.beads()
    print(f"{beads.cg_map.n_atoms} atoms, {beads.cg_map.n_beads} beads: {', '.join(beads.cg_map.bead_names)}")

    # Langevin dynamics of the atoms from several start states.
    samples = sample(system, "unbiased", seed=1)
    print(f"{len(samples.frames)} frames at {system.temperature:g} K")

    # The force map with the least noise that the constraints allow.
    labelled = label(system, samples)
    print(f"mean square force {(labelled.frames.forces.astype(float) ** 2).mean():.4g} (kJ/mol/nm)²")

    potential = train(system, labelled)
    energy, forces = potential.energy_and_forces(torch.as_tensor(labelled.frames.positions[:1]))
    print(f"energy of the first frame {float(energy):.4g} kJ/mol, forces {tuple(forces.shape)}")

    simulation = simulate(system, potential, labelled)
    print(f"{simulation.stability}, kinetic temperature {simulation.runs[0].kinetic_temperature}")


if __name__ == "__main__":
    main()
