"""Imported by the process that steps fork from: what MLflow would otherwise spend seconds on in every step."""

import mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from cg_assets.registry.tracking import REQUIREMENTS

warn_dependency_requirement_mismatches(REQUIREMENTS)  # makes and keeps the table of all installed modules
