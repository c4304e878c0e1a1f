"""Gives a service in development what it needs, with the commands of the service's own page."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.clones import commit, git
from harness.containers import composed
from harness.matrix import Answers, has
from harness.pages import commands
from harness.ports import reserved_port
from harness.running import run

INSTALLS = "pip install -r requirements-dev.txt"
PORTS = ("HOST_PORT", "DATABASE_HOST_PORT", "CACHE_HOST_PORT")


def in_git(service: Path) -> Path:
    """Commit the service as it was rendered."""
    git(service, "init", "--quiet", "--initial-branch", "main")
    commit(service, "Start from copier-fastapi")
    return service


@contextmanager
def development(service: Path, answers: Answers) -> Iterator[dict[str, str]]:
    """Take the steps of the page's section "Run" up to the server, on free ports that `.env` gets.

    Yield the variables with which `docker compose` means the same containers. They are removed at the end.
    A service for pip is installed already.
    """
    steps = commands(service, "Run")[:-1]
    if INSTALLS in steps:
        steps = steps[steps.index(INSTALLS) + 1 :]
    with ExitStack() as held:
        environment = {}
        if has("with_database_server", **answers) or has("with_cache", **answers):
            project = held.enter_context(composed(service, "compose.yaml"))
            environment = {"COMPOSE_PROJECT_NAME": project.name}
        for step in steps:
            run(step, service, **environment)
            if step == "cp .env.example .env":
                ports = {name: str(held.enter_context(reserved_port())) for name in PORTS}
                with_ports(service / ".env", ports)
        yield environment


def with_ports(file: Path, ports: dict[str, str]) -> None:
    """Change the ports in `.env`, and in the addresses there: DATABASE_HOST_PORT is also in DATABASE_URL."""
    text = file.read_text()
    for name, port in ports.items():
        text = re.sub(rf"^{name}=\d+$", f"{name}={port}", text, flags=re.MULTILINE)
        url = name.replace("HOST_PORT", "URL")
        text = re.sub(rf"^({url}=.*@?127\.0\.0\.1:)\d+", rf"\g<1>{port}", text, flags=re.MULTILINE)
    file.write_text(text)
