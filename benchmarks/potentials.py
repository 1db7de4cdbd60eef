"""Speed of the message-passing potential and its peers: training and CG dynamics of a ten-bead molecule.

    OMP_NUM_THREADS=1 python benchmarks/potentials.py [--repeats 5] [--seconds 2]

Every contender sees the same frames, all pairs of beads, ten unlike beads, 64 features and two interactions (other
settings: the defaults of each library, named in the table). Training is the forward and backward pass of a force loss
and an Adam step on batches of 256; dynamics is this project's BAOAB with 100 replicas. Contenders take turns within
each repeat; the table gives median and range over repeats, and our median over theirs. Peers come with
`pip install 'cg-assets[benchmark]'`; one that is not installed has a row without numbers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from cg_assets.potentials.base import Potential
from cg_assets.potentials.settings import build_potential
from cg_assets.simulation.langevin import simulate
from cg_assets.simulation.settings import CGSimulation

N_BEADS = 10
FEATURES = 64
INTERACTIONS = 2
BATCH = 256
REPLICAS = 100
CUTOFF = 1.5
"""Beyond the largest distance [nm], for libraries that need a cutoff."""


def frames(count: int, seed: int = 0) -> torch.Tensor:
    """Jittered frames `(count, 10, 3)` of a bent chain with bonds of 0.15 nm."""
    index = np.arange(N_BEADS)
    chain = 0.1 * np.stack([1.25 * index, 0.8 * (index % 2), 0.5 * np.sin(index)], axis=1)
    noise = 0.004 * np.random.default_rng(seed).standard_normal((count, N_BEADS, 3))
    return torch.tensor(chain + noise, dtype=torch.float32)


class Peer(Potential):
    """A library's network behind the interface of our potentials; forces by automatic differentiation."""

    def __init__(self, network: torch.nn.Module, formula: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """`formula` maps positions `(f, n, 3)` to energies `(f,)`."""
        torch.nn.Module.__init__(self)
        self.network = network
        self.formula = formula

    def energy(self, positions: torch.Tensor, temperature: object = None, box: object = None) -> torch.Tensor:
        """Energy `(f,)`."""
        return self.formula(positions)


class Pairs:
    """Edges of all ordered pairs within each frame, remade only when the number of frames changes."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self.count = 0

    def __call__(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Edges `(2, e)`, bead kinds and frame of each bead `(count * n,)`."""
        if count != self.count:
            first, second = torch.meshgrid(torch.arange(N_BEADS), torch.arange(N_BEADS), indexing="ij")
            edges = torch.stack([first[first != second], second[first != second]])
            offset = N_BEADS * torch.arange(count)[None, :, None]
            self.kept = (
                (edges[:, None] + offset).reshape(2, -1),
                torch.arange(N_BEADS).repeat(count),
                torch.arange(count).repeat_interleave(N_BEADS),
            )
            self.count = count
        return self.kept


def ours(features: int) -> Potential:
    config = {
        "type": "message_passing",
        "bead_types": list(range(N_BEADS)),
        "features": features,
        "interactions": INTERACTIONS,
        "basis_functions": 4,
        "cutoff": None,
        "thermal_energy": 2.494,
    }
    module = build_potential(config)
    module.fit_statistics(frames(2000))
    return module


def schnet() -> Potential:
    from torch_geometric.nn import SchNet

    pairs = Pairs()

    def graph(points: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        edges = pairs(len(points) // N_BEADS)[0]
        return edges, (points[edges[0]] - points[edges[1]]).norm(dim=1)

    network = SchNet(FEATURES, FEATURES, INTERACTIONS, 50, CUTOFF, interaction_graph=graph)

    def evaluate(positions: torch.Tensor) -> torch.Tensor:
        _, kinds, batch = pairs(len(positions))
        return network(kinds, positions.reshape(-1, 3), batch)[:, 0]

    return Peer(network, evaluate)


def hipnn() -> Potential:
    os.environ.setdefault("HIPPYNN_USE_CUSTOM_KERNELS", "pytorch")
    from hippynn.layers.targets import HEnergy
    from hippynn.networks.hipnn import Hipnn

    pairs = Pairs()
    network = Hipnn(
        FEATURES,
        20,
        0.1,
        1.2,
        CUTOFF,
        n_atom_layers=3,
        n_interaction_layers=INTERACTIONS,
        n_input_features=N_BEADS,
    )
    readout = HEnergy(network.feature_sizes)

    def evaluate(positions: torch.Tensor) -> torch.Tensor:
        edges, kinds, batch = pairs(len(positions))
        points = positions.reshape(-1, 3)
        distance = (points[edges[0]] - points[edges[1]]).norm(dim=1)
        one_hot = torch.nn.functional.one_hot(kinds, N_BEADS).to(points)
        hidden = network(one_hot, edges[0], edges[1], distance)
        return readout(hidden, batch, len(positions))[0][:, 0]

    return Peer(torch.nn.ModuleList([network, readout]), evaluate)


def nequip() -> Potential:
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    default = torch.get_default_dtype()
    set_global_state()
    network = NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        r_max=CUTOFF,
        type_names=[f"bead{index}" for index in range(N_BEADS)],
        num_layers=INTERACTIONS,
        l_max=1,
        num_features=FEATURES,
        radial_mlp_width=FEATURES,
        avg_num_neighbors=N_BEADS - 1.0,
    )
    torch.set_default_dtype(default)
    pairs = Pairs()

    class Equivariant(Potential):
        """NequIP takes its own gradient."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.network = network

        def energy(self, positions: torch.Tensor, temperature: object = None, box: object = None) -> torch.Tensor:
            return self.evaluate(positions)[0]

        def evaluate(
            self, positions: torch.Tensor, temperature: object = None, box: object = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            self.network.train(torch.is_grad_enabled())
            edges, kinds, batch = pairs(len(positions))
            count = torch.full((len(positions),), N_BEADS)
            with torch.enable_grad():
                points = positions.detach().double().reshape(-1, 3)
                data = {"pos": points, "edge_index": edges, "atom_types": kinds, "batch": batch, "num_atoms": count}
                output = self.network(data)
            return output["total_energy"][:, 0], output["forces"].reshape(positions.shape)

    return Equivariant()


OURS = "cg_assets message passing, 32 features"
CONTENDERS: dict[str, Callable[[], Potential]] = {
    "cg_assets message passing, 64 features": lambda: ours(64),
    OURS: lambda: ours(32),
    "SchNet (torch_geometric), 50 Gaussians": schnet,
    "HIP-NN (hippynn), 20 sensitivities, 3 atom layers": hipnn,
    "NequIP l=1, parity (nequip), its radial network 64": nequip,
}
ENGINE = "torch-sim's Langevin dynamics of our 32 features"


def training_speed(module: Potential, seconds: float) -> float:
    """Training frames per CPU second."""
    positions, labels = frames(BATCH, 1), 100 * torch.randn(BATCH, N_BEADS, 3)
    module.requires_grad_(True)
    optimizer = torch.optim.Adam([value for value in module.parameters() if value.requires_grad], 1e-5)

    def step() -> None:
        _, forces = module.energy_and_forces(positions)
        loss = (forces - labels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    started, steps = time.process_time(), 0
    while time.process_time() - started < seconds:
        step()
        steps += 1
    return steps * BATCH / (time.process_time() - started)


def dynamics_speed(module: Potential, seconds: float) -> float:
    """Steps times replicas per CPU second."""
    module.requires_grad_(False)
    starts = frames(REPLICAS, 2).numpy()
    timestep = 1e-6  # untrained networks: nothing may move far

    def run(steps: int) -> float:
        settings = CGSimulation(
            replicas=REPLICAS,
            timestep=timestep,
            friction=1.0,
            duration=steps * timestep,
            frame_interval=steps * timestep,
        )
        started = time.process_time()
        simulate(module, starts, np.full(N_BEADS, 13.0), 2.494, settings, seed=0)
        return REPLICAS * steps / (time.process_time() - started)

    run(2)
    speed = run(5)
    return run(max(5, int(seconds * speed / REPLICAS)))


def engine_speed(module: Potential, seconds: float) -> float:
    """The same dynamics by torch-sim, an engine that brings no network of its own to train."""
    import torch_sim
    from torch_sim.integrators.nvt import nvt_langevin
    from torch_sim.models.interface import ModelInterface

    class Model(ModelInterface):
        _device, _dtype, _compute_stress, _compute_forces = torch.device("cpu"), torch.float32, False, True

        def forward(self, state: torch_sim.SimState, **_: object) -> dict[str, torch.Tensor]:
            energy, forces = module.energy_and_forces(state.positions.reshape(-1, N_BEADS, 3))
            return {"energy": energy, "forces": forces.reshape(-1, 3)}

    start = torch_sim.SimState(
        positions=frames(REPLICAS, 2).reshape(-1, 3),
        masses=torch.full((REPLICAS * N_BEADS,), 13.0),
        cell=100 * torch.eye(3).repeat(REPLICAS, 1, 1),
        pbc=False,
        atomic_numbers=torch.full((REPLICAS * N_BEADS,), 6),
        system_idx=torch.arange(REPLICAS).repeat_interleave(N_BEADS),
    )
    module.requires_grad_(False)
    begin, step = nvt_langevin(Model(), dt=torch.tensor(1e-6), kT=torch.tensor(2.494), gamma=torch.tensor(1.0), seed=0)
    with torch.no_grad():
        state = begin(start)
        started, steps = time.process_time(), 0
        while time.process_time() - started < seconds:
            state = step(state)
            steps += 1
    return steps * REPLICAS / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    modules, reasons = {}, {}
    for name, build in CONTENDERS.items():
        try:
            modules[name] = build()
        except ImportError as error:
            reasons[name] = str(error)
    measures = {"training frames/s": training_speed, "CG steps x replicas/s": dynamics_speed}
    results: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.repeats):
        for name, module in modules.items():
            for measure, function in measures.items():
                results.setdefault((name, measure), []).append(function(module, arguments.seconds))
        try:
            speed = engine_speed(modules[OURS], arguments.seconds)
            results.setdefault((ENGINE, "CG steps x replicas/s"), []).append(speed)
        except ImportError as error:
            reasons[ENGINE] = str(error)

    print(f"torch {torch.__version__}, one thread, {N_BEADS} beads, all pairs, {arguments.repeats} repeats\n")
    columns = ["potential", "weights", *(cell for name in measures for cell in (f"{name} (range)", "ours / theirs"))]
    print("| " + " | ".join(columns) + " |")
    print("|---|---|---|---|---|---|")
    for name in (*CONTENDERS, ENGINE):
        if name in reasons:
            print(f"| {name} | | not measured: {reasons[name]} | | | |")
            continue
        cells = [name, str(sum(value.numel() for value in modules.get(name, modules[OURS]).parameters()))]
        for measure in measures:
            values = results.get((name, measure))
            if values is None:
                cells += ["", ""]
                continue
            median = statistics.median(values)
            cells.append(f"{median:,.0f} ({min(values):,.0f}-{max(values):,.0f})")
            base = OURS if name == ENGINE else next(iter(modules))
            cells.append(f"{statistics.median(results[base, measure]) / median:.2f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
