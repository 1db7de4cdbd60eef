"""Pages are well-formed and load nothing; graphs put what was made to the right of what it was made from."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from cg_assets.figures.report.lineage import Node, lineage_graph
from cg_assets.figures.report.page import Section, folded, page, paragraph, picture, table, verbatim
from cg_assets.figures.report.structure import structure_view
from cg_assets.mapping.ball_and_stick import BallsAndSticks

VOID = {"meta", "img", "br", "link", "input"}
MOLECULE = BallsAndSticks(
    atoms=np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.1, 0.1, 0.0]]),
    elements=["C", "O", "H"],
    atom_bonds=[(0, 1), (1, 2)],
    beads=np.array([[0.0, 0.0, 0.0], [0.1, 0.05, 0.0]]),
    bead_names=["1:C", "</script><b>"],
    bead_bonds=[(0, 1)],
)


class Checked(HTMLParser):
    """Collects what a page loads, and refuses tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.targets, self.anchors = [], [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "data", "action")]
        self.loads += [found["href"]] if tag == "link" else []
        self.targets += [found["href"]] if tag == "a" else []
        self.anchors += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(html):
    """A page that was found to be well-formed and to load nothing."""
    found = Checked()
    found.feed(html)
    found.close()
    assert found.open == []
    assert all(value.startswith("data:") for value in found.loads)
    assert all(target.removeprefix("#") in found.anchors for target in found.targets)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    return found


def test_pages_are_well_formed_and_load_nothing():
    rows = [{"metric": "pmf_error", "where": "", "result": "1 < 2 & 3"}, {"metric": "jsd", "where": "", "result": "∞"}]
    sections = [
        Section("Decision & more", table(rows) + folded("all <of> it", table([]))),
        Section("Beads", structure_view(MOLECULE, 'the "beads"')),
        Section("Figures", picture(b"\x89PNG", 'a <"figure">')),
        Section("Lineage", lineage_graph([Node("a", {"": "sha256:12"}, [])])),
        Section("Settings", paragraph("<script>") + verbatim("a: <b>")),
    ]
    html = page("A <title>", "what & why", sections)
    found = checked(html)
    assert len(found.loads) == 1 and len(found.targets) == len(sections)
    assert "<th>where</th>" not in html  # an empty column
    assert "prefers-color-scheme: dark" in html


def test_a_view_holds_its_structure_about_its_middle():
    html = structure_view(MOLECULE, "beads")
    data = json.loads(re.search(r'id="structure-data">(.*?)</script>', html).group(1))
    assert np.allclose(np.mean(data["beads"], axis=0), 0.0)
    assert np.allclose(np.subtract(data["atoms"][1], data["atoms"][0]), [0.1, 0.0, 0.0])
    assert data["names"] == MOLECULE.bead_names and data["atomBonds"] == [[0, 1], [1, 2]]


def test_data_stand_to_the_right_of_what_they_were_made_from():
    nodes = [
        Node("evaluation", {"": "sha256:9a"}, ["simulation", "reference"]),
        Node("simulation", {"": "sha256:8b"}, ["potential", "samples"], outdated="the potential was made again"),
        Node("reference", {"": "sha256:1f"}, []),
        Node("potential", {"": "sha256:7c"}, ["labels"]),
        Node("labels", {"0000": "sha256:5d", "0001": "sha256:6e"}, ["samples", "gone"]),
        Node("samples", {"0000": "sha256:3f", "0001": "sha256:4a"}, []),
    ]
    svg = ElementTree.fromstring(lineage_graph(nodes)).find("{*}svg")
    boxes = {}
    for group in svg.findall("{*}g"):
        rect = group.find("{*}rect")
        name = group.find("{*}title").text.splitlines()[0]
        boxes[name] = float(rect.get("x")), float(rect.get("y"))
        assert float(rect.get("x")) + float(rect.get("width")) <= float(svg.get("width"))
        assert float(rect.get("y")) + float(rect.get("height")) <= float(svg.get("height"))
        assert (rect.get("class") == "changed") == (name == "simulation")
    assert len(set(boxes.values())) == len(nodes)
    for node in nodes:
        assert all(boxes[parent][0] < boxes[node.name][0] for parent in node.parents if parent in boxes)
    assert len(svg.findall("{*}path")) == 6
    texts = ["".join(group.itertext()) for group in svg.findall("{*}g")]
    assert [text.count("out of date: the potential was made again") for text in texts].count(1) == 1
    assert any("2 batches" in text and "0001 sha256:6e" in text for text in texts)


@pytest.mark.parametrize("nodes", [[], [Node("alone", {}, [])]])
def test_graphs_of_nothing(nodes):
    assert ElementTree.fromstring(lineage_graph(nodes)) is not None
