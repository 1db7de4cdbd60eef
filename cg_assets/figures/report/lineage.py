"""The graph of what was made from what, drawn as SVG: a box for each stage, with the hash of its data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html import escape
from statistics import fmean

_WIDTH, _HEIGHT, _GAP, _ROW = 196, 40, 56, 54
"""Size of a box, distance between columns, and between the tops of boxes in a column [pixels]."""


@dataclass(frozen=True)
class Node:
    """The data of a stage.

    Attributes:
        name: of the stage.
        hashes: batch (empty for a stage without) to content hash.
        parents: names of the stages that it was made from.
        outdated: why it would be made otherwise now; empty where it would not.
    """

    name: str
    hashes: Mapping[str, str]
    parents: Sequence[str]
    outdated: str = ""


def lineage_graph(nodes: Sequence[Node]) -> str:
    """The graph as SVG, from raw data on the left to results on the right.

    Args:
        nodes: in any order; a parent that is not among them is left out.
    """
    known = {node.name for node in nodes}
    place = layout({node.name: [parent for parent in node.parents if parent in known] for node in nodes})
    columns, rows = (1 + max((at[axis] for at in place.values()), default=-1) for axis in (0, 1))
    width, height = columns * (_WIDTH + _GAP) - _GAP + 2, rows * _ROW
    lines = [_line(place[parent], place[node.name]) for node in nodes for parent in node.parents if parent in known]
    boxes = [_box(node, *place[node.name]) for node in nodes]
    head = f'<svg class="graph" role="img" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}">'
    title = "<title>Which data were made from which</title>"
    return "\n".join(['<div class="wide">', head, title, *lines, *boxes, "</svg>", "</div>"])


def layout(parents: Mapping[str, Collection[str]]) -> dict[str, tuple[int, float]]:
    """Column and row of each box, to the right of what it is made from and next to the mean of that.

    What is made from nothing stands right before the first that is made from it, below what is made from others.

    Args:
        parents: name of each box to the names of those that it is made from.
    """
    column: dict[str, int] = {}
    for name in TopologicalSorter(parents).static_order():
        column[name] = 1 + max((column[parent] for parent in parents[name]), default=-1)
    for name in parents:
        if not parents[name]:
            column[name] = min((column[other] - 1 for other in parents if name in parents[other]), default=0)
    place: dict[str, tuple[int, float]] = {}
    for number in sorted(set(column.values())):
        names = [name for name in parents if column[name] == number]
        mean = {name: fmean(place[one][1] for one in parents[name]) if parents[name] else math.inf for name in names}
        for row, name in enumerate(sorted(names, key=mean.__getitem__)):
            place[name] = (number, mean[name] if len(names) == 1 and parents[name] else row)
    return place


def _corner(column: int, row: float) -> tuple[int, int]:
    return column * (_WIDTH + _GAP) + 1, round(row * _ROW) + 1


def _line(start: tuple[int, float], end: tuple[int, float]) -> str:
    x, y = _corner(*start)
    to_x, to_y = _corner(*end)
    x, y, to_y = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2
    middle = to_x - _GAP // 2
    return f'<path d="M{x},{y} C{middle},{y} {middle},{to_y} {to_x},{to_y}"/>'


def _box(node: Node, column: int, row: float) -> str:
    x, y = _corner(column, row)
    hashes = list(node.hashes.items())
    short = hashes[-1][1].removeprefix("sha256:")[:12] if hashes else ""
    shown = short if len(hashes) == 1 else f"{len(hashes)} batches, last {short[:8]}"
    about = "\n".join(f"{batch} {value}".strip() for batch, value in hashes)
    about += f"\nout of date: {node.outdated}" if node.outdated else ""
    kind = ' class="changed"' if node.outdated else ""
    return (
        f"<g><title>{escape(node.name)}\n{escape(about)}</title>"
        f'<rect{kind} x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"/>'
        f'<text x="{x + 8}" y="{y + 16}">{escape(_shortened(node.name))}</text>'
        f'<text class="hash" x="{x + 8}" y="{y + 32}">{escape(shown)}</text></g>'
    )


def _shortened(name: str, most: int = 27) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
