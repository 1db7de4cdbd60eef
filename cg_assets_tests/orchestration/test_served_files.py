"""Reports and figures next to Dagster's pages: those of the home folder and nothing else."""

import base64
import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest

from cg_assets.orchestration.served_files import address, content_of, figure_link

PLACE = ("figures", "own", "comparison", "potentials compared.png")


@pytest.fixture
def png(tmp_path):
    """A figure of 800 x 400 pixels in a home folder."""
    path = tmp_path.joinpath(*PLACE)
    path.parent.mkdir(parents=True)
    plt.figure(figsize=(8, 4)).savefig(path, dpi=100)
    plt.close()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "own.html").write_text("<p>own</p>")
    return path


def asked(link):
    """Name and parameters of the address in a link."""
    name, _, query = re.search(r"\]\(/files/(.*)\)$", link.md_str).group(1).partition("?")
    return name.replace("%20", " "), dict(part.split("=") for part in query.split("&"))


def test_a_figure_is_short_and_fits_its_page(png, tmp_path):
    link = figure_link("no figure", *PLACE, content=png.read_bytes())
    assert len(link.md_str) < 1000  # else Dagster hides it behind a button
    content, kind = content_of(tmp_path, *asked(link))
    picture = ElementTree.fromstring(content)
    (image,) = picture
    assert base64.b64decode(image.get("href").removeprefix("data:image/png;base64,"), validate=True) == png.read_bytes()
    assert kind == "image/svg+xml" and (picture.get("width"), picture.get("height")) == ("560", "280")
    assert content_of(tmp_path, "/".join(PLACE), {}) == (png.read_bytes(), "image/png")
    assert content_of(tmp_path, "reports/own.html", {}) == (b"<p>own</p>", "text/html")
    assert address(*PLACE) == "/files/figures/own/comparison/potentials%20compared.png"


def test_a_figure_that_was_made_again_is_not_shown_for_the_earlier_one(png, tmp_path):
    name, earlier = asked(figure_link("no figure", *PLACE, content=png.read_bytes()))
    png.write_bytes(png.read_bytes() + b"other")
    assert content_of(tmp_path, name, earlier) == f"{name} was made again since"
    assert content_of(tmp_path, *asked(figure_link("no figure", *PLACE)))[1] == "image/svg+xml"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("reports/../data/own.html", "neither"),
        ("/etc/passwd", "neither"),
        ("reports/link.html", "neither"),
        ("figures/own.html", "neither"),
        ("reports/other.html", "is not on this machine"),
        ("reports", "neither"),
    ],
)
def test_nothing_else_is_served(png, tmp_path, name, why):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.html").touch()
    (tmp_path / "reports" / "link.html").symlink_to(tmp_path / "data" / "own.html")
    assert why in content_of(tmp_path, name, {})
