"""Tests that the recording of the questions is what Copier shows now, with every question and no path."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import record_questions

from harness.matrix import QUESTIONS, ROOT

SVG = "{http://www.w3.org/2000/svg}"
# Bytes that a reader of README.md loads for it.
LIMIT = 150_000


@pytest.fixture(scope="module")
def recording() -> str:
    return record_questions.PICTURE.read_text()


@pytest.fixture(scope="module")
def shown(recording: str) -> list[str]:
    """The text of each frame."""
    root = ElementTree.fromstring(recording)
    rows = {f"#{group.get('id')}": text(group) for group in root.iterfind(f"{SVG}defs/{SVG}g")}
    return ["\n".join(frame_lines(frame, rows)) for frame in root.iterfind(f".//{SVG}g[@class='frame']")]


def text(group: ElementTree.Element) -> str:
    return " ".join(run.text or "" for run in group.iterfind(f"{SVG}text"))


def frame_lines(frame: ElementTree.Element, rows: dict[str, str]) -> Iterator[str]:
    for use in frame.iterfind(f"{SVG}use"):
        if use.get("href") != "#cursor":
            yield rows[use.get("href", "")]


def test_the_recording_is_what_copier_shows_now(recording: str) -> None:
    now = record_questions.picture(record_questions.record()).decode()
    # An assert would print a difference of many pages.
    if now != recording:
        pytest.fail("what Copier shows has changed: make recording")


@pytest.mark.parametrize("name", record_questions.QUESTIONS_SHOWN)
def test_a_frame_has_the_whole_question(shown: list[str], name: str) -> None:
    lines = [*QUESTIONS[name]["help"].splitlines(), *QUESTIONS[name].get("choices", ())]
    assert any(all(line in frame for line in lines) for frame in shown)


def test_it_begins_with_the_command_of_the_readme_and_ends_with_the_next_ones(shown: list[str]) -> None:
    assert record_questions.SHOWN in (ROOT / "README.md").read_text().splitlines()
    assert any(frame == f"$ {record_questions.SHOWN}" for frame in shown)
    assert "orders-api is ready. Next:" in shown[-1]
    assert "docker compose up --detach --wait database" in shown[-1]


def test_it_has_no_path_of_this_machine(recording: str) -> None:
    paths = [ROOT, Path(sys.prefix), Path(tempfile.gettempdir())]
    assert [path for path in paths if f"{path}/" in recording] == []


def test_it_is_a_small_picture_with_a_title_that_stands_still_where_nothing_may_move(recording: str) -> None:
    root = ElementTree.fromstring(recording)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title")
    assert "@media (prefers-reduced-motion:no-preference)" in (root.findtext(f"{SVG}style") or "")
    assert len(recording.encode()) < LIMIT
