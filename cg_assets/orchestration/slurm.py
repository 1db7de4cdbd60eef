"""Steps as jobs of a Slurm cluster: an executor that submits, watches and cancels them by Slurm's own commands.

The run itself stays where `cg-assets` or the daemon started it and asks Slurm for nothing. A job's name holds the run
and the step, so that a run whose worker was restarted finds its jobs again.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)

from cg_assets.core.errors import CgAssetsError
from cg_assets.orchestration.executors import GPUS_TAG
from cg_assets.settings import installation

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent

_COMMANDS = ("sbatch", "squeue", "scancel")
_ENDED_BADLY = {
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
_WATCH_SECONDS = 10
_COMMAND_SECONDS = 60.0


@dg.executor(
    name="slurm",
    config_schema={
        "sbatch": dg.Field([str], default_value=[], description="Options of sbatch for every step."),
        "sbatch_gpu": dg.Field([str], default_value=["--gres=gpu:1"], description="Added for steps that use a GPU."),
        "max_concurrent": dg.Field(int, is_required=False, description="Jobs of one run at a time."),
    },
    requirements=dg.multiple_process_executor_requirements(),
)
def slurm_executor(context: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """Each step is a job of Slurm."""
    config: Any = context.executor_config
    handler = SlurmStepHandler(config["sbatch"], config["sbatch_gpu"])
    return StepDelegatingExecutor(
        handler,
        retries=RetryMode.ENABLED,
        max_concurrent=config.get("max_concurrent"),
        check_step_health_interval_seconds=_WATCH_SECONDS,
        should_verify_step=True,
    )


class SlurmStepHandler(StepHandler):
    """Submits, watches and cancels the jobs of steps."""

    def __init__(self, options: Sequence[str], gpu_options: Sequence[str]) -> None:
        """Store the options of sbatch for all steps, and further ones for steps that use a GPU.

        Raises:
            CgAssetsError: Slurm's commands are not installed.
        """
        missing = [command for command in _COMMANDS if shutil.which(command) is None]
        if missing:
            raise CgAssetsError(
                f"CG_EXECUTOR=slurm needs Slurm's commands, and {', '.join(missing)} cannot be found; start cg-assets "
                "on a node that submits jobs"
            )
        self._options, self._gpu_options = list(options), list(gpu_options)

    @property
    def name(self) -> str:
        """Name in Dagster's events."""
        return "Slurm"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Submit the job of a step."""
        key = _step_key(step_handler_context)
        name, folder = _job_name(step_handler_context), _log_folder()
        options = list(self._options)
        if GPUS_TAG in step_handler_context.step_tags[key]:
            options += self._gpu_options
        folder.mkdir(parents=True, exist_ok=True)
        step = shlex.join(step_handler_context.execute_step_args.get_command_args())
        # Dagster's command is found where this Python is, whatever is activated on the other node.
        place = shlex.quote(str(Path(sys.executable).parent))
        script = f'#!/bin/bash\nexport PATH={place}:"$PATH"\nexec {step}\n'
        command = [
            *("sbatch", "--parsable", "--no-requeue", f"--job-name={name}", f"--output={folder}/%x-%j.log"),
            *(f"--chdir={Path.cwd()}", *options),
        ]
        number = _run(command, script).split(";")[0].strip()
        yield dg.DagsterEvent.engine_event(
            step_handler_context.get_step_context(key),
            f"Step {key} is job {number} of Slurm; what it prints is in {folder}/{name}-{number}.log.",
            EngineEventData(),
        )

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Whether the job waits, runs, or has ended well; what it did is in Dagster's events."""
        name = _job_name(step_handler_context)
        told = _run(["squeue", "--noheader", "--states=all", "--format=%A %T %r", f"--name={name}"]).splitlines()
        if not told:
            return CheckStepHealthResult.unhealthy(f"Slurm has no job {name}")
        number, state, reason = max((line.split(maxsplit=2) for line in told), key=lambda parts: int(parts[0]))
        if state not in _ENDED_BADLY:
            return CheckStepHealthResult.healthy()
        return CheckStepHealthResult.unhealthy(
            f"job {number} of Slurm ended as {state} ({reason}); see {_log_folder()}/{name}-{number}.log"
        )

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Cancel the job of a step."""
        name = _job_name(step_handler_context)
        _run(["scancel", f"--name={name}"])
        yield dg.DagsterEvent.engine_event(
            step_handler_context.get_step_context(_step_key(step_handler_context)),
            f"Job {name} of Slurm is cancelled.",
            EngineEventData(),
        )


def _step_key(context: StepHandlerContext) -> str:
    (key,) = context.execute_step_args.step_keys_to_execute or ()
    return key


def _job_name(context: StepHandlerContext) -> str:
    """Run and step, in letters that a file's name may have."""
    return re.sub(r"[^\w.-]+", "_", f"{_step_key(context)}.{context.execute_step_args.run_id}")


def _log_folder() -> Path:
    return installation().home / "slurm"


def _run(command: list[str], given: str | None = None) -> str:
    """Output of a Slurm command.

    Raises:
        CgAssetsError: it failed.
    """
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    if done.returncode != 0:
        raise CgAssetsError(f"{shlex.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
