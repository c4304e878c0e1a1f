"""Tests that docs/replace-the-example.md can be followed with and without a database."""

from pathlib import Path

import pytest

from harness.clones import git
from harness.development import development, in_git
from harness.matrix import Answers, label, values
from harness.pages import page, part, section
from harness.running import run, serving
from harness.stacks import DATA_ONCE, DATABASES
from harness.steps import follow, steps
from harness.variants import variants
from tests.conftest import Render

PAGE = page("docs/replace-the-example.md")
ENDPOINTS = section(PAGE, "Delete the endpoints")
TABLE = part(PAGE, "Delete the table")
SINGLE_FILE = section(PAGE, "A single file")
WAYS = ("Before the first deployment", "After the first deployment")

WITHOUT_CONTAINERS: list[Answers] = [{"layout": layout} for layout in values("layout")]
WITHOUT_DATABASE = [pytest.param(answers, id=label(answers)) for answers in WITHOUT_CONTAINERS] + [
    pytest.param(answers, id=label(answers), marks=pytest.mark.docker)
    for answers in DATA_ONCE
    if answers["database"] not in DATABASES
]
WITH_DATABASE = [answers for answers in DATA_ONCE if answers["database"] in DATABASES]


def test_every_step_of_the_page_is_in_a_section_that_a_test_follows() -> None:
    followed = [ENDPOINTS, TABLE, *(section(PAGE, way) for way in WAYS), SINGLE_FILE]
    assert [step for text in followed for step in steps(text)] == steps(PAGE)


@pytest.mark.parametrize("database", DATABASES)
def test_the_tables_without_the_example_are_those_of_a_new_service(render: Render, database: str) -> None:
    [replaced] = steps(TABLE)
    models = (render(database=database) / replaced.file).read_text()
    # Everything after the imports stays, up to the example.
    base = replaced.text[replaced.text.index("class Base") :]
    assert f"\n\n\n{base}\n\nclass Item(Base):" in models
    assert models.count("\nclass ") == 2


def names_of_the_example(service: Path) -> list[str]:
    """Return the lines of the service's code that name the example."""
    found = run("git grep --ignore-case --word-regexp -e 'items\\?' -- '*.py' || true", service)
    # The word is also a method of each dictionary.
    return [line for line in found.splitlines() if ".items()" not in line]


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("answers", WITHOUT_DATABASE)
def test_a_service_without_the_endpoints_of_the_example_passes_its_checks(
    answers: Answers, render: Render
) -> None:
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        in_a_file = answers.get("layout") == "single-file"
        follow(SINGLE_FILE if in_a_file else ENDPOINTS, service, **environment)
        assert names_of_the_example(service) == []
        with serving(service) as process:
            assert process.get("/").status_code == process.get("/items/5").status_code == 404


@pytest.mark.project
@pytest.mark.docker
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answers", variants(WITH_DATABASE[::-1]), ids=label)
def test_a_service_without_the_table_of_the_example_passes_its_checks(
    answers: Answers, way: str, render: Render
) -> None:
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        follow(ENDPOINTS + TABLE + section(PAGE, way), service, **environment)
        names = {line.partition(":")[0] for line in names_of_the_example(service)}
        assert {name for name in names if not name.startswith("migrations/versions/")} == set()
        assert bool(names) == (way == WAYS[1])
        # The database has no table of the example any more, and the service is ready.
        assert git(service, "status", "--porcelain") == ""
        assert "No new upgrade operations detected" in run("uv run alembic check", service, **environment)
        with serving(service) as process:
            assert process.get("/items").status_code == 404
