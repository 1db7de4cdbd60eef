"""What the report of a system contains, from its data, its figures and its registered models."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from cg_assets import __version__
from cg_assets.assets import stages_of
from cg_assets.assets.comparison import kept_figures, read_comparison
from cg_assets.assets.soundness import explained, key_of, place_of
from cg_assets.assets.stage import Stage
from cg_assets.assets.work import Inputs
from cg_assets.core.errors import shortened
from cg_assets.evaluation.evaluation import Evaluation
from cg_assets.figures.report.lineage import Node, lineage_graph
from cg_assets.figures.report.page import Section, folded, page, paragraph, picture, table, verbatim
from cg_assets.figures.report.structure import structure_view
from cg_assets.registry.models import RegisteredModel
from cg_assets.storage.parquet import FileInfo
from cg_assets.systems import SystemSpec
from cg_assets.systems.load import specification_text

_PACKAGES = ("dagster", "mlflow", "numpy", "openmm", "pyarrow", "scipy", "torch")
_PAPERS = {
    "relabelled_forces": ("forces of biased samples without the force of the bias", "arXiv 2510.11148"),
    "force_maps": ("force maps under constraints", "arXiv 2302.07071"),
    "kernels": ("force labels from configurations alone", "arXiv 2506.19628"),
    "responses": ("how mean forces change with temperature", "arXiv 2602.23198"),
    "pmf_error": ("the error of the free energy of molecules", "arXiv 2602.10637"),
}
"""Method to what it gives and its paper."""
_RULE = "A model becomes champion if it passes every check and is not worse than the present one in what decides."


def report_page(inputs: Inputs, decided: Sequence[Mapping[str, str]], files: Mapping[str, FileInfo]) -> str:
    """The report as HTML.

    Args:
        inputs: the data of the system, with a comparison.
        decided: what `decisions` gives.
        files: what `data_files` gives.

    Raises:
        StorageError: there is no sound comparison yet.
    """
    system = inputs.system
    comparison = read_comparison(inputs, system.potentials)
    beads = system.beads()
    old = outdated_stages(inputs, files)
    names = list(beads.cg_map.bead_names)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    what, unit = (f"{len(names)} beads", " K") if system.units == "molar" else ("CG coordinates", " (reduced)")
    everything = folded("every quantity", table(comparison.rows(True)))
    sections = [
        Section("Decision", table(decided) + paragraph(_RULE)),
        Section("Comparison", table(_short(comparison.rows())) + everything),
        *_structure(system),
        Section("Figures", "\n".join(_figures(inputs, stages_of(system), old))),
        Section("Lineage", _lineage(files, old)),
        Section("Settings", folded("the system's file, with what it extends", verbatim(specification_text(system)))),
        Section("Versions that wrote this page", table(_versions())),
        Section("How to cite", citations(system)),
    ]
    lead = f"{system.name}: {what} {shown} at temperature {system.temperature:g}{unit}"
    return page(system.title, lead, sections)


def _short(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Rows without the column `of` where all are of the same."""
    alike = len({row["of"] for row in rows}) == 1
    return [{name: value for name, value in row.items() if not (alike and name == "of")} for row in rows]


def decisions(inputs: Inputs, models: Mapping[str, RegisteredModel]) -> list[dict[str, str]]:
    """For each potential the number that decides with its bound, its registered version, and whether it is champion."""
    comparison = read_comparison(inputs, inputs.system.potentials)
    rows = []
    for name, evaluation in comparison.evaluations.items():
        facts = inputs.facts(f"evaluation_{name}")
        model, number = facts["registered_model"], str(facts["version"])
        champion = models[model].aliases.get("champion") if model in models else None
        failed = _failed(inputs, name, evaluation)
        for item in evaluation.decisive:
            rows.append(
                {
                    "potential": name,
                    "decides": item.label,
                    "result": str(item.value),
                    "bound": item.limit,
                    "verdict": f"fails: {failed}" if failed else "passes",
                    "model": model,
                    "version": number,
                    "champion": "champion" if champion == number else "",
                }
            )
    return rows


def _failed(inputs: Inputs, name: str, evaluation: Evaluation) -> str:
    """What keeps a potential from being champion: its quantities out of bounds, failed checks of it and of its data."""
    stage = f"evaluation_{name}"
    own = key_of(inputs.system, stage, None)
    found = inputs.soundness.failures(stage)
    outside = [item for item in evaluation.quantities if not item.passed]
    labels = [item.label for item in outside]
    labels += [check for check in found.get(own, []) if check not in {item.name for item in outside}]
    of_data = explained({key: checks for key, checks in found.items() if key != own})
    return "; ".join(part for part in (", ".join(labels), of_data) if part)


def _structure(system: SystemSpec) -> Iterator[Section]:
    drawn = system.model.balls_and_sticks(system.structure(), system.beads())
    if drawn is not None:
        caption = "Beads (blue) on the atoms, as dynamics start. Drag to turn."
        yield Section("Beads", structure_view(drawn, caption))


def _figures(inputs: Inputs, stages: Sequence[Stage], old: Mapping[str, str]) -> Iterator[str]:
    """All figures that were kept, those of the results first; each with what its stage is, and whether it is old."""
    for stage in reversed([stage for stage in stages if stage.name != "report"]):
        pictures = kept_figures(inputs, stage.name)
        if pictures:
            yield f"<h3>{stage.name.replace('_', ' ')}</h3>"
            if stage.name in old:
                yield paragraph(f"Out of date: {old[stage.name]}.")
        for path in pictures:
            yield picture(path.read_bytes(), caption(path.stem.replace("_", " "), stage))


def caption(name: str, stage: Stage) -> str:
    """The caption of a figure of a stage, plain text: its name with a capital, and what the stage is."""
    return f"{name[:1].upper()}{name[1:]}. {re.sub('[*`]', '', stage.description)}"


def data_files(inputs: Inputs) -> dict[str, FileInfo]:
    """Key to metadata of each data file of the system, without its report."""
    store, name = inputs.store, inputs.system.name
    found = {}
    for stage in stages_of(inputs.system):
        for batch in store.batches(name, stage.name) if stage.batched else [None]:
            if stage.name != "report" and store.file(name, stage.name, batch).is_file():
                found[key_of(inputs.system, stage.name, batch)] = store.describe(name, stage.name, batch)
    return found


def lineage_columns(files: Mapping[str, FileInfo]) -> dict[str, list[Any]]:
    """A row for each pair of data, of which the first was made from the second, and whether that is still the same."""
    rows = [
        (key, info.content_hash, parent, hashed, parent in files and files[parent].content_hash == hashed)
        for key, info in files.items()
        for parent, hashed in sorted(info.metadata.upstream_data_versions.items())
    ]
    names = ("data", "content_hash", "made_from", "content_hash_of_that", "same")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def outdated_stages(inputs: Inputs, files: Mapping[str, FileInfo]) -> dict[str, str]:
    """Stage to why its newest data would be made otherwise now: of other settings, by other code, from other data."""
    reads = {stage.name: {read.stage for read in stage.reads} for stage in stages_of(inputs.system)}
    newest = {place_of(key)[0]: key for key in sorted(files)}
    found: dict[str, str] = {}
    for key in files:  # in the order of the stages
        stage, batch = place_of(key)
        # An adaptive plan also records the proposal of its last batch, which is made again after each.
        recorded = files[key].metadata.upstream_data_versions.items()
        made_from = [(name, hashed) for name, hashed in recorded if name in files and place_of(name)[0] in reads[stage]]
        again = [name for name, hashed in made_from if files[name].content_hash != hashed]
        old = [name for name, _ in made_from if name in found]
        if changed := inputs.soundness.changed(stage, batch):
            found[key] = changed
        elif again:
            found[key] = f"{shortened(again, 3)} changed since"
        elif old:
            found[key] = f"made from {shortened(old, 3)}, out of date"
    return {stage: found[key] for stage, key in newest.items() if key in found}


def _lineage(files: Mapping[str, FileInfo], old: Mapping[str, str]) -> str:
    stages: dict[str, dict[str, FileInfo]] = {}
    for key, info in files.items():
        stage, batch = place_of(key)
        stages.setdefault(stage, {})[batch or ""] = info
    nodes = []
    for stage, own in stages.items():
        upstream = [key for info in own.values() for key in info.metadata.upstream_data_versions]
        parents = [name for name in dict.fromkeys(place_of(key)[0] for key in upstream) if name != stage]
        hashes = {batch: info.content_hash for batch, info in own.items()}
        nodes.append(Node(stage, hashes, parents, old.get(stage, "")))
    text = "Each box is a stage with the hash of its data, which the data made from them record."
    text += f" Out of date, with a coloured edge: {', '.join(old)}." if old else ""
    return lineage_graph(nodes) + paragraph(text)


def _versions() -> list[dict[str, str]]:
    rows = [
        {"package": "cg_assets", "version": __version__},
        {"package": "Python", "version": platform.python_version()},
    ]
    return rows + [{"package": name, "version": version(name)} for name in _PACKAGES]


def citations(system: SystemSpec) -> str:
    """The papers of the methods that a system uses."""
    judged = system.evaluation.free_energies
    sources = [made.source for made in system.by_source_labels().values()]
    uses = {
        "relabelled_forces": any(item.labels == "relabelled_forces" for item in system.potentials.values()),
        "force_maps": bool(system.collective_variables),
        "kernels": any(not source.responds for source in sources),
        "responses": any(source.responds for source in sources)
        or any(item.response is not None for item in system.potentials.values()),
        "pmf_error": judged is not None and not judged.reference.exact,
    }
    rows = [{"paper": _PAPERS[name][1], "method": _PAPERS[name][0]} for name, used in uses.items() if used]
    text = f"cg_assets {__version__}, with the content hashes of the data above, and the papers of its methods:"
    return paragraph(text) + table(rows)
