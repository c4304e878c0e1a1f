"""The services that are measured, and the bare applications that they are measured against."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.matrix import DEFAULTS, ROOT, Answers
from harness.running import deployed, install_script, run, variables

BARE = Path(__file__).with_name("bare.py")


def rendered(folder: Path, **answers: Any) -> Path:
    """A service of the working tree's template with these answers, beside the defaults."""
    data = [f"--data={name}={value}" for name, value in answers.items()]
    copy = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref=HEAD", *data]
    subprocess.run(
        [*copy, str(ROOT), str(folder)],
        check=True,
        # The working tree's changes are in what is rendered, and Copier says so.
        capture_output=True,
    )
    return folder


def installed(folder: Path, **answers: Any) -> Path:
    """The same with its locked packages, for this machine alone to reach."""
    service = rendered(folder, **answers)
    for name in ("README.md", "gunicorn.conf.py", "granian_server.py"):
        if (service / name).exists():
            text = (service / name).read_text()
            (service / name).write_text(text.replace("0.0.0.0", "127.0.0.1"))
    chosen: Answers = DEFAULTS | answers
    run(install_script(service, chosen), service)
    return service


def own_command(service: Path, server: str, port: int) -> tuple[list[str], dict[str, str]]:
    """How its README deploys the service."""
    command, env = deployed(service, port)
    return [*command, *(["--host", "127.0.0.1"] if server == "fastapi" else [])], env


PEER = "s3rius/FastAPI-template"
PEER_COMMAND = ["python", "-m", "peer"]


def peer(folder: Path, given: str = "--db=none --orm=none") -> Path:
    """A service of s3rius/FastAPI-template, installed, with Gunicorn: its own choice for production."""
    common = "--quiet --name=peer --api-type=rest --ci=none --routers --gunicorn"
    generate = "uv tool run --quiet --python=3.13 --from=fastapi_template==6.1.2 fastapi_template"
    folder.mkdir()
    # One of its own tools has no wheel. That it fails to build the service from source is seen below.
    run(f"{generate} {common} {given}", folder, UV_NO_BUILD="0")
    service = folder / "peer"
    run("uv sync --quiet --python=3.13 --no-dev", service)
    return service


def peer_with_rows(folder: Path, url: str) -> tuple[Path, dict[str, str]]:
    """The same with SQLAlchemy and a table in this PostgreSQL, and its variables."""
    service = peer(folder, "--db=postgresql --orm=sqlalchemy --migrations --dummy")
    parts = urlsplit(url)
    env = variables(service) | {
        "PEER_DB_HOST": str(parts.hostname),
        "PEER_DB_USER": str(parts.username),
        "PEER_DB_PASS": str(parts.password),
        # Beside the other's, which has an alembic_version too.
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
    """How one would start an application of `bare.py` under the same server; only Uvicorn can be `logged`."""
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
