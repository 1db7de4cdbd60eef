"""A molecule with its beads that turns in three dimensions, drawn by a script in the page itself.

Viewers for notebooks load theirs from a network: the wheel of py3Dmol 2.5.5 holds none.
"""

from __future__ import annotations

import json
from html import escape

import numpy as np

from cg_assets.figures.report.page import asset
from cg_assets.mapping.ball_and_stick import BallsAndSticks


def structure_view(structure: BallsAndSticks, caption: str) -> str:
    """A canvas on which the structure turns; it is dragged to turn it by hand, and rests under reduced motion."""
    centre = structure.beads.mean(axis=0)
    content = {
        "atoms": np.round(structure.atoms - centre, 4).tolist(),
        "elements": list(structure.elements),
        "atomBonds": [list(pair) for pair in structure.atom_bonds],
        "beads": np.round(structure.beads - centre, 4).tolist(),
        "names": list(structure.bead_names),
        "beadBonds": [list(pair) for pair in structure.bead_bonds],
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    text = escape(caption, quote=True)
    return (
        f'<figure><canvas id="structure" width="1280" height="960" aria-label="{text}"></canvas>'
        f"<figcaption>{text}</figcaption></figure>\n"
        f'<script type="application/json" id="structure-data">{data}</script>\n'
        f"<script>\n{asset('structure.js')}\n</script>"
    )
