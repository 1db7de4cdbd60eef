"""Damaged topologies give one line that names the file, or the same forces as if nothing had happened."""

import numpy as np
import openmm
import pytest
from malformed_topologies import HEAVY, malformed_topologies, sound_topologies

from cg_assets.core.errors import SystemSpecError
from cg_assets.mapping.builders import MoleculeSettings, build_molecule

SEED = 1


def found(folder, case):
    """Energy, forces and masses of the molecule."""
    folder.mkdir(parents=True)
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    own = build_molecule(MoleculeSettings.model_validate(case.fields), HEAVY, {}, folder)
    context = openmm.Context(own.system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(own.positions)
    state = context.getState(energy=True, forces=True)
    masses = [own.system.getParticleMass(atom)._value for atom in range(own.n_atoms)]
    return np.concatenate([[state.getPotentialEnergy()._value], state.getForces(asNumpy=True)._value.ravel(), masses])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return {case.kind: found(folder / case.kind, case) for case in sound_topologies(folder)}


def test_two_hundred_damaged_topologies_give_one_line_each_or_are_read_rightly(tmp_path, expected):
    cases, refused = malformed_topologies(SEED, tmp_path), 0
    assert len(cases) == 200
    for number, case in enumerate(cases):
        try:
            numbers = found(tmp_path / str(number), case)
        except SystemSpecError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 800, (case.kind, text)
            assert case.file in text, (case.kind, text)
            refused += 1
        else:
            sound = expected[case.kind.split(",")[0]]
            assert numbers.shape == sound.shape and np.allclose(numbers, sound, rtol=1e-6, atol=1e-6), case.kind
    print(f"{refused} of {len(cases)} refused, {len(cases) - refused} read rightly")
    assert refused >= 120
