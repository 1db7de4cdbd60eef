"""The graph of what was made from what, drawn as SVG: a box for each stage, with the hash of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _GAP, _ROW = 196, 40, 56, 54
"""Size of a box, distance between columns, and between the tops of boxes in a column [pixels]."""


@dataclass(frozen=True)
class Node:
    """The data of a stage.

    Attributes:
        name: of the stage.
        hashes: batch (empty for a stage without) to content hash.
        parents: names of the stages that it was made from.
        outdated: whether it was made from other data than there are now.
    """

    name: str
    hashes: Mapping[str, str]
    parents: Sequence[str]
    outdated: bool = False


def lineage_graph(nodes: Sequence[Node]) -> str:
    """The graph as SVG, from raw data on the left to results on the right.

    Args:
        nodes: in any order; a parent that is not among them is left out.
    """
    known = {node.name: node for node in nodes}
    columns: dict[int, list[str]] = {}
    depth: dict[str, int] = {}
    for name in known:
        columns.setdefault(_depth(name, known, depth), []).append(name)
    place: dict[str, tuple[int, int]] = {}
    for column in sorted(columns):
        # Each box next to the mean of what it was made from, so that few lines cross.
        order = sorted(columns[column], key=lambda name: _mean_row(known[name], place))
        place |= {name: (column, row) for row, name in enumerate(order)}
    rows = max(map(len, columns.values()), default=0)
    width, height = len(columns) * (_WIDTH + _GAP) - _GAP + 2, rows * _ROW
    lines = [_line(place[parent], place[node.name]) for node in nodes for parent in node.parents if parent in known]
    boxes = [_box(node, *place[node.name]) for node in nodes]
    head = f'<svg class="graph" role="img" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    title = "<title>Which data were made from which</title>"
    return "\n".join(['<div class="wide">', head, title, *lines, *boxes, "</svg>", "</div>"])


def _depth(name: str, known: Mapping[str, Node], found: dict[str, int]) -> int:
    """Steps from the raw data."""
    if name not in found:
        parents = [parent for parent in known[name].parents if parent in known]
        found[name] = max((_depth(parent, known, found) + 1 for parent in parents), default=0)
    return found[name]


def _mean_row(node: Node, place: Mapping[str, tuple[int, int]]) -> float:
    rows = [place[parent][1] for parent in node.parents if parent in place]
    return sum(rows) / len(rows) if rows else 0.0


def _corner(column: int, row: int) -> tuple[int, int]:
    return column * (_WIDTH + _GAP) + 1, row * _ROW + 1


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = _corner(*start)
    to_x, to_y = _corner(*end)
    x, y, to_y = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2
    middle = to_x - _GAP // 2
    return f'<path d="M{x},{y} C{middle},{y} {middle},{to_y} {to_x},{to_y}"/>'


def _box(node: Node, column: int, row: int) -> str:
    x, y = _corner(column, row)
    hashes = list(node.hashes.items())
    short = hashes[-1][1].removeprefix("sha256:")[:12] if hashes else ""
    shown = short if len(hashes) == 1 else f"{len(hashes)} batches, last {short[:8]}"
    about = "\n".join(f"{batch} {value}".strip() for batch, value in hashes)
    about += "\nmade from other data than there are now" if node.outdated else ""
    kind = ' class="changed"' if node.outdated else ""
    return (
        f"<g><title>{escape(node.name)}\n{escape(about)}</title>"
        f'<rect{kind} x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"/>'
        f'<text x="{x + 8}" y="{y + 16}">{escape(_shortened(node.name))}</text>'
        f'<text class="hash" x="{x + 8}" y="{y + 32}">{escape(shown)}</text></g>'
    )


def _shortened(name: str, most: int = 27) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
