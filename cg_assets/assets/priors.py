"""`prior_<name>`: a force field of the chain, fitted to configurations, which the network of a potential corrects."""

import dagster as dg

from cg_assets.assets import checks
from cg_assets.assets.stage import asset_key, picture, provenance, record_in_catalogue, table, with_file
from cg_assets.assets.trainings import read_source
from cg_assets.orchestration.console import log_progress
from cg_assets.orchestration.resources import StoreResource
from cg_assets.systems import SystemSpec

CODE_VERSION = "2"


def build_prior(system: SystemSpec, name: str) -> dg.AssetsDefinition:
    """The asset of the prior of one potential; it learns from all batches of its labels, but not from the labels."""
    labels = system.potentials[name].labels
    stage = f"prior_{name}"
    key = asset_key(system, stage)

    @dg.asset(
        key=key,
        deps=[asset_key(system, labels)],
        group_name=system.name,
        code_version=CODE_VERSION,
        kinds={"numpy", "parquet"},
        description=f"Bonds, angles, dihedrals and repulsion fitted to the configurations of {labels}, and simulated "
        "without a network.",
        check_specs=checks.prior_specs(key),
    )
    def prior(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        import numpy as np

        from cg_assets.figures.plots_prior import prior_plot
        from cg_assets.mapping.maps import build_map
        from cg_assets.training.prior_simulation import REPLICAS, simulate_prior
        from cg_assets.training.setup import fitted_prior

        files = store.open()
        source = read_source(files, system, labels)
        positions = np.concatenate([part.positions[~part.probe] for part in source.frames])
        fit = fitted_prior(system, positions)
        if fit is None:
            raise TypeError(f"{system.name} has no network.prior")
        settings = system.cg_simulation
        rows = np.random.default_rng(settings.seed).integers(len(positions), size=REPLICAS)
        simulated = simulate_prior(
            fit,
            positions[rows],
            build_map(system).bead_masses,
            system.thermal_energy,
            settings,
            log_progress(context.log),
        )
        columns = fit.columns() | {"divergence_alone": simulated.divergence}
        files.write_table(
            columns,
            provenance(
                context,
                system,
                stage,
                CODE_VERSION,
                upstream=source.upstream,
                seed=settings.seed,
                prior=fit.config(),
            ),
        )
        record_in_catalogue(files, system, stage)
        figure = prior_plot(fit, simulated.histograms, title=f"{system.title}: prior of potential {name}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(files.data_version(system.name, stage)),
            metadata=with_file(
                {
                    "figure": picture(figure, "prior"),
                    "terms": table(fit.rows()),
                    "prior_alone": f"{simulated.stable_replicas} of {simulated.replicas} replicas stable for "
                    f"{simulated.time:g} ps",
                    "frames": len(positions),
                },
                files,
                system,
                stage,
            ),
            check_results=checks.judge_prior(fit, simulated),
        )

    return prior
