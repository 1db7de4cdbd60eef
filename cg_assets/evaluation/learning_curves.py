"""How the error of a potential falls with its data: trained on parts of each batch, and evaluated like any other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cg_assets.core.errors import ExplosionError
from cg_assets.core.frames import Frames
from cg_assets.core.progress import Progress
from cg_assets.core.settings import Training
from cg_assets.core.statistics.estimates import Estimate
from cg_assets.evaluation.comparison import Comparison
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.evaluation.quantity import Quantity
from cg_assets.evaluation.settings import LearningCurve
from cg_assets.mapping.beads import Beads
from cg_assets.potentials.settings import PotentialSettings
from cg_assets.sampling.molecule.starts import preparation_time
from cg_assets.sampling.settings import MeanForcePlan, SamplingPlan
from cg_assets.simulation.run import CGSimulationResult, run_cg_simulation
from cg_assets.simulation.settings import CGSimulation
from cg_assets.training.data import drawn_rows
from cg_assets.training.setup import fitted_prior, potential_config, training_data
from cg_assets.training.train import train

Axis = Literal["time", "frames"]
Judge = Callable[[Any, CGSimulationResult, Frames], Evaluation]


@dataclass(frozen=True)
class Part:
    """A part of a batch.

    Attributes:
        axis: `time` for the first stretch of each replica, `frames` for frames drawn at random from all of it.
        amount: time that is kept of each replica [ps or reduced], or number of frames.
    """

    axis: Axis
    amount: float

    def of(self, frames: Frames, seed: int) -> Frames:
        """The frames of this part.

        Raises:
            TrainingError: there are fewer frames than asked for.
        """
        if self.axis == "time":
            return frames.select(frames.time <= self.amount * (1 + 1e-9))
        return frames.select(drawn_rows(len(frames), round(self.amount), seed))


@dataclass(frozen=True)
class LearningPoint:
    """A potential of a part of a batch, with its evaluation.

    Attributes:
        potential: name of the potential.
        batch: name of the batch.
        axis: how the part was taken.
        sampled_time: atomistic time that the part cost, preparation of the replicas included [ps or reduced].
        frames: number of frames that were trained on.
        quantities: what its evaluation measured; no stable replicas alone, where no CG simulation stayed stable.
    """

    potential: str
    batch: str
    axis: Axis
    sampled_time: float
    frames: int
    quantities: tuple[Quantity, ...]

    @property
    def amount(self) -> float:
        """How much data the part is, along its axis."""
        return self.sampled_time if self.axis == "time" else float(self.frames)

    @property
    def decisive(self) -> Quantity | None:
        """The quantity that curves are compared by, the first that decides; None where nothing could be measured."""
        return next((item for item in self.quantities if item.decides), None)

    @property
    def error(self) -> float:
        """Value of the quantity that decides; infinite where no CG simulation stayed stable."""
        return math.inf if self.decisive is None else self.decisive.value.value

    def to_json(self) -> dict[str, object]:
        """Plain JSON types."""
        columns = Evaluation(self.quantities).columns()
        return asdict(self) | {
            "quantities": {
                name: [repr(v) if isinstance(v, float) else v for v in column] for name, column in columns.items()
            }
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LearningPoint:
        """The point that `to_json` described."""
        columns = {name: np.array(values, dtype=object) for name, values in content["quantities"].items()}
        return cls(**{**content, "quantities": Evaluation.from_columns(columns).quantities})


@dataclass(frozen=True)
class Learner:
    """A potential whose learning curve is measured.

    Attributes:
        potential: its name.
        beads: of the system.
        settings: of the curve.
        plan: what the samples behind its labels were sampled by.
        means: what its labels were averaged by, at fixed beads; None for labels of single frames.
        network: settings of the potential.
        training: how it is trained.
        simulation: its CG simulation.
    """

    potential: str
    beads: Beads
    settings: LearningCurve
    plan: SamplingPlan
    means: MeanForcePlan | None
    network: PotentialSettings
    training: Training
    simulation: CGSimulation

    def parts(self) -> list[Part]:
        """The parts of each batch, from the cheapest to the whole; without numbers of frames that no batch holds."""
        plan, settings = self.plan, self.settings
        whole = plan.frames_per_replica
        kept = sorted({max(1, round(fraction * whole)) for fraction in settings.fractions})
        held = plan.kept_replicas * whole if self.means is None else self.means.configurations
        return [Part("time", number * plan.frame_interval) for number in kept] + [
            Part("frames", number) for number in sorted(settings.frames) if number <= held
        ]

    def time_of(self, part: Part, n_frames: int) -> float:
        """Atomistic time of a part of a batch [ps or reduced].

        It counts every replica of the plan, with burn-in, deposition and the way to its start, and the time at fixed
        beads of `n_frames` mean forces.
        """
        plan = self.plan
        kept = part.amount if part.axis == "time" else plan.duration
        prepared = preparation_time(plan) if self.beads.units == "molar" else 0.0
        sampled = prepared + plan.total_time - plan.replicas * (plan.duration - kept)
        return sampled if self.means is None else sampled + n_frames * self.means.time_each

    def learn(
        self,
        batch: str,
        part: Part,
        frames: Frames,
        judge: Judge,
        bias: Mapping[str, Any] | None,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> LearningPoint:
        """Train the potential on a part of a batch, simulate it and evaluate it.

        Args:
            batch: name of the batch.
            part: the part.
            frames: labelled CG frames of the whole batch; probe replicas are left out.
            judge: potential, its CG simulation and the frames that it was trained on to its evaluation.
            bias: frozen bias of the enhanced CG run; None for no such run.
            device: `cpu` or `cuda`.
            progress: called during training and simulation.

        Raises:
            TrainingError: the part holds too few frames.
        """
        # The epochs of the whole: more fit the noise of a small part (1,600 to 16,000 frames of capped alanine).
        beads, network, training = self.beads, self.network, self.training.model_copy(update={"committee": 0})
        taken = part.of(frames.select(~frames.probe), training.seed)
        data = training_data(network, [taken], None, training.seed)
        config, prior = potential_config(network, beads, 0, [taken]), fitted_prior(network, beads, [taken])
        if prior is not None:
            config["prior"] = prior.config()
        module = train(config, training, data, seed=training.seed, device=device, progress=progress).module
        try:
            run = run_cg_simulation(module, beads, self.simulation, taken, bias=bias, device=device, progress=progress)
        except ExplosionError:
            quantities: tuple[Quantity, ...] = (Quantity("stable_replicas", Estimate(0.0, math.nan)),)
        else:
            quantities = judge(module, run, taken).quantities
        time = self.time_of(part, len(taken))
        return LearningPoint(self.potential, batch, part.axis, time, len(taken), quantities)


def columns_of(points: Sequence[LearningPoint]) -> dict[str, list[Any]]:
    """The table of a learning curve: a row for each point and quantity."""
    columns: dict[str, list[Any]] = {name: [] for name in ("batch", "axis", "sampled_time", "frames")}
    for point in points:
        for name in list(columns)[:4]:
            columns[name] += [getattr(point, name)] * len(point.quantities)
        for name, values in Comparison({"": Evaluation(point.quantities)}).columns().items():
            if name != "potential":
                columns.setdefault(name, []).extend(values)
    return columns


def mean_curve(points: Sequence[LearningPoint], axis: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amount of data, geometric mean of the error that decides over batches, and its standard error as a factor less 1.

    Args:
        points: points of one potential.
        axis: which parts.

    Returns:
        Three arrays `(n_amounts,)`; the third is nan where there is one batch only.
    """
    mine = [point for point in points if point.axis == axis]
    amounts = sorted({point.amount for point in mine})
    logs = [np.log([point.error for point in mine if point.amount == amount]) for amount in amounts]
    with np.errstate(invalid="ignore"):  # an infinite error has no scatter
        error = np.array(
            [values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan for values in logs]
        )
    return np.array(amounts), np.exp([values.mean() for values in logs]), np.expm1(error)


def data_ratio(slow: Sequence[LearningPoint], fast: Sequence[LearningPoint], axis: Axis) -> tuple[Estimate, bool]:
    """How many times more data one potential needs for the error that it reaches with all of them.

    Between two amounts of data the error is a power law. With several batches the scatter between them is the error
    of the logarithm, carried over to the ratio.

    Args:
        slow: points of the potential that needs more.
        fast: points of the other.
        axis: `time` or `frames`.

    Returns:
        The ratio, and whether it is a lower bound: the other was better already with its least data. The ratio is nan
        where the other never gets so good.
    """
    ratios, bounds = [], []
    for first, second in zip(_by_batch(slow, axis), _by_batch(fast, axis), strict=False):
        target = first[-1][1]
        amounts, errors = np.array([item[0] for item in second]), np.array([item[1] for item in second])
        good = np.flatnonzero(errors <= target)
        if not len(good) or not math.isfinite(target):
            return Estimate(math.nan, math.nan), False
        after = int(good[0])
        needed = amounts[after]
        if after and math.isfinite(errors[after - 1]):
            share = math.log(errors[after - 1] / target) / math.log(errors[after - 1] / errors[after])
            needed = amounts[after - 1] * (amounts[after] / amounts[after - 1]) ** share
        ratios.append(math.log(first[-1][0] / needed))
        bounds.append(after == 0)
    if not ratios:
        return Estimate(math.nan, math.nan), False
    value = math.exp(np.mean(ratios))
    error = value * float(np.std(ratios, ddof=1)) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    return Estimate(value, error), any(bounds)


def data_ratios(points: Sequence[LearningPoint]) -> list[dict[str, str]]:
    """How much more data the first potential needs for the error that it reaches with all of them, in words.

    One row for each other potential: the ratio of atomistic times and of numbers of frames (`data_ratio`).
    """
    potentials = list(dict.fromkeys(point.potential for point in points))
    rows = []
    axes: tuple[Axis, ...] = ("time", "frames")
    for other in potentials[1:]:
        row = {"equal error": f"{potentials[0]} / {other}"}
        for axis in axes:
            slow, fast = ([point for point in points if point.potential == name] for name in (potentials[0], other))
            ratio, bound = data_ratio(slow, fast, axis)
            row[axis] = "" if math.isnan(ratio.value) else f"{'at least ' if bound else ''}{ratio}"
        rows.append(row)
    return rows


def _by_batch(points: Sequence[LearningPoint], axis: Axis) -> list[list[tuple[float, float]]]:
    """Amount and error of each batch, by amount."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point.axis == axis:
            found.setdefault(point.batch, []).append((point.amount, point.error))
    return [sorted(found[batch]) for batch in sorted(found)]
