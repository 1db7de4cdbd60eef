"""The velocity field of a flow kernel, and labels from the flow it drives.

This file is self-contained: it imports nothing but torch and the standard library, so that it can travel inside a
stored kernel and run where this package is not installed.

A noised configuration z = R + noise * xi is carried to R' by dy/dt = v(t, y), t from 0 to 1. The field is learned by
flow matching, v(t, y) = E[-noise * xi | y] with y = R + (1 - t) noise * xi, so that R' has the distribution of the data
(arXiv 2506.19628): it is the probability-flow equation of a diffusion, and takes the noise out again without pointing
back at the configuration that it started from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Required, TypedDict

import torch
from torch import Tensor

SOFT_LIMIT = 5.0
"""Number of standard deviations at which a standardised input saturates."""
RESIDUAL_NOISE = 0.07
"""Noise that is left in the data during flow matching, as a part of `noise`: it keeps the field smooth at t = 1."""
TIME_FEATURES = 3


class FlowConfig(TypedDict, total=False):
    """What a velocity field is built from, as plain JSON in its file, with facts for its users."""

    type: Required[str]
    """`distances` (beads in space), or `coordinates` (those of a model potential)."""
    n_beads: int
    noise: float
    """Standard deviation of the noise on each Cartesian component [nm or reduced]."""
    hidden: int
    """Number of hidden units."""
    thermal_energy: float
    """k_B T of the configurations [kJ/mol or reduced]."""
    temperature: float
    temperatures: list[float]
    """Those of the configurations, rising, where they are several: the field depends on them."""
    units: str
    system: str
    bead_names: list[str]
    bonds: list[list[int]]


def build_flow(config: FlowConfig, generator: torch.Generator | None = None) -> DistanceFlow | CoordinateFlow:
    """Build a velocity field from its config, with initial weights from `generator` (seed 0 where None).

    Args:
        config: `type`, `n_beads`, `noise` and `hidden`; further keys are ignored.
        generator: source of the initial weights.

    Raises:
        ValueError: a key is missing or out of range.
    """
    generator = generator or torch.Generator().manual_seed(0)
    noise = config.get("noise")
    if not isinstance(noise, int | float) or not 0 < noise < math.inf:
        raise ValueError(f"noise is {noise!r}; give the standard deviation of the noise as a positive number")
    if config.get("type") not in FLOWS:
        raise ValueError(f"type is {config.get('type')!r}; it must be one of {', '.join(FLOWS)}")
    arguments = int(config["n_beads"]), float(noise), int(config["hidden"]), generator
    one = [config["temperature"]] if "temperature" in config else []
    temperatures = config.get("temperatures", one)
    return FLOWS[config["type"]](*arguments, temperatures)


def at_temperature(flow: DistanceFlow | CoordinateFlow, temperature: float) -> DistanceFlow | CoordinateFlow:
    """The flow of the configurations at one of the temperatures of a flow [K or reduced].

    Raises:
        ValueError: it has not learned from configurations at this temperature.
    """
    known = flow.layers.temperatures
    if known and temperature not in known:
        raise ValueError(
            f"the flow was trained at temperature {', '.join(f'{item:g}' for item in known)} and is used at "
            f"{temperature:g}; train it again"
        )
    if len(known) < 2:
        return flow
    own = copy.deepcopy(flow)
    own.layers = flow.layers.at_temperature(temperature)
    return own


def carry(flow: DistanceFlow | CoordinateFlow, positions: Tensor, scores: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Carry noised configurations along the flow, and scores with them.

    A score a at z, the gradient of a log density there, becomes F = M a + b at R' = f(z), with M the inverse transpose
    of the Jacobian of f and b the gradient of the log determinant: the adjoint equation
    da/dt = -(dv/dy)^T a - grad div v, integrated with the configuration. The flow is never inverted. Differences of
    scores obey it without the last term.

    Args:
        flow: the velocity field.
        positions: `(f, n, d)` noised configurations z.
        scores: `(k, f, n, d)` scores at z [1 / length], at least one.
        steps: steps of fourth order (Runge-Kutta).

    Returns:
        R' `(f, n, d)`, and the scores there `(k, f, n, d)`.
    """
    state = [positions, scores[0], *(scores[1:] - scores[0])]
    width = 1.0 / steps
    for step in range(steps):
        start = step * width
        first = _rates(flow, start, state)
        second = _rates(flow, start + width / 2, _moved(state, first, width / 2))
        third = _rates(flow, start + width / 2, _moved(state, second, width / 2))
        fourth = _rates(flow, start + width, _moved(state, third, width))
        rates = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(first, second, third, fourth, strict=True)]
        state = _moved(state, rates, width)
    place, main, *differences = state
    return place, torch.stack([main, *(main + difference for difference in differences)])


def _moved(state: list[Tensor], rates: list[Tensor], width: float) -> list[Tensor]:
    return [value + width * rate for value, rate in zip(state, rates, strict=True)]


def _rates(flow: DistanceFlow | CoordinateFlow, time: float, state: list[Tensor]) -> list[Tensor]:
    """Time derivatives of the configuration, of one score, and of the differences of others to it."""
    place, main, *differences = state
    velocity, pulled = flow.velocity_and_adjoint(time, place, main, differences)
    return [velocity, *(-rate for rate in pulled)]


def _normal(generator: torch.Generator, *shape: int, gain: float = 1.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(*shape, generator=generator) * (gain / math.sqrt(shape[-1])))


def _standard_logarithms(temperatures: Sequence[float]) -> Tensor:
    """Logarithms of temperatures `(n,)` with mean 0 and standard deviation 1; empty for fewer than two."""
    if len(temperatures) < 2:
        return torch.zeros(0)
    logarithms = torch.tensor(temperatures, dtype=torch.float64).log()
    return ((logarithms - logarithms.mean()) / logarithms.std(correction=0)).float()


class _Expansion(NamedTuple):
    """Components of a velocity and what their derivatives are made of.

    Attributes:
        components: `(p, f)` components.
        slope: `(p, f)` derivatives of the standardised coordinates by the coordinates.
        bend: `(p, f)` their second derivatives.
        gain: `(h, f)` derivatives of the hidden units by what goes into them.
        curvature: `(h, f)` their second derivatives.
        line: `(p, f)` derivatives of the components by the standardised coordinates, past the hidden units.
    """

    components: Tensor
    slope: Tensor
    bend: Tensor
    gain: Tensor
    curvature: Tensor
    line: Tensor


class _Layers(torch.nn.Module):
    """From p internal coordinates and the time to p components: one hidden layer, gated by the time, and a line.

    Coordinates are standardised by the spread that they have at time t, that of the data and of the noise which is
    still there, and saturate at five standard deviations. One hidden layer keeps the exact divergence as cheap as the
    field itself; a second one did not lower the loss.

    At several temperatures the data of each have a mean and a spread of their own, and whatever depends on the time is
    linear in the logarithm of the temperature: at one of them this is a network of one temperature again.
    """

    mean: Tensor
    deviation: Tensor
    heat: Tensor

    def __init__(
        self,
        count: int,
        noise: float,
        hidden: int,
        sensitivity: float,
        generator: torch.Generator,
        temperatures: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.noise, self.sensitivity = noise, sensitivity
        self.temperatures = tuple(temperatures)
        several = (len(temperatures),) if len(temperatures) > 1 else ()
        features = TIME_FEATURES * (2 if several else 1)
        self.register_buffer("mean", torch.zeros(count, *several))
        self.register_buffer("deviation", torch.ones(count, *several))
        self.register_buffer("heat", _standard_logarithms(temperatures), persistent=False)
        self.inner = _normal(generator, hidden, count)
        self.inner_time = _normal(generator, hidden, features)
        self.gate = _normal(generator, hidden, features, gain=0.5)
        self.outer = _normal(generator, count, hidden, gain=0.1)
        self.line = torch.nn.Parameter(torch.zeros(count, features))
        self.offset = torch.nn.Parameter(torch.zeros(count, features))

    @torch.no_grad()
    def fit_statistics(self, values: Tensor, rung: Tensor | None) -> None:
        """Mean and standard deviation of internal coordinates `(p, f)`, of each temperature by itself."""
        for number, (mean, deviation) in enumerate(zip(*self._by_temperature(), strict=True)):
            own = values if rung is None else values[:, rung == number]
            mean.copy_(own.mean(dim=1))
            deviation.copy_(own.std(dim=1))

    @torch.no_grad()
    def at_temperature(self, temperature: float) -> _Layers:
        """The network at one of its temperatures."""
        number = self.temperatures.index(temperature)
        count, hidden = self.outer.shape
        own = _Layers(count, self.noise, hidden, self.sensitivity, torch.Generator())
        own.mean, own.deviation = (values[number].clone() for values in self._by_temperature())
        own.inner, own.outer = (torch.nn.Parameter(weights.clone()) for weights in (self.inner, self.outer))
        for name in ("inner_time", "gate", "line", "offset"):
            constant, slope = getattr(self, name).split(TIME_FEATURES, dim=1)
            setattr(own, name, torch.nn.Parameter(constant + self.heat[number] * slope))
        return own.requires_grad_(False)

    def _by_temperature(self) -> tuple[Tensor, Tensor]:
        """Means and deviations `(n_temperatures, p)`, which share their memory with the buffers."""
        return self.mean.view(len(self.mean), -1).T, self.deviation.view(len(self.mean), -1).T

    def at(self, time: Tensor | float, values: Tensor, rung: Tensor | None = None) -> _Expansion:
        """Components at internal coordinates `(p, f)` and times `(f,)` or one time, with derivatives.

        Where there are several temperatures, `rung` `(f,)` gives the number of that of each frame.
        """
        time = torch.as_tensor(time).to(values).expand(values.shape[1])
        mean, deviation = (item[:, None] if rung is None else item[:, rung] for item in (self.mean, self.deviation))
        left = (1.0 - time).square() + RESIDUAL_NOISE**2
        spread = (deviation.square() + (self.sensitivity * self.noise**2) * left).sqrt()
        standard = (values - mean) / spread
        soft = torch.rsqrt(1.0 + (standard / SOFT_LIMIT).square())
        standard, slope = standard * soft, soft * soft * soft / spread
        bend = (-3.0 / SOFT_LIMIT**2) * standard * soft * slope / spread

        middle = 2.0 * time - 1.0
        features = torch.stack([torch.ones_like(time), middle, middle.square()])
        if rung is not None:
            features = torch.cat([features, self.heat[rung] * features])
        hidden = self.inner @ standard + self.inner_time @ features
        gate = torch.sigmoid(hidden)
        value = hidden * gate
        scale = self.noise * (1.0 + self.gate @ features)
        line = self.noise * (self.line @ features)
        components = self.outer @ (scale * value) + line * standard + self.noise * (self.offset @ features)
        gain = scale * (gate * (1.0 + hidden - value))
        curvature = scale * (gate * (1.0 - gate) * (2.0 + hidden - 2.0 * value))
        return _Expansion(components, slope, bend, gain, curvature, line)

    def back(self, gain: Tensor, line: Tensor, cotangent: Tensor) -> Tensor:
        """Cotangents of components `(p, f)` brought back to the standardised coordinates."""
        return self.inner.T @ (gain * (self.outer.T @ cotangent)) + line * cotangent


class CoordinateFlow(torch.nn.Module):
    """A flow of the coordinates of a model potential, each of them a bead in one dimension."""

    def __init__(
        self, n_beads: int, noise: float, hidden: int, generator: torch.Generator, temperatures: Sequence[float] = ()
    ) -> None:
        """See `build_flow`."""
        super().__init__()
        self.noise = noise
        self.layers = _Layers(n_beads, noise, hidden, 1.0, generator, temperatures)

    def fit_statistics(self, positions: Tensor, rung: Tensor | None = None) -> None:
        """Mean and standard deviation of training positions `(f, n, 1)`; `rung` as in `forward`."""
        self.layers.fit_statistics(positions[:, :, 0].T, rung)

    def forward(self, time: Tensor | float, positions: Tensor, rung: Tensor | None = None) -> Tensor:
        """Velocity `(f, n, 1)` at positions `(f, n, 1)` and times `(f,)` or one time.

        A flow of several temperatures needs the number `rung` `(f,)` of that of each frame.
        """
        return self.layers.at(time, positions[:, :, 0].T, rung).components.T[:, :, None]

    def divergence(self, time: Tensor | float, positions: Tensor) -> Tensor:
        """Exact divergence `(f,)` of the velocity."""
        _, slope, _, gain, _, line = self.layers.at(time, positions[:, :, 0].T)
        return (gain * (self._through() @ slope)).sum(dim=0) + (line * slope).sum(dim=0)

    @torch.no_grad()
    def velocity_and_adjoint(
        self, time: Tensor | float, positions: Tensor, score: Tensor, differences: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Velocity, then grad(v . score + div v), then grad(v . difference) of each, all `(f, n, 1)`."""
        components, slope, bend, gain, curvature, line = self.layers.at(time, positions[:, :, 0].T)
        through = self._through()
        of_divergence = slope * (self.layers.inner.T @ (curvature * (through @ slope)))
        of_divergence = of_divergence + bend * (through.T @ gain + line)
        pulled = [slope * self.layers.back(gain, line, one[:, :, 0].T) for one in (score, *differences)]
        pulled[0] = pulled[0] + of_divergence
        return components.T[:, :, None], [one.T[:, :, None] for one in pulled]

    def _through(self) -> Tensor:
        """`(h, p)`: what a hidden unit takes in from a coordinate, times what it does to it."""
        return self.layers.inner * self.layers.outer.T


class DistanceFlow(torch.nn.Module):
    """A flow of beads that commutes with rotations, reflections and translations.

    The velocity of bead i is sum_j phi_ij e_ij over all other beads, e_ij being the unit vector from j to i and
    phi_ij = phi_ji a function of all distances. It has no net velocity.
    """

    first_bead: Tensor
    second_bead: Tensor
    pair_of: Tensor
    signs: Tensor

    def __init__(
        self, n_beads: int, noise: float, hidden: int, generator: torch.Generator, temperatures: Sequence[float] = ()
    ) -> None:
        """See `build_flow`."""
        super().__init__()
        if n_beads < 2:
            raise ValueError(f"n_beads is {n_beads}; distances need at least 2 beads")
        self.noise, self.n_beads = noise, n_beads
        first, second = torch.triu_indices(n_beads, n_beads, offset=1)
        self.register_buffer("first_bead", first, persistent=False)
        self.register_buffer("second_bead", second, persistent=False)
        pair_of = torch.zeros(n_beads, n_beads, dtype=torch.long)
        pair_of[first, second] = pair_of[second, first] = torch.arange(len(first))
        self.register_buffer("pair_of", pair_of, persistent=False)
        square = torch.ones(n_beads, n_beads)
        self.register_buffer("signs", square.triu(1) - square.tril(-1), persistent=False)
        self.layers = _Layers(len(first), noise, hidden, 2.0, generator, temperatures)

    def fit_statistics(self, positions: Tensor, rung: Tensor | None = None) -> None:
        """Mean and standard deviation of the distances in training positions `(f, n, 3)`; `rung` as in `forward`."""
        self.layers.fit_statistics(self._distances(positions)[1].double(), rung)

    def forward(self, time: Tensor | float, positions: Tensor, rung: Tensor | None = None) -> Tensor:
        """Velocity `(f, n, 3)` at positions `(f, n, 3)` and times `(f,)` or one time.

        A flow of several temperatures needs the number `rung` `(f,)` of that of each frame.
        """
        unit, distance = self._distances(positions)
        return self._to_beads(self.layers.at(time, distance, rung).components[:, None] * unit)

    def divergence(self, time: Tensor | float, positions: Tensor) -> Tensor:
        """Exact divergence `(f,)` of the velocity.

        With distances d, Wilson's matrix G = dd/dy and one hidden layer, tr(G^T dphi/dd G) is a sum over hidden units
        of products of two `(n, 3)` matrices: what each unit takes in from a moved bead, and what it does to it.
        """
        unit, distance = self._distances(positions)
        components, slope, _, gain, _, line = self.layers.at(time, distance)
        taken, given = self._through(slope, unit)
        return (
            (gain * (taken * given).sum(dim=(0, 2))).sum(dim=0)
            + 2.0 * (line * slope).sum(dim=0)
            + (4.0 * components / distance).sum(dim=0)
        )

    @torch.no_grad()
    def velocity_and_adjoint(
        self, time: Tensor | float, positions: Tensor, score: Tensor, differences: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Velocity, then grad(v . score + div v), then grad(v . difference) of each, all `(f, n, 3)`."""
        unit, distance = self._distances(positions)
        components, slope, bend, gain, curvature, line = self.layers.at(time, distance)
        taken, given = self._through(slope, unit)
        through = (taken * given).sum(dim=(0, 2))
        by_inner = self._per_pair(self.layers.inner.T, given.mul_(gain[:, None]))
        by_outer = self._per_pair(self.layers.outer, taken.mul_(gain[:, None]))
        along = slope * (self.layers.inner.T @ (curvature * through))
        along = along + bend * (2.0 * line + (unit * by_inner).sum(dim=1)) - 4.0 * components / distance.square()
        turning = slope[:, None] * by_inner + by_outer
        pulled = []
        for number, one in enumerate((score, *differences)):
            rows = one.permute(1, 2, 0)
            apart = rows.index_select(0, self.first_bead) - rows.index_select(0, self.second_bead)
            cotangent = (unit * apart).sum(dim=1)
            turn = components[:, None] * apart
            if not number:
                cotangent, turn = cotangent + 4.0 / distance, turn + turning
            pull = slope * self.layers.back(gain, line, cotangent)
            if not number:
                pull = pull + along
            turn = (turn - unit * (unit * turn).sum(dim=1, keepdim=True)) / distance[:, None]
            pulled.append(self._to_beads(pull[:, None] * unit + turn))
        return self._to_beads(components[:, None] * unit), pulled

    def _distances(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors `(p, 3, f)` and distances `(p, f)` of all pairs."""
        if positions.ndim != 3 or positions.shape[1:] != (self.n_beads, 3):
            raise ValueError(f"positions have shape {tuple(positions.shape)}; this flow has {self.n_beads} beads")
        rows = positions.permute(1, 2, 0)
        difference = rows.index_select(0, self.first_bead) - rows.index_select(0, self.second_bead)
        distance = difference.square().sum(dim=1).sqrt()
        return difference / distance[:, None], distance

    def _through(self, slope: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """What hidden units take in from a moved bead, and what they do to it, both `(n, h, 3, f)`."""
        return self._per_bead(self.layers.inner.T, slope[:, None] * unit), self._per_bead(self.layers.outer, unit)

    def _to_beads(self, push: Tensor) -> Tensor:
        """Vectors `(p, 3, f)` that push the first bead of a pair forth and the second back, to `(f, n, 3)`."""
        rows = torch.zeros_like(push[:1]).repeat(self.n_beads, 1, 1)
        rows = rows.index_add(0, self.first_bead, push).index_add(0, self.second_bead, -push)
        return rows.permute(2, 0, 1)

    def _per_bead(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """Weights `(p, h)` times vectors `(p, 3, f)`, summed over the pairs of each bead: `(n, h, 3, f)`."""
        frames = vectors.shape[-1]
        square = weights[self.pair_of] * self.signs[..., None]  # (n, n, h), zero on the diagonal
        summed = torch.bmm(square.transpose(1, 2), vectors[self.pair_of].reshape(self.n_beads, self.n_beads, -1))
        return summed.reshape(self.n_beads, -1, 3, frames)

    def _per_pair(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Transpose of `_per_bead`: `(n, h, 3, f)` to `(p, 3, f)`."""
        frames = rows.shape[-1]
        square = weights[self.pair_of] * self.signs[..., None]
        spread = torch.bmm(square, rows.reshape(self.n_beads, rows.shape[1], -1))
        spread = spread.reshape(self.n_beads, self.n_beads, 3, frames)
        return spread[self.first_bead, self.second_bead] + spread[self.second_bead, self.first_bead]


FLOWS: dict[Any, type[DistanceFlow] | type[CoordinateFlow]] = {"coordinates": CoordinateFlow, "distances": DistanceFlow}
"""Velocity fields by the `type` of their config."""
