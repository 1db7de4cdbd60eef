"""Many-body potential of beads by message passing over bead distances."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from cg_assets.potentials.base import Kernel, Potential, PotentialConfig, thermal_energy_of
from cg_assets.potentials.chain_prior.module import ChainPrior
from cg_assets.potentials.composite import Sum
from cg_assets.potentials.handedness import MOST_BEADS, HandednessWalls
from cg_assets.potentials.layers import activation, normal, wall
from cg_assets.potentials.thermal.dependent import TemperatureDependent, ThermalConfig
from cg_assets.potentials.thermal.sum import ThermalSum
from cg_assets.potentials.torsions.series import TorsionSeries

SOFT_LIMIT = 5.0
"""Number of standard deviations at which the standardised distance saturates."""

MAX_STATISTICS = 4_000_000
"""Distances per pair type kept for quantiles; minimum and maximum always come from all."""


class MessagePassingConfig(ThermalConfig, total=False):
    """With its settings, and `torsions`, sets of four beads; `temperature_dependence` only where it has one."""

    features: int
    interactions: int
    basis_functions: int
    cutoff: float | None
    torsion_order: int
    torsions: list[list[int]]


class _Forward(NamedTuple):
    """A forward sweep; all `(n_beads, features, f)` unless it is said."""

    last: Tensor
    last_gain: Tensor
    first_gain: Tensor
    record: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    """Of each interaction what was sent, filters of the pairs, and two gains."""
    input_slopes: Tensor
    """`(n_pairs, n_inputs, f)`."""


class MessagePassing(Potential):
    """The network; `build` adds what it cannot represent.

    It sees distances only: it is invariant to translation, rotation, reflection and, because all weights
    belong to bead types, to exchanging beads of one type. Each pair type standardises its distance with the mean and
    standard deviation of the training data, saturating at five standard deviations, and adds Gaussians across its
    range: bonds a few thousandths of a nanometre wide and flexible pairs then teach equally fast.

    Layers, for beads i of type t and pair features b(r):

    - first message `h_i = s(sum_j A[t_i, t_j] b(r_ij))`: its filters mix features freely for each pair of types;
    - each further interaction passes learned features, `m_i = sum_j (G[t_i t_j] b(r_ij)) * (S[t_j] h_j)`;
    - residual dense layers of each bead type between them, and a dense readout summed over the beads.

    Beyond the smallest and largest distance that the data hold for a pair type, a harmonic wall acts on that pair; its
    stiffness follows from the sharpness of the data's own edge (docs: `fit_statistics`). With a cutoff, features decay
    smoothly to zero there, and only pair types that always stay within it keep their upper wall.

    Beads run along the first axis and frames along the last, which makes all products batched and all gathers copies
    of whole rows.
    """

    n_terms: int = 1
    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    low_stiffness: Tensor
    high_stiffness: Tensor
    centers: Tensor
    widths: Tensor
    kinds: Tensor
    pair_kinds: Tensor
    first_bead: Tensor
    second_bead: Tensor
    first_slot: Tensor
    second_slot: Tensor
    neighbours: Tensor

    @classmethod
    def build(cls, config: PotentialConfig, generator: torch.Generator) -> Potential:
        """The sum of a network and of what it cannot represent.

        - `handedness`, of up to `MOST_BEADS` unlike beads: walls, since distances do not distinguish left from right;
        - `series`, where the config names `torsions` and a `torsion_order`: a Fourier series in them;
        - `prior`, where the config holds one: trained on forces, the network learns what the prior lacks.

        With a `temperature_dependence` the network alone depends on temperature, and there is no series.

        Args:
            config: that of the network, with `torsions`, sets of four beads, the `torsion_order` of the series in
                them, `bonds` and `prior` (`ChainPrior`).
            generator: of the initial weights.

        Raises:
            ValueError: a key is missing or out of range.
        """
        own = cast(MessagePassingConfig, config)
        thermal = bool(own.get("temperature_dependence"))
        network = (ThermalMessagePassing if thermal else cls)(own, generator)
        parts: dict[str, Potential] = {"network": network}
        if network.unique and 4 <= network.n_kinds <= MOST_BEADS and "box" not in network.conditions:
            parts["handedness"] = HandednessWalls(network.n_kinds, network.thermal_energy)
        if own.get("torsions") and own.get("torsion_order"):
            if thermal:
                raise ValueError("torsion_order must be 0 with a temperature_dependence: a series has one temperature")
            about = own["torsions"], int(own["torsion_order"]), network.thermal_energy
            parts["series"] = TorsionSeries(*about, own.get("bonds", ()))
        if own.get("prior"):
            parts["prior"] = ChainPrior(own["prior"], network.thermal_energy)
        if len(parts) == 1:
            return network
        return ThermalSum(parts, own["temperature_dependence"]) if thermal else Sum(parts)

    def __init__(self, config: MessagePassingConfig, generator: torch.Generator) -> None:
        """Build the network with random weights.

        Args:
            config: `bead_types`, `features`, `interactions`, `basis_functions`, `cutoff` and `thermal_energy`; with
                `periodic` it needs a box.
            generator: of the initial weights.

        Raises:
            ValueError: a key is missing or out of range.
        """
        super().__init__(config, generator)
        self.dimension, self.thermal_energy = 3, thermal_energy_of(config)
        self.conditions |= frozenset({"box"} if config.get("periodic") else ())
        cutoff = config.get("cutoff")
        self.cutoff = None if cutoff is None else float(cutoff)
        features, basis = int(config["features"]), int(config["basis_functions"])
        interactions = int(config["interactions"])
        if min(features, basis, interactions) < 1:
            raise ValueError("features, basis_functions and interactions must be at least 1")
        self._index_beads([int(kind) for kind in config["bead_types"]])
        self.n_inputs = basis + 2
        n_kinds, n_pair_kinds, channels = self.n_kinds, self.n_pair_kinds, max(features // 2, 1)
        for name, value in (("mean", 0.4), ("deviation", 0.1), ("low", 0.0), ("high", math.inf)):
            self.register_buffer(name, torch.full((n_pair_kinds,), value))
        for name in ("low_stiffness", "high_stiffness"):
            self.register_buffer(name, torch.zeros(n_pair_kinds))
        self.register_buffer("centers", torch.linspace(0.1, 1.0, basis).repeat(n_pair_kinds, 1))
        self.register_buffer("widths", torch.full((n_pair_kinds, basis), 0.9 / basis))

        self.slots = self.n_beads - 1 if self.unique else n_kinds
        self.first = normal(generator, n_kinds, features, self.slots * self.n_inputs, gain=1.5)
        self.first_bias = torch.nn.Parameter(torch.zeros(n_kinds, features, 1))
        more = range(interactions - 1)
        stack, dense = torch.nn.ParameterList, (n_kinds, features, features)
        self.filters = stack([normal(generator, n_pair_kinds, channels, self.n_inputs) for _ in more])
        self.senders = stack([normal(generator, n_kinds, channels, features) for _ in more])
        self.receivers = stack([normal(generator, n_kinds, features, channels) for _ in more])
        self.receiver_biases = stack([torch.nn.Parameter(torch.zeros(n_kinds, features, 1)) for _ in more])
        self.residuals = stack([normal(generator, *dense) for _ in range(interactions)])
        self.residual_biases = stack(
            [torch.nn.Parameter(torch.zeros(n_kinds, features, 1)) for _ in range(interactions)]
        )
        self.hidden = normal(generator, *dense)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(n_kinds, features, 1))
        self.readout = normal(generator, n_kinds, self.n_terms, features, gain=0.3)

    def _index_beads(self, bead_types: list[int]) -> None:
        """Number types and pair types from zero, and order pairs so that equal types stand together."""
        n = self.n_beads = len(bead_types)
        if n < 2:
            raise ValueError(f"bead_types has {n} bead(s); message passing needs at least 2")
        names = list(dict.fromkeys(bead_types))
        kinds = [names.index(kind) for kind in bead_types]
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        pair_names = list(dict.fromkeys(tuple(sorted((kinds[i], kinds[j]))) for i, j in pairs))
        number = {name: index for index, name in enumerate(pair_names)}
        pairs.sort(key=lambda pair: number[tuple(sorted((kinds[pair[0]], kinds[pair[1]])))])
        pair_kinds = [number[tuple(sorted((kinds[i], kinds[j])))] for i, j in pairs]
        self.n_kinds, self.n_pair_kinds, self.n_pairs = len(names), len(pair_names), len(pairs)
        self.unique = len(names) == n
        self.pair_counts = [pair_kinds.count(kind) for kind in range(len(pair_names))]
        index = {
            "kinds": torch.tensor(kinds),
            "pair_kinds": torch.tensor(pair_kinds),
            "first_bead": torch.tensor([i for i, _ in pairs]),
            "second_bead": torch.tensor([j for _, j in pairs]),
        }
        if self.unique:
            of_pair = {pair: index for index, pair in enumerate(pairs)}
            neighbours = [[of_pair[min(i, j), max(i, j)] for j in range(n) if j != i] for i in range(n)]
            index["neighbours"] = torch.tensor(neighbours).flatten()
            index["first_slot"] = torch.tensor([i * (n - 1) + j - 1 for i, j in pairs])
            index["second_slot"] = torch.tensor([j * (n - 1) + i for i, j in pairs])
        else:
            index["first_slot"] = torch.tensor([i * len(names) + kinds[j] for i, j in pairs])
            index["second_slot"] = torch.tensor([j * len(names) + kinds[i] for i, j in pairs])
        for name, value in index.items():
            self.register_buffer(name, value, persistent=False)

    # ------------------------------------------------------------------------------- statistics of the data

    @torch.no_grad()
    def fit_statistics(self, positions: Tensor, box: Tensor | None = None, forces: Tensor | None = None) -> None:
        """Set standardisation, basis and walls of each pair type from training positions `(f, n, 3)`.

        Walls start at the extreme distances of the data. Their stiffness is k_B T / s^2, where s is 0.55 times the
        distance between the extreme and the first (last) percentile: for Gaussian data s is about the standard
        deviation, so a wall is about as stiff as the data's own distribution.

        Pair types that never come within the cutoff do not interact and keep their initial statistics.

        Raises:
            ValueError: no distance lies within the cutoff, or those of a pair type never change.
        """
        self.check(positions, temperature=1.0, box=box)
        stride = max(1, len(positions) * self.n_pairs // (MAX_STATISTICS * self.n_pair_kinds))
        samples: list[list[Tensor]] = [[] for _ in range(self.n_pair_kinds)]
        low = torch.full_like(self.low, math.inf)
        high = torch.zeros_like(self.high)
        chunk = max(1, 2_000_000 // self.n_pairs)
        for begin in range(0, len(positions), chunk):
            part = None if box is None else box if box.ndim == 1 else box[begin : begin + chunk]
            distance = self._distances(positions[begin : begin + chunk].to(self.mean), part)[1]
            for kind, rows in enumerate(distance.split(self.pair_counts)):
                low[kind] = torch.minimum(low[kind], rows.min())
                high[kind] = torch.maximum(high[kind], rows.max())
                samples[kind].append(rows[:, (-begin) % stride :: stride].flatten())
        limit = math.inf if self.cutoff is None else self.cutoff
        if not low.min() < limit:
            raise ValueError(f"no two beads come closer than {float(low.min()):.4g}; the cutoff {limit} is too short")
        for kind, parts in enumerate(samples):
            values = torch.cat(parts)
            values = values[values < limit].double()
            if len(values) < 2:
                continue
            if not values.std() > 1e-6 * values.mean():
                raise ValueError(
                    f"the distances of pair type {kind} never change (mean {float(values.mean()):.6g}); use frames of "
                    "a simulation"
                )
            ordered = values.sort().values
            count = len(ordered)
            quantile = lambda q: ordered[min(int(q * count), count - 1)]  # noqa: B023, E731
            self.mean[kind], self.deviation[kind] = values.mean(), values.std()
            self._place_basis(kind, quantile(0.0005), quantile(0.9995))
            floor = 1e-3 * values.std()
            edges = (quantile(0.01) - low[kind], high[kind] - quantile(0.99))
            self.low_stiffness[kind] = (0.55 * edges[0]).clamp_min(floor).pow(-2)
            always_inside = high[kind] < limit and box is None
            self.high_stiffness[kind] = (0.55 * edges[1]).clamp_min(floor).pow(-2) if always_inside else 0.0
        self.low.copy_(low)
        self.high.copy_(high)

    def _place_basis(self, kind: int, low: Tensor, high: Tensor) -> None:
        count = self.centers.shape[1]
        place = (torch.arange(count).to(low) + 0.5) / count if count < 2 else torch.arange(count).to(low) / (count - 1)
        self.centers[kind] = low + (high - low) * place
        self.widths[kind] = 1.3 * (high - low) / max(count - 1, 1)

    # ------------------------------------------------------------------------------- energy

    def energy(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Energy `(f,)` of positions `(f, n, 3)` with box edges `(3,)` or `(f, 3)`."""
        return self.evaluate(positions, temperature, box)[0]

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)` from one forward and one hand-written backward sweep."""
        return self._swept(positions, box)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form."""
        return self._compiled(self.readout[:, 0], 0.0, box)

    def _compiled(self, readout: Tensor, constant: float, box: Any) -> list[Kernel] | None:
        """The compiled form with one readout `(n_kinds, features)` and an energy without interactions [kJ/mol]."""
        if self.mean.dtype != torch.float32:
            return None
        from cg_assets.potentials.message_passing.kernel import network_kernel

        return [network_kernel(self, readout, constant, box)]

    def _forward(self, distance: Tensor) -> _Forward:
        """The forward sweep, up to the features that readouts take."""
        inputs, input_slopes = self._inputs(distance, slopes=True)
        hidden, first_gain = activation(self._typed(self.first, self._collect(inputs), self.first_bias))
        record = []
        for layer, (weight, bias) in enumerate(zip(self.residuals, self.residual_biases, strict=True)):
            sent = filters = receiver_gain = hidden.new_zeros(0)
            if layer:
                sent = self._typed(self.senders[layer - 1], hidden)
                filters = self._pair_typed(self.filters[layer - 1], inputs)
                message = self._gather_messages(filters, sent)
                received = self._typed(self.receivers[layer - 1], message, self.receiver_biases[layer - 1])
                step, receiver_gain = activation(received)
                hidden = hidden + step
            step, gain = activation(self._typed(weight, hidden, bias))
            hidden = hidden + step
            record.append((sent, filters, receiver_gain, gain))
        last, last_gain = activation(self._typed(self.hidden, hidden, self.hidden_bias))
        return _Forward(last, last_gain, first_gain, record, input_slopes)

    def _swept(self, positions: Tensor, box: Tensor | None, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces; of several readouts their sum with shares `(n_terms, f)`."""
        energy, difference, pair_force = self._pulls(positions, box, share)
        forces = torch.zeros_like(difference[:1]).repeat(self.n_beads, 1, 1)
        forces = forces.index_add(0, self.first_bead, -pair_force).index_add(0, self.second_bead, pair_force)
        return energy, forces.permute(2, 0, 1)

    @torch.no_grad()
    def virial(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> Tensor:
        """Virial `(f, 3, 3)`: differences of pairs times what they pull."""
        self.check(positions, temperature, box)
        _, difference, pair_force = self._pulls(positions, box, self._share(positions, temperature))
        return -torch.einsum("paf,pbf->fab", difference, pair_force)

    def _share(self, positions: Tensor, temperature: Any) -> Tensor | None:
        """Shares `(n_terms, f)` of several readouts; None of one."""
        return None

    def _pulls(self, positions: Tensor, box: Tensor | None, share: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Energy `(f,)`, and of each pair its difference and the gradient by it, `(n_pairs, 3, f)`."""
        difference, distance = self._distances(positions, box)
        last, last_gain, first_gain, record, input_slopes = self._forward(distance)
        beyond, wall_slope = self._walls(distance)
        heads = self._typed(self.readout, last)
        readout = (self.readout if self.unique else self.readout[self.kinds]).transpose(1, 2)
        if share is not None:
            heads, readout = heads * share, readout @ share
        energy = heads.sum(dim=(0, 1)) + beyond

        gradient = self._typed_back(self.hidden, last_gain * readout)
        from_filters: Tensor | float = 0.0
        for layer in reversed(range(len(record))):
            sent, filters, receiver_gain, gain = record[layer]
            gradient = gradient + self._typed_back(self.residuals[layer], gain * gradient)
            if layer:
                received = self._typed_back(self.receivers[layer - 1], receiver_gain * gradient)
                at_first, at_second = (received.index_select(0, bead) for bead in (self.first_bead, self.second_bead))
                from_first, from_second = (sent.index_select(0, bead) for bead in (self.first_bead, self.second_bead))
                to_filters = at_first * from_second + at_second * from_first
                from_filters = from_filters + self._pair_typed_back(self.filters[layer - 1], to_filters)
                to_sent = self._sum_to_beads(filters * at_second, filters * at_first)
                gradient = gradient + self._typed_back(self.senders[layer - 1], to_sent)
        to_inputs = self._spread(self._typed_back(self.first, first_gain * gradient)) + from_filters
        slope = (to_inputs * input_slopes).sum(dim=1) + wall_slope
        pair_force = (self.thermal_energy * slope / distance)[:, None] * difference
        return self.thermal_energy * energy, difference, pair_force

    # ------------------------------------------------------------------------------- parts of the sweeps

    def _distances(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Differences `(n_pairs, 3, f)` and distances `(n_pairs, f)`, minimum image where there is a box."""
        rows = positions.permute(1, 2, 0).contiguous()
        difference = rows.index_select(0, self.first_bead) - rows.index_select(0, self.second_bead)
        if box is not None:
            edges = torch.as_tensor(box).to(positions)
            if self.cutoff is None or self.cutoff > 0.5 * float(edges.min()):
                raise ValueError(
                    f"cutoff {self.cutoff} is beyond half the smallest box edge {float(edges.min()):.4g}: neighbours "
                    "would be lost; train with a cutoff of at most half the box"
                )
            edges = edges.reshape(1, 3, 1) if edges.ndim == 1 else edges.T[None]
            difference = difference - edges * torch.round(difference / edges)
        return difference, difference.square().sum(dim=1).sqrt()

    def _inputs(self, distance: Tensor, slopes: bool = False) -> tuple[Tensor, Tensor]:
        """Pair features `(n_pairs, n_inputs, f)` and, if asked for, their derivatives by the distance."""
        kinds = slice(None) if self.unique else self.pair_kinds
        scale = 1.0 / self.deviation[kinds][:, None]
        standard = (distance - self.mean[kinds][:, None]) * scale
        soft = torch.rsqrt(1.0 + (standard / SOFT_LIMIT).square())
        bounded = standard * soft
        scaled = (distance[:, None] - self.centers[kinds][..., None]) / self.widths[kinds][..., None]
        gaussians = torch.exp(-0.5 * scaled.square())
        values = torch.cat([0.3 * bounded[:, None], 0.1 * bounded.square()[:, None] - 0.1, gaussians], dim=1)
        derivatives = values[:0]
        if slopes:
            rise = soft * soft * soft * scale
            gaussian_slopes = gaussians * scaled * (-1.0 / self.widths[kinds][..., None])
            derivatives = torch.cat([0.3 * rise[:, None], (0.2 * bounded * rise)[:, None], gaussian_slopes], dim=1)
        if self.cutoff is not None:
            part = (distance / self.cutoff).clamp(max=1.0)[:, None]
            envelope = 1.0 - part * part * part * (10.0 - 15.0 * part + 6.0 * part * part)
            if slopes:
                fall = (-30.0 / self.cutoff) * (part * (1.0 - part)).square()
                derivatives = derivatives * envelope + values * fall
            values = values * envelope
        return values, derivatives

    def _walls(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` of all walls and its derivative `(n_pairs, f)` [k_B T]."""
        kinds = slice(None) if self.unique else self.pair_kinds
        below, fall = wall(self.low[kinds][:, None] - distance, self.low_stiffness[kinds][:, None])
        above, rise = wall(distance - self.high[kinds][:, None], self.high_stiffness[kinds][:, None])
        return (below + above).sum(dim=0), rise - fall

    def _collect(self, inputs: Tensor) -> Tensor:
        """For each bead its pair features, one slot per neighbour type: `(n_beads, slots * n_inputs, f)`."""
        if self.unique:
            slots = inputs.index_select(0, self.neighbours)
        else:
            slots = inputs.new_zeros(self.n_beads * self.n_kinds, *inputs.shape[1:])
            slots = slots.index_add(0, self.first_slot, inputs).index_add(0, self.second_slot, inputs)
        return slots.reshape(self.n_beads, self.slots * self.n_inputs, inputs.shape[-1])

    def _spread(self, gradient: Tensor) -> Tensor:
        """Transpose of `_collect`."""
        slots = gradient.reshape(self.n_beads * self.slots, self.n_inputs, gradient.shape[-1])
        return slots.index_select(0, self.first_slot) + slots.index_select(0, self.second_slot)

    def _typed(self, weight: Tensor, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """Dense layer of each bead's type: weight `(n_kinds, b, a)` on rows `(n_beads, a, f)`."""
        if not self.unique:
            weight = weight[self.kinds]
            bias = None if bias is None else bias[self.kinds]
        return torch.bmm(weight, rows) if bias is None else torch.baddbmm(bias, weight, rows)

    def _typed_back(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Transpose of `_typed`."""
        weight = weight if self.unique else weight[self.kinds]
        return torch.bmm(weight.transpose(1, 2), gradient)

    def _pair_typed(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Linear map of each pair's type: weight `(n_pair_kinds, b, a)` on rows `(n_pairs, a, f)`."""
        if self.unique:
            return torch.bmm(weight, rows)
        parts = zip(weight, rows.split(self.pair_counts), strict=True)
        return torch.cat([torch.bmm(one.expand(len(part), -1, -1), part) for one, part in parts])

    def _pair_typed_back(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Transpose of `_pair_typed`."""
        return self._pair_typed(weight.transpose(1, 2), gradient)

    def _gather_messages(self, filters: Tensor, sent: Tensor) -> Tensor:
        """What each bead receives `(n_beads, channels, f)`: the senders' features times the pair's filter."""
        return self._sum_to_beads(
            filters * sent.index_select(0, self.second_bead), filters * sent.index_select(0, self.first_bead)
        )

    def _sum_to_beads(self, to_first: Tensor, to_second: Tensor) -> Tensor:
        beads = torch.zeros_like(to_first[:1]).repeat(self.n_beads, 1, 1)
        return beads.index_add(0, self.first_bead, to_first).index_add(0, self.second_bead, to_second)


class ThermalMessagePassing(MessagePassing, TemperatureDependent):
    """W(R, T) = sum_k s_k(T) W_k(R): one trunk, and a readout for each W_k.

    A readout whose weights are those sums gives energy and forces at a temperature in one pair of sweeps, as without
    temperature. Walls belong to W_0. Readouts begin without temperature dependence, which data at T_0 alone leave.
    """

    constant: Tensor

    def __init__(self, config: MessagePassingConfig, generator: torch.Generator) -> None:
        """As `MessagePassing`, with `temperature_dependence`; `thermal_energy` is k_B T_0."""
        super().__init__(config, generator)
        self.register_buffer("constant", torch.zeros(self.n_terms, dtype=torch.float64))
        with torch.no_grad():
            self.readout.copy_(self.readout[:, :1] * self.is_value.to(self.readout)[:, None])

    def evaluate(self, positions: Tensor, temperature: Any = None, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy `(f,)` and forces `(f, n, 3)` from one forward and one hand-written backward sweep."""
        energy, forces = self._swept(positions, box, self._share(positions, temperature))
        shares = self.coefficients_at(temperature, positions)[0]
        return energy + (self.n_beads * shares @ self.constant.to(shares)).to(energy), forces

    def _share(self, positions: Tensor, temperature: Any) -> Tensor | None:
        return self.coefficients_at(temperature, positions)[0].T.to(positions)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form at a temperature."""
        shares = self.coefficients_at(temperature, self.mean[:1])[0][0]
        readout = torch.einsum("kta,t->ka", self.readout.double(), shares)
        return self._compiled(readout, float(self.n_beads * shares @ self.constant.double()), box)

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, 3)` [kJ/mol]."""
        distance = self._distances(positions, box)[1]
        heads = self._typed(self.readout, self._forward(distance).last).sum(dim=0).T
        own = self.thermal_energy * (heads + self._walls(distance)[0][:, None] * self.is_value.to(heads))
        return own + (self.n_beads * self.constant).to(own)

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol]."""
        self.constant += values.to(self.constant)
