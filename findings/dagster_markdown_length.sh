#!/usr/bin/env bash
# Dagster 1.13.27: pages show Markdown metadata at once below 1,000 characters, and behind "[Show Markdown]" from there on.
#
# Valid input: a figure as Markdown metadata. As a data URI, which the guides use, a figure of more than 700 bytes is never
# shown on the page of an asset, only in a dialogue after a click; as a link to a picture that is served elsewhere it is shown.
# Seen in Chromium: the data URI of a figure as a button, a link of 150 characters to the same figure as the figure. The limit
# is in the source that the wheel of dagster-webserver ships in its source maps. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps --target "$folder/page" dagster-webserver==1.13.27
"$folder/venv/bin/python" - "$folder/page" <<'PYTHON'
import json
import re
import sys
from pathlib import Path

(source,) = {
    content
    for path in Path(sys.argv[1]).rglob("*.map")
    for maps in [json.loads(path.read_text(encoding="utf-8"))]
    for name, content in zip(maps["sources"], maps.get("sourcesContent") or [], strict=False)
    if name.endswith("/metadata/MetadataEntry.tsx")
}
rule = re.search(r"case 'MarkdownMetadataEntry':\s*return (.*?) \?", source, re.DOTALL).group(1)
print("Markdown is shown at once if", " ".join(rule.split()))
assert " ".join(rule.split()) == "expandSmallValues && entry.mdStr.length < 1000", rule
PYTHON
