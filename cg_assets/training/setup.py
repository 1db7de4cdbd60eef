"""From a system's specification to what the training loop needs."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from cg_assets.core.errors import TrainingError
from cg_assets.core.frames import Frames
from cg_assets.mapping.collective_variables import Torsion
from cg_assets.mapping.maps import CGMap
from cg_assets.potentials.settings import MessagePassingNetwork, RadialBasisNetwork
from cg_assets.systems.spec import SystemSpec
from cg_assets.training.data import TrainingData, drawn_rows
from cg_assets.training.priors import PriorFit, fit_prior
from cg_assets.training.torques import BondTorques


def network_config(system: SystemSpec) -> dict[str, Any]:
    """The config from which `build_potential` makes a system's network, with what users of the model need to know."""
    cg_map = system.beads().cg_map
    config = system.network.model_dump(mode="json") | {
        "thermal_energy": system.thermal_energy,
        "temperature": system.temperature,
        "units": system.units,
        "system": system.name,
        "bead_names": list(cg_map.bead_names),
        "bead_masses": [float(mass) for mass in cg_map.bead_masses],
    }
    if isinstance(system.network, MessagePassingNetwork):
        config.pop("prior", None)  # its settings; a fitted one is added where there are configurations to fit it to
        config["bead_types"] = list(cg_map.bead_types)
        config["bonds"] = [list(bond) for bond in cg_map.bonds]
        config["torsions"] = _torsions(system, cg_map)
    if system.training.committee:
        config["committee"] = system.training.committee
    return config


def fitted_prior(system: SystemSpec, positions: NDArray) -> PriorFit | None:
    """The prior of a system's potentials on these configurations `(n_frames, n_beads, 3)` [nm]; None without one.

    Raises:
        TrainingError: it cannot be fitted to them.
    """
    if system.prior is None:
        return None
    cg_map = system.beads().cg_map
    return fit_prior(positions, cg_map.bonds, cg_map.bead_names, system.prior)


def _torsions(system: SystemSpec, cg_map: CGMap) -> list[list[int]]:
    """Beads of those collective variables that are torsions about a bond which splits the molecule, one for a bond."""
    if system.cg_box is not None or not system.network.torsion_order:  # type: ignore[attr-defined]
        return []
    hinges = {tuple(sorted(bond)) for bond in BondTorques(cg_map.n_beads, cg_map.bonds).bonds.tolist()}
    found: dict[tuple[int, ...], list[int]] = {}
    for variable in system.collective_variables.values():
        if isinstance(variable, Torsion):
            beads = [cg_map.bead_on_atom(atom) for atom in variable.atoms]
            if (bond := tuple(sorted(beads[1:3]))) in hinges:
                found.setdefault(bond, beads)
    return list(found.values())


def drawn_frames(system: SystemSpec, frames: Frames, n_frames: int | None) -> Frames:
    """Those of a potential's label frames that `training_data` draws; probe replicas are left out."""
    frames = frames.select(~frames.probe)
    return frames if n_frames is None else frames.select(drawn_rows(len(frames), n_frames, system.training.seed))


def training_data(system: SystemSpec, batches: list[Frames], n_frames: int | None) -> TrainingData:
    """The frames that a potential learns from: all of its batches, or some drawn at random.

    Args:
        system: the system.
        batches: labelled CG frames of each batch.
        n_frames: how many to draw; None for all.

    Raises:
        TrainingError: there are fewer frames than asked for, they cannot train, or they lie outside `network.range`,
            where a radial-basis network is a wall.
    """
    data = TrainingData.from_frames(batches)
    if isinstance(system.network, RadialBasisNetwork):
        low, high = system.network.range
        least, most = float(data.positions.min()), float(data.positions.max())
        if least < low or most > high:
            raise TrainingError(
                f"network.range is [{low:g}, {high:g}], but the frames reach from {least:.3g} to {most:.3g}; widen it"
            )
    return data if n_frames is None else data.draw(n_frames, system.training.seed)
