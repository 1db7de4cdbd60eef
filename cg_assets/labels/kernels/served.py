"""A flow that a registered model carries: its weights, and checks of what it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cg_assets.labels.kernels.flow_network import at_temperature, build_flow, carry

_STEPS = 8
_BATCH = 256


class ServedKernel:
    """A flow kernel that checks what it is given."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Build the flow and read its weights.

        Args:
            folder: where `config.json` and `weights.pt` lie.
            settings: `n_beads` and `dimension`.
        """
        self._shape = (int(settings["n_beads"]), int(settings["dimension"]))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._temperatures = config.get("temperatures", [config["temperature"]])
        self._boltzmann = float(config["thermal_energy"]) / float(config["temperature"])
        self._flow = build_flow(config)
        self._flow.load_state_dict(torch.load(folder / "weights.pt", weights_only=True, map_location="cpu"))
        self._flow.eval().requires_grad_(False)

    def predictions(self, model_input: Any) -> dict[str, np.ndarray]:
        """Perturb configurations and label them.

        Args:
            model_input: `positions` `(n_frames, n_beads, dimension)`; `temperature` `(n_frames,)` or one number,
                optional where the flow has one only; optional `seed`, a whole number (default 0).

        Returns:
            `positions` R' and `forces`, whose mean at given R' is its mean force, both of the shape of the input.

        Raises:
            ValueError: an input is missing, unknown, not finite, or has the wrong shape.
        """
        positions, temperature, seed = self._checked(model_input)
        generator = torch.Generator().manual_seed(seed)
        places, labels = (np.zeros(positions.shape, np.float32) for _ in range(2))
        for kelvin in np.unique(temperature).tolist():
            flow, rows = at_temperature(self._flow, kelvin), np.flatnonzero(temperature == kelvin)
            for first in range(0, len(rows), _BATCH):
                some = rows[first : first + _BATCH]
                part = positions[some]
                centre = part.mean(axis=1, keepdims=True) if self._shape[1] == 3 else np.zeros((1, 1, 1))
                clean = torch.as_tensor(part - centre).float()
                noise = torch.randn(clean.shape, generator=generator)
                place, carried = carry(flow, clean + flow.noise * noise, -noise[None] / flow.noise, _STEPS)
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
