"""Forces of water at temperatures that were not learnt, from data at T_0 alone: which labels help most?

    CG_ASSETS_HOME=... python benchmarks/response_orders.py [--system water] [--frames 300]

Reads the trajectories and thermal response targets of a system that `cg-assets run` has made. All methods see frames of
ordinary dynamics and CG frames with fixed beads at T_0 alone (that with products the first only), and are judged by
mean forces at fixed beads at all temperatures, of CG frames that they have not seen: each third of them in turn. Errors
are root mean squares less the noise of the means, with errors from leaving out frames. The last row, which learns
forces at all temperatures, is what the splines can reach. A second table has differences of mean squares over all
temperatures, in which the noise and much of the scatter between frames cancel.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from cg_assets.core.statistics.estimates import jackknife
from cg_assets.settings import installation
from cg_assets.storage.parquet import read_arrays
from cg_assets.storage.store import ParquetStore
from cg_assets.systems import load_system
from cg_assets.training.response import (
    ENERGY_WEIGHT,
    SAME_TEMPERATURE,
    ResponseData,
    ResponseWeights,
    deviation,
    predicted,
)
from cg_assets.training.response_fit import response_config, with_products
from cg_assets.training.settings import TARGETS, TRAJECTORIES
from cg_assets.training.thermal_targets import ThermalTargets
from cg_assets.training.train import train
from cg_assets.training.unconstrained import unconstrained_targets

FIRST, SECOND = {"form": "taylor_temperature", "order": 1}, {"form": "constant_heat_capacity", "order": 2}
METHODS = {
    "forces": ({"form": "taylor_temperature", "order": 0}, ResponseWeights(1, 0, 0, 0)),
    "forces and energies (energy matching)": (FIRST, ResponseWeights(1, 0, 0, ENERGY_WEIGHT)),
    "forces and products, dynamics alone": (FIRST, ResponseWeights(1, 1, 0, 0)),
    "first order": (FIRST, ResponseWeights(1, 1, 0, 0)),
    "second order": (SECOND, ResponseWeights(1, 1, 1, 0)),
    "forces at all temperatures": (SECOND, ResponseWeights(1, 0, 0, 0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="water")
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    system, store = load_system(options.system), ParquetStore(installation().home)
    batches = store.batches(system.name, TARGETS)
    tables = [read_arrays(store.path(system.name, TARGETS, batch)) for batch in batches]
    targets = ThermalTargets.concatenate([ThermalTargets.from_columns(table) for table in tables])
    noise = np.concatenate([table["force_variance"] for table in tables])
    atoms = store.read_frames(system.name, TRAJECTORIES, batches)
    settings = system.potentials["splines"].response
    assert settings is not None
    origin = settings.temperature_dependence.origin
    assert origin is not None
    temperatures = np.unique(targets.temperature)
    here = np.abs(atoms.temperature - origin) < SAME_TEMPERATURE
    dynamics, everywhere = (
        unconstrained_targets(frames, options.frames, targets.temperature, noise, targets.heat_capacity)
        for frames in (atoms.select(here), atoms)
    )
    numbers = np.unique(targets.frame)
    fold = np.random.default_rng(0).permutation(len(numbers)) % 3
    config = response_config(settings, system.beads())
    print(f"| learnt at {origin:g} K | " + " | ".join(f"{kelvin:g} K" for kelvin in temperatures) + " | seconds |")
    print("|---" * (len(temperatures) + 2) + "|")
    squares: dict[str, np.ndarray] = {}
    for name, (form, weights) in METHODS.items():
        started = time.process_time()
        wanted = config | {"temperature_dependence": form | {"origin": origin}}
        judged, differences = [], []
        products = with_products(wanted, dynamics, 0) if name.startswith("forces and products") else None
        for part in range(3):
            apart = np.isin(targets.frame, numbers[fold == part])
            kept = targets.select(~apart)
            at_origin = kept.select(np.abs(kept.temperature - origin) < SAME_TEMPERATURE)
            if products is not None:
                learnt = [products]
            elif name.endswith("all temperatures"):
                learnt = [kept, everywhere]
            else:
                learnt = [at_origin, dynamics]
            module = train(wanted, None, ResponseData(ThermalTargets.concatenate(learnt), weights), 0).module
            judged.append(targets.select(apart))
            differences.append(predicted(module, judged[-1])["forces"] - judged[-1].forces)
        rows, difference = ThermalTargets.concatenate(judged), np.concatenate(differences)
        squares[name] = (difference**2).mean(axis=(1, 2))
        found = []
        for kelvin in temperatures:
            at = np.abs(rows.temperature - kelvin) < SAME_TEMPERATURE
            found.append(deviation(difference[at], rows.forces[at], rows.forces_error[at], rows.frame[at]).root)
        cells = " | ".join(f"{item.value:.1f} ± {item.standard_error:.1f}" for item in found)
        print(f"| {name} | {cells} | {time.process_time() - started:.0f} |", flush=True)
    print("\n| mean square of all rows, less that of | forces | first order |\n|---|---|---|")
    place = np.unique(rows.frame, return_inverse=True)[1]
    for name, of_rows in squares.items():
        cells = []
        for other in ("forces", "first order"):
            sums = [np.bincount(place, weights=row) for row in (of_rows - squares[other], np.ones(len(place)))]
            value, error = jackknife(lambda total: total[0] / total[1], np.stack(sums, axis=1))
            cells.append(f"{float(value):.0f} ± {float(error):.0f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
