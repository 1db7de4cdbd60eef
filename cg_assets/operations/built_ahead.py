"""Imported last by the process that steps fork from: builds the job of a command's systems, which steps find built."""

from contextlib import suppress

from cg_assets.core.errors import CgAssetsError
from cg_assets.operations.runs import arguments_of_job, systems_job
from cg_assets.settings import installation
from cg_assets.systems import load_system

with suppress(CgAssetsError):  # the command reports what is wrong
    if names := installation().ahead:
        systems_job(**arguments_of_job([load_system(name) for name in names.split(",")]))
