"""The demo: systems from sampling to a registered model."""

from __future__ import annotations

import os
import time

from cg_assets.operations.ahead import start_ahead
from cg_assets.operations.home_folder import prepare_home
from cg_assets.operations.results import print_headlines, write_overview
from cg_assets.storage.store import ParquetStore

DEMOS = {
    "biased": ["muller_brown", "muller_brown_diagonal", "muller_brown_plane", "melting_wells", "capped_alanine_quick"],
    "water": ["water_quick"],
    "helix": ["helix_quick"],
}
"""What each demo runs: forces of biased samples, thermal response forces, and a helix at all temperatures."""


def run_demo(demo: str) -> int:
    """Run the systems of one of the `DEMOS` and print the results.

    Returns:
        Exit status: 0 when every step succeeded.
    """
    started = time.monotonic()
    folder = prepare_home()
    names = DEMOS[demo]
    start_ahead(names)
    from cg_assets.operations.runs import Outcome, run_systems

    print(f"cg-assets demo: {', '.join(names)} on {os.cpu_count()} cores; state goes to {folder}\n")
    failed = [name for name, outcome in run_systems(names).items() if outcome is Outcome.FAILED]
    made = [name for name in names if ParquetStore(folder).file(name, "comparison").is_file()]
    if made:
        print_headlines(folder, made)
        print(f"\nfigure   {write_overview(folder, made)}")
    print(
        f"\nwall time {time.monotonic() - started:.0f} s\n"
        "\nresults  cg-assets results NAME [--all]; cg-assets report NAME"
        f"\ndata     {folder / 'data'}   (SQL: cg-assets query 'select * from lineage')"
        "\nmodels   cg-assets models; cg-assets lookup NAME@champion"
        "\npages    cg-assets ui"
    )
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0
