"""`learning_curve_<name>`: how the error of one potential falls with its data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_assets.assets.data import frozen_bias
from cg_assets.assets.evaluations import judge, read_reference
from cg_assets.assets.stage import Batches, Figure, Product, Read, Report, Stage, TableContent
from cg_assets.assets.work import Inputs, Work
from cg_assets.core.units import unit
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.core.frames import Frames
    from cg_assets.evaluation.evaluation import Evaluation
    from cg_assets.evaluation.learning_curves import LearningPoint
    from cg_assets.simulation.run import CGSimulationResult


def read_points(inputs: Inputs, name: str) -> list[LearningPoint]:
    """The materialised learning curve of a potential.

    Raises:
        StorageError: there is none.
    """
    from cg_assets.evaluation.learning_curves import LearningPoint

    return [LearningPoint.from_json(point) for point in inputs.facts(f"learning_curve_{name}")["points"]]


def learning_curve_stage(system: SystemSpec, name: str) -> Stage:
    """The stage of the learning curve of one potential, over all batches of its labels."""
    labels, stage = system.potentials[name].labels, f"learning_curve_{name}"
    settings = system.learning_curve
    simulation = (settings and settings.cg_simulation) or system.cg_simulation
    biased = ["relabelled_forces"] if simulation.enhanced_duration and labels != "relabelled_forces" else []

    def make(work: Work) -> Product:
        from cg_assets.evaluation.learning_curves import columns_of

        # Each point is kept when it is done: an interrupted step continues with the next.
        kept = work.store.stage_folder(system.name, stage) / ".points"
        points = _points(work, system, name, kept)
        time_unit = unit("time", system.units)

        def report(_: object) -> Report:
            from cg_assets.figures.comparison import learning_curves_figure

            shutil.rmtree(kept)
            shown = [
                {
                    "batch": point.batch,
                    "taken by": point.axis,
                    "sampled time": f"{point.sampled_time:g} {time_unit}",
                    "frames": point.frames,
                    "error": "unstable" if point.decisive is None else str(point.decisive.value),
                }
                for point in points
            ]
            figure = learning_curves_figure(points, time_unit, system.title)
            return {"figure": Figure(figure, "learning curve"), "results": shown}

        facts = {"points": [point.to_json() for point in points]}
        content = TableContent(columns_of(points), {"sampled_time": time_unit})
        return Product(content, facts, report=report, seed=system.training_of(name).seed)

    return Stage(
        name=stage,
        description=f"Potentials trained on parts of each batch of {labels}: their errors against the atomistic time "
        "and against the number of frames.",
        make=make,
        reads=(
            Read("reference", Batches.NONE),
            Read(labels, Batches.ALL),
            *(Read(source, Batches.CHOSEN) for source in biased),
        ),
        gpu=True,
        kinds=frozenset({"pytorch", "parquet"}),
        sections=("learning_curve", "cg_simulation", "evaluation", "network", "training", f"potentials.{name}"),
    )


def _points(work: Work, system: SystemSpec, name: str, kept: Path) -> list[LearningPoint]:
    """Every point of the curve; points kept from an interrupted step are not repeated."""
    from cg_assets.evaluation.learning_curves import LearningPoint
    from cg_assets.storage.atomic import atomic_file
    from cg_assets.training.checkpoints import identity_of

    inputs, labels, learner = work.inputs, system.potentials[name].labels, system.learner(name)
    reference, bias = read_reference(inputs, system), frozen_bias(inputs, learner.simulation, system.biased_labels)
    parts = {batch: inputs.frames(labels, batch) for batch in inputs.sound(labels)}
    kept.mkdir(parents=True, exist_ok=True)
    points = []

    def judged(module: Any, run: CGSimulationResult, data: Frames) -> Evaluation:
        return judge(system, module, reference, run.frames, run.runs, data)

    made_of = work.stage.code_version, system.content_hash, inputs.versions
    with work.leased() as device:
        for batch, frames in parts.items():
            for part in learner.parts():
                identity = identity_of((*made_of, batch, part.axis, part.amount))
                path = kept / f"{identity[:16]}.json"
                if not path.is_file():
                    work.log.info(f"batch {batch}, {part.axis} {part.amount:g}")
                    point = learner.learn(batch, part, frames, judged, bias, device, work.progress)
                    with atomic_file(path) as temporary:
                        temporary.write_text(json.dumps(point.to_json()))
                points.append(LearningPoint.from_json(json.loads(path.read_text())))
    return points
