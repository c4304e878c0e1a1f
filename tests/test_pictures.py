"""Tests that the pictures can be read by everybody, ask nobody else, and show what their pages say."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import draw_performance
import pytest

from harness.clones import tracked
from harness.matrix import ROOT
from harness.pages import page, rows

PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

every_picture = pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)


@every_picture
def test_a_picture_says_in_words_what_it_shows(picture: Path) -> None:
    root = ET.parse(picture).getroot()
    assert root.tag == f"{SVG}svg"
    for name in ("title", "desc"):
        assert (root.findtext(f"{SVG}{name}") or "").strip(), name


@every_picture
def test_a_picture_asks_nobody_else_and_runs_nothing(picture: Path) -> None:
    text = picture.read_text()
    root = ET.fromstring(text)
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg\")", text) == []
    assert re.findall(r"@import|@font-face|url\((?!#)", text) == []
    elements = [element.tag.removeprefix(SVG) for element in root.iter()]
    assert {"script", "image", "foreignObject", "a"}.isdisjoint(elements)
    assert [name for element in root.iter() for name in element.attrib if name.startswith("on")] == []


def shown(text: str) -> list[tuple[str, str]]:
    """Return the alternative texts and the targets of a page's pictures, in Markdown or HTML."""
    tags = re.findall(r"<img\b[^>]*>", text)
    found = [(re.search(r'\balt="([^"]*)"', tag), re.search(r'\bsrc="([^"]*)"', tag)) for tag in tags]
    return re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text) + [
        (alt[1] if alt else "", source[1]) for alt, source in found if source
    ]


@every_picture
def test_a_picture_is_in_a_page_with_a_text_that_takes_its_place(picture: Path) -> None:
    pages = [name for name in tracked() if name == "README.md" or re.fullmatch(r"docs/.*\.md", name)]
    texts = [
        text
        for name in pages
        for text, target in shown(page(name))
        if ((ROOT / name).parent / target).resolve() == picture
    ]
    assert texts, f"no page shows {picture.name}"
    assert all(len(text.split()) > 5 for text in texts)


def test_the_picture_of_performance_is_that_of_the_table() -> None:
    drawn = draw_performance.drawn(page("docs/performance.md"))
    assert draw_performance.PICTURE.read_text() == drawn, "run scripts/draw_performance.py"


def test_the_picture_of_performance_has_the_figures_of_the_table() -> None:
    figures = draw_performance.figures(page("docs/performance.md"))
    requests = figures["`GET /items/5?q=x`, access log on, Uvicorn", "bare FastAPI without a log"]
    [ratio] = [row[2] for row in rows(page("docs/performance.md"), "what") if row[0].startswith("`GET")]
    assert requests.printed == ratio.split()[0]


@pytest.mark.parametrize(
    ("ratio", "target", "missed"),
    [
        (0.94, "at least 0.95", "0.95"),
        (0.95, "at least 0.95", ""),
        (1.06, "at most 1.05", "1.05"),
        (1.05, "at most 1.05", ""),
        (0.5, "", ""),
    ],
)
def test_a_bar_says_which_target_it_misses(ratio: float, target: str, missed: str) -> None:
    assert draw_performance.missed_target(ratio, target) == missed
