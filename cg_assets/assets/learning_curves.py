"""`learning_curve_<name>`: how the error of one potential falls with its data."""

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import dagster as dg

from cg_assets.assets.evaluations import read_reference
from cg_assets.assets.simulations import frozen_bias
from cg_assets.assets.stage import asset_key, picture, provenance, record_in_catalogue, sound_batches, table, with_file
from cg_assets.core.units import unit
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.executors import GPU_POOL, gpu_op_tags
from cg_assets.orchestration.resources import DeviceResource, StoreResource
from cg_assets.systems import SystemSpec

if TYPE_CHECKING:
    from cg_assets.evaluation.learning_curves import LearningPoint
    from cg_assets.storage.store import ParquetStore

CODE_VERSION = "1"


def read_points(store: "ParquetStore", system: SystemSpec, name: str) -> list["LearningPoint"]:
    """The materialised learning curve of a potential.

    Raises:
        StorageError: there is none.
    """
    from cg_assets.evaluation.learning_curves import LearningPoint

    points = store.describe(system.name, f"learning_curve_{name}").metadata.extra["points"]
    return [LearningPoint.from_json(point) for point in points]


def build_learning_curve(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of the learning curve of one potential, over all batches of its labels."""
    labels = system.potentials[name].labels
    stage = f"learning_curve_{name}"
    settings = system.learning_curve
    simulation = (settings and settings.cg_simulation) or system.cg_simulation
    read = {labels, "relabelled_forces"} if simulation.enhanced_duration else {labels}

    @dg.asset(
        key=asset_key(system, stage),
        deps=[asset_key(system, source) for source in ("reference", *sorted(read))],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"pytorch", "parquet"},
        pool=GPU_POOL,
        op_tags=gpu_op_tags(),
        description=f"Potentials trained on parts of each batch of {labels}: their errors against the atomistic time "
        "and against the number of frames.",
    )
    def learning_curve(
        context: dg.AssetExecutionContext, store: StoreResource, device: DeviceResource
    ) -> dg.MaterializeResult:
        from cg_assets.evaluation.learning_curves import PMF_ERROR, LearningPoint, learn_part, parts_of
        from cg_assets.figures.stages import learning_curves_figure
        from cg_assets.storage.atomic import atomic_file

        files = store.open()
        batches = sound_batches(files, system, labels)
        reference = read_reference(files, system)
        bias, bias_keys = frozen_bias(files, system, simulation)
        keys = [f"{system.name}/{labels}/{batch}" for batch in batches]
        upstream = files.upstream(*keys, *bias_keys, f"{system.name}/reference")
        # Each point is kept when it is done: an interrupted step goes on with the next.
        kept = files.stage_folder(system.name, stage) / ".points"
        kept.mkdir(parents=True, exist_ok=True)
        points = []
        with device.lease() as leased:
            for batch in batches:
                frames = files.read_frames(system.name, labels, [batch])
                for part in parts_of(system, labels):
                    identity = (CODE_VERSION, system.content_hash, upstream, batch, part.axis, part.amount)
                    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
                    path = kept / f"{digest}.json"
                    if not path.is_file():
                        context.log.info(f"batch {batch}, {part.axis} {part.amount:g}")
                        point = learn_part(
                            system,
                            name,
                            batch,
                            part,
                            frames,
                            reference,
                            bias,
                            device=leased.torch_name,
                            progress=log_progress(context.log),
                        )
                        with atomic_file(path) as temporary:
                            temporary.write_text(json.dumps(point.to_json()))
                    points.append(LearningPoint.from_json(json.loads(path.read_text())))
        rows = [
            (point.batch, point.axis, point.sampled_time, point.frames, quantity, item.value, item.standard_error)
            for point in points
            for quantity, item in point.quantities.items()
        ]
        names = ("batch", "axis", "sampled_time", "frames", "quantity", "value", "standard_error")
        files.write_table(
            {column: [row[index] for row in rows] for index, column in enumerate(names)},
            provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=upstream,
                seed=system.training.seed,
                points=[point.to_json() for point in points],
            ),
            units={"sampled_time": unit("time", system.units)},
        )
        shutil.rmtree(kept)
        record_in_catalogue(files, system, stage)
        shown = [
            {
                "batch": point.batch,
                "taken by": point.axis,
                "sampled time": f"{point.sampled_time:g} {unit('time', system.units)}",
                "frames": point.frames,
                "PMF error": str(point.quantities[PMF_ERROR]),
            }
            for point in points
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {"figure": picture(learning_curves_figure(system, points), "learning curve"), "results": table(shown)},
                files,
                system,
                stage,
            ),
        )

    return learning_curve
