"""Training runs, registered models and champions in MLflow; plain Python, MLflow imported when it is used."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from cg_assets.core.errors import TrackingError
from cg_assets.core.processes import Process, this_process
from cg_assets.registry.champions import (
    CHAMPION,
    ChampionDecision,
    Judgement,
    choose_champion,
    evaluation_tags,
    tag_version,
)
from cg_assets.registry.mlflow_connection import MlflowConnection, all_pages, runs_of
from cg_assets.registry.mlflow_records import file_name, flat, log_datasets, log_metrics, log_results, signature, text
from cg_assets.registry.model_lineage import file_key, trace
from cg_assets.registry.models import ModelVersion, RegisteredModel, ReportPlace, parts_of, read_models
from cg_assets.registry.shipping import RUNNER, shipment_in
from cg_assets.storage.atomic import file_lock
from cg_assets.storage.parquet import FileInfo

if TYPE_CHECKING:
    from cg_assets.core.statistics.estimates import Estimate
    from cg_assets.labels.kernels.flow_network import FlowConfig
    from cg_assets.potentials.base import PotentialConfig

_log = logging.getLogger(__name__)
CANDIDATE = "candidate"
_PROCESS = "process"
REQUIREMENTS = ["torch>=2.4", "numpy>=1.26,<3"]
"""Requirements of a registered model besides MLflow, which lists itself."""


class ModelTracking:
    """All uses of MLflow in this project.

    Attributes:
        uri: the tracking URI.
        home: the home folder.
    """

    def __init__(self, tracking_uri: str | None, home: Path) -> None:
        """Track in an MLflow server or database, or (None) in `<home>/mlflow`; nothing is opened yet."""
        self._connection = MlflowConnection(tracking_uri, home)
        self.uri = self._connection.uri
        self.home = self._connection.home
        self._run_id: str | None = None

    def check(self) -> None:
        """Make sure that models can be tracked, before any work is done for them.

        Raises:
            TrackingError: the store does not answer within about ten seconds, or cannot be made.
        """
        self._connection.open()

    # ----------------------------------------------------------------------------------- training runs

    @contextmanager
    def start_training_run(
        self,
        system: str,
        potential: str,
        tags: Mapping[str, object],
        params: Mapping[str, object],
        datasets: Sequence[FileInfo],
    ) -> Iterator[str]:
        """One MLflow run for one training; it is marked failed when the block raises.

        Runs of processes that were killed are marked killed.

        Args:
            system: name of the system: the MLflow experiment.
            potential: name of the potential.
            tags: dagster_run_id, asset_key, batches, upstream_data_versions, code_version, ...; text or JSON-able.
            params: settings of the training; nested ones are joined by dots.
            datasets: Parquet files that it learns from, each logged with its content hash.

        Yields:
            The id of the run.

        Raises:
            TrackingError: MLflow cannot be reached or refuses.
            StorageError: a data file is missing or damaged.
        """
        inputs = [(info.path, *file_key(self.home, info), info.content_hash) for info in datasets]
        mlflow, client = self._connection.open()
        with self._connection.explained():
            experiment = self._experiment(client, system)
            self._end_dead_runs(client, experiment)
            run = mlflow.start_run(
                experiment_id=experiment,
                run_name=f"{system}.{potential}",
                tags=text({"system": system, "potential": potential, _PROCESS: str(this_process()), **tags}),
            )
        self._run_id = run.info.run_id
        try:
            with self._connection.explained():
                mlflow.log_params(text(flat(params)))
                log_datasets(mlflow, inputs)
            yield self._run_id
        except BaseException:
            try:
                with self._connection.explained():
                    mlflow.end_run("FAILED")
            except TrackingError as error:
                _log.warning("run %s could not be marked failed: %s", self._run_id, error)
            raise
        finally:
            self._run_id = None
        with self._connection.explained():
            mlflow.end_run("FINISHED")

    @staticmethod
    def _end_dead_runs(client: Any, experiment: str) -> None:
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            process = Process.parse(run.data.tags.get(_PROCESS, ""))
            if process is not None and process.is_gone:
                client.set_terminated(run.info.run_id, "KILLED")

    def _experiment(self, client: Any, system: str) -> str:
        from mlflow.exceptions import MlflowException

        if experiment := client.get_experiment_by_name(system):
            return experiment.experiment_id
        try:
            return client.create_experiment(system, self._connection.artifact_location(system))
        except MlflowException:  # another process made it in this instant
            if experiment := client.get_experiment_by_name(system):
                return experiment.experiment_id
            raise

    def _current_run(self) -> str:
        if self._run_id is None:
            raise TrackingError("no training run is open; use this inside `with tracking.start_training_run(...)`")
        return self._run_id

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of an epoch: training loss, held-out loss, noise floor; those that are not numbers are left out.

        Raises:
            TrackingError: no run is open, or MLflow does not answer.
        """
        run_id = self._current_run()
        _, client = self._connection.open()
        with self._connection.explained():
            log_metrics(client, run_id, metrics, step)

    def log_figure(self, png: bytes, name: str) -> None:
        """A figure of the training run as `figures/<name>.png`. Errors as in `log_epoch`."""
        self._log_bytes(self._current_run(), png, "figures", f"{file_name(name)}.png")

    def log_spec(self, yaml_text: str) -> None:
        """The system's file as `system.yaml`. Errors as in `log_epoch`."""
        self._log_bytes(self._current_run(), yaml_text.encode(), "", "system.yaml")

    def _log_bytes(self, run_id: str, content: bytes, folder: str, name: str) -> None:
        _, client = self._connection.open()
        with tempfile.TemporaryDirectory() as scratch, self._connection.explained():
            path = Path(scratch) / name
            path.write_bytes(content)
            client.log_artifact(run_id, str(path), folder or None)

    # ----------------------------------------------------------------------------------- the registry

    def register(
        self,
        model_directory: Path,
        registered_name: str,
        example_positions: NDArray,
        tags: Mapping[str, object],
        metadata: Mapping[str, object] | None = None,
        conditions: Mapping[str, NDArray] | None = None,
        failed_checks: Sequence[str] = (),
        after: int = 0,
    ) -> str:
        """Register a saved potential or flow as a new version with the alias `candidate`; inside a training run.

        A version whose checks failed is registered without the alias.

        Args:
            model_directory: folder with `config.json` and `weights.pt`.
            registered_name: `<system>.<potential>`.
            example_positions: `(n_frames, n_beads, dimension)`; fixes the model's number of beads and dimension.
            tags: dagster_run_id, asset_key, batches, upstream_data_versions, code_version; text or JSON-able.
            metadata: facts for users of the model, for example units and bead names.
            conditions: further inputs of the example: those that the potential needs.
            failed_checks: names of the checks of the training that failed; a tag of the version.
            after: highest number that was ever given to a version; MLflow's database can have been restored since.

        Returns:
            The version.

        Raises:
            TrackingError: no run is open, files are missing, or MLflow does not answer.
        """
        run_id = self._current_run()
        if example_positions.ndim != 3:
            raise TrackingError(
                f"{registered_name}: example_positions have shape {example_positions.shape}; give "
                "(n_frames, n_beads, dimension)"
            )
        shipment = shipment_in(Path(model_directory), registered_name)
        if missing := shipment.needed - set(conditions or {}):
            raise TrackingError(f"{registered_name}: give the {' and '.join(sorted(missing))} of its example, too")
        mlflow, client = self._connection.open()
        n_beads, dimension = example_positions.shape[1:]
        with tempfile.TemporaryDirectory() as scratch, self._connection.explained():
            package, code = shipment.copy(Path(scratch))
            logged = mlflow.pyfunc.log_model(
                name=registered_name.replace(".", "_"),
                python_model=str(RUNNER),
                artifacts={"potential": str(model_directory)},
                code_paths=[str(package)],
                model_config={"code": code, "n_beads": n_beads, "dimension": dimension},
                signature=signature(n_beads, dimension, list(shipment.outputs)),
                input_example={"positions": example_positions[:2]} | dict(conditions or {}),
                pip_requirements=REQUIREMENTS,
                metadata={"positions": f"(n_frames, {n_beads}, {dimension})"} | shipment.inputs | dict(metadata or {}),
            )
            verdict = {"failed_checks": list(failed_checks)} if failed_checks else {}
            version = self._add_version(client, registered_name, logged, run_id, text({**tags, **verdict}), after)
            if not failed_checks:
                client.set_registered_model_alias(registered_name, CANDIDATE, version)
        return version

    def _add_version(self, client: Any, name: str, logged: Any, run_id: str, tags: dict[str, str], after: int) -> str:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        while True:
            created = client.create_model_version(name, logged.model_uri, run_id, tags, None, None, 60, logged.model_id)
            if int(created.version) > after:
                return str(created.version)
            # The number was given to another model before MLflow's database was restored, or its model deleted.
            client.delete_model_version(name, created.version)

    def describe(self, name: str, card: str) -> None:
        """Describe a registered model in Markdown. Errors as in `attach_report`."""
        _, client = self._connection.open()
        with self._connection.explained():
            client.update_registered_model(name, card)

    def attach_report(self, name: str, version: str, files: Mapping[str, bytes]) -> ReportPlace:
        """Attach files, name to content, as the folder `report` to the training run of a version.

        Raises:
            TrackingError: there is no such version, or MLflow does not answer.
        """
        _, client = self._connection.open()
        with self._connection.explained():
            run_id = str(client.get_model_version(name, version).run_id)
            experiment = str(client.get_run(run_id).info.experiment_id)
        for file, content in files.items():
            self._log_bytes(run_id, content, "report", file)
        return ReportPlace(experiment, run_id)

    @property
    def local_uri(self) -> str:
        """The tracking URI where this project keeps the store itself; else empty: it may hold a password."""
        return self.uri if self._connection.local else ""

    def log_evaluation(
        self,
        name: str,
        version: str,
        metrics: Mapping[str, Estimate],
        figures: Mapping[str, bytes],
        reference_hash: str,
    ) -> None:
        """Attach the figures of merit of an evaluation to a version and to its training run.

        Args:
            name: registered name.
            version: the version that was evaluated.
            metrics: name to value; its error becomes a metric `evaluation_error/NAME`, its unit part of the run's tags.
            figures: name to PNG.
            reference_hash: content hash of its reference.

        Raises:
            TrackingError: there is no such version, or MLflow does not answer.
        """
        _, client = self._connection.open()
        with self._connection.explained():
            run_id = str(client.get_model_version(name, version).run_id)
            numbers = {key: item.value for key, item in metrics.items()}
            tag_version(client, name, version, evaluation_tags(numbers, reference_hash))
            log_results(client, run_id, metrics, int(version))
        for title, png in figures.items():
            self._log_bytes(run_id, png, f"evaluation/version_{version}", f"{file_name(title)}.png")

    def decide_champion(
        self, name: str, version: str, judgement: Judgement, earlier: Mapping[str, Judgement] | None = None
    ) -> ChampionDecision:
        """Move the alias `champion` to a version, if nothing forbids it and it is not worse than the best so far.

        Args:
            name: registered name.
            version: the version that was evaluated.
            judgement: how it did.
            earlier: how earlier versions do against this same reference, where they had to be evaluated again because
                they were evaluated against another one.

        Returns:
            The decision, which is also written as tags on the version and on the champion it was compared with.

        Raises:
            TrackingError: there is no such version, or MLflow does not answer.
        """
        _, client = self._connection.open()
        lock = self._connection.folder / ".champion.lock"
        with file_lock(lock, 60.0, "the choice of a champion"), self._connection.explained():
            return choose_champion(client, name, str(version), judgement, earlier or {})

    # ----------------------------------------------------------------------------------- looking up

    def models(self) -> list[RegisteredModel]:
        """All registered models, by name."""
        if self._connection.is_new:
            return []
        if self._connection.local:
            return read_models(self._connection.database)
        _, client = self._connection.open()
        found = []
        with self._connection.explained():
            experiments = [item.experiment_id for item in all_pages(client.search_experiments)]
            for model in all_pages(client.search_registered_models):
                versions = client.search_model_versions(f"name = '{model.name}'", max_results=10_000)
                runs = runs_of(client, experiments, [item.run_id for item in versions if item.run_id])
                found.append(
                    RegisteredModel(
                        name=model.name,
                        versions={str(item.version): dict(item.tags) for item in versions},
                        aliases={alias: str(number) for alias, number in model.aliases.items()},
                        without_run=frozenset(
                            str(item.version) for item in versions if item.run_id and item.run_id not in runs
                        ),
                    )
                )
        return sorted(found, key=lambda item: item.name)

    def versions(self, name: str) -> list[str]:
        """Versions of a registered model, oldest first."""
        _, client = self._connection.open()
        with self._connection.explained():
            found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
        return sorted((str(item.version) for item in found), key=int)

    def lookup(self, reference: str, check_content: bool = False) -> ModelVersion:
        """All information on a version of a registered model.

        Args:
            reference: `<name>`, `<name>@<alias>` or `<name>/<version>`; a bare name means its champion, else its
                candidate.
            check_content: read every ancestor file in full and recompute its hash.

        Raises:
            TrackingError: there is no such model, alias or version, or MLflow does not answer.
        """
        parts_of(reference)
        if self._connection.is_new:
            raise TrackingError(f"no model {reference!r}: none is registered in {self.home} yet; run a system first")
        _, client = self._connection.open()
        version = self._find(client, reference)
        run = self._run_of(client, version)
        with self._connection.explained():
            aliases = client.get_registered_model(version.name).aliases
        datasets = []
        for item in run.inputs.dataset_inputs if run and run.inputs else []:
            facts = {tag.key: tag.value for tag in item.tags}
            source = json.loads(item.dataset.source).get("uri", "")
            datasets.append((item.dataset.name, facts.get("file", source), item.dataset.digest))
        return ModelVersion(
            name=version.name,
            version=str(version.version),
            uri=f"models:/{version.name}/{version.version}",
            aliases=sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)),
            run_id=version.run_id,
            metrics=dict(run.data.metrics) if run else {},
            params=dict(run.data.params) if run else {},
            tags=dict(version.tags),
            run_tags={key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
            if run
            else {},
            lineage=trace(self.home, version.name, datasets, check_content),
        )

    def _run_of(self, client: Any, version: Any) -> Any:
        """The training run of a version; None where it was registered without one, by other means."""
        from mlflow.exceptions import MlflowException

        if not version.run_id:
            return None
        with self._connection.explained():
            try:
                return client.get_run(version.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        raise TrackingError(
            f"model {version.name} version {version.version}: its training run {version.run_id} was deleted from "
            f"MLflow, so what it learned from is not known; cg-assets refresh {version.name.partition('.')[0]} trains "
            "it again, then delete this version"
        )

    def specification(self, run_id: str) -> str:
        """The system's file as it was when a model was trained; empty where the run kept none.

        Raises:
            TrackingError: MLflow does not answer.
        """
        _, client = self._connection.open()
        with tempfile.TemporaryDirectory() as scratch, self._connection.explained():
            if not any(item.path == "system.yaml" for item in client.list_artifacts(run_id)):
                return ""
            return Path(client.download_artifacts(run_id, "system.yaml", scratch)).read_text(encoding="utf-8")

    def load(self, name: str, version: str, weights: str | None = None) -> tuple[Any, PotentialConfig | FlowConfig]:
        """The network of a registered version, ready to evaluate, and its config.

        Args:
            name: registered name.
            version: its number.
            weights: hash that its weights have; None where it is not known.

        Raises:
            TrackingError: there is no such version, its weights are others, or MLflow does not answer.
            StorageError: its files are damaged.
        """
        from cg_assets.labels.kernels.flow_network import FLOWS, build_flow
        from cg_assets.potentials.energies import weights_hash
        from cg_assets.potentials.model_format import load_potential

        mlflow, client = self._connection.open()
        source = self._find(client, f"{name}/{version}").source
        with tempfile.TemporaryDirectory() as scratch:
            with self._connection.explained():
                folder = mlflow.artifacts.download_artifacts(source, dst_path=scratch)
            module, config = load_potential(Path(folder) / "artifacts" / "potential", dict.fromkeys(FLOWS, build_flow))
        if weights not in (None, weights_hash(module)):
            raise TrackingError(
                f"{name} version {version} has other weights in MLflow than the file that names it: the number was "
                f"given again; cg-assets refresh {name.partition('.')[0]} trains it again"
            )
        return module, cast("PotentialConfig | FlowConfig", config)

    def example(self, name: str, version: str) -> dict[str, NDArray]:
        """The example of a registered version: two training frames with their conditions, as `predict` takes them.

        Raises:
            TrackingError: there is no such version, or MLflow does not answer.
        """
        mlflow, client = self._connection.open()
        source = self._find(client, f"{name}/{version}").source
        with tempfile.TemporaryDirectory() as scratch, self._connection.explained():
            folder = mlflow.artifacts.download_artifacts(source, dst_path=scratch)
            return mlflow.models.Model.load(folder).load_input_example(folder)

    def _find(self, client: Any, reference: str) -> Any:
        from mlflow.exceptions import MlflowException

        name, alias, version = parts_of(reference)
        try:
            aliases = client.get_registered_model(name).aliases
        except MlflowException as error:
            known = ", ".join(item.name for item in self.models()) or "none yet"
            raise TrackingError(
                f"no model {name!r} is registered at {self._connection.shown}; there are: {known}"
            ) from error
        if version is None:
            wanted = [alias] if alias else [CHAMPION, CANDIDATE]
            alias = next((item for item in wanted if item in aliases), None)
            version = aliases.get(alias)
            if version is None:
                known = ", ".join(sorted(aliases)) or "none"
                raise TrackingError(f"model {name}: no alias {' or '.join(wanted)}; its aliases are: {known}")
        try:
            return client.get_model_version(name, str(version))
        except MlflowException as error:
            named = f", which alias {alias} names; cg-assets refresh {name.partition('.')[0]}" if alias else ""
            raise TrackingError(f"model {name}: no version {version}{named}; see cg-assets models") from error
