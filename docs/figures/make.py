"""The figures of the results pages, drawn from the tables on these pages: python docs/figures/make.py [--check]."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tables import Number, Table, numbers, read_tables

from cg_assets.figures.style import COLOURS, DATA, DPI, REFERENCE, STYLE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
Tables = dict[str, list[Table]]
MARKERS = ("o", "s", "^", "D", "v", "P")
BARS = {"capsize": 2, "elinewidth": 1.2}
LIQUIDS = ("splines", "all_temperatures", "energies", "products", "one_temperature", "pairs")
"""Potentials of liquids, each with a colour of its own on all pages."""


def curves(
    axes: Axes,
    table: Table,
    columns: slice,
    styles: Sequence[str] = (),
    error: float = 0.0,
    apart: float = 0.0,
) -> None:
    """One line for each row over numeric columns, with bars of two standard errors; a gap where there is no number.

    Rows `name, seed 2` have the colour and marker of `name`, broken lines and no label.

    Args:
        axes: to draw on.
        table: rows to draw, with their names in the first column.
        columns: numbers to draw; the header has the places.
        styles: names whose place gives colour and marker; those of the table if empty.
        error: standard error of numbers without one.
        apart: by how much neighbouring rows are moved along x, so that their bars can be told apart.
    """
    x = np.array([numbers(cell)[0].value for cell in table.header[columns]])
    names = list(dict.fromkeys(row[0].split(", seed")[0] for row in table.rows))
    for i, row in enumerate(table.rows):
        found = [numbers(cell) for cell in row[columns]]
        values = [item[0].value if item else np.nan for item in found]
        errors = [2 * (item[0].error or error) if item else np.nan for item in found]
        name, _, seed = row[0].partition(", seed")
        style = list(styles).index(name) if name in styles else names.index(name)
        colour = REFERENCE if row[0] == "atoms" else COLOURS[style % len(COLOURS)]
        marker = MARKERS[style % len(MARKERS)]
        place = x + apart * (i - (len(table.rows) - 1) / 2)
        look = {"color": colour, "marker": marker, "label": None if seed else name, "ls": "--" if seed else "-"}
        axes.errorbar(place, values, errors, lw=1.5, **look, **BARS)


def log_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Ticks of a logarithmic axis, written as plain numbers or powers."""
    axis.set_ticks(ticks, [f"{tick:g}" if tick < 1e4 else f"{tick / 1000:g}k" for tick in ticks])
    axis.set_ticks([], minor=True)


def dots(axes: Axes, names: Sequence[str], groups: dict[str, Sequence[Sequence[Number]]]) -> None:
    """Horizontal rows of dots with bars of two standard errors, or of the range of repeats; one colour for a group."""
    for g, (group, rows) in enumerate(groups.items()):
        offset = 0.36 * (g - (len(groups) - 1) / 2) / max(len(groups) - 1, 1)
        shown = False
        for place, found in enumerate(rows):
            for k, item in enumerate(found):
                spread = [[item.value - item.low], [item.high - item.value]]
                bars = spread if item.high > item.low else [[2 * item.error]] * 2
                y = place + offset + 0.13 * (k - (len(found) - 1) / 2)
                label = None if shown else group
                axes.errorbar(
                    [item.value], [y], xerr=bars, color=COLOURS[g], marker=MARKERS[g], ls="", label=label, **BARS
                )
                shown = True
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def cells(table: Table, column: int) -> list[list[Number]]:
    """The numbers of a column, row by row."""
    return [numbers(cell) for cell in table.column(column)]


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def force_matching(tables: Tables) -> Figure:
    """Noise of labels, what torques and the series in torsions do, and the prior of a chain."""
    figure = new_figure(10.5, 7.6)
    (a, b), (c, d) = figure.subplots(2, 2)
    maps = tables["Force maps"][0]
    dots(a, maps.column(0), {"": cells(maps, 1)})
    a.set(xscale="log", xlim=(2e4, 3e5), xlabel="noise of a component [(kJ/mol/nm)²]", title="Force maps")
    log_ticks(a.xaxis, [2e4, 5e4, 1e5, 2e5])
    noise = tables["Noise removed from torques"][0]
    names = [f"{row[0]}, {angle}" for row in noise.rows for angle in ("φ", "ψ")]
    groups = {noise.header[i]: [[item] for cell in cells(noise, i) for item in cell] for i in (1, 2)}
    dots(b, names, groups)
    b.set(
        xscale="log", xlim=(40, 2000), xlabel="variance of the torques [(kT/rad)²]", title="Noise removed from torques"
    )
    log_ticks(b.xaxis, [50, 100, 200, 500, 1000])
    b.legend()
    loss, series = tables["Torques in the loss"][0], tables["The series in torsions"][0]
    reference = numbers(loss.row("reference")[0])[0]
    rows = loss.rows[:2]
    dots(c, [row[0] for row in rows], {"": [numbers(row[1]) for row in rows]})
    short = ("labels alone", "series over the data", "series over own ensemble")
    by_label = {row[0]: [numbers(cell) for cell in row[1:]] for row in series.rows}
    dots(d, short, by_label)
    d.legend()
    for axes, title in ((c, "Torques in the loss"), (d, "The series in torsions")):
        axes.axvspan(
            reference.value - 2 * reference.error, reference.value + 2 * reference.error, color=DATA, alpha=0.4, lw=0
        )
        axes.axvline(reference.value, color=REFERENCE, lw=1)
        axes.set(xlabel="free energy of φ > 0 [kJ/mol]", title=title)
    return figure


def chignolin_prior(tables: Tables) -> Figure:
    """Potentials of chignolin with and without a prior."""
    figure = new_figure(8.5, 2.9)
    table = tables["A prior for chignolin"][1]
    groups = {"without prior": [item[:1] for item in cells(table, 1)], "with prior": [i[:1] for i in cells(table, 2)]}
    axes = figure.subplots()
    dots(axes, table.column(0), groups)
    halves = [item[:1] for item in cells(table, 3)]
    for place, found in enumerate(halves):
        for item in found:
            axes.plot([item.value] * 2, [place - 0.35, place + 0.35], color=REFERENCE, lw=1.5)
    axes.plot([], [], color=REFERENCE, lw=1.5, label="halves of the data")
    axes.set(xlabel="divergence from the data [nats]", xlim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def helix(tables: Tables) -> Figure:
    """The folded fraction of the atoms and of each potential."""
    figure = new_figure(7.5, 4.4)
    axes = figure.subplots()
    table = tables["Melting of the helix"][0]
    columns = slice(1, len(table.header) - 1)
    curves(axes, table, columns, apart=1.5)
    axes.axhline(0.5, color=DATA, lw=1, ls=":")
    axes.set(xlabel="temperature [K]", ylabel="fraction of frames that are folded", ylim=(-0.02, 1.05))
    axes.legend()
    return figure


def kernels_surface(tables: Tables) -> Figure:
    """Kernels on the Müller-Brown surface."""
    figure = new_figure(10.5, 3.2)
    a, b = figure.subplots(1, 2, sharey=True)
    table = tables["Müller-Brown surface"][0]
    dots(a, table.column(0), {"": cells(table, 2)})
    a.axvline(0.984, color=REFERENCE, lw=1)
    a.set(xlabel="width of the well [reduced]; line: exact", title="What the kernel does to a stiff mode")
    dots(b, table.column(0), {"": cells(table, 3)})
    b.set(xscale="log", xlabel="KL divergence of the exact density [nats]", title="Error of the potential")
    return figure


def kernels_temperatures(tables: Tables) -> Figure:
    """One flow of all temperatures, and one for each."""
    figure = new_figure(7.5, 3.6)
    table = tables["One flow for three temperatures, or three flows"][0]
    axes = figure.subplots()
    frames = ""
    for i, row in enumerate(table.rows):
        frames = row[0] or frames
        values = [numbers(cell)[1].value for cell in row[2:]]
        few = frames == table.rows[0][0]
        axes.plot(
            [0.7, 1.0, 1.5],
            values,
            color=COLOURS[i % 2],
            marker=MARKERS[i % 2],
            ls="-" if few else "--",
            label=f"{row[1]}, {frames} frames",
        )
    axes.set(yscale="log", xlabel="kT [reduced]", ylabel="KL divergence of the exact density [nats]")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def kernels_alanine(tables: Tables) -> Figure:
    """Kernels on capped alanine: divergence and free energy by labels."""
    figure = new_figure(11.5, 4.6)
    a, b = figure.subplots(1, 2, sharey=True)
    table = tables["Capped alanine"][0]
    names = [
        "atoms, 464,000 frames of 37 ns",
        "flow, these frames, 4 draws (shipped)",
        "flow, 464,000 frames of 9.3 ns, 4 draws",
        "… series over the data",
        "flow, 116,000 frames, 16 draws",
        "… without decay",
        "… without prior and decay, 1 draw",
        "noise kernel, 1 draw",
        "atoms, 116,000 frames of 2.3 ns",
    ]
    dots(a, names, {"": cells(table, 3)})
    a.axvspan(0.0, 0.002, color=DATA, alpha=0.35, lw=0, label="left to any potential")
    a.set(xlabel="Jensen-Shannon divergence of (φ, ψ) [nats]", xlim=(0, None))
    a.legend(loc="lower right")
    dots(b, names, {"": cells(table, 4)})
    b.axvspan(9.42, 9.62, color=DATA, alpha=0.4, lw=0)
    b.axvline(9.52, color=REFERENCE, lw=1, label="reference")
    b.set(xlabel="free energy of φ > 0 [kJ/mol]")
    b.legend(loc="lower left")
    return figure


def kernels_chignolin(tables: Tables) -> Figure:
    """Kernels on chignolin: noise of labels and divergence of each seed."""
    figure = new_figure(11.5, 3.9)
    a, b, c = figure.subplots(1, 3, sharey=True)
    table = tables["Chignolin"][0]
    names = [name.replace(", as shipped", "").replace(" of each frame", "") for name in table.column(0)]
    dots(a, names, {"": cells(table, 1)})
    a.set(xscale="log", xlim=(8e4, 1.2e6), xlabel="noise of a component, squared\n[(kJ/mol/nm)²]")
    log_ticks(a.xaxis, [1e5, 2e5, 5e5, 1e6])
    for axes, column, text in ((b, 4, "end-to-end and turn"), (c, 5, "slow coordinates")):
        dots(axes, names, {"": cells(table, column)})
        axes.set(xlabel=f"divergence, {text}\n[nats]", xlim=(0, None))
    c.set_xticks([0, 0.05, 0.1])
    return figure


def response_forces(tables: Tables) -> Figure:
    """Agreement of independent runs, and two samplers."""
    figure = new_figure(10.5, 3.4)
    a, b = figure.subplots(1, 2)
    table = tables["Errors at fixed beads"][1]
    for cell, at in zip(table.rows[0][1:], table.header[1:], strict=True):
        ends = [item.value for item in numbers(at)]
        middle, value = (ends[0] + ends[-1]) / 2, np.mean([item.value for item in numbers(cell)])
        a.errorbar([middle], [value], xerr=(ends[-1] - ends[0]) / 2, color=COLOURS[0], marker="o", **BARS)
    a.axhline(1.0, color=REFERENCE, lw=1, label="runs in equilibrium")
    a.set(xlabel="temperature [K]", ylabel="difference of two runs\n[standard errors]", ylim=(0, None))
    a.legend(loc="lower right")
    table = tables["Rotational Monte Carlo"][0]
    curves(b, table, slice(1, None))
    b.set(xlabel="temperature [K]", ylabel="standard error of a force\n[kJ/mol/nm]", ylim=(0, None))
    b.legend()
    return figure


def water(tables: Tables) -> Figure:
    """Errors of the structure of water by temperature."""
    figure = new_figure(10.5, 4.4)
    a, b = figure.subplots(1, 2)
    _structure(a, tables["Water"][0], "error of g(r) [nm]", 0.0005, 0.0033)
    _structure(b, tables["Water"][1], "error of the angles between neighbours", 0.0012, 0.006)
    legend_below(figure, a, 4)
    return figure


def methanol(tables: Tables) -> Figure:
    """Errors of the structure of methanol by temperature."""
    figure = new_figure(6.5, 4.2)
    axes = figure.subplots()
    _structure(axes, tables["Methanol"][0], "error of g(r) [nm]", 0.0005, 0.0067)
    log_ticks(axes.yaxis, [0.01, 0.02, 0.05])
    legend_below(figure, axes, 2)
    return figure


def _structure(axes: Axes, table: Table, label: str, error: float, noise: float) -> None:
    columns = slice(next(i for i, cell in enumerate(table.header) if cell.endswith(" K")), None)
    curves(axes, table, columns, LIQUIDS, error, apart=3)
    axes.axhline(noise, color=REFERENCE, lw=1, ls="--", label="noise alone")
    axes.set(xlabel="temperature [K]", ylabel=label, yscale="log")
    log_ticks(axes.yaxis, [0.005, 0.01, 0.02, 0.05, 0.1])


def operations(tables: Tables) -> Figure:
    """Overhead of batches, recovery after kills, imports."""
    figure = new_figure(11.0, 6.2)
    (a, b), (c, d) = figure.subplots(2, 2)
    table = tables["Many batches"][0]
    batches = [float(cell) for cell in table.column(0)]
    for i, (name, column) in enumerate((("files of a batch", 1), ("catalogue of a batch", 2), ("next refresh", 4))):
        found = [item[0] for item in cells(table, column)]
        bars = [[item.value - item.low for item in found], [item.high - item.value for item in found]]
        values = [item.value for item in found]
        a.errorbar(batches, values, bars, color=COLOURS[i], marker=MARKERS[i], label=name, **BARS)
    a.set(xscale="log", yscale="log", xlabel="batches", ylabel="CPU time [ms]", title="Many batches")
    a.legend(loc="upper left")
    table = tables["Kills at random moments"][0]
    names = [f"{row[0].split(' of')[0]}: {row[1]}" for row in table.rows]
    dots(b, names, {"": cells(table, 3)})
    b.set(xscale="log", xlabel="recovery [s], least to most", title="Kills at random moments")
    log_ticks(b.xaxis, [20, 50, 100, 200, 400])
    whole, reading = tables["Imports"]
    groups = {"CPU time [s]": cells(whole, 2), "memory [GB]": cells(whole, 1)}
    dots(c, [name.partition(" (")[0] for name in whole.column(0)], groups)
    c.set(xscale="log", title="Import of a DCD file")
    log_ticks(c.xaxis, [0.5, 1, 2, 5, 10, 20, 50, 100])
    c.legend()
    dots(d, [name.partition(",")[0] for name in reading.column(0)], {"": cells(reading, 1)})
    d.set(xscale="log", xlabel="CPU time [s]", title="Reading and mapping 1 GB")
    log_ticks(d.xaxis, [2, 5, 10, 20, 50, 100])
    return figure


def gromacs(tables: Tables) -> Figure:
    """Free energies of three runs of GROMACS by four routes."""
    figure = new_figure(8.0, 3.6)
    table = tables["Forces of GROMACS"][0]
    axes = figure.subplots()
    rows = table.rows[2:]
    names = [
        "frames of GROMACS",
        "potential of its forces",
        "its forces alone",
        "frames of own sampling",
        "potential of its forces",
        "its forces alone",
    ]
    dots(axes, names, {f"seed {k}": [numbers(row[k]) for row in rows] for k in (1, 2, 3)})
    axes.axhline(2.5, color=DATA, lw=1)
    axes.set(xlabel="free energy of φ > 0 [kJ/mol]")
    axes.legend()
    return figure


def benchmarks(tables: Tables) -> Figure:
    """Speed and accuracy against other programs and methods."""
    figure = new_figure(11.0, 7.4)
    (a, b), (c, d) = figure.subplots(2, 2)
    table = tables["Potentials"][0]
    names = [name.partition(" (")[0].partition(" l =")[0] for name in table.column(0)[:5]]
    groups = {"training frames/s": cells(table, 2)[:5], "CG steps x replicas/s": cells(table, 4)[:5]}
    dots(a, names, groups)
    a.set(xscale="log", xlabel="per second of one thread", title="Potentials")
    a.legend(loc="lower right")
    table = tables["Force maps"][0]
    frames = [numbers(cell)[0].value for cell in table.column(0)]
    for i, name in enumerate(("slice", "group", "optimal")):
        found = [item[0] for item in cells(table, i + 1)]
        values, errors = [item.value for item in found], [2 * item.error for item in found]
        b.errorbar(frames, values, errors, color=COLOURS[i], marker=MARKERS[i], label=name, **BARS)
    b.set(xscale="log", yscale="log", xlabel="frames", ylabel="force error [kJ/mol/nm]", title="Force maps")
    log_ticks(b.xaxis, frames)
    log_ticks(b.yaxis, [50, 100, 200, 400])
    b.legend()
    table = tables["Temperature-dependent potentials of water"][0]
    dots(c, table.column(0), {"": cells(table, 3)})
    c.set(xscale="log", xlabel="ns per CPU day, 64 molecules", title="Water, speed")
    table = tables["Forces of water at temperatures that were not learnt"][0]
    curves(d, table, slice(1, None), apart=3)
    d.set(xlabel="temperature [K]", ylabel="force error [kJ/mol/nm]", title="Water, learnt at 400 K", yscale="log")
    log_ticks(d.yaxis, [30, 50, 100, 200, 400])
    d.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2, fontsize=8)
    return figure


def sampling_plans(tables: Tables) -> Figure:
    """Errors against simulated time for each kind of plan."""
    figure = new_figure(10.5, 4.2)
    a, b = figure.subplots(1, 2)
    rows, name, shown = tables["Sampling plans"][0].rows, "", set()
    kinds = {"metadynamics": 0, "the same": 0, "uniform windows": 1, "adaptive windows": 2, "unbiased": 3}
    for row in rows:
        kind = next(kinds[key] for key in kinds if row[0].startswith(key))
        name = ("metadynamics", "uniform windows", "adaptive windows", "unbiased")[kind]
        for axes, column in ((a, 2), (b, 3)):
            found = numbers(row[column])
            x = float(row[1]) * (1 + 0.03 * (np.arange(len(found)) - 1))
            values, errors = [item.value for item in found], [2 * item.error for item in found]
            label = None if name in shown else name
            axes.errorbar(x, values, errors, color=COLOURS[kind], marker=MARKERS[kind], ls="", label=label, **BARS)
        shown.add(name)
    for axes in (a, b):
        axes.set(xscale="log", xlabel="simulated time [ns]")
        log_ticks(axes.xaxis, [1, 2, 5, 10, 25])
    a.set(yscale="log", ylim=(4e-3, 3), ylabel="PMF error of the labels [(kT)²]")
    log_ticks(a.yaxis, [0.01, 0.1, 1])
    b.axhline(9.52, color=REFERENCE, lw=1)
    b.set(ylabel="free energy of φ > 0 [kJ/mol]")
    legend_below(figure, a, 4)
    return figure


FIGURES: dict[str, tuple[Path, Callable[[Tables], Figure]]] = {
    "force_matching": (RESULTS / "force_matching.md", force_matching),
    "chignolin_prior": (RESULTS / "force_matching.md", chignolin_prior),
    "helix": (RESULTS / "helix.md", helix),
    "kernels_surface": (RESULTS / "kernels.md", kernels_surface),
    "kernels_temperatures": (RESULTS / "kernels.md", kernels_temperatures),
    "kernels_alanine": (RESULTS / "kernels.md", kernels_alanine),
    "kernels_chignolin": (RESULTS / "kernels.md", kernels_chignolin),
    "response_forces": (RESULTS / "response_forces.md", response_forces),
    "water": (RESULTS / "liquids.md", water),
    "methanol": (RESULTS / "liquids.md", methanol),
    "operations": (RESULTS / "operations.md", operations),
    "gromacs": (RESULTS / "gromacs.md", gromacs),
    "sampling_plans": (HERE.parents[1] / "benchmarks" / "README.md", sampling_plans),
    "benchmarks": (HERE.parents[1] / "benchmarks" / "README.md", benchmarks),
}


def drawn_from(page: Path) -> str:
    """Hash of the tables of a page, which is kept in its figures."""
    tables = {heading: [asdict(table) for table in found] for heading, found in read_tables(page).items()}
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def stale() -> list[str]:
    """Figures that are missing, or whose page has other tables than those they were drawn from."""
    from PIL import Image

    found = []
    for name, (page, _) in FIGURES.items():
        file = HERE / f"{name}.png"
        if not file.is_file() or Image.open(file).info.get("Source") != drawn_from(page):
            found.append(name)
    return found


def main(arguments: list[str]) -> int:
    """Draw what is stale; with --check, only name it."""
    import matplotlib

    names = stale()
    if "--check" in arguments:
        print(*names, sep="\n")
        return 1 if names else 0
    for name in arguments or names:
        page, draw = FIGURES[name]
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            metadata = {"Software": None, "Source": drawn_from(page)}
            draw(read_tables(page)).savefig(HERE / f"{name}.png", dpi=DPI, metadata=metadata)
        print(HERE / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
