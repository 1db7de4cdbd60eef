"""`$CG_ASSETS_HOME`: the one folder that holds all state."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cg_assets.systems import home


def prepare_home() -> Path:
    """Make the home folder ready and point Dagster at it: settings, storage and logs lie under it.

    Sets `CG_ASSETS_HOME` and `DAGSTER_HOME` for this process and those that it starts.

    Returns:
        The absolute path of the home folder.
    """
    folder = home()
    dagster_home = folder / "dagster"
    for needed in (dagster_home, folder / "systems", folder / "data", folder / "mlflow"):
        needed.mkdir(parents=True, exist_ok=True)
    settings = dagster_home / "dagster.yaml"
    if not settings.exists():
        temporary = settings.with_suffix(".new")
        shutil.copyfile(Path(__file__).with_name("dagster.yaml"), temporary)
        temporary.replace(settings)
    os.environ["CG_ASSETS_HOME"] = str(folder)
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    # Steps run side by side, one per core; threads of several steps on the same cores are many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return folder
