"""Tests a service under each server: installed, started as its page says, under requests, and stopped.

The service's own checks, and the commands that the template prints, are tested too.
"""

import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.containers import composed, unique, why_no_engine
from harness.matrix import DEFAULTS, Answers, combinations, covering, label, values
from harness.pages import commands
from harness.ports import reserved_port
from harness.running import (
    Process,
    deployed,
    newest_python,
    run,
    serving,
    started,
    variables,
    without_uv_run,
)
from harness.stacks import DATA, DATA_ONCE, addresses
from harness.variants import variants
from harness.waiting import until
from tests.conftest import Render

pytestmark = pytest.mark.project

PYTHON = DEFAULTS["python_version"]
RenderTo = Callable[..., Path]


def grouped(combinations: list[Answers]) -> list[Any]:
    """Return a parameter for each combination. Its tests run in one process, so that they share a service."""
    return [
        pytest.param(answers, id=label(answers), marks=pytest.mark.xdist_group(label(answers)))
        for answers in combinations
    ]


@pytest.fixture(
    scope="module",
    params=grouped(covering("server", "layout", "package_manager", "workers", python_version=PYTHON)),
)
def answers(request: pytest.FixtureRequest) -> Answers:
    """Answers with every pair of choices that decide how a service is started."""
    chosen: Answers = request.param
    return chosen


# Routes as an owner would append them.
ROUTES = '''

import asyncio
import os
import time
from pathlib import Path


@app.get("/pid")
async def read_pid() -> int:
    """Return the id of this process, which accepts no other request meanwhile."""
    time.sleep(0.02)
    return os.getpid()


@app.get("/slow/{number}")
async def read_slowly(number: int) -> int:
    Path(f"begun-{number}").touch()
    while not Path("released").exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    return number


@app.get("/boom")
async def fail() -> None:
    raise RuntimeError("first\\nsecond")
'''


def add_routes(service: Path, answers: Answers) -> Path:
    main = service / ("app/main.py" if answers["layout"] == "package" else "main.py")
    main.write_text(main.read_text() + ROUTES)
    return service


@pytest.fixture(scope="module")
def service(installed: RenderTo, answers: Answers) -> Path:
    """A service with `ROUTES`."""
    return add_routes(installed(**answers), answers)


@pytest.fixture(scope="module")
def production(service: Path) -> Iterator[Process]:
    """The service as its page deploys it, behind a proxy at 127.0.0.1."""
    with serving(service) as process:
        yield process


@pytest.fixture(scope="module")
def changed(service: Path, answers: Answers) -> Iterator[Process]:
    """The service with another number of workers, behind a proxy that is not 127.0.0.1."""
    workers = str(other_workers(answers))
    with serving(service, WEB_CONCURRENCY=workers, FORWARDED_ALLOW_IPS="10.0.0.1") as process:
        yield process


def other_workers(answers: Answers) -> int:
    return 3 if answers["workers"] == 1 else 1


class Stopped:
    """Sends requests to a service, and then SIGTERM while `IN_FLIGHT` more requests are under way."""

    IN_FLIGHT = 50

    def __init__(self, service: Path, process: Process) -> None:
        self.answers = [
            process.get("/boom", X_Request_ID="boom-1"),
            process.get("/items/5?q=secret", X_Request_ID="items-1"),
        ]
        with ThreadPoolExecutor(self.IN_FLIGHT) as pool:
            slow = [pool.submit(process.get, f"/slow/{number}") for number in range(self.IN_FLIGHT)]
            try:
                until(lambda: len(list(service.glob("begun-*"))) == self.IN_FLIGHT, "all in their handlers")
                process.popen.send_signal(signal.SIGTERM)
            finally:
                (service / "released").touch()
            self.slow_answers = [None if request.exception() else request.result().json() for request in slow]
        self.exit_code = process.wait()
        self.pid = process.pid
        self.lines = process.lines()
        self.records = process.records


@pytest.fixture(scope="module")
def stopped(service: Path) -> Iterator[Stopped]:
    with serving(service) as process:
        yield Stopped(service, process)


# Responses


def test_the_root_says_hello(production: Process) -> None:
    assert production.get("/").json() == {"Hello": "World"}


def test_an_item_is_read(production: Process) -> None:
    assert production.get("/items/5?q=somequery").json() == {"item_id": 5, "q": "somequery"}


def test_no_response_names_the_server_unless_the_server_has_no_option_for_that(
    production: Process, answers: Answers
) -> None:
    has_no_option = answers["server"] in ("fastapi", "granian")
    assert ("server" in production.get("/").headers) == has_no_option


def test_an_error_leaves_the_connection_open(production: Process) -> None:
    connection = HTTPConnection("127.0.0.1", production.client.base_url.port)
    with closing(connection):
        connection.request("GET", "/boom")
        response = connection.getresponse()
        assert (response.status, response.read()) == (500, b'{"detail":"Internal Server Error"}')
        # From now on, a closed connection is an error instead of a new one.
        connection.auto_open = 0
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


def test_an_item_id_is_a_number(production: Process) -> None:
    assert production.get("/items/x").status_code == 422


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/health/live", "/health/ready"])
def test_each_page_and_probe_answers(production: Process, path: str) -> None:
    assert production.get(path).status_code == 200


# Workers


def pids_that_answer(process: Process) -> set[int]:
    """Return the processes that requests reach which are sent at once, or nothing if one is refused."""
    try:
        return {answer.json() for answer in process.get_many(*["/pid"] * 30)}
    except httpx2.TransportError:
        return set()


def wait_for_workers(process: Process, number: int) -> None:
    """Wait until this many worker processes run, and requests reach each of them and no other process."""

    def all_answer() -> bool:
        return len(workers := process.workers()) == number and pids_that_answer(process) == workers

    until(all_answer, f"responses of {number} workers")


def test_as_many_workers_serve_as_were_asked_for(production: Process, answers: Answers) -> None:
    wait_for_workers(production, answers["workers"])


def test_web_concurrency_changes_the_number_of_workers(changed: Process, answers: Answers) -> None:
    wait_for_workers(changed, other_workers(answers))


def test_a_killed_worker_is_replaced_unless_one_process_is_all(production: Process, answers: Answers) -> None:
    if answers["server"] in {"uvicorn", "fastapi"} and answers["workers"] == 1:
        assert production.workers() == {production.pid}
        return
    wait_for_workers(production, answers["workers"])
    killed = min(production.workers())
    assert killed != production.pid
    subprocess.run(["kill", "-KILL", str(killed)], check=True)
    until(lambda: killed not in production.workers(), "the worker ends")
    wait_for_workers(production, answers["workers"])


# Proxies

FORWARDED = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "203.0.113.7"}


def client_in_the_access_log(process: Process, request_id: str) -> str:
    until(lambda: process.records(logger="access", request_id=request_id), "the request is logged")
    [record] = process.records(logger="access", request_id=request_id)
    return str(record["client"])


def test_what_a_trusted_proxy_forwards_counts(production: Process) -> None:
    answer = production.get("/items/5/", X_Request_ID="trusted-1", **FORWARDED)
    assert answer.headers["Location"].startswith("https://127.0.0.1")
    assert client_in_the_access_log(production, "trusted-1") == "203.0.113.7"


def test_what_another_address_forwards_does_not_count(changed: Process) -> None:
    answer = changed.get("/items/5/", X_Request_ID="untrusted-1", **FORWARDED)
    assert answer.headers["Location"].startswith("http://127.0.0.1")
    assert client_in_the_access_log(changed, "untrusted-1") == "127.0.0.1"


# Shutdown


def test_every_request_in_flight_at_sigterm_is_answered(stopped: Stopped) -> None:
    assert stopped.slow_answers == list(range(Stopped.IN_FLIGHT))


def test_sigterm_ends_the_server_with_exit_code_0_or_as_an_unhandled_signal(stopped: Stopped) -> None:
    assert stopped.exit_code in {0, -signal.SIGTERM}


# Logs

# Lines that `fastapi run` prints itself, and that no option turns off.
BANNER = [
    r"⚡️ Starting FastAPI in production mode",
    r"🐍 Using import string: (app\.)?main:app",
    r"🌐 Server started at http://0\.0\.0\.0:\d+",
    r"Documentation at http://0\.0\.0\.0:\d+/docs",
    r"Logs:",
]
# Lines of Uvicorn's parent process, which has its own format: `fastapi run` has no option for that.
PARENT = [
    r"INFO:     Uvicorn running on http://0\.0\.0\.0:\d+ \(Press CTRL\+C to quit\)",
    r"INFO:     Started parent process \[{pid}\]",
    r"INFO:     Received SIGTERM, exiting\.",
    r"INFO:     Terminated child process \[\d+\]",
    r"INFO:     Terminated child process \[\d+\]",
    r"INFO:     Waiting for child process \[\d+\]",
    r"INFO:     Waiting for child process \[\d+\]",
    r"INFO:     Stopping parent process \[{pid}\]",
]


def test_every_line_in_production_is_a_json_object(stopped: Stopped, answers: Answers) -> None:
    exceptions = []
    if answers["server"] == "fastapi":
        exceptions = BANNER + (PARENT if answers["workers"] > 1 else [])
    others = [line for line in stopped.lines if not line.startswith("{")]
    assert len(others) == len(exceptions), others
    for line, expected in zip(others, exceptions, strict=True):
        assert re.fullmatch(expected.replace("{pid}", str(stopped.pid)), line)
    for record in stopped.records():
        assert list(record)[:4] == ["time", "level", "logger", "message"]


def test_the_server_logs_as_the_service_does(stopped: Stopped, answers: Answers) -> None:
    own_logger = {"gunicorn": "gunicorn.error", "granian": "_granian"}.get(answers["server"], "uvicorn.error")
    assert stopped.records(logger=own_logger, level="INFO")


def test_a_request_is_logged_once_and_without_its_query(stopped: Stopped) -> None:
    [record] = [record for record in stopped.records() if "/items/5" in json.dumps(record)]
    expected = {"logger": "access", "message": "GET /items/5 200", "status": 200, "request_id": "items-1"}
    assert expected.items() <= record.items()
    assert "secret" not in "".join(stopped.lines)


def test_an_unhandled_exception_is_one_line_with_the_requests_id(stopped: Stopped) -> None:
    assert stopped.answers[0].status_code == 500
    assert stopped.answers[0].headers["X-Request-ID"] == "boom-1"
    [record] = [record for record in stopped.records() if "Traceback" in json.dumps(record)]
    assert record["level"] == "ERROR"
    assert record["request_id"] == "boom-1"
    assert "Traceback (most recent call last):\n" in record["exception"]
    assert record["exception"].endswith("RuntimeError: first\nsecond")


# Behaviour that is the same in every layout and with every package manager

EACH_SERVER = list(
    combinations("server", "workers", python_version=PYTHON, layout="package", package_manager="uv")
)


@pytest.fixture(scope="module", params=grouped(EACH_SERVER))
def server(request: pytest.FixtureRequest) -> Answers:
    """Each server, with and without several workers."""
    chosen: Answers = request.param
    return chosen


@pytest.fixture(scope="module")
def plain_service(installed: RenderTo, server: Answers) -> Path:
    return installed(**server)


def failed_start(service: Path, port: int, **changed: str) -> tuple[int, str]:
    """Start a service that must not start, and return its exit code and its output."""
    command, env = deployed(service, port, **changed)
    with started(command, service, port, env) as process:
        try:
            return process.wait(), process.output()
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server is still running:\n{process.output()[-4000:]}")


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        assert port
        yield port


@pytest.mark.parametrize(
    ("name", "value"), [("ENVIRONMENT", "bad"), ("LOG_LEVEL", "loud"), ("MAX_BODY_SIZE", "much")]
)
def test_a_bad_variable_ends_the_start_with_its_name(
    plain_service: Path, server: Answers, port: int, name: str, value: str, request: pytest.FixtureRequest
) -> None:
    if server["server"] == "fastapi" and server["workers"] > 1:
        reason = "the parent process of `fastapi run` ends with 0 although its workers failed to start"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    code, output = failed_start(plain_service, port, **{name: value})
    lines = output.splitlines()
    assert [line for line in lines if name in line]
    assert "Traceback" not in output
    assert all(name in line for line in lines if "not valid" in line)
    assert code > 0


@pytest.mark.parametrize("layout", values("layout"))
def test_the_settings_are_also_read_from_the_env_file(installed: RenderTo, port: int, layout: str) -> None:
    service = installed(**DEFAULTS | {"layout": layout})
    (service / ".env").write_text("LOG_LEVEL=loud\n")
    code, output = failed_start(service, port)
    assert "LOG_LEVEL" in output
    assert code > 0


def test_a_busy_port_ends_the_start_with_a_sentence(plain_service: Path, port: int) -> None:
    with socket.create_server(("0.0.0.0", port)):
        code, output = failed_start(plain_service, port)
    assert "already in use" in output
    assert "Traceback" not in output
    assert code > 0


def test_development_logs_are_text(plain_service: Path) -> None:
    with serving(plain_service, ENVIRONMENT="development") as process:
        process.get("/items/5", X_Request_ID="items-1")
        logged = r"[-\d]{10} [:,\d]{12} INFO     access: GET /items/5 200 \[items-1\]"
        until(lambda: re.search(f"^{logged}$", process.output(), re.MULTILINE), "the request is logged")
        assert not process.records()


# The service's own checks


@pytest.fixture(scope="session")
def data_servers() -> Iterator[Callable[[Path], dict[str, str]]]:
    """Return the URLs of the database and the cache that a service needs. Each runs once for all services."""
    running: dict[str, str] = {}
    with ExitStack() as stack:

        def start(variable: str, url: str, service: Path) -> str:
            if reason := why_no_engine():
                pytest.skip(reason)
            port = stack.enter_context(reserved_port())
            name = variable.removesuffix("_URL")
            project = composed(service, "compose.yaml", **{f"{name}_HOST_PORT": str(port)})
            stack.enter_context(project).compose("up", "--detach", "--wait", name.lower())
            return re.sub(r"(127\.0\.0\.1):\d+", rf"\1:{port}", url)

        def data_servers(service: Path) -> dict[str, str]:
            needed = addresses(service)
            for variable, url in needed.items():
                if url not in running:
                    running[url] = start(variable, url, service)
            return {variable: running[url] for variable, url in needed.items()}

        yield data_servers


# Every pair of the answers that shape the files, and each Python in turn.
CHECKED: list[Answers] = [
    answers | {"python_version": version}
    for answers, version in zip(
        covering(
            "server",
            "package_manager",
            "layout",
            "database",
            "cache",
            "workers",
            "observability",
            "kubernetes",
        ),
        itertools.cycle(values("python_version")),
        strict=False,
    )
]


def of_a_python(combinations: list[Answers]) -> list[Any]:
    """Return a parameter for each combination. mypy reads packages once for each Python and each process."""
    marks = {version: pytest.mark.xdist_group(f"python-{version}") for version in values("python_version")}
    return [
        pytest.param(answers, id=label(answers), marks=marks[answers["python_version"]])
        for answers in combinations
    ]


@pytest.fixture(scope="module", params=variants(of_a_python(CHECKED), 10))
def checked(request: pytest.FixtureRequest, installed: RenderTo) -> Iterator[Path]:
    """An installed service, unedited."""
    service = installed(**request.param)
    yield service
    if request.param["python_version"] != PYTHON:
        # No other test uses this environment, and it is large.
        shutil.rmtree((service / ".venv").resolve().parent)


def test_every_offered_python_is_checked() -> None:
    assert {answers["python_version"] for answers in CHECKED} == set(values("python_version"))


@pytest.mark.parametrize("check", ["pytest", "ruff check", "ruff format --check", "mypy ."])
def test_a_service_passes_its_own_checks(
    checked: Path, data_servers: Callable[[Path], dict[str, str]], check: str
) -> None:
    assert check in [without_uv_run(command) for command in commands(checked, "Test")]
    output = run(check, checked, **(data_servers(checked) if check == "pytest" else {}))
    assert "warning" not in output.lower()


# The commands that the template prints


@pytest.fixture
def port_8000() -> Iterator[int]:
    """The port of the commands for development. Skips a test if it is busy."""
    with reserved_port(8000) as port:
        if port is None:
            pytest.skip("port 8000 of this machine is busy")
        yield port


def assert_serves(script: str, folder: Path, port: int) -> None:
    """Run lines in one bash. The last of them starts a server, which must respond."""
    author = {
        f"GIT_{who}_{what}": "test@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    with started(["bash", "-e", "-c", script], folder, port, variables() | author) as process:
        # A server that reloads may start twice, while the files of the installation are still new.
        def greets() -> bool:
            try:
                return process.answers() and bool(process.get("/").json() == {"Hello": "World"})
            except httpx2.TransportError:
                return False

        try:
            until(greets, script, deadline=300)
        except AssertionError as error:
            error.add_note(process.output()[-4000:])
            raise


def python_for(package_manager: str) -> str:
    version = newest_python(package_manager)
    return version or pytest.skip(f"no offered Python here can create an environment for {package_manager}")


@pytest.mark.xdist_group("port-8000")
@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_the_commands_that_copier_prints_lead_to_a_service_that_answers(
    template: Path, tmp_path: Path, port_8000: int, package_manager: str
) -> None:
    answers = {"package_manager": package_manager, "python_version": python_for(package_manager)}
    data = [f"--data={name}={value}" for name, value in answers.items()]
    copier = [sys.executable, "-m", "copier", "copy", "--defaults", *data, str(template), "orders-api"]
    copy = subprocess.run(copier, cwd=tmp_path, capture_output=True, text=True, check=True)
    message = copy.stderr.partition("orders-api is ready. Next:\n")[2]
    lines = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert len(lines) >= 5
    assert_serves("\n".join(lines), tmp_path, port_8000)


@pytest.fixture
def usual_ports() -> Iterator[None]:
    """The default ports of the databases and the cache. Skips a test if one of them is busy."""
    with ExitStack() as stack:
        for port in (5432, 3306, 6379):
            if stack.enter_context(reserved_port(port)) is None:
                pytest.skip(f"port {port} of this machine is busy")
        yield


@pytest.mark.xdist_group("port-8000")
@pytest.mark.usefixtures("usual_ports")
@pytest.mark.parametrize(
    "answers",
    variants(sorted(DATA, key=lambda answers: answers not in DATA_ONCE[2:]), 2),
    ids=label,
)
def test_the_commands_of_the_readme_work_with_data(
    render: Render, port_8000: int, monkeypatch: pytest.MonkeyPatch, answers: Answers
) -> None:
    service = render(**answers)
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", unique("project"))
    servers = "docker compose up" in "\n".join(commands(service, "Run"))
    if servers and why_no_engine():
        pytest.skip(why_no_engine())
    try:
        assert_serves("\n".join(commands(service, "Run")), service, port_8000)
        run("\n".join(commands(service, "Test")), service)
    finally:
        if servers:
            run("docker compose down --volumes --timeout 5", service)


@pytest.mark.xdist_group("port-8000")
@pytest.mark.parametrize(
    ("server", "package_manager"),
    list(zip(values("server"), [*values("package_manager"), "uv", "uv"], strict=True)),
)
def test_the_commands_of_the_readme_work(
    render: Render, port_8000: int, server: str, package_manager: str
) -> None:
    python_version = python_for(package_manager)
    service = render(server=server, package_manager=package_manager, python_version=python_version)
    assert_serves("\n".join(commands(service, "Run")), service, port_8000)
    run("\n".join(commands(service, "Test")), service)
