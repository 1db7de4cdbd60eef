"""The MLflow form of a flow kernel (models-from-code): this file is copied into the registered model.

It must run where cg_assets is not installed, so it imports mlflow, numpy and torch only. The flow comes from the code
next to the weights (`cg_assets.registry.shipping`), under a name that contains its hash.
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

_STEPS = 8
_BATCH = 256


class ShippedKernel:
    """A flow kernel that checks what it is given."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Build the flow and read its weights.

        Args:
            folder: where `config.json` and `weights.pt` lie.
            settings: `n_beads`, `dimension`, and `code`, where the functions that build and integrate the flow are.
        """
        import torch

        self._shape = (int(settings["n_beads"]), int(settings["dimension"]))
        names = ("build", "at_temperature", "carry")
        build, self._at_temperature, self._carry = (_imported(settings["code"][name]) for name in names)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._temperatures = config.get("temperatures", [config["temperature"]])
        self._boltzmann = float(config["thermal_energy"]) / float(config["temperature"])
        self._flow = build(config)
        self._flow.load_state_dict(torch.load(folder / "weights.pt", weights_only=True, map_location="cpu"))
        self._flow.eval().requires_grad_(False)

    def perturbed(self, model_input: Any) -> dict[str, np.ndarray]:
        """See `RegisteredKernel.predict`."""
        import torch

        positions, temperature, seed = self._checked(model_input)
        generator = torch.Generator().manual_seed(seed)
        places, labels = (np.zeros(positions.shape, np.float32) for _ in range(2))
        for kelvin in np.unique(temperature).tolist():
            flow, rows = self._at_temperature(self._flow, kelvin), np.flatnonzero(temperature == kelvin)
            for first in range(0, len(rows), _BATCH):
                some = rows[first : first + _BATCH]
                part = positions[some]
                centre = part.mean(axis=1, keepdims=True) if self._shape[1] == 3 else np.zeros((1, 1, 1))
                clean = torch.as_tensor(part - centre).float()
                noise = torch.randn(clean.shape, generator=generator)
                place, carried = self._carry(flow, clean + flow.noise * noise, -noise[None] / flow.noise, _STEPS)
                label = carried[0] - (carried[0].mean(dim=1, keepdim=True) if self._shape[1] == 3 else 0.0)
                places[some] = place.double().numpy() + centre
                labels[some] = (self._boltzmann * kelvin * label).numpy()
        return {"positions": places, "forces": labels}

    def _checked(self, given: Any) -> tuple[np.ndarray, np.ndarray, int]:
        n_beads, dimension = self._shape
        wanted = f"(n_frames, {n_beads}, {dimension})"
        if not isinstance(given, dict) or given.get("positions") is None:
            raise ValueError(f"give a dictionary with positions {wanted} and, optionally, temperature and seed")
        if unknown := set(given) - {"positions", "temperature", "seed"}:
            raise ValueError(f"unknown input {', '.join(map(str, unknown))}; known are positions, temperature and seed")
        positions = np.asarray(given["positions"], np.float64)
        if positions.ndim != 3 or positions.shape[1:] != self._shape:
            raise ValueError(f"positions have shape {positions.shape}; they must be {wanted} for this kernel")
        if not np.isfinite(positions).all():
            raise ValueError("positions holds numbers that are not finite")
        seed = np.asarray(0 if given.get("seed") is None else given["seed"]).reshape(-1)
        if len(seed) != 1 or seed[0] != int(seed[0]) or seed[0] < 0:
            raise ValueError(f"seed is {given['seed']!r}; give one whole number from 0 up")
        return positions, self._temperature(given.get("temperature"), len(positions)), int(seed[0])

    def _temperature(self, given: Any, n_frames: int) -> np.ndarray:
        """Temperature `(n_frames,)` of each configuration; that of the flow where it has one only."""
        shown = ", ".join(f"{item:g}" for item in self._temperatures)
        if given is None and len(self._temperatures) > 1:
            raise ValueError(f"give the temperature, (n_frames,) or one number, of {shown}")
        kelvin = np.asarray(self._temperatures[0] if given is None else given, np.float64).reshape(-1)
        if len(kelvin) not in (1, n_frames):
            raise ValueError(f"temperature has {len(kelvin)} numbers for {n_frames} configurations")
        if (other := kelvin[~np.isin(kelvin, self._temperatures)]).size:
            raise ValueError(f"temperature is {other[0]:g}; this kernel has {shown}")
        return np.broadcast_to(kelvin, n_frames)


def _imported(place: str) -> Any:
    """What `<module>:<name>` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


with warnings.catch_warnings(record=True):  # MLflow wants types of inputs, by which it would check and convert them

    class RegisteredKernel(PythonModel):
        """Perturbed configurations and their force labels, in the units that the model's metadata name."""

        def load_context(self, context: PythonModelContext) -> None:
            """Read the flow from the registered model."""
            self._kernel = ShippedKernel(Path(context.artifacts["potential"]), context.model_config or {})

        def predict(  # type: ignore[no-untyped-def]
            self,
            context: PythonModelContext,
            model_input,  # noqa: ANN001
            params: dict[str, Any] | None = None,
        ) -> dict[str, np.ndarray]:
            """Perturb configurations and label them.

            Args:
                context: given by MLflow.
                model_input: `positions` `(n_frames, n_beads, dimension)`; `temperature` `(n_frames,)` or one number,
                    optional where the flow has one only; optional `seed`, a whole number (default 0).
                params: not used.

            Returns:
                `positions` R' and `forces`, whose mean at given R' is its mean force, both of the shape of the input.

            Raises:
                ValueError: an input is missing, unknown, not finite, or has the wrong shape.
            """
            return self._kernel.perturbed(model_input)


set_model(RegisteredKernel())
