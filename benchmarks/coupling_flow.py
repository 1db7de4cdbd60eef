"""The flow kernel and a conditional coupling flow of zuko, trained on the same configurations to perturb alike.

Reads capped alanine from a home where `capped_alanine_kernels` was sampled (`cg-assets run capped_alanine_kernels
--select relabelled_forces`). Both kernels take a noised configuration c = R + noise ξ and give R' that should be
distributed like R at given c, and a label kT ∇ log κ(R'|c). Ours is a flow that depends on c only through its start;
the coupling flow learns log κ by maximum likelihood. It is helped as far as it can be: centres are removed, coordinates
are those of a frame fixed to three beads of c, so that it is equivariant, and all bead distances of c are its context.

Four fifths of each replica are learnt from, the last fifth is the test. Times are CPU times of one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import time

import numpy as np
import torch
from torch import Tensor

SYSTEM, STAGE = "capped_alanine_kernels", "relabelled_forces"
FRAME = (4, 1, 5)
"""Beads that fix the frame: CA in its origin, the carbonyl carbons before and after it."""


class CouplingKernel(torch.nn.Module):
    """κ(R'|c): an affine coupling flow in a frame that is fixed to c, without the centre."""

    def __init__(self, clean: Tensor, noise: float, transforms: int, hidden: int) -> None:
        """Statistics of the context come from the configurations `(n_frames, n_beads, 3)` [nm]."""
        import zuko

        super().__init__()
        n_beads = clean.shape[1]
        self.noise = noise
        self.first, self.second = np.triu_indices(n_beads, 1)
        # An orthonormal basis of displacements without a centre.
        basis = torch.linalg.qr(torch.cat([torch.ones(n_beads, 1), torch.eye(n_beads)[:, 1:]], dim=1))[0][:, 1:]
        self.register_buffer("basis", basis)
        size = 3 * (n_beads - 1)
        self.register_buffer("mean", torch.zeros(len(self.first) + size))
        self.register_buffer("scale", torch.ones(len(self.first) + size))
        context = self.context(clean + noise * torch.randn_like(clean))[0]
        self.mean, self.scale = context.mean(0), context.std(0)
        self.flow = zuko.flows.NICE(
            size, context=context.shape[1], transforms=transforms, hidden_features=(hidden, hidden), randmask=True,
            activation=torch.nn.SiLU,
        )  # fmt: skip

    def context(self, noised: Tensor) -> tuple[Tensor, Tensor]:
        """The context from c, standardised, and the rotation into its frame `(n_frames, 3, 3)`."""
        origin, before, after = (noised[:, bead] for bead in FRAME)
        one = torch.nn.functional.normalize(before - origin, dim=1)
        two = after - origin
        two = torch.nn.functional.normalize(two - (two * one).sum(1, keepdim=True) * one, dim=1)
        rotation = torch.stack([one, two, torch.linalg.cross(one, two)], dim=2)
        distances = (noised[:, self.first] - noised[:, self.second]).norm(dim=2)
        told = torch.cat([distances, self.inward(noised, rotation)], dim=1)
        return (told - self.mean) / self.scale, rotation

    def inward(self, vectors: Tensor, rotation: Tensor) -> Tensor:
        """Vectors of the beads in the frame, without their mean `(n_frames, 3 (n_beads - 1))`."""
        return torch.einsum("fbi,fij,bk->fkj", vectors, rotation, self.basis).flatten(1)

    def outward(self, values: Tensor, rotation: Tensor) -> Tensor:
        """The way back, `(n_frames, n_beads, 3)`."""
        return torch.einsum("fkj,fij,bk->fbi", values.unflatten(1, (-1, 3)), rotation, self.basis)

    def loss(self, clean: Tensor) -> Tensor:
        """Negative log likelihood of the clean configurations at noised ones."""
        noise = torch.randn_like(clean)
        context, rotation = self.context(clean + self.noise * noise)
        return -self.flow(context).log_prob(self.inward(-noise, rotation)).mean()

    def perturb(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """R' and ∇ log κ(R'|c) [1/nm]."""
        noised = clean + self.noise * torch.randn_like(clean)
        with torch.no_grad():
            context, rotation = self.context(noised)
            density = self.flow(context)
            drawn = density.sample()
        drawn.requires_grad_(True)
        (slope,) = torch.autograd.grad(density.log_prob(drawn).sum(), drawn)
        with torch.no_grad():
            moved = self.outward(drawn, rotation)
            return noised - noised.mean(1, keepdim=True) + self.noise * moved, self.outward(
                slope, rotation
            ) / self.noise


def train_coupling(clean: Tensor, noise: float, transforms: int, hidden: int, epochs: int) -> CouplingKernel:
    """Maximum likelihood with Adam, the rate falling to nothing."""
    torch.manual_seed(0)
    kernel = CouplingKernel(clean, noise, transforms, hidden)
    optimiser = torch.optim.AdamW(kernel.parameters(), lr=1e-3)
    batches = math.ceil(len(clean) / 512)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(clean)).split(512):
            optimiser.zero_grad()
            loss = kernel.loss(clean[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(kernel.parameters(), 10.0)
            optimiser.step()
            falling.step()
    return kernel.eval().requires_grad_(False)


def main() -> None:
    """Train and test all kernels; print the table."""
    from cg_assets.core.statistics.local_geometry import local_geometry
    from cg_assets.core.statistics.stein import stein_test
    from cg_assets.labels.kernels.flow_training import train_flow
    from cg_assets.labels.kernels.kernel import centred, perturb
    from cg_assets.labels.kernels.run import flow_config
    from cg_assets.settings import installation
    from cg_assets.storage.store import ParquetStore
    from cg_assets.systems import load_system
    from cg_assets.training.data import correlated_groups

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="of the coupling flows")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    system = load_system(SYSTEM)
    settings, thermal_energy, cg_map = system.labels["flow"], system.thermal_energy, system.beads().cg_map
    frames = ParquetStore(installation().home).read_frames(SYSTEM, STAGE)
    late = frames.time > np.quantile(frames.time, 0.8)
    learnt, judged = frames.select(~late), frames.select(late)
    clean = torch.as_tensor(centred(learnt.positions)).float()
    print(f"{len(learnt)} configurations to learn from, {len(judged)} to test with", flush=True)
    print("| kernel | weights | training [CPU s] | largest JSD of bonds | of 1-3 distances | ", end="")
    print("mean square of a label | Stein, largest z | labels per CPU second |")
    print("|---|---|---|---|---|---|---|---|", flush=True)

    def row(name: str, module: torch.nn.Module, training: float, draw) -> None:
        started = time.process_time()
        positions, labels = draw()
        rate = len(positions) / (time.process_time() - started)
        geometry = local_geometry(positions, judged.positions, cg_map.bonds, cg_map.bead_names)
        stein = stein_test(positions, labels, thermal_energy, 0)
        print(
            f"| {name} | {sum(weight.numel() for weight in module.parameters()):,} | {training:.0f} | "
            f"{geometry.largest('bond'):.4f} | {geometry.largest('1-3 distance'):.4f} | "
            f"{(labels.astype(np.float64) ** 2).mean():,.0f} | {stein.largest:.1f} | {rate:,.0f} |",
            flush=True,
        )

    started = time.process_time()
    flow = train_flow(
        flow_config(system.beads(), settings.noise, settings.hidden, learnt.temperature),
        settings.training,
        learnt.positions,
        correlated_groups([learnt]),
        0,
    ).module
    training = time.process_time() - started
    for kind in ("clean", "noised"):

        def ours(kind: str = kind) -> tuple[np.ndarray, np.ndarray]:
            done = perturb(judged.positions, settings.noise, thermal_energy, 1, flow=flow)
            return done.positions, done.labels[kind]

        row(f"cg_assets, `{kind}`", flow, training, ours)
    for transforms, hidden in ((6, 128), (12, 256)):
        started = time.process_time()
        kernel = train_coupling(clean, settings.noise, transforms, hidden, epochs)
        training = time.process_time() - started

        def theirs(kernel: CouplingKernel = kernel) -> tuple[np.ndarray, np.ndarray]:
            torch.manual_seed(1)
            parts = torch.as_tensor(centred(judged.positions)).float().split(2048)
            positions, scores = (torch.cat(items).numpy() for items in zip(*map(kernel.perturb, parts), strict=True))
            return positions, scores * thermal_energy

        row(f"zuko, {transforms} affine couplings of {hidden}", kernel, training, theirs)


if __name__ == "__main__":
    main()
