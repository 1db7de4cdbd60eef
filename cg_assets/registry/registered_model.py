"""What MLflow runs of a registered model (models-from-code): this file is copied into the model.

It must run where cg_assets is not installed, so it imports mlflow and numpy only. What answers comes from the code next
to the weights (`cg_assets.registry.shipping`), under a name that contains its hash, so that models of different
versions can be loaded in one process.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


def _imported(place: str) -> Any:
    """What `<module>:<name>` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


with warnings.catch_warnings(record=True):  # MLflow wants types of inputs, by which it would check and convert them

    class RegisteredModel(PythonModel):
        """A potential or a flow, in the units that the model's metadata name."""

        def load_context(self, context: PythonModelContext) -> None:
            """Read it from the registered model."""
            settings = context.model_config or {}
            parts = {name: _imported(place) for name, place in settings["code"].items()}
            self._served = parts.pop("served")(Path(context.artifacts["potential"]), settings, **parts)

        def predict(  # type: ignore[no-untyped-def]
            self,
            context: PythonModelContext,
            model_input,  # noqa: ANN001
            params: dict[str, Any] | None = None,
        ) -> dict[str, np.ndarray]:
            """Energies and forces of configurations; of a flow, perturbed configurations and their labels.

            Args:
                context: given by MLflow.
                model_input: see `ServedPotential.predictions` and `ServedKernel.predictions`.
                params: not used.

            Raises:
                ValueError: an input is missing, unknown, not finite, or has the wrong shape.
            """
            return self._served.predictions(model_input)


set_model(RegisteredModel())
