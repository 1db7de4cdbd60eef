"""What steps print, kept for their pages."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file

from cg_assets.settings import installation


class StepLogs(LocalComputeLogManager):
    """Keeps what a step prints in files of the home folder.

    Dagster's own class also copies it to the terminal, by four processes for each step, which print tracebacks at
    Ctrl-C and whenever the files go. Messages of steps reach the terminal by the console logger.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing: the place follows the home folder."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> StepLogs:
        """The logs of the present home folder."""
        return cls(str(installation().home.absolute() / "dagster" / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Print to files until the block ends."""
        kinds = (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        output, errors = (self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]) for kind in kinds)
        for path in (output, errors):
            ensure_file(path)
        with redirect_to_file(sys.stdout, output), redirect_to_file(sys.stderr, errors):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))
