"""Tests that no generated history loses a line of the owner."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness import owners
from harness.clones import git
from harness.matrix import Answers, combinations
from harness.owners import files, lost_lines
from harness.updates import start

pytestmark = pytest.mark.update

# The number of histories, in tests of 25 each, so that processes share the work. With --all-commits there are
# four times as many.
HISTORIES = 100


@st.composite
def places(draw: st.DrawFn) -> tuple[float, float]:
    """Draw a file and a line in it, as shares of all files and of all lines."""
    share = st.floats(0, 1, exclude_max=True)
    return draw(share), draw(share)


def write_lines(files: Sequence[Path], at: Sequence[tuple[float, float]], text: str) -> None:
    """Insert a line at each of these places."""
    for number, (file_share, line_share) in enumerate(at):
        file = files[int(file_share * len(files))]
        lines = file.read_text().splitlines(keepends=True)
        lines.insert(int(line_share * (len(lines) + 1)), f"# {text} {number}\n")
        file.write_text("".join(lines))


def change_lines(files: Sequence[Path], at: Sequence[tuple[float, float]]) -> None:
    """Change a line at each of these places, or remove it, unless it has a Jinja tag."""
    for number, (file_share, line_share) in enumerate(at):
        file = files[int(file_share * len(files))]
        lines = file.read_text().splitlines(keepends=True)
        line = int(line_share * len(lines))
        if lines and not re.search(r"\{[{%#]|[%#}]\}", lines[line]):
            lines[line] = f"# changed {number}\n" if number % 2 else ""
            file.write_text("".join(lines))


def text_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and ".git" not in path.relative_to(folder).parts
        and path.name != owners.ANSWERS_FILE
    )


def histories(number: int, start_at: int) -> Any:
    """Return a test of this many generated histories. The same `start_at` always generates the same ones."""
    few_places = st.lists(places(), max_size=6)
    combination = st.sampled_from(list(combinations()))
    unhurried = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

    @seed(start_at)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        # A history takes seconds, so a failing one is shown as it was found, and not made smaller.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=unhurried,
    )
    @given(
        answers=combination,
        new_answers=st.none() | combination,
        edits=st.lists(st.sampled_from(owners.EDITS), unique=True, max_size=4),
        ours=few_places,
        theirs=few_places,
        changed=few_places,
    )
    def history_of_a_service(
        repository: Path,
        folder: Path,
        answers: Answers,
        new_answers: Answers | None,
        edits: list[owners.Edit],
        ours: list[tuple[float, float]],
        theirs: list[tuple[float, float]],
        changed: list[tuple[float, float]],
    ) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            template = shutil.copytree(repository, Path(name, "copier-fastapi"), symlinks=True)
            service = start(template, Path(name, "orders-api"), **answers)
            copied = files(service)
            for edit in sorted(edits, key=owners.EDITS.index):
                edit(service)
            write_lines(text_files(service), ours, "ours")
            git(service, "add", "--all")
            git(service, "commit", "--quiet", "--allow-empty", "--message", "Ours")
            written = owners.added_lines(copied, files(service))
            change_lines(text_files(template / "template"), changed)
            write_lines(text_files(template / "template"), theirs, "theirs")
            git(template, "commit", "--quiet", "--allow-empty", "--all", "--message", "Theirs")

            moved = owners.update_as_told(service, **(new_answers or {}))

            lost = lost_lines(written, files(service)).keys() - set(moved)
            # Only new answers delete files, and the message before the update says so.
            assert lost <= (set(owners.deleted(service)) if new_answers else set())
            assert owners.with_markers(service) == owners.conflicts(service)

    return history_of_a_service


@pytest.mark.variant
@pytest.mark.parametrize("start_at", range(HISTORIES // 25))
def test_no_history_loses_a_line_of_the_owner(
    repository: Path, tmp_path: Path, request: pytest.FixtureRequest, start_at: int
) -> None:
    number = 100 if request.config.getoption("all_commits") else 25
    histories(number, start_at)(repository=repository, folder=tmp_path)
