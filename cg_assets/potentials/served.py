"""A potential that a registered model carries: its weights, and checks of what it is given.

Weights are read with `weights_only=True`; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

_PAIRS_AT_ONCE = 2**20
"""Most bead pairs in one evaluation; bounds the memory for any number of frames."""


class ServedPotential:
    """A network with its weights that checks what it is given."""

    def __init__(self, folder: Path, settings: dict[str, Any], kind: type, build: Callable[..., Any]) -> None:
        """Build the network and read its weights.

        Args:
            folder: where `config.json` and `weights.pt` lie.
            settings: `n_beads` and `dimension`.
            kind: class of the potential.
            build: makes it from its config.
        """
        self._n_beads = int(settings["n_beads"])
        self._dimension = int(settings["dimension"])
        self._device = torch.device(os.environ.get("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cpu"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._module = build(kind, config)
        weights = torch.load(folder / "weights.pt", weights_only=True, map_location="cpu")
        self._module.load_state_dict(weights)
        self._module.to(self._device).eval().requires_grad_(False)
        floats = [value for value in self._module.state_dict().values() if value.is_floating_point()]
        self._dtype = floats[0].dtype if floats else torch.float32

    def predictions(self, model_input: Any) -> dict[str, np.ndarray]:
        """Energies and forces.

        Args:
            model_input: `positions` `(n_frames, n_beads, dimension)`; optional `temperature` `(n_frames,)` or one
                number, `box` `(n_frames, 3)` or `(3,)`. Arrays or nested lists.

        Returns:
            `energy` `(n_frames,)` and `forces` `(n_frames, n_beads, dimension)`; of a potential with a committee also
            `force_deviation`, of the shape of the forces: the standard deviation of each over the committee.

        Raises:
            ValueError: an input is missing, unknown, not finite, or has the wrong shape.
        """
        inputs = self._checked(model_input)
        step = max(1, _PAIRS_AT_ONCE // self._n_beads**2)
        parts = []
        for start in range(0, max(len(inputs["positions"]), 1), step):
            part = {
                name: torch.as_tensor(values[start : start + step], dtype=self._dtype, device=self._device)
                for name, values in inputs.items()
            }
            with torch.no_grad():
                answer = self._module.predictions(**part)
            parts.append({name: value.cpu().numpy() for name, value in answer.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _checked(self, given: Any) -> dict[str, np.ndarray]:
        if not isinstance(given, dict):
            raise ValueError(
                f"the input is a {type(given).__name__}; give a dictionary with positions (n_frames, {self._n_beads}, "
                f"{self._dimension}) and, optionally, temperature (n_frames,) and box (n_frames, 3)"
            )
        if unknown := set(given) - {"positions", "temperature", "box"}:
            raise ValueError(f"unknown input {', '.join(map(str, unknown))}; known are positions, temperature, box")
        if given.get("positions") is None:
            raise ValueError("the input positions is missing")
        positions = np.asarray(given["positions"], np.float64)
        if positions.ndim != 3 or positions.shape[1:] != (self._n_beads, self._dimension):
            raise ValueError(
                f"positions have shape {positions.shape}; this model has {self._n_beads} beads in {self._dimension} "
                f"dimension(s), so they must be (n_frames, {self._n_beads}, {self._dimension})"
            )
        inputs = {"positions": positions}
        for name, shape in (("temperature", (len(positions),)), ("box", (len(positions), 3))):
            if given.get(name) is None:
                continue
            values = np.asarray(given[name], np.float64)
            if values.shape not in (shape, shape[1:]):
                raise ValueError(f"{name} has shape {values.shape}; it must be {shape} for these positions")
            inputs[name] = np.broadcast_to(values, shape).copy()
        for name, values in inputs.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        return inputs
