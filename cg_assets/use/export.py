"""`cg-assets export`: a registered potential as a folder from which another engine simulates it."""

from __future__ import annotations

import importlib
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cg_assets import __version__
from cg_assets.core.errors import CgAssetsError
from cg_assets.potentials.base import Potential, PotentialConfig
from cg_assets.potentials.model_format import load_potential, save_potential
from cg_assets.potentials.settings import build_potential
from cg_assets.storage.atomic import new_folder
from cg_assets.use import targets
from cg_assets.use.beads import BeadEnergy
from cg_assets.use.targets import target_names

if TYPE_CHECKING:
    from cg_assets.registry.tracking import ModelTracking

POTENTIAL, START = "potential", "start.json"


@dataclass(frozen=True)
class Model:
    """A potential with beads to begin with.

    Attributes:
        name: registered name with its version.
        potential: in nm and kJ/mol.
        config: from which it was built.
        positions: `(n, 3)` of the first training frame [nm].
        box: its edges `(3,)` [nm]; None without.
        temperature: of the simulation, and of a potential that depends on it [K].
    """

    name: str
    potential: Potential
    config: PotentialConfig
    positions: NDArray[np.float64]
    box: NDArray[np.float64] | None
    temperature: float

    def __post_init__(self) -> None:
        """Refuse a potential that no other engine can take.

        Raises:
            SamplingError: the beads have no places in space.
        """
        _ = self.beads

    @property
    def is_thermal(self) -> bool:
        """Whether the potential depends on temperature."""
        return "temperature" in self.potential.conditions

    @property
    def beads(self) -> BeadEnergy:
        """Energy, forces and virial at the temperature."""
        return BeadEnergy(self.potential, self.temperature if self.is_thermal else None)

    def repeated(self, times: int) -> Model:
        """The same with a box that is so many times as long, and all its beads in each part of it.

        Raises:
            CgAssetsError: there is no box, or the potential is of these beads only.
        """
        if self.box is None or times < 1:
            raise CgAssetsError(f"{self.name} cannot be repeated {times} times: only a whole periodic box can")
        shifts = np.array(list(itertools.product(range(times), repeat=3)))
        config, count, beads = self.config.copy(), len(shifts), len(self.positions)
        config["bead_types"], config["bead_masses"] = config["bead_types"] * count, config["bead_masses"] * count
        config["bead_names"] = config.get("bead_names", []) * count
        if bonds := config.get("bonds"):
            config["bonds"] = [
                [one + part * beads, other + part * beads] for part in range(count) for one, other in bonds
            ]
        potential = build_potential(config)
        try:
            potential.load_state_dict(self.potential.state_dict())
        except RuntimeError as error:
            raise CgAssetsError(
                f"{self.name} is a potential of these {beads} beads only; leave --repeat out"
            ) from error
        positions = (shifts[:, None] * self.box + self.positions).reshape(-1, 3)
        return replace(self, potential=potential.eval(), config=config, positions=positions, box=times * self.box)

    def save(self, folder: Path) -> None:
        """Write what `read_model` reads."""
        save_potential(folder / POTENTIAL, self.potential, self.config)
        box = None if self.box is None else self.box.tolist()
        start = {"name": self.name, "temperature": self.temperature, "box": box, "positions": self.positions.tolist()}
        (folder / START).write_text(json.dumps(start), encoding="utf-8")

    def write_script(self, folder: Path, script: str, **fields: object) -> None:
        """Write `run.py`, with the name, the temperature and these fields in it, and what it reads."""
        self.save(folder)
        text = script.format(name=self.name, temperature=self.temperature, **fields)
        (folder / "run.py").write_text(text, encoding="utf-8")


class Written(NamedTuple):
    """What the README of a target tells."""

    usage: str
    """How to run it."""
    units: list[tuple[str, str, str]]
    """Quantities, with their units in the target and here."""


README = """# {name} in {target}

Energy and forces of {n_beads} beads{at}, as cg_assets {version} has them.

{usage}

| quantity | {target} | of the potential |
|---|---|---|
{rows}

The beads begin at the first training frame{box}. Masses are those of the model. {pressure}
"""
PRESSURE = """The pressure is that of this potential, which
was learnt from forces at constant volume and need not have that of its atoms: measure it at this volume before a run at
constant pressure."""


def read_model(folder: Path) -> Model:
    """The model of an exported folder.

    Raises:
        StorageError: its potential is missing or damaged.
    """
    potential, config = load_potential(folder / POTENTIAL)
    start = json.loads((folder / START).read_text(encoding="utf-8"))
    box = None if start["box"] is None else np.array(start["box"])
    return Model(
        start["name"],
        cast(Potential, potential),
        cast(PotentialConfig, config),
        np.array(start["positions"]),
        box,
        start["temperature"],
    )


def registered_model(tracking: ModelTracking, reference: str, temperature: float | None = None) -> Model:
    """A registered potential with the first frame of its example.

    Args:
        tracking: the registry.
        reference: `<name>`, `<name>@<alias>` or `<name>/<version>`.
        temperature: [K]; that of the training data where None.

    Raises:
        CgAssetsError: there is no such model, or it is no potential of beads in space.
    """
    found = tracking.lookup(reference)
    name = f"{found.name}/{found.version}"
    potential, config = tracking.load(found.name, found.version)
    example = tracking.example(found.name, found.version)
    if not isinstance(potential, Potential):
        raise CgAssetsError(f"{name} is a flow kernel, which has no energy; export the potential that learnt from it")
    if temperature is None:
        temperature = float(config.get("temperature") or example["temperature"][0])
    box = example.get("box")
    return Model(
        name,
        potential,
        cast(PotentialConfig, config),
        np.asarray(example["positions"][0], dtype=float),
        None if box is None else np.asarray(box, dtype=float).reshape(-1, 3)[0],
        temperature,
    )


def export(model: Model, target: str, folder: Path) -> list[Path]:
    """Write a model for a target into a folder.

    Args:
        model: the potential and where it starts.
        target: one of `target_names`.
        folder: new, or empty.

    Returns:
        The files, the README first.

    Raises:
        CgAssetsError: there is no such target, the folder is not empty, or the target cannot take the model.
    """
    if target not in target_names():
        raise CgAssetsError(f"--to {target}: choose one of {', '.join(target_names())}")
    with new_folder(folder) as part:
        usage, units = importlib.import_module(f"{targets.__name__}.{target.replace('-', '_')}").write(model, part)
        text = README.format(
            name=model.name,
            target=target,
            n_beads=len(model.positions),
            at=f" at {model.temperature:g} K" if model.is_thermal else "",
            version=__version__,
            usage=usage,
            rows="\n".join(f"| {name} | {there} | {here} |" for name, there, here in units),
            box="" if model.box is None else f", in a box of {' × '.join(f'{edge:g}' for edge in model.box)} nm",
            pressure="" if model.box is None else PRESSURE,
        )
        (part / "README.md").write_text(text, encoding="utf-8")
    readme = folder / "README.md"
    return [readme, *sorted(path for path in folder.rglob("*") if path.is_file() and path != readme)]
