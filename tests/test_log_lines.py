"""Tests what each server writes to its log in production: whole lines of JSON, whatever clients send."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.broken_starts import FAILURE, break_import, break_lifespan
from harness.matrix import DEFAULTS, Answers, combinations, label, values
from harness.ports import reserved_port
from harness.running import Process, deployed, run, started, variables
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

TWO_WORKERS = [
    {"server": server, "workers": 2, "python_version": DEFAULTS["python_version"], "package_manager": "uv"}
    for server in values("server")
]


@pytest.fixture(
    scope="module",
    params=[pytest.param(a, id=label(a), marks=pytest.mark.xdist_group(label(a))) for a in TWO_WORKERS],
)
def service(request: pytest.FixtureRequest, installed: RenderTo) -> Path:
    """A service with two workers under each server."""
    answers: Answers = request.param
    return installed(**answers)


def test_long_paths_leave_the_lines_of_two_workers_whole_and_short(service: Path) -> None:
    paths = [f"/{number}/" + "x" * 60_000 for number in range(400)]
    with reserved_port() as port:
        assert port
        command, env = deployed(service, port, PYTHONUNBUFFERED="1")
        # A container's log is a pipe too. It is often full, because its reader takes little at once.
        piped = ["bash", "-c", '"$@" | dd bs=100 status=none', "bash", *command]
        with started(piped, service, port, env) as process:
            until(process.answers, "the service is ready")
            for first in range(0, len(paths), 20):
                answers = process.get_many(*paths[first : first + 20])
                assert {answer.status_code for answer in answers} == {404}
            lines = until(lambda: access_lines(process, len(paths)), "the last access line")
    numbers = [json.loads(line)["path"].split("/")[1] for line in lines]
    assert sorted(map(int, numbers)) == [*range(len(paths))]
    assert sum(map(len, lines)) < 2000 * len(paths)


def access_lines(process: Process, count: int) -> list[str]:
    """Return the lines of requests that were no probes, once all of them are there."""
    # Read once: a line that is printed between two readings would be counted and not returned.
    lines = [line for line in process.lines() if '"GET /' in line]
    return lines if sum('"status":404' in line for line in lines) >= count else []


# Failed starts

BROKEN = {"import": break_import, "lifespan": break_lifespan}
# What is no JSON. The banner and the parent process of `fastapi run` have formats of their own, and Gunicorn
# prints the message of an error that it has logged once more.
TEXT = {
    "fastapi": r"⚡️.*|🐍.*|🌐.*|Documentation at .*|Logs:|INFO:     .*|ERROR:    Child process .*",
    "gunicorn": rf"No module named '{FAILURE}'",
}
OTHERS = {name: value for name, value in DEFAULTS.items() if name not in {"server", "workers"}}


def started_badly() -> list[Any]:
    """Return a parameter for each server, with one worker and with two, and each kind of failure."""
    found = []
    for answers in combinations("server", "workers", **OTHERS):
        for broken in BROKEN:
            marks = [pytest.mark.xdist_group(label(answers))]
            if (answers["server"], answers["workers"], broken) == ("fastapi", 2, "import"):
                reason = "multiprocessing prints why a worker of `fastapi run` can't import the application"
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            name = f"{answers['server']}-{answers['workers']}-{broken}"
            found.append(pytest.param(answers, broken, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("answers", "broken"), started_badly())
def test_what_fails_at_the_start_is_one_line_of_json(
    installed: RenderTo, answers: Answers, broken: str
) -> None:
    service = installed(**answers)
    BROKEN[broken](service)
    with reserved_port() as port:
        assert port
        command, env = deployed(service, port, PYTHONUNBUFFERED="1")
        with started(command, service, port, env) as process:
            until(lambda: process.popen.poll() is not None or says_why(process), "the reason")
            # The rest of a line may follow.
            lines = [line.strip() for line in process.output().rpartition("\n")[0].splitlines()]
    reasons = []
    for line in filter(None, lines):
        if not re.fullmatch(TEXT.get(answers["server"], ""), line):
            record = json.loads(line)
            reasons += [text for text in record.values() if "Traceback" in str(text)]
    assert any("Error: " in reason and FAILURE in reason for reason in reasons)


def says_why(process: Process) -> bool:
    return bool(re.search(f"Error: .*{FAILURE}", process.output()))


# Migrations


@pytest.mark.parametrize(
    ("statement", "logged"),
    [("alter table nowhere add x int", "no such table: nowhere"), ("", "Can't locate revision")],
)
def test_a_migration_that_fails_is_one_line_of_json(installed: RenderTo, statement: str, logged: str) -> None:
    service = installed(**DEFAULTS | {"database": "sqlite"})
    run("alembic upgrade head\nalembic revision --message next", service)
    [newer] = (service / "migrations" / "versions").glob("*_next.py")
    if statement:
        newer.write_text(newer.read_text().replace("    pass\n", f"    op.execute({statement!r})\n"))
    else:
        # As after a rollback: the database has a revision that this release doesn't know.
        run("alembic upgrade head", service)
        newer.unlink()
    compose = yaml.safe_load((service / "compose.prod.yaml").read_text())
    migrated = subprocess.run(
        compose["services"]["migrate"]["command"],
        cwd=service,
        env=variables(service) | {"ENVIRONMENT": "production"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert migrated.returncode != 0
    records = [json.loads(line) for line in migrated.stdout.splitlines()]
    [failure] = [record for record in records if record["level"] in {"ERROR", "CRITICAL"}]
    assert logged in failure.get("exception", failure["message"])
