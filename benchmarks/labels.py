"""Force labels of a flow kernel per second: the adjoint equation against differentiating through the inverse flow.

All take the same velocity field, the same fourth-order steps and the same perturbed configurations, and must give the
same labels. The peers differ in how they get the divergence: from the closed form of the field, or by one reverse sweep
for each coordinate, as the code published with arXiv 2506.19628 does for any network.

Where zuko is installed, a conditional coupling flow of it draws configurations and differentiates its log density. That
is another density, neither equivariant nor trained here: its row is for the speed alone.

Times are CPU times of one thread. `python benchmarks/labels.py FILE.png` also draws labels per second over beads.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cg_assets.labels.kernels.flow_network import build_flow, carry

NOISE, STEPS, HIDDEN, REPEATS = 0.007, 4, 128, 5
FRAMES = {10: 256, 20: 128, 40: 64, 60: 32}
"""Frames in a batch for each number of beads."""
FRAMES_BY_SWEEPS, REPEATS_BY_SWEEPS = {10: 256, 20: 64, 40: 16, 60: 8}, 2
"""The same for sweeps, which take a hundred times as long: the first of the frames, and fewer repeats."""


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
    """The field's own divergence."""
    return flow.divergence(at, place)


def by_sweeps(flow: Any, at: float, place: Tensor) -> Tensor:
    """The divergence from one reverse sweep for each coordinate."""
    velocity = flow(at, place).flatten(1)
    total = torch.zeros(len(place))
    for column in range(velocity.shape[1]):
        (row,) = torch.autograd.grad(velocity[:, column].sum(), place, create_graph=True)
        total = total + row.flatten(1)[:, column]
    return total


class ByCoupling:
    """Labels of a conditional coupling flow: R' drawn from q(R'|R), and the gradient of log q."""

    def __init__(self) -> None:
        """Flows are made when their number of beads is known."""
        self.flows: dict[int, Any] = {}

    def __call__(self, flow: Any, clean: Tensor, noise: Tensor) -> Tensor:
        """Labels of the shape of the configurations; the velocity field is not used."""
        import zuko

        condition = clean.flatten(1)
        size = condition.shape[1]
        if size not in self.flows:
            coupling = zuko.flows.NICE(size, context=size, transforms=6, hidden_features=(HIDDEN, HIDDEN))
            self.flows[size] = coupling.requires_grad_(False)
        density = self.flows[size](condition)
        with torch.no_grad():
            place = density.sample()
        place.requires_grad_(True)
        (label,) = torch.autograd.grad(density.log_prob(place).sum(), place)
        return label.reshape(clean.shape)


METHODS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "cg_assets: adjoint equation": by_adjoint,
    "through the inverse, divergence in closed form": through_inverse(in_closed_form),
    (SWEEPS := "through the inverse, divergence by sweeps"): through_inverse(by_sweeps),
}
COUPLING = "zuko: conditional coupling flow (another density)"


def draw(rates: dict[str, dict[int, float]], path: str) -> None:
    """Labels per second of each method over the number of beads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    for name, line in rates.items():
        axes.plot(list(line), list(line.values()), marker="o", label=name)
    axes.set(xlabel="beads", ylabel="labels per CPU second", xscale="log", yscale="log")
    axes.set_xticks(list(FRAMES), [str(beads) for beads in FRAMES], minor=False)
    axes.minorticks_off()
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table, and draw it where a file is named."""
    torch.set_num_threads(1)
    if importlib.util.find_spec("zuko") is not None:
        METHODS[COUPLING] = ByCoupling()
    curves: dict[str, dict[int, float]] = {}
    print("| beads | method | labels per CPU second | ours / theirs | largest difference from ours |")
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
                if name == SWEEPS and repeat > REPEATS_BY_SWEEPS:
                    continue
                count = FRAMES_BY_SWEEPS[beads] if name == SWEEPS else frames
                started = time.process_time()
                labels[name] = method(flow, clean[:count], noise[:count])
                if repeat:
                    seconds[name].append((time.process_time() - started) / count)
        ours = next(iter(METHODS))
        for name, times in seconds.items():
            rates = sorted(1.0 / item for item in times)
            middle = statistics.median(rates)
            ratio = statistics.median(times) / statistics.median(seconds[ours])
            same = labels[ours][: len(labels[name])]
            difference = f"{float((labels[name] - same).norm() / same.norm()):.1e}"
            if name == COUPLING:
                difference = "another density"
            curves.setdefault(name, {})[beads] = middle
            digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
            spread = f"{middle:.{digits}f} ({rates[0]:.{digits}f}-{rates[-1]:.{digits}f})"
            print(f"| {beads} | {name} | {spread} | {ratio:.3g} | {difference} |", flush=True)
    if len(sys.argv) > 1:
        draw(curves, sys.argv[1])


if __name__ == "__main__":
    main()
