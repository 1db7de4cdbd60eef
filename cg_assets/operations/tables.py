"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], ruled: bool = False) -> str:
    """Columns next to each other under their names, with a rule between where it is asked for."""
    from tabulate import tabulate

    return tabulate(rows, columns, tablefmt="simple" if ruled else "plain", disable_numparse=True)
