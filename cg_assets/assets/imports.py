"""`imported_beads`: beads of trajectories that exist already."""

import hashlib
import time

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.forces import mapped
from cg_assets.assets.stage import asset_key, mark_failed, picture, provenance, record_in_catalogue, table, with_file
from cg_assets.orchestration.automation import batches_of, freshness_of
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import StoreResource
from cg_assets.sampling.settings import IMPORTED
from cg_assets.systems import SystemSpec

CODE_VERSION = "1"

_DRAWN = 500_000
"""Most frames in the figure, evenly spread over all."""


def build_imported(system: SystemSpec) -> dg.AssetsDefinition:
    """The asset of imported trajectories, partitioned by batch."""
    key = asset_key(system, IMPORTED)

    @dg.asset(
        key=key,
        group_name=system.name,
        partitions_def=batches_of(system.name),
        code_version=CODE_VERSION,
        freshness_policy=freshness_of(system),
        kinds={"parquet", "mdtraj"},
        description="Beads of trajectories without forces that were made elsewhere; kernels make force labels of them.",
        check_specs=checks.import_specs(key),
    )
    def imported_beads(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from cg_assets.figures.stages import sampling_figure
        from cg_assets.sampling.imported import ImportedReader
        from cg_assets.sampling.run import run_sampler
        from cg_assets.storage.dataset import read_frames

        batch = context.partition_key
        started = time.monotonic()
        files = store.open()
        reader = ImportedReader(system, batch)
        content = system.hash_of("model", "mapping", "collective_variables", "imported")
        identity = hashlib.sha256(f"{content}{reader.files}{reader.n_chunks}".encode()).hexdigest()
        with files.pieces(system.name, IMPORTED, batch, identity, None, CODE_VERSION) as pieces:
            run_sampler(reader, pieces, log_progress(context.log))
            metadata = provenance(context, system, IMPORTED, CODE_VERSION, bias=None, files=reader.files)
            metadata = mapped(metadata, system)
            pieces.finish(metadata)
        # A block at a time: trajectories of tens of gigabytes have beads of gigabytes.
        blocks = files.open_frames(system.name, IMPORTED, [batch])
        check_results = checks.judge_import(blocks)
        mark_failed(files, blocks, metadata, batch, check_results)
        record_in_catalogue(files, system, IMPORTED, batch)
        drawn = read_frames(blocks.paths, limit=_DRAWN)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, IMPORTED, batch)),
            metadata=with_file(
                {
                    "figure": picture(sampling_figure(system, drawn), "collective variables of the trajectories"),
                    "files": table([{"file": name, "SHA-256": digest} for name, digest in reader.files.items()]),
                    "seconds": round(time.monotonic() - started, 2),
                    "device": "CPU",
                },
                files,
                system,
                IMPORTED,
                batch,
            ),
            check_results=check_results,
        )

    return imported_beads
