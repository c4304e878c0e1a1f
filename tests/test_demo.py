"""Tests `make demo`, which tests a service with default answers and serves it until Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from harness.clones import ENVIRONMENT, clone, run
from harness.matrix import ROOT, values
from harness.waiting import until

DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]
# Seconds. Installing takes as long as the network needs.
INSTALLED_WITHIN = 300


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


Demo = Callable[[], subprocess.Popen[str]]


class Output:
    """Reads what the demo has printed so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __contains__(self, text: str) -> bool:
        return text in self.path.read_text()

    def __str__(self) -> str:
        return self.path.read_text()


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "output")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the demo creates its temporary folder."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.fixture
def demo(port: int, output: Output, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo as a terminal starts it: at the head of a process group of its own."""
    environment = ENVIRONMENT | {"PORT": str(port), "TMPDIR": str(folder)}
    with output.path.open("w") as stream:
        process = subprocess.Popen(
            DEMO, cwd=ROOT, env=environment, stdout=stream, stderr=stream, text=True, process_group=0
        )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.project
def test_the_demo_serves_a_tested_service_until_ctrl_c(
    demo: subprocess.Popen[str], output: Output, folder: Path, port: int
) -> None:
    def answers() -> bool:
        assert demo.poll() is None, str(output)
        return "Ctrl-C stops it" in output

    until(answers, "the demo serves", INSTALLED_WITHIN)
    assert re.search(r"\d+ passed", str(output))
    assert f"http://127.0.0.1:{port}/docs" in output
    assert httpx2.get(f"http://127.0.0.1:{port}/").json() == {"Hello": "World"}
    assert httpx2.get(f"http://127.0.0.1:{port}/docs").status_code == 200

    os.killpg(demo.pid, signal.SIGINT)

    assert demo.wait(timeout=60) in {0, 130}
    assert "Traceback" not in output
    assert list(folder.glob("copier-fastapi-*")) == []
    assert free(port)


@pytest.mark.project
def test_the_demo_is_stopped_while_it_installs(
    demo: subprocess.Popen[str], output: Output, folder: Path
) -> None:
    until(lambda: "$ uv sync" in output, "the demo installs", INSTALLED_WITHIN)
    demo.terminate()
    assert demo.wait(timeout=60) == 0
    assert "Traceback" not in output
    assert list(folder.glob("copier-fastapi-*")) == []


def refused(folder: Path, **environment: str) -> str:
    """Return the one line with which the demo refuses to start, before it has done anything."""
    done = run(*DEMO, cwd=ROOT, env=ENVIRONMENT | {"TMPDIR": str(folder)} | environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert list(folder.glob("copier-fastapi-*")) == []
    [line] = done.stderr.splitlines()
    return line


def test_a_busy_port_is_refused_with_a_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"Port {port} can't be used" in refused(folder, PORT=str(port))


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", ""])
def test_a_port_that_is_no_port_number_is_refused_with_a_sentence(folder: Path, port: str) -> None:
    assert "Choose a number from 1 to 65535" in refused(folder, PORT=port)


def test_a_machine_without_an_offered_python_gets_a_sentence(folder: Path, port: int) -> None:
    nowhere = {"UV_PYTHON_PREFERENCE": "only-managed", "UV_PYTHON_INSTALL_DIR": str(folder / "none")}
    line = refused(folder, PORT=str(port), **nowhere)
    assert all(version in line for version in values("python_version"))


def test_an_old_python_is_refused_with_a_sentence(tmp_path: Path) -> None:
    repository = clone(tmp_path / "clone")
    done = run("make", "test-fast", "PYTHON=false", cwd=repository)
    assert done.returncode == 2
    assert "false is not Python 3.11 or newer" in done.stderr.splitlines()[0]
    assert not (repository / ".venv").exists()
