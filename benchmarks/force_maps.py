"""How many frames a potential needs with each force map: capped alanine in implicit solvent, without constraints.

Without constraints every map is valid and all have one mean force; they differ in noise alone. Potentials are trained
on the same frames with the labels of each map, and judged by their force error against means of many samples at fixed
beads, less the variance of those means: python benchmarks/force_maps.py
"""

from __future__ import annotations

import numpy as np
import torch

from cg_assets.core.frames import Frames
from cg_assets.core.statistics.noise import conditional_noise
from cg_assets.mapping.force_maps import group_map, optimal_map, slice_map
from cg_assets.mapping.run import map_frames
from cg_assets.sampling.conditional import sample_conditional_forces
from cg_assets.systems import load_system
from cg_assets.systems.spec import SystemSpec
from cg_assets.training.setup import potential_config, training_data
from cg_assets.training.train import train

FRAMES = (1000, 2000, 4000, 8000, 16000, 32000)


def flexible() -> SystemSpec:
    """The system without constraints, at the time step that this needs."""
    system = load_system("capped_alanine_implicit")
    content = system.model_dump(mode="json")
    content["model"] |= {"constraints": "none", "hydrogen_mass": None}
    content["sampling"]["biased"] |= {"timestep": 0.001, "duration": 200.0}
    content["sampling"]["biased"]["bias"] |= {"deposition": 100.0}
    for plan in (content["sampling"]["unbiased"], content["evaluation"]["reference"]["plan"]):
        plan |= {"timestep": 0.001}
    return SystemSpec.model_validate(content | {"folder": system.folder})


def main() -> None:
    system = flexible()
    sampler = system.sampler(system.sampling.biased, 1)
    blocks = [sampler.next_chunk() for _ in range(sampler.n_chunks)]
    frames = Frames.concatenate([block for block in blocks if block is not None])
    beads, rigid = system.beads(), load_system("capped_alanine_implicit").structure()
    maps = {
        "slice": slice_map(beads.cg_map),
        "hydrogens with their atom": group_map(beads.cg_map, rigid.stored_pairs(rigid.constraints)),
        "optimal": optimal_map(beads.cg_map, [], frames.forces),
    }
    plan = system.sampling.biased
    found = sample_conditional_forces(system.structure(), beads, frames, list(maps.values()), plan, 5, 48, 300)
    noise = {name: conditional_noise(forces) for name, forces in zip(maps, found.forces, strict=True)}
    known = noise["optimal"]
    variance = float(np.mean(known.mean_force_variance))
    places = torch.from_numpy(found.positions.astype(np.float32))
    print("| frames | " + " | ".join(f"{name}, noise {noise[name].noise_floor}" for name in maps) + " |")
    print("|---" * (len(maps) + 1) + "|")
    errors = {}
    for number in FRAMES:
        for name, force_map in maps.items():
            mapped = [map_frames(beads, frames, force_map)]
            data = training_data(system.network, mapped, number, system.fit.seed)
            config = potential_config(system.network, beads)
            module = train(config, system.fit, data, seed=0).module
            with torch.no_grad():
                forces = module.energy_and_forces(places)[1].numpy()
            squares = ((forces - known.mean_force) ** 2).mean(axis=(1, 2))
            error = squares.std(ddof=1) / np.sqrt(len(squares))
            errors[name, number] = squares.mean() - variance
            root = np.sqrt(errors[name, number])
            errors[name, number, "text"] = f"{root:.1f} ± {error / (2 * root):.1f}"
        row = [errors[name, number, "text"] for name in maps]
        print(f"| {number} | " + " | ".join(row) + " |  (force error [kJ/mol/nm])", flush=True)
    logs = np.log(FRAMES)
    for name in list(maps)[1:]:
        curve = np.log([errors[name, number] for number in FRAMES])
        needed = [np.interp(-np.log(errors["slice", number]), -curve, logs) for number in FRAMES[2:]]
        ratios = ", ".join(f"{ratio:.1f}" for ratio in np.exp(logs[2:] - needed))
        print(f"frames with slice / frames with {name} for the error of slice at {FRAMES[2:]} frames: {ratios}")


if __name__ == "__main__":
    main()
