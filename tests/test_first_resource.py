"""Tests that docs/first-resource.md can be followed with each database, with and without a cache."""

import re
from pathlib import Path

import pytest

from harness.clones import git
from harness.development import development, in_git
from harness.matrix import DEFAULTS, Answers, has, label
from harness.pages import page, section
from harness.running import run, serving, without_uv_run
from harness.stacks import DATA, DATABASES
from harness.steps import follow
from harness.variants import variants
from tests.conftest import Render, RenderTo

PAGE = page("docs/first-resource.md")
CACHED = "5. Cache what is slow"
# The one with all that the page writes about comes first.
WITH_DATABASE = sorted(
    (answers for answers in DATA if answers["database"] in DATABASES),
    key=lambda answers: answers != {"database": "postgresql", "cache": "redis"},
)


def followed(service: Path, answers: Answers, text: str = PAGE, **environment: str) -> None:
    """Follow the page, without the section about the cache if there is no cache."""
    if not has("with_cache", **answers):
        text = text.replace(section(text, CACHED), "")
    follow(text, service, **environment)


def migration(service: Path, subject: str) -> str:
    """Return the migration that was written in the commit of this subject."""
    revision = git(service, "log", "--format=%H", f"--grep=^{subject}$").strip()
    changed = git(service, "show", "--name-only", "--format=", revision).split()
    [name] = [name for name in changed if name.startswith("migrations/versions/")]
    return (service / name).read_text()


def calls(text: str) -> dict[str, int]:
    """Count what a migration and its undoing do."""
    names = ("create_table", "drop_table", "create_index", "drop_index", "add_column", "drop_column")
    return {name: count for name in names if (count := text.count(f"{name}("))}


@pytest.mark.project
@pytest.mark.docker
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("answers", variants(WITH_DATABASE), ids=label)
def test_a_first_resource_is_written_as_the_page_says(answers: Answers, render: Render) -> None:
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        followed(service, answers, **environment)

        # The migrations do what the page says, and nothing else.
        added = calls(migration(service, "Authors and books"))
        assert added == {"create_table": 2, "create_index": 1, "drop_table": 2}
        pages = migration(service, "Books have pages")
        assert calls(pages) == {"add_column": 1, "drop_column": 1}
        assert pages.count('server_default="0"') == 1

        path = old_release_adds_a_book(service)
        with serving(service) as process:
            author = process.get(path).json()
            assert [(book["title"], book["pages"]) for book in author["books"]] == [("Notes", 0)]
            if has("with_cache", **answers):
                keys = run("docker compose exec -T cache valkey-cli keys '*'", service, **environment)
                assert keys.split() == [f"authors:1:{author['id']}"]


def old_release_adds_a_book(service: Path) -> str:
    """Add an author and a book with the code that knows no pages, and return the author's path."""
    before = git(service, "log", "--format=%H", "--grep=^Authors and books$").strip()
    old = service.parent / "before"
    git(service, "worktree", "add", "--quiet", str(old), before)
    (old / ".venv").symlink_to(service / ".venv", target_is_directory=True)
    env = service / ".env"
    database = {"DATABASE_URL": f"sqlite:///{service / 'app.db'}"} if (service / "app.db").exists() else {}
    if env.exists():
        (old / ".env").write_text(env.read_text())
    with serving(old, **database) as process:
        created = process.client.post("/authors", json={"name": "Ada"})
        assert created.status_code == 201, created.text
        path = f"/authors/{created.json()['id']}"
        book = process.client.post(f"{path}/books", json={"title": "Notes"})
        assert (book.status_code, "pages" in book.json()) == (201, False)
    return path


@pytest.mark.variant
@pytest.mark.project
def test_with_pip_the_commands_of_the_page_do_without_uv_run(installed: RenderTo) -> None:
    answers: Answers = {"database": "sqlite", "cache": "none", "package_manager": "pip"}
    answers["python_version"] = DEFAULTS["python_version"]
    service = in_git(installed(**answers))
    with development(service, answers):
        followed(service, answers, without_uv_run(PAGE))
    assert len(git(service, "log", "--format=%s").splitlines()) == 3


@pytest.mark.project
@pytest.mark.docker
@pytest.mark.usefixtures("newest_python")
def test_a_first_resource_takes_the_place_of_the_example(render: Render) -> None:
    answers: Answers = {"database": "postgresql", "cache": "redis"}
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        text = page("docs/replace-the-example.md")
        for title in ("After the first deployment", "A single file"):
            text = text.replace(section(text, title), "")
        follow(text, service, **environment)
        followed(service, answers, **environment)
        # The history begins with tables of the service's own.
        assert re.search(r"^down_revision: .* = None$", migration(service, "Authors and books"), re.MULTILINE)
        with serving(service) as process:
            assert process.get("/items").status_code == 404
            assert process.get("/authors").json() == []
