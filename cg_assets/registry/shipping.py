"""The code that a registered model carries: its class with whatever that imports of this package, under a new name.

A registered model must run with mlflow and torch alone, and several versions must run in one process. So the files of
its class are copied, with those that they import at their top, and `cg_assets` is replaced in their imports by a name
that holds a hash of them all. What a file imports within a function (solvers, compiled engines) stays behind.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cg_assets.core.errors import TrackingError

if TYPE_CHECKING:
    from cg_assets.potentials.base import PotentialConfig

RUNNER = Path(__file__).with_name("registered_model.py")
"""What MLflow runs."""
_IMPORT = re.compile(r"^(\s*(?:from|import)\s+)cg_assets\b", re.MULTILINE)
_OPTIONAL = {"temperature": "(n_frames,), optional", "box": "(n_frames, 3), optional"}
_NEEDED = {"temperature": "(n_frames,) or one number [K]", "box": "(n_frames, 3) or (3,) [nm]"}


@dataclass(frozen=True)
class Shipment:
    """What a registered model needs besides its weights.

    Attributes:
        roots: what `RUNNER` needs by name, each with the module that defines it: `served` answers, made of the others.
        outputs: names of its outputs.
        inputs: its inputs besides positions, in words.
        needed: those of them that it requires.
    """

    roots: dict[str, Any]
    outputs: tuple[str, ...]
    inputs: dict[str, str]
    needed: frozenset[str] = frozenset()

    def copy(self, folder: Path) -> tuple[Path, dict[str, str]]:
        """Copy the code into a folder.

        Returns:
            The package that was written, and for each root `<module>:<name>` in it.
        """
        places = {name: (_module_name(root), root.__name__) for name, root in self.roots.items()}
        sources: dict[str, str] = {}
        for root in self.roots.values():
            _collect(_module_name(root), Path(inspect.getfile(root)), sources)
        digest = hashlib.sha256("".join(f"{name}\n{sources[name]}" for name in sorted(sources)).encode()).hexdigest()
        package = folder / f"cg_networks_{digest[:12]}"
        for name, source in sources.items():
            path = package.joinpath(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_IMPORT.sub(rf"\1{package.name}", source), encoding="utf-8")
            for parent in [*path.relative_to(folder).parents][:-1]:
                (folder / parent / "__init__.py").touch()
        return package, {name: f"{package.name}.{module}:{item}" for name, (module, item) in places.items()}


def shipment_of(config: dict[str, Any]) -> Shipment:
    """What a stored potential or flow is shipped with.

    Raises:
        ValueError: there is no such type, or a key is missing.
    """
    from cg_assets.labels.kernels.flow_network import FLOWS
    from cg_assets.labels.kernels.served import ServedKernel

    if config.get("type") in FLOWS:
        conditions = {"temperature"} if len(config.get("temperatures", [])) > 1 else set()
        inputs = {"seed": "a whole number, optional"} | {name: _NEEDED[name] for name in conditions}
        return Shipment({"served": ServedKernel}, ("positions", "forces"), inputs, frozenset(conditions))
    from cg_assets.potentials.composite import build
    from cg_assets.potentials.served import ServedPotential
    from cg_assets.potentials.settings import build_potential, potential_class

    own = cast("PotentialConfig", config)
    potential = build_potential(own)
    needed = {name: _NEEDED[name] for name in potential.conditions}
    outputs = ("energy", "forces", *(["force_deviation"] if potential.members else []))
    roots = {"served": ServedPotential, "kind": potential_class(own), "build": build}
    return Shipment(roots, outputs, _OPTIONAL | needed, potential.conditions)


def _module_name(root: Any) -> str:
    """The module of a class or function within the copy; those of other packages lie at its top."""
    name: str = root.__module__
    return name.removeprefix("cg_assets.") if name.startswith("cg_assets.") else name.replace(".", "_")


def _collect(name: str, path: Path, sources: dict[str, str]) -> None:
    """Add a file and, of this package, what it imports at its top."""
    if name in sources:
        return
    sources[name] = path.read_text(encoding="utf-8")
    for module in _imported(ast.parse(sources[name])):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin:
            _collect(module.removeprefix("cg_assets."), Path(spec.origin), sources)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules of this package that are imported at the top of a file."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cg_assets."):
            yield str(node.module)


def shipment_in(folder: Path, registered_name: str) -> Shipment:
    """What a saved model needs where this package is not installed.

    Raises:
        TrackingError: files are missing, or they are not those of a model.
    """
    for path in (folder / "config.json", folder / "weights.pt"):
        if not path.is_file():
            raise TrackingError(f"{registered_name}: no file {path}; save the network before registering it")
    try:
        return shipment_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except ValueError as error:
        raise TrackingError(f"{registered_name}: its config is not that of a model: {error}") from error
