"""Tests what each server writes to its log in production: whole lines of JSON, whatever clients send."""

import json
from pathlib import Path

import pytest

from harness.matrix import DEFAULTS, Answers, label, values
from harness.ports import reserved_port
from harness.running import Process, deployed, started
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
    lines = [line for line in process.lines() if '"GET /' in line]
    return lines if process.output().count('"status":404') >= count else []
