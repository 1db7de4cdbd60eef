"""The description of a registered model as MLflow's page of it shows it, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from cg_assets.assets.comparison import read_comparison
from cg_assets.assets.work import Inputs
from cg_assets.registry.models import ReportPlace

_CARD = """**{title}**: {what}, learned from `{labels}`.

**Decision**: {decides} {result}{bound}; version {version} {verdict} and is champion.

{table}

{figure}[Report of the system]({report}), with all figures, lineage and settings.

```python
import mlflow
{connect}
model = mlflow.pyfunc.load_model("models:/{model}@champion")
print(model.predict(model.input_example))  # {outputs}
```
"""
_GAP = "\u00a0\u00a0"
"""Columns touch on MLflow's page."""


def model_card(
    inputs: Inputs, potential: str, row: Mapping[str, str], uri: str, place: ReportPlace, figure: str
) -> str:
    """The card of a champion.

    Args:
        inputs: the data of the system.
        potential: its name in the system.
        row: what decided, as `decisions` gives it.
        uri: of MLflow where this project keeps it itself; empty where `MLFLOW_TRACKING_URI` names it.
        place: where the report is.
        figure: name of the file of the figure that it shows; empty without one.
    """
    system = inputs.system
    shown = [item for item in read_comparison(inputs, [potential]).rows() if item["of"] == "model"]
    header = [name for name in shown[0] if name != "of" and any(item[name] for item in shown)]
    lines = [header, ["---"] * len(header), *([item[name] + _GAP for name in header] for item in shown)]
    beads = system.beads().cg_map.bead_names
    what = f"the potential of mean force of {len(beads)} beads" if system.units == "molar" else "a PMF"
    return _CARD.format(
        title=system.title,
        what=f"{what} ({', '.join(beads[:12])}{', …' if len(beads) > 12 else ''})",
        labels=system.potentials[potential].labels,
        decides=row["decides"],
        result=row["result"],
        bound=f" (bound {row['bound']})" if row["bound"] else "",
        version=row["version"],
        verdict=row["verdict"],
        table="\n".join(f"| {' | '.join(line)} |" for line in lines),
        figure=f"![potentials compared]({place.content(figure)})\n\n" if figure else "",
        report=place.page("report.html"),
        connect=f'\nmlflow.set_tracking_uri("{uri}")' if uri else "",
        model=row["model"],
        outputs="energy and forces",
    )
