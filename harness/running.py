"""Installs a rendered service and runs it on this machine, with the commands of the service's pages."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import httpx2

from harness.matrix import DEFAULTS, Answers, values
from harness.pages import commands
from harness.ports import reserved_port
from harness.waiting import until

# Seconds that a response or the end of a process may take. A slow machine must not fail a test.
DEADLINE = 60.0
# Seconds that an installation, a check of a service or a similar command may take.
PATIENCE = 600.0

# The questions whose answers decide what is installed. Services with the same answers share an environment.
INSTALLED_BY = ("python_version", "package_manager", "server", "database", "cache", "observability")

# Variables of this machine that would change what a service or its tools do.
CHANGES_A_SERVICE = re.compile(
    r"(DATABASE_\w+|CACHE_\w+|BACKUP_\w+|ENVIRONMENT|LOG_LEVEL|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS|PORT|VIRTUAL_ENV|PYTHON\w*"
    r"|MAX_BODY_SIZE|ALLOWED_HOSTS|API_DOCS"
    r"|(UVICORN|FASTAPI|GUNICORN|GRANIAN|PYTEST|COV|MYPY|RUFF)_\w*|UV|UV_(PROJECT|PYTHON|RUN|NO_SYNC)\w*)"
)


def without_uv_run(command: str) -> str:
    """Return the command that `uv run` starts, for an environment that is installed and on the PATH."""
    return command.replace("uv run ", "")


def variables(service: Path | None = None) -> dict[str, str]:
    """Return this machine's variables for a command, without those that would change a service.

    Packages are installed only from wheels. Python compiles a module when it is first imported, with pip as
    with uv. The service's own environment comes first on the PATH. Of the template's tools only uv is on it,
    so that a tool which the service doesn't declare is not found.
    """
    own = {name: value for name, value in os.environ.items() if not CHANGES_A_SERVICE.fullmatch(name)}
    path = [folder for folder in own["PATH"].split(os.pathsep) if folder != _own_tools()]
    path.insert(0, str(_folder_of_uv()))
    own |= {"UV_NO_BUILD": "1", "PIP_ONLY_BINARY": ":all:", "PIP_COMPILE": "0"}
    if service:
        path.insert(0, str(service / ".venv" / "bin"))
        own["MYPY_CACHE_DIR"] = str(_cache_of_mypy(service))
    return own | {"PATH": os.pathsep.join(path)}


def _own_tools() -> str:
    return str(Path(sys.executable).parent)


@functools.cache
def _folder_of_uv() -> Path:
    uv = shutil.which("uv", path=os.pathsep.join([_own_tools(), os.environ["PATH"]]))
    assert uv, "uv is not among the template's tools"
    folder = Path(tempfile.mkdtemp(prefix="uv-"))
    for name in ("uv", "uvx"):
        (folder / name).symlink_to(Path(uv).with_name(name))
    return folder


# What mypy knows about packages, which takes it most of its time. The services of this process share it.
_mypy_cache = tempfile.TemporaryDirectory(prefix="mypy-")
# Each service that is new, with the second in which its modules seem to be changed.
_seconds: dict[Path, int] = {}


def _cache_of_mypy(service: Path) -> Path:
    """Return the shared cache, and let no module of a service look like that of another.

    mypy takes a module for the one that it knows if the path, the size and the second of the last change are
    the same. If only the second is not, it compares the contents.
    """
    if service not in _seconds:
        _seconds[service] = second = 1_000_000_000 + len(_seconds)
        for module in (*service.glob("*.py"), *service.glob("[!.]*/**/*.py")):
            os.utime(module, (second, second))
    return Path(_mypy_cache.name)


def run(script: str, folder: Path, **more: str) -> str:
    """Run lines in one bash and return what they print. Raise an AssertionError at the first that fails."""
    bash = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=variables(folder) | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert bash.returncode == 0, f"{script}\nended with {bash.returncode}:\n{bash.stdout[-4000:]}"
    return bash.stdout


# Install


def missing_python(version: str) -> str:
    """Return why no service can run on this Python here, or "" if one can."""
    return "" if shutil.which(f"python{version}") else f"python{version} is not on this machine"


@functools.cache
def makes_environments(version: str) -> bool:
    """Tell whether `python -m venv` of this Python works here. It doesn't if pip was removed from Python."""
    with tempfile.TemporaryDirectory() as folder:
        venv = [f"python{version}", "-m", "venv", folder]
        return subprocess.run(venv, env=variables(), capture_output=True).returncode == 0


def newest_python(package_manager: str) -> str | None:
    """Return the first offered Python with which the commands of a page run unchanged on this machine."""
    for version in values("python_version"):
        if not missing_python(version) and (package_manager == "uv" or makes_environments(version)):
            return str(version)
    return None


def install_script(service: Path, answers: Answers) -> str:
    """Return the lines that install a service: `uv sync`, or what installs the locked requirements of pip.

    uv does that too, in a second where pip takes half a minute. pip itself runs in the images, and in the
    tests of the commands that a page has for pip.
    """
    if answers["package_manager"] == "uv":
        return "uv sync --locked" if (service / "uv.lock").exists() else "uv sync"
    assert "pip install -r requirements-dev.txt" in commands(service, "Run")
    return (
        f"uv venv --quiet --seed --python {answers['python_version']} .venv\n"
        "uv pip install --quiet --python .venv -r requirements-dev.txt"
    )


def install(service: Path, answers: Answers, shared: Path) -> Path:
    """Give the service an environment, and return the folder in which it was installed.

    Services with the same answers to `INSTALLED_BY` share it. `shared` is a folder for all processes of a
    test run. The first of them installs, and the others wait.
    """
    home = shared / "-".join(str((DEFAULTS | answers)[name]) for name in INSTALLED_BY)
    shared.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{home}.lock"):
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(service, home)
            run(install_script(home, answers), home)
            (home / "installed").touch()
    (service / ".venv").symlink_to(home / ".venv", target_is_directory=True)
    return home


# Run


class Process:
    """Runs a server in a process group of its own, and sends requests to it."""

    def __init__(self, command: list[str], folder: Path, log: Path, port: int, env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.popen.pid
        # No connection is kept, so that each request may reach any worker.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(
            base_url=url, limits=limits, timeout=DEADLINE, trust_env=False, verify=False
        )

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """Send a GET request. `X_Request_ID="a"` sends the header X-Request-ID."""
        return self.client.get(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def get_many(self, *paths: str) -> list[httpx2.Response]:
        """Send GET requests at the same time, and return their responses."""
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(self.get, paths))

    def output(self) -> str:
        """Return all that the server has printed so far."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[str]:
        """Return the lines that the server has printed so far, without empty ones."""
        return [line.strip() for line in self.output().splitlines() if line.strip()]

    def records(self, **values: Any) -> list[dict[str, Any]]:
        """Return the printed lines that are JSON objects with these values."""
        records = [json.loads(line) for line in self.lines() if line.startswith("{")]
        return [record for record in records if values.items() <= record.items()]

    def answers(self) -> bool:
        """Tell whether the service is ready for requests. Raise an AssertionError if the server has ended."""
        assert self.popen.poll() is None, (
            f"the server ended with {self.popen.returncode}:\n{self.output()[-4000:]}"
        )
        try:
            return self.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def workers(self) -> set[int]:
        """Return the processes that serve: all that the server started, or only itself if it started none."""
        return {pid for pid in _descendants(self.pid) if not _is_helper(pid)} or {self.pid}

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Send the server a signal and wait for its end. Return its exit code as `wait` does."""
        self.popen.send_signal(sent)
        return self.wait()

    def wait(self) -> int:
        """Wait for the server's end. Return its exit code, which is negative if a signal ended it."""
        return self.popen.wait(DEADLINE)

    def kill(self) -> None:
        """Kill all that is left of the process group."""
        self.client.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(DEADLINE)


def _descendants(pid: int) -> list[int]:
    """Return the living processes that a process started, and those that these started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def _is_helper(pid: int) -> bool:
    """Tell whether a process is gone, or is the one with which multiprocessing cleans up after others."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def started(command: list[str], folder: Path, port: int, env: dict[str, str]) -> Iterator[Process]:
    """Run a server, and kill it with all that it started when the block ends."""
    # Not in the folder, which Granian watches for changes.
    log = Path(tempfile.mkstemp(prefix="output-", suffix=".log", dir=folder.parent)[1])
    process = Process(command, folder, log, port, env)
    try:
        yield process
    finally:
        process.kill()


def deployed(service: Path, port: int, **changed: str) -> tuple[list[str], dict[str, str]]:
    """Return the page's command to deploy and its variables, with this port and these variables changed.

    Each server reads the port from one of two variables.
    """
    [line] = commands(service, "Deploy")
    words = shlex.split(without_uv_run(line))
    assignments = [word for word in words if re.match(r"[A-Z_]+=", word)]
    given = dict(word.split("=", 1) for word in assignments)
    ports = {"PORT": str(port), "UVICORN_PORT": str(port)}
    return words[len(assignments) :], variables(service) | ports | given | changed


@contextmanager
def serving(service: Path, **changed: str) -> Iterator[Process]:
    """Deploy the service as its page says, with these variables changed, and yield it when it is ready."""
    with reserved_port() as port:
        assert port
        command, env = deployed(service, port, **changed)
        with started(command, service, port, env) as process:
            until(process.answers, "the service is ready")
            yield process
