"""Tests that the questions and the messages fit a terminal of 80 columns and 24 rows."""

from pathlib import Path

import pytest

from harness.matrix import ASKED, QUESTIONS
from harness.terminal import Terminal
from harness.updates import start
from harness.variants import variants

pytestmark = pytest.mark.update


def labels(name: str) -> list[str]:
    return [*QUESTIONS[name].get("choices", ())]


@pytest.fixture
def asked(copier_fastapi: Path, tmp_path: Path) -> Terminal:
    return Terminal(f"copier copy {copier_fastapi} orders-api", tmp_path)


def test_every_question_and_every_choice_is_shown_whole(asked: Terminal) -> None:
    with asked as terminal:
        for name in ASKED:
            for line in [*QUESTIONS[name]["help"].splitlines(), *labels(name)]:
                terminal.wait_for(line)
            terminal.type("\r")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a--b", "a-z, 0-9, single dashes"),
        ("-a", "begin with a letter from a to z"),
        ("a-", "end with a letter or a digit"),
        ("lpt9", "reserved by Windows: type lpt9-api"),
        ("fastapi", "a package has it: try adding -api"),
        ("a" * 51, "at most 50 characters"),
    ],
)
def test_a_refused_name_says_why_in_a_sentence_that_is_shown_whole(
    asked: Terminal, name: str, sentence: str
) -> None:
    with asked as terminal:
        terminal.wait_for("orders-api")
        # Ctrl-U clears the line.
        terminal.type(f"\x15{name}\r")
        terminal.wait_for(f"Validation error for question 'project_name': {sentence}")


@pytest.mark.parametrize(
    ("question", "text", "sentence"),
    [
        ("description", "a" * 201, "at most 200 characters, not 201"),
        ("workers", "65", "a whole number from 1 to 64"),
    ],
)
def test_another_refused_text_says_why_in_a_sentence_that_is_shown_whole(
    asked: Terminal, question: str, text: str, sentence: str
) -> None:
    with asked as terminal:
        for name in ASKED:
            terminal.wait_for(QUESTIONS[name]["help"].splitlines()[-1])
            if name == question:
                break
            terminal.type("\r")
        terminal.type(f"\x15{text}\r")
        terminal.wait_for(f"Validation error for question '{question}': {sentence}")


RISKS = [
    ({"server": "gunicorn"}, "Uvicorn - the usual choice (first git rm gunicorn.conf.py)"),
    ({"server": "granian"}, "Gunicorn - restarts workers that hang (first git rm granian_server.py)"),
    ({"package_manager": "uv"}, "pip - requirements.txt, no other tool (first git rm uv.lock)"),
    ({"package_manager": "pip"}, "uv - one fast tool, one lock file (first git rm requirements*.txt)"),
    ({"database": "sqlite"}, "none - it keeps nothing (first git rm app/models.py ...)"),
    ({"cache": "redis"}, "none - not yet (first git rm app/cache.py)"),
    ({"layout": "package"}, "single-file - main.py, for a small service (first git rm app/main.py ...)"),
    ({"layout": "single-file"}, "package - app/, a module for each concern (first git mv main.py app/)"),
    (
        {"observability": "opentelemetry"},
        "none - it only writes its log (first git rm app/redaction.py)",
    ),
    ({"proxy": "caddy"}, "Traefik - if you already know it (first git rm deploy/caddy/*)"),
    ({"proxy": "traefik"}, "Caddy - one short file to configure (first git rm deploy/traefik/*)"),
    ({"kubernetes": "yes"}, "no - on a server, or a managed platform (first git rm deploy/kube...)"),
    ({"ci": "github"}, "GitLab - CI/CD, and its registry of images (first git rm .../ci.yml ...)"),
    ({"ci": "gitlab"}, "GitHub - Actions, and its registry of images (first git rm .gitlab-ci.yml)"),
]


@pytest.mark.parametrize(
    ("answers", "choice"),
    variants((pytest.param(*risk, id=next(iter(risk[0].values()))) for risk in RISKS), 4),
)
def test_a_choice_that_would_delete_an_edited_file_is_off_with_a_reason_that_is_shown_whole(
    copier_fastapi: Path, tmp_path: Path, answers: dict[str, str], choice: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", **answers)
    with Terminal("copier update", service) as terminal:
        for name in ASKED:
            terminal.wait_for(QUESTIONS[name]["help"].splitlines()[-1])
            if name in answers:
                break
            terminal.type("\r")
        terminal.wait_for(choice)


DOWN = "\x1b[B"


def test_kubernetes_is_off_beside_sqlite_with_a_reason_that_is_shown_whole(asked: Terminal) -> None:
    with asked as terminal:
        for name in ASKED:
            # Beside a database, the layout is not asked.
            if name == "layout":
                continue
            terminal.wait_for(QUESTIONS[name]["help"].splitlines()[-1])
            if name == "kubernetes":
                break
            terminal.type(f"{DOWN}\r" if name == "database" else "\r")
        terminal.wait_for("yes - manifests for kubectl and GitOps (SQLite is a file on one server)")


def test_sqlite_is_off_in_a_cluster_with_a_reason_that_is_shown_whole(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", kubernetes="yes")
    with Terminal("copier update", service) as terminal:
        for name in ASKED:
            terminal.wait_for(QUESTIONS[name]["help"].splitlines()[-1])
            if name == "database":
                break
            terminal.type("\r")
        terminal.wait_for("SQLite - a file beside the service, for one server (pods can't share files)")
