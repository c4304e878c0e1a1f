"""Measures a container of the service with each server: its start, its memory, and its end under load.

Start and memory with the default server are also compared with s3rius/FastAPI-template.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.images import peer_case
from benchmarks.load import CONNECTIONS, answers, cores, needs_wrk
from benchmarks.services import BARE, PEER, rendered
from harness.containers import Container, build, docker, unique
from harness.matrix import DEFAULTS, values

UVICORN = ("uvicorn", "bare:fastapi", "--host=0.0.0.0", "--no-access-log", "--app-dir=/bare")
ITEM = "/items/5?q=x"
HEALTH = "/api/health"
BARE_COMMANDS: dict[str, tuple[str, ...]] = {
    "gunicorn": (
        *("gunicorn", "bare:fastapi", "--worker-class=uvicorn_worker.UvicornWorker"),
        *("--bind=0.0.0.0:8000", "--chdir=/bare"),
    ),
    "granian": (
        *("granian", "bare:fastapi", "--interface=asgi"),
        *("--host=0.0.0.0", "--working-dir=/bare"),
    ),
}
# Runs in the container, and adds up the memory of all processes but its own.
MEMORY = """
import os, re
from pathlib import Path
files = (path / "smaps_rollup" for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid()))
print(sum(int(re.search(r"Pss: +([0-9]+)", file.read_text())[1]) for file in files))
"""


@dataclass
class Side:
    """Says how to start a container from an image, and to which path it responds with a 200."""

    image: str
    path: str = ITEM
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows = []
    bare = folder / "bare"
    bare.mkdir()
    shutil.copy(BARE, bare)
    # The container's user has to read these folders, and is not their owner.
    folder.chmod(0o755)
    bare.chmod(0o755)
    for server in values("server"):
        if not options.wanted(server):
            continue
        service = rendered(folder / server, project_name="orders-api", server=server)
        tag = unique("bench")
        mounted = (f"--volume={bare}:/bare:ro", "--env=PYTHONDONTWRITEBYTECODE=1")
        sides = {
            "service": Side(tag),
            "bare FastAPI": Side(tag, options=mounted, command=BARE_COMMANDS.get(server, UVICORN)),
        }
        try:
            build(service, tag)
            if server == DEFAULTS["server"]:
                case = peer_case(folder)
                sides[PEER] = Side(case.tag, HEALTH, ("--env=PEER_HOST=0.0.0.0",))
                build(case.folder, case.tag, *case.options)
            rows += measure_server(server, sides, options)
        finally:
            for image in {side.image for side in sides.values()}:
                docker("image", "rm", "--force", image)
    return rows


def measure_server(server: str, sides: dict[str, Side], options: Options) -> list[Row]:
    idle: Samples = {name: [] for name in sides}
    loaded: Samples = {name: [] for name in sides}

    def started(name: str) -> Callable[[], float]:
        side = sides[name]

        def first_answer() -> float:
            begun = time.perf_counter()
            with Container(side.image, *side.options, command=side.command) as container:
                url = container.url + side.path
                while not answers(url):
                    time.sleep(0.01)
                seconds = time.perf_counter() - begun
                idle[name].append(memory(container))
                put_under_load(url, options.seconds)
                loaded[name].append(memory(container))
            return seconds

        return first_answer

    starts = alternate({name: started(name) for name in sides}, options.rounds)
    others = list(sides)[1:]
    failed, answered = stopped_under_load(sides["service"].image, options)
    ends: Samples = {"failed": failed, "answered": answered}
    return [
        *pairs("containers", f"{server}, docker run to the first 200", "s", starts, *others, reach=1.3),
        *pairs("containers", f"{server}, memory idle", "MB", idle, *others),
        *pairs("containers", f"{server}, memory after a load", "MB", loaded, *others),
        *pairs("containers", f"{server}, requests at SIGTERM", "requests", ends, "answered"),
    ]


def put_under_load(url: str, seconds: float) -> None:
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}", url)
    subprocess.run(["taskset", "-c", cores()[1], *wrk], check=True, capture_output=True)


def memory(container: Container) -> float:
    """Return the megabytes that a container's processes hold. Memory that they share is counted once."""
    return float(container.python(MEMORY)) / 1e3


def stopped_under_load(tag: str, options: Options) -> tuple[list[float], list[float]]:
    """Count requests on accepted connections in each round: without a whole response, and with one.

    wrk is not used, because it can't tell them from connections that are refused once the server is gone.
    """
    failed, answered = [], []
    for _ in range(options.rounds):
        with Container(tag) as container:
            while not answers(container.url + ITEM):
                time.sleep(0.01)
            # The container's own address: the engine's proxy would accept connections even if nobody listens.
            address = container.inspect(".NetworkSettings.Networks.bridge.IPAddress")
            with ThreadPoolExecutor(16) as pool:
                clients = [pool.submit(ask_until_refused, address) for _ in range(16)]
                time.sleep(1)
                container.stop()
                results = [client.result() for client in clients]
        failed.append(float(sum(one for one, _ in results)))
        answered.append(float(sum(other for _, other in results)))
    return failed, answered


def ask_until_refused(address: str) -> tuple[int, int]:
    """Send requests one by one, each on its own connection. Count those that fail and those that succeed."""
    request = f"GET {ITEM} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    failed = answered = 0
    while True:
        try:
            connection = socket.create_connection((address, 8000), timeout=5)
        except OSError:
            return failed, answered
        with connection:
            try:
                connection.sendall(request)
                answer = connection.makefile("rb").read()
            except OSError:
                answer = b""
        if answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"}"):
            answered += 1
        else:
            failed += 1
