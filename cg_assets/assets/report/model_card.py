"""The description of a registered model as MLflow's page of it shows it, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from cg_assets.assets.comparison import read_comparison
from cg_assets.assets.work import Inputs

_CARD = """**{title}**: {what}, learned from `{labels}`.

**Decision**: {decides} {result}{bound}; version {version} {verdict} and is champion.

{table}

{figure}**Report**: `report/report.html` of the training run.

```python
import mlflow
{connect}
model = mlflow.pyfunc.load_model("models:/{model}@champion")
print(model.predict(model.input_example))  # {outputs}
```
"""


def model_card(inputs: Inputs, potential: str, row: Mapping[str, str], uri: str, figure: str) -> str:
    """The card of a champion.

    Args:
        inputs: the data of the system.
        potential: its name in the system.
        row: what decided, as `decisions` gives it.
        uri: of MLflow where this project keeps it itself; empty where `MLFLOW_TRACKING_URI` names it.
        figure: name of the file of the comparison's first figure; empty without one.
    """
    system = inputs.system
    evaluation = read_comparison(inputs, [potential]).evaluations[potential]
    shown = [item for item in evaluation.rows() if item["of"] == "model"][:8]
    header = [name for name in shown[0] if name != "of" and any(item[name] for item in shown)]
    lines = [header, ["---"] * len(header), *([item[name] for name in header] for item in shown)]
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
        figure=f"**Figure**: `report/{figure}` of the training run.\n\n" if figure else "",
        connect=f'\nmlflow.set_tracking_uri("{uri}")' if uri else "",
        model=row["model"],
        outputs="energy and forces",
    )
