#!/usr/bin/env bash
# mlflow 3.17.2: runs that log one data set at the same moment fail, although each call alone is valid.
#
# Valid input: three runs of one experiment in three threads, each of which calls log_inputs with the same name and digest,
# as trainings on shared data do that a scheduler starts together; store: a local SQLite database, MLflow's default.
# Seen: all but one call may raise MlflowException, "UNIQUE constraint failed: datasets.experiment_id, datasets.name,
# datasets.digest"; the same call succeeds when it is repeated. Later calls with data that are known succeed.
# Fails when twenty rounds pass without such an error, or when the repetition fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow==3.17.2
cat > "$folder/log.py" <<'PYTHON'
import concurrent.futures
import logging
import sys
import threading

import mlflow
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.meta_dataset import MetaDataset
from mlflow.exceptions import MlflowException

logging.disable(logging.CRITICAL)
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = mlflow.create_experiment("at once")
barrier = threading.Barrier(3)
refused, repeated = [], []


def train(number):
    source = get_dataset_source_from_json('{"uri": "/data/forces.parquet"}', "local")
    data = MetaDataset(source, name="forces", digest=f"hash {number}")
    with mlflow.start_run(experiment_id=experiment):
        barrier.wait(timeout=60)
        try:
            mlflow.log_inputs([data], ["training"], [{}])
        except MlflowException as error:
            refused.append(str(error).splitlines()[0])
            barrier_free = mlflow.log_inputs([data], ["training"], [{}])
            repeated.append(barrier_free is None)


with concurrent.futures.ThreadPoolExecutor(3) as pool:
    for number in range(20):
        for future in [pool.submit(train, number) for _ in range(3)]:
            future.result(timeout=120)
print(f"{len(refused)} of 60 calls refused; {sum(repeated)} of them succeeded when repeated")
print(refused[0] if refused else "none")
assert refused and all("UNIQUE constraint failed: datasets" in reason for reason in refused)
assert len(repeated) == len(refused)
PYTHON
"$folder/venv/bin/python" "$folder/log.py" "$folder"
