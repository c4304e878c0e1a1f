"""Tests that a dead worker is replaced, and that workers which can't start end the service."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.broken_starts import FAILURE, break_import, break_lifespan
from harness.matrix import DEFAULTS, Answers, combinations, label
from harness.ports import reserved_port
from harness.running import Process, deployed, serving, started
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

# Seconds until a dead worker must be replaced. Uvicorn looks every half second.
SOON = 3

OTHERS = {name: value for name, value in DEFAULTS.items() if name not in ("server", "workers")}
SERVICES = list(combinations("server", "workers", **OTHERS))

WAITS_FOR_THE_DEAD = "the parent of `fastapi run` waits 5 s for the response of a worker that is dead"
STARTS_AGAIN = "the parent of `fastapi run` starts workers again for ever"
ENDS_WITH_0 = "the parent of `fastapi run` ends with 0 although its workers failed to start"
REPLACES_SLOW = "the parent of `fastapi run` replaces workers that don't respond for 5 s"


def each_server(reason: str, *numbers_of_workers: int) -> list[object]:
    """Return a parameter for each server. With two workers, `fastapi run` fails the test for this reason."""
    found: list[object] = []
    for answers in SERVICES:
        if answers["workers"] not in numbers_of_workers:
            continue
        marks = [pytest.mark.xdist_group(label(answers))]
        if answers["server"] == "fastapi" and answers["workers"] > 1:
            marks.append(pytest.mark.xfail(reason=reason, strict=True))
        found.append(pytest.param(answers, id=f"{answers['server']}-{answers['workers']}", marks=marks))
    return found


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        assert port
        yield port


def steady_system_call(process: Process, *others: str) -> str:
    """Return the system call in which the first process stays, once that is none of the others."""
    seen = ["running"]

    def stays() -> str:
        seen.append(Path(f"/proc/{process.pid}/syscall").read_text().split()[0])
        before, now = seen[-2:]
        return now if now == before and now not in {"running", *others} else ""

    return until(stays, "the parent waits")


# Replaced


@pytest.mark.parametrize("answers", each_server(WAITS_FOR_THE_DEAD, 2))
def test_a_worker_that_dies_while_its_parent_asks_it_is_soon_replaced(
    installed: RenderTo, answers: Answers
) -> None:
    with serving(installed(**answers)) as process:
        until(lambda: len(process.workers()) == 2, "both workers")
        before = process.workers()
        killed = min(before)
        between_looks = steady_system_call(process)
        os.kill(killed, signal.SIGSTOP)
        if answers["server"] in {"uvicorn", "fastapi"}:
            # Uvicorn's parent asks each worker, and waits for the response of this one.
            steady_system_call(process, between_looks)
        os.kill(killed, signal.SIGKILL)
        until(lambda: process.workers() - before, "another worker", deadline=SOON)


@pytest.mark.parametrize("answers", each_server(REPLACES_SLOW, 2))
def test_a_worker_that_is_slow_to_start_is_left_alone(installed: RenderTo, answers: Answers) -> None:
    service = installed(**answers)
    main = service / "app/main.py"
    # A module in C that holds the interpreter's lock for longer than 5 s, as one that loads a model may.
    main.write_text(main.read_text() + "\nimport ctypes\n\nctypes.PyDLL(None).sleep(7)\n")
    with reserved_port() as port:
        assert port
        command, env = deployed(service, port)
        with started(command, service, port, env) as process:
            until(lambda: len(process.workers()) == 2, "both workers")
            first = process.workers()
            until(lambda: process.answers() or process.workers() - first, "the service is ready")
            assert process.workers() == first


# Failed


def check_end(service: Path, port: int, workers: int) -> None:
    """Start a service whose workers can't start. Fail unless it ends with an error, and tries only once."""
    command, env = deployed(service, port)
    seen: set[int] = set()
    tried: set[int] = set()
    with started(command, service, port, env) as process:

        def ended_or_tries_again() -> bool:
            workers_now = process.workers() - {process.pid}
            # A helper of multiprocessing looks like a worker while it starts. A worker is there for longer.
            tried.update(workers_now & seen)
            seen.update(workers_now)
            return process.popen.poll() is not None or len(tried) > workers

        until(ended_or_tries_again, "the service ends")
        assert len(tried) <= workers, f"it starts workers again:\n{process.output()[-4000:]}"
        assert process.wait() > 0
        assert FAILURE in process.output()


@pytest.mark.parametrize("answers", each_server(STARTS_AGAIN, 1, 2))
def test_an_application_that_cannot_be_imported_ends_the_service_with_an_error(
    installed: RenderTo, port: int, answers: Answers
) -> None:
    service = installed(**answers)
    break_import(service)
    check_end(service, port, answers["workers"])


@pytest.mark.parametrize("answers", each_server(ENDS_WITH_0, 1, 2))
def test_a_lifespan_that_fails_ends_the_service_with_an_error(
    installed: RenderTo, port: int, answers: Answers
) -> None:
    service = installed(**answers)
    break_lifespan(service)
    check_end(service, port, answers["workers"])


@pytest.mark.parametrize("workers", [1, 2])
def test_granian_ends_too_where_a_failure_takes_longer_than_its_own_limit_for_crash_loops(
    installed: RenderTo, port: int, workers: int
) -> None:
    service = installed(**DEFAULTS | {"server": "granian", "workers": workers})
    break_import(service, after=6)
    check_end(service, port, workers)
