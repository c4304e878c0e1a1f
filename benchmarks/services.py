"""Prepares the services that are measured, and the applications that they are compared with."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.matrix import DEFAULTS, ROOT, Answers
from harness.running import deployed, install_script, run, variables

BARE = Path(__file__).with_name("bare.py")


def rendered(folder: Path, **answers: Any) -> Path:
    """Render a service of the working tree's template, with the defaults for questions without an answer."""
    data = [f"--data={name}={value}" for name, value in answers.items()]
    copy = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref=HEAD", *data]
    subprocess.run(
        [*copy, str(ROOT), str(folder)],
        check=True,
        # Hides Copier's warning that it renders the uncommitted changes of the working tree too.
        capture_output=True,
    )
    return folder


def installed(folder: Path, **answers: Any) -> Path:
    """Render a service and install its locked packages. Only this machine will reach it."""
    service = rendered(folder, **answers)
    for name in ("README.md", "gunicorn.conf.py", "granian_server.py"):
        if (service / name).exists():
            text = (service / name).read_text()
            (service / name).write_text(text.replace("0.0.0.0", "127.0.0.1"))
    chosen: Answers = DEFAULTS | answers
    run(install_script(service, chosen), service)
    return service


def own_command(service: Path, server: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables with which the service's page deploys it."""
    command, env = deployed(service, port)
    return [*command, *(["--host", "127.0.0.1"] if server == "fastapi" else [])], env


PEER = "s3rius/FastAPI-template"
PEER_COMMAND = ["python", "-m", "peer"]


def peer(folder: Path, given: str = "--db=none --orm=none") -> Path:
    """Install a service of s3rius/FastAPI-template with Gunicorn, its own choice for production."""
    common = "--quiet --name=peer --api-type=rest --ci=none --routers --gunicorn"
    generate = "uv tool run --quiet --python=3.13 --from=fastapi_template==6.1.2 fastapi_template"
    folder.mkdir()
    # One of the generator's tools has no wheel, so a build from source is allowed here. If the service itself
    # needed one, `uv sync` below would fail.
    run(f"{generate} {common} {given}", folder, UV_NO_BUILD="0")
    service = folder / "peer"
    run("uv sync --quiet --python=3.13 --no-dev", service)
    return service


def peer_with_rows(folder: Path, url: str) -> tuple[Path, dict[str, str]]:
    """Install the same with SQLAlchemy and a table in this PostgreSQL, and return it with its variables."""
    service = peer(folder, "--db=postgresql --orm=sqlalchemy --migrations --dummy")
    parts = urlsplit(url)
    env = variables(service) | {
        "PEER_DB_HOST": str(parts.hostname),
        "PEER_DB_USER": str(parts.username),
        "PEER_DB_PASS": str(parts.password),
        # Not the service's own database, which has a table alembic_version too.
        "PEER_DB_BASE": "peer",
    }
    create = "import asyncio, asyncpg, sys\n"
    create += (
        "async def main():\n    await (await asyncpg.connect(sys.argv[1])).execute('CREATE DATABASE peer')\n"
    )
    (folder / "create.py").write_text(f"{create}asyncio.run(main())\n")
    run(f"python ../create.py {url}", service)
    run("alembic upgrade head", service, **env)
    return service, env


def bare_command(
    service: Path, server: str, name: str, port: int, *, logged: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables that start an application of `bare.py` under the same server.

    Only Uvicorn can be `logged`.
    """
    application = f"bare:{name}"
    address = ["--host", "127.0.0.1", "--port", str(port)]
    silent = [] if logged else ["--no-access-log", "--log-level=warning"]
    gunicorn = ["--no-control-socket", "--log-level=warning", f"--bind=127.0.0.1:{port}"]
    commands = {
        "uvicorn": ["uvicorn", application, *silent, *address],
        "fastapi": ["fastapi", "run", "--entrypoint", application, *address],
        "gunicorn": ["gunicorn", application, "--worker-class=uvicorn_worker.UvicornWorker", *gunicorn],
        "granian": ["granian", application, "--interface=asgi", *address],
    }
    return commands[server], variables(service) | ({"ACCESS_LOG": "1"} if logged else {})
