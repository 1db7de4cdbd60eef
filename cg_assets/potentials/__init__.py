"""Potentials of beads, one folder or file each; settings in `settings.py` are found by being there."""

from cg_assets.core.family import import_settings

import_settings(__name__, __path__)
