"""Tests the reloading server of development: restarted by an edit, and by nothing else."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import owners
from harness.matrix import DEFAULTS, values
from harness.pages import commands
from harness.ports import reserved_port
from harness.running import Process, run, started, variables, without_uv_run
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.project


@pytest.fixture(params=values("server"))
def service(installed: RenderTo, request: pytest.FixtureRequest) -> Path:
    """A service whose database is a file in its own folder."""
    return installed(**DEFAULTS | {"server": request.param, "database": "sqlite"})


@pytest.fixture
def development(service: Path) -> Iterator[Process]:
    """The service, as the last command of its page starts it."""
    *_, migrate, serve = [without_uv_run(command) for command in commands(service, "Run")]
    env = variables(service) | {"DATABASE_URL": "sqlite:///app.db"}
    run(migrate, service, DATABASE_URL=env["DATABASE_URL"])
    with reserved_port() as port:
        assert port
        with started([*shlex.split(serve), "--port", str(port)], service, port, env) as process:
            until(process.answers, "the service is ready")
            yield process


def test_only_an_edit_restarts_the_development_server(service: Path, development: Process) -> None:
    for number in range(30):
        response = development.client.post("/items", json={"name": f"item {number}"})
        assert response.status_code == 201, response.text
    owners.replace(service / "app/main.py", "World", "again")

    def edited() -> bool:
        return development.answers() and development.get("/").json() == {"Hello": "again"}

    until(edited, "the edit is served")
