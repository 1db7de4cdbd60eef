"""`potential_<name>` of a liquid: a potential W(R, T) fitted to thermal response targets, registered in MLflow."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cg_assets.assets.data import Source, pooled_frames
from cg_assets.assets.potentials import LOSS, judge_potential, targets_of
from cg_assets.assets.stage import Batches, Product, Read, Report, Stage
from cg_assets.assets.training import ModelTraining, train_and_register
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.checks import Verdict
from cg_assets.systems import SystemSpec
from cg_assets.training.settings import AT_ONE_TEMPERATURE, TARGETS, TRAJECTORIES, ResponsePotential

if TYPE_CHECKING:
    from cg_assets.potentials.thermal.dependent import ThermalConfig
    from cg_assets.training.thermal_targets import ThermalTargets


_UNKNOWN = "not known: only labels at fixed beads give it; deviations below include the noise"


def _report(result: Any) -> Report:
    known, error = result.noise_known, "force error [kJ/mol/nm]"
    return {
        "noise_floor": result.history[result.best_epoch - 1]["noise_floor"] if known else _UNKNOWN,
        "least_heat_capacity": f"{result.least_heat_capacity:.4g} kJ/mol/K",
        "errors_on_held_out_frames": [
            {"temperature [K]": kelvin, error if known else f"{error}, with noise": str(found["forces"].root)}
            | {f"explained {quantity}": round(item.explained, 3) for quantity, item in found.items()}
            for kelvin, found in result.held_out.items()
        ],
    }


def _judge(result: Any) -> list[Verdict]:
    from cg_assets.core.statistics.estimates import Estimate

    if not result.noise_known:
        return judge_potential(result, None)
    value = result.history[result.best_epoch - 1]["noise_floor"]
    return judge_potential(result, Estimate(value, value * (2.0 / result.n_held_out) ** 0.5, "(kJ/mol/nm)^2"))


def _labels(
    inputs: Inputs, system: SystemSpec, settings: ResponsePotential, config: ThermalConfig
) -> tuple[ThermalTargets | None, ThermalTargets | None]:
    """Labels at fixed beads, and those of ordinary dynamics; None where a potential learns from none."""
    from cg_assets.training.response import SAME_TEMPERATURE, middle_of
    from cg_assets.training.thermal_targets import ThermalTargets
    from cg_assets.training.unconstrained import largest_noise, unconstrained_targets

    targets = unconstrained = None
    if settings.labels == TARGETS:
        found = [(inputs.peek(TARGETS, batch).path, inputs.table(TARGETS, batch)) for batch in inputs.sound(TARGETS)]
        targets = ThermalTargets.concatenate([targets_of(path, columns) for path, columns in found])
        noise = np.concatenate([columns["force_variance"] for _, columns in found])
        known = (targets.temperature, noise, targets.heat_capacity)
    if settings.unconstrained_frames:
        atoms = pooled_frames(inputs, system, TRAJECTORIES, inputs.sound(TRAJECTORIES))
        if settings.method in AT_ONE_TEMPERATURE:
            middle = middle_of(config["temperature_dependence"])
            atoms = atoms.select(np.abs(atoms.temperature - middle) < SAME_TEMPERATURE)
        known = largest_noise(atoms) if targets is None else known
        unconstrained = unconstrained_targets(atoms, settings.unconstrained_frames, *known)
    return targets, unconstrained


def response_potential_stage(system: SystemSpec, name: str, settings: ResponsePotential) -> Stage:
    """The stage of one potential; it learns from all batches of its labels."""
    number = settings.unconstrained_frames

    def make(work: Work) -> Product:
        from cg_assets.figures.training import response_training_plot
        from cg_assets.training.response_fit import fit_response, response_config

        inputs, config = work.inputs, response_config(settings, system.beads())
        batches = inputs.sound(settings.labels)
        infos = [inputs.peek(settings.labels, batch) for batch in batches]
        targets, unconstrained = _labels(inputs, system, settings, config)
        learnt: Any = unconstrained if targets is None else targets
        training = ModelTraining(
            name=name,
            source=Source(batches, infos, []),
            positions=learnt.positions,
            config=config,
            params={
                "rows": 0 if targets is None else len(targets),
                "unconstrained_rows": 0 if unconstrained is None else len(unconstrained),
                **settings.model_dump(mode="json"),
            },
            seed=settings.seed,
            identity=(sorted(inputs.versions.items()),),
            train=partial(fit_response, settings, config, targets, unconstrained),
            figure=lambda result: response_training_plot(result.held_out, f"{system.title}: {name}"),
            report=_report,
            judge=_judge,
            conditions={"temperature": learnt.temperature[:2], "box": learnt.box[:2]},
        )
        return train_and_register(work, training)

    return Stage(
        name=f"potential_{name}",
        description=f"The potential of mean force at all temperatures, by {settings.method.replace('_', ' ')}; "
        f"registered in MLflow as `{system.name}.{name}` with the alias candidate. It takes `temperature` and `box`.",
        make=make,
        reads=tuple(
            Read(stage, Batches.ALL) for stage in dict.fromkeys([settings.labels, *([TRAJECTORIES] if number else [])])
        ),
        checks=(LOSS,),
        gpu=True,
        kinds=frozenset({"pytorch", "mlflow"}),
        code_version="2",
        sections=(f"potentials.{name}",),
    )
