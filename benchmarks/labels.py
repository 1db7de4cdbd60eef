"""Force labels of a flow kernel per second: the adjoint equation against differentiating through the inverse flow.

All take the same velocity field, the same fourth-order steps and the same perturbed configurations, and must give the
same labels. The peers differ in how they get the divergence: from the closed form of the field, or by one reverse sweep
for each coordinate, as the code published with arXiv 2506.19628 does for any network.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cg_assets.kernels.flow_network import build_flow, carry

NOISE, STEPS, HIDDEN, REPEATS = 0.007, 4, 128, 5
FRAMES = {10: 256, 20: 128, 40: 64, 60: 32}
"""Frames in a batch for each number of beads."""


def by_adjoint(flow: Any, clean: Tensor, noise: Tensor) -> Tensor:
    """This project's way: configuration and label together."""
    return carry(flow, clean + NOISE * noise, -noise[None] / NOISE, STEPS)[1][0]


def through_inverse(divergence: Callable[[Any, float, Tensor], Tensor]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """Carry the configuration forward, then differentiate its log density through the inverse flow."""

    def labels(flow: Any, clean: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            end = integrate(lambda t, y: (flow(t, y), None), clean + NOISE * noise, 1.0)[0]
        end.requires_grad_(True)
        start, change = integrate(lambda t, y: (flow(t, y), divergence(flow, t, y)), end, -1.0)
        log_density = change - (start - clean).square().sum(dim=(1, 2)) / (2 * NOISE**2)
        return torch.autograd.grad(log_density.sum(), end)[0]

    return labels


def integrate(rates: Callable[[float, Tensor], tuple[Tensor, Any]], state: Tensor, sign: float) -> tuple[Tensor, Any]:
    """Runge-Kutta steps of a configuration and of the integral that goes with it."""
    width, at, total = sign / STEPS, 0.0 if sign > 0 else 1.0, 0.0
    for _ in range(STEPS):
        found = [rates(at, state)]
        for part in (0.5, 0.5, 1.0):
            found.append(rates(at + part * width, state + part * width * found[-1][0]))
        weighted = list(zip((1 / 6, 1 / 3, 1 / 3, 1 / 6), found, strict=True))
        state = state + width * sum(weight * velocity for weight, (velocity, _) in weighted)
        if found[0][1] is not None:
            total = total + width * sum(weight * rate for weight, (_, rate) in weighted)
        at += width
    return state, total


def in_closed_form(flow: Any, at: float, place: Tensor) -> Tensor:
    """The divergence that the field knows."""
    return flow.divergence(at, place)


def by_sweeps(flow: Any, at: float, place: Tensor) -> Tensor:
    """The divergence from one reverse sweep for each coordinate."""
    velocity = flow(at, place).flatten(1)
    total = torch.zeros(len(place))
    for column in range(velocity.shape[1]):
        (row,) = torch.autograd.grad(velocity[:, column].sum(), place, create_graph=True)
        total = total + row.flatten(1)[:, column]
    return total


METHODS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "cg_assets: adjoint equation": by_adjoint,
    "through the inverse, divergence in closed form": through_inverse(in_closed_form),
    "through the inverse, divergence by sweeps": through_inverse(by_sweeps),
}


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| beads | method | labels/s | ours / theirs | largest difference from ours |")
    print("|---|---|---|---|---|")
    for beads, frames in FRAMES.items():
        generator = torch.Generator().manual_seed(0)
        flow = build_flow({"type": "distances", "n_beads": beads, "noise": NOISE, "hidden": HIDDEN}, generator)
        chain = 0.38 * torch.randn(1, beads, 3, generator=generator).cumsum(dim=1)
        clean = chain + 0.02 * torch.randn(frames, beads, 3, generator=generator)
        flow.fit_statistics(clean)
        flow.requires_grad_(False)
        noise = torch.randn(clean.shape, generator=generator)
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        labels: dict[str, Tensor] = {}
        for repeat in range(REPEATS + 1):  # the first one warms up
            for name, method in METHODS.items():
                if repeat > 1 and name.endswith("sweeps") and beads > 20:
                    continue  # minutes
                started = time.perf_counter()
                labels[name] = method(flow, clean, noise)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
        ours = next(iter(METHODS))
        for name, times in seconds.items():
            rates = sorted(frames / item for item in times)
            middle = statistics.median(rates)
            ratio = statistics.median(times) / statistics.median(seconds[ours])
            difference = float((labels[name] - labels[ours]).norm() / labels[ours].norm())
            spread = f"{middle:.0f} ({rates[0]:.0f}-{rates[-1]:.0f})" if len(rates) > 1 else f"{middle:.2f}"
            print(f"| {beads} | {name} | {spread} | {ratio:.2f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
