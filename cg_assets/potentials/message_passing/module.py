"""Many-body potential of beads by message passing over bead distances."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from cg_assets.potentials.base import Kernel, Labels, Potential, PotentialConfig, thermal_energy_of
from cg_assets.potentials.chain_prior.module import ChainPrior
from cg_assets.potentials.composite import Sum
from cg_assets.potentials.handedness import MOST_BEADS, HandednessWalls
from cg_assets.potentials.layers import activation, normal, wall
from cg_assets.potentials.message_passing.pairs import BeadPairs
from cg_assets.potentials.thermal.dependent import TemperatureDependent, ThermalConfig
from cg_assets.potentials.thermal.sum import ThermalSum
from cg_assets.potentials.torsions.series import TorsionSeries

SOFT_LIMIT = 5.0
"""Number of standard deviations at which the standardised distance saturates."""


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


class MessagePassing(BeadPairs):
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
        self.thermal_energy = thermal_energy_of(config)
        self.conditions |= frozenset({"box"} if config.get("periodic") else ())
        features, basis = int(config["features"]), int(config["basis_functions"])
        interactions = int(config["interactions"])
        if min(features, basis, interactions) < 1:
            raise ValueError("features, basis_functions and interactions must be at least 1")
        cutoff = config.get("cutoff")
        self._place_pairs(config["bead_types"], None if cutoff is None else float(cutoff), basis)
        n_kinds, n_pair_kinds, channels = self.n_kinds, self.n_pair_kinds, max(features // 2, 1)
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
        if _at_once(box) and self.trains_compiled(positions):
            shares = torch.ones_like(positions[:, :1, 0]) if share is None else share.T
            heads, walls, forces = self._read_out(positions, box, shares)
            return self.thermal_energy * (heads * shares).sum(dim=1) + walls, forces
        energy, difference, pair_force = self._pulls(positions, box, share)
        forces = torch.zeros_like(difference[:1]).repeat(self.n_beads, 1, 1)
        forces = forces.index_add(0, self.first_bead, -pair_force).index_add(0, self.second_bead, pair_force)
        return energy, forces.permute(2, 0, 1)

    def _read_out(self, positions: Tensor, box: Tensor | None, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `compiled_training`."""
        from cg_assets.potentials.message_passing.compiled_training import readouts_and_forces

        return readouts_and_forces(self, positions, None if box is None else self.edges(positions, box), shares)

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

    def _share(self, positions: Tensor, temperature: Any) -> Tensor:
        return self.coefficients_at(temperature, positions)[0].T.to(positions)

    def forces_and_mean_energy(
        self, positions: Tensor, temperature: Any, box: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Forces `(f, n, 3)` [kJ/mol/nm] and U `(f,)` [kJ/mol] of positions `(f, n, 3)`; in training in one sweep."""
        if not (_at_once(box) and self.trains_compiled(positions)):
            return super().forces_and_mean_energy(positions, temperature, box)
        shares = self._share(positions, temperature).T
        heads, walls, forces = self._read_out(positions, box, shares)
        terms = self._whole(heads, walls)
        return forces, (self.energy_shares(temperature, positions).to(terms) * terms).sum(dim=1)

    def kernels(self, temperature: float | None, box: Any) -> list[Kernel] | None:
        """In single precision its compiled form at a temperature."""
        shares = self.coefficients_at(temperature, self.mean[:1])[0][0]
        readout = torch.einsum("kta,t->ka", self.readout.double(), shares)
        return self._compiled(readout, float(self.n_beads * shares @ self.constant.double()), box)

    def terms(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """The energies W_k `(f, n_terms)` of positions `(f, n, 3)` [kJ/mol]."""
        distance = self._distances(positions, box)[1]
        heads = self._typed(self.readout, self._forward(distance).last).sum(dim=0).T
        return self._whole(heads, self.thermal_energy * self._walls(distance)[0])

    def _whole(self, heads: Tensor, walls: Tensor) -> Tensor:
        """The energies W_k from readouts `(f, n_terms)` [k_B T] and energies of walls `(f,)` [kJ/mol]."""
        own = self.thermal_energy * heads + walls[:, None] * self.is_value.to(heads)
        return own + (self.n_beads * self.constant).to(own)

    def add_constants(self, values: Tensor) -> None:
        """Add energies `(n_terms,)` per bead, which have no forces [kJ/mol]."""
        self.constant += values.to(self.constant)

    def features(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """What readouts multiply: `(f, n_kinds * features)` of positions `(f, n, 3)` [kJ/mol]."""
        last = self._forward(self._distances(positions, box)[1]).last
        if not self.unique:
            last = last.new_zeros(self.n_kinds, *last.shape[1:]).index_add(0, self.kinds, last)
        return self.thermal_energy * last.flatten(0, 1).T

    def solves_energies(self, kelvin: Tensor) -> bool:
        """Where forces show each W_k; of one that they do not show, descent along energies has to find the features."""
        shares = self.dependence.coefficients(kelvin.unique())[0]
        return int(torch.linalg.matrix_rank(shares, rtol=1e-6)) == self.n_terms

    def solve(self, labels: Labels) -> dict[str, float]:
        """Set the readouts from forces and energies, where energies are learnt, and the constants.

        Raises:
            ValueError: labels have no temperatures.
        """
        facts: dict[str, float] = {}
        if labels.solve_energies:
            from cg_assets.potentials.message_passing.readouts import solve_readouts

            facts = solve_readouts(self, cast(TemperatureDependent, labels.whole or self), labels)
        return facts | ({} if labels.whole else super().solve(labels))


def _at_once(box: Tensor | None) -> bool:
    """Whether compiled code can serve frames in these boxes."""
    return box is None or box.shape == (3,)
