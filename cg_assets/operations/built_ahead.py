"""Imported last by the process that steps fork from, to make ready what a command's steps need.

It builds the job of its systems, which steps find built, and imports what their stages do.
"""

import json
from contextlib import suppress
from importlib import import_module

from cg_assets.assets import stages_of
from cg_assets.core.errors import CgAssetsError
from cg_assets.operations.runs import arguments_of_job, systems_job
from cg_assets.orchestration.preload import modules_of
from cg_assets.settings import installation
from cg_assets.systems import load_system

with suppress(CgAssetsError):  # the command reports what is wrong
    if ahead := json.loads(installation().ahead):
        systems = [load_system(name) for name in ahead["systems"]]
        wanted = [stage for system in systems for stage in stages_of(system)]
        kinds = [kind for stage in wanted if stage.name in (ahead["stages"] or [stage.name]) for kind in stage.kinds]
        for module in modules_of(kinds):
            import_module(module)
        systems_job(**arguments_of_job(systems))
