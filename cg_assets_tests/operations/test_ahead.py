"""A command that runs systems can be stopped, however it was started."""

import os
import signal
import time

import pytest
from dagster._utils.interrupts import capture_interrupts

from cg_assets.operations.ahead import start_ahead


@pytest.fixture
def in_the_background():
    """A shell starts a command in the background with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("in_the_background")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_kill_ends_a_command_between_runs(number, tmp_path, monkeypatch):
    """After a run Dagster gives SIGTERM the handler of SIGINT."""
    for name, value in {"CG_ASSETS_HOME": str(tmp_path), "CG_EXECUTOR": "in_process", "DAGSTER_HOME": ""}.items():
        monkeypatch.setenv(name, value)
    start_ahead([])
    with capture_interrupts():  # as during a run
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        time.sleep(5)
