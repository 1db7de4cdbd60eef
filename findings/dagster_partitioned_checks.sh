#!/usr/bin/env bash
# Dagster 1.13.27: the latest execution of a check that has partitions is that of whichever partition ran last.
#
# Valid input: an asset with two partitions and one check, which fails in the first partition and passes in the second.
# Seen: get_latest_asset_check_execution_by_key says SUCCEEDED, with partitions on the check and without. Only a check with
# a partitions_def (in preview) keeps the failure apart: get_asset_check_partition_info has FAILED for the first partition.
# A program that asks for the latest execution takes data for sound of which one batch failed.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dagster==1.13.27
cat > "$folder/check.py" <<'PYTHON'
import logging
import warnings

import dagster as dg

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
batches = dg.DynamicPartitionsDefinition(name="batches")
seen = {}
for partitioned in (False, True):
    spec = dg.AssetCheckSpec("sound", asset="samples", partitions_def=batches if partitioned else None)

    @dg.asset(partitions_def=batches, check_specs=[spec])
    def samples(context):
        passed = context.partition_key != "first"
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="sound", passed=passed)])

    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("batches", ["first", "second"])
    for batch in ("first", "second"):
        assert dg.materialize([samples], partition_key=batch, instance=instance).success
    key, storage = dg.AssetCheckKey(dg.AssetKey("samples"), "sound"), instance.event_log_storage
    latest = storage.get_latest_asset_check_execution_by_key([key])[key].status.value
    states = {item.partition_key: item.latest_execution_status.value for item in storage.get_asset_check_partition_info([key])}
    seen[partitioned] = (latest, states)
    print(f"check with partitions: {partitioned}; latest: {latest}; by partition: {states}")
assert seen[False][0] == "SUCCEEDED" and "first" not in seen[False][1]
assert seen[True] == ("SUCCEEDED", {"first": "FAILED", "second": "SUCCEEDED"})
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
