"""A container of the service: its start, its memory, and its end under load, with each server."""

import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.load import answers
from benchmarks.services import BARE, rendered
from tests.containers import Container, build, docker, unique
from tests.matrix import values

UVICORN = ("uvicorn", "bare:fastapi", "--host=0.0.0.0", "--no-access-log", "--app-dir=/bare")
ITEM = "/items/5?q=x"
# Inside of the container; not of the process that asks.
MEMORY = """
import os, re
from pathlib import Path
files = (path / "smaps_rollup" for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid()))
print(sum(int(re.search(r"Pss: +([0-9]+)", file.read_text())[1]) for file in files))
"""


def measure(folder: Path, options: Options) -> list[Row]:
    rows = []
    bare = folder / "bare"
    bare.mkdir()
    shutil.copy(BARE, bare)
    # The container's user is nobody here.
    folder.chmod(0o755)
    bare.chmod(0o755)
    for server in values("server"):
        if options.wanted(server):
            service = rendered(folder / server, project_name="orders-api", server=server)
            tag = unique("bench")
            build(service, tag)
            try:
                rows += of(server, tag, bare, options)
            finally:
                docker("image", "rm", "--force", tag)
    return rows


def of(server: str, tag: str, bare: Path, options: Options) -> list[Row]:
    mount = f"--volume={bare}:/bare:ro"
    rows = []
    idle: Samples = {"service": [], "bare FastAPI": []}

    def started(name: str, *command: str) -> Callable[[], float]:
        def first_answer() -> float:
            begun = time.perf_counter()
            with Container(tag, mount, "--env=PYTHONDONTWRITEBYTECODE=1", command=command) as container:
                url = container.url + ITEM
                while not answers(url):
                    time.sleep(0.01)
                seconds = time.perf_counter() - begun
                idle[name].append(memory(container))
            return seconds

        return first_answer

    command: tuple[str, ...] = UVICORN
    if server == "gunicorn":
        worker = "--worker-class=uvicorn_worker.UvicornWorker"
        command = ("gunicorn", "bare:fastapi", worker, "--bind=0.0.0.0:8000", "--chdir=/bare")
    elif server == "granian":
        command = ("granian", "bare:fastapi", "--interface=asgi", "--host=0.0.0.0", "--working-dir=/bare")
    samples = alternate(
        {"service": started("service"), "bare FastAPI": started("bare FastAPI", *command)}, options.rounds
    )
    rows += pairs(
        "containers", f"{server}, docker run to the first 200", "s", samples, "bare FastAPI", reach=1.3
    )
    rows += pairs("containers", f"{server}, memory idle", "MB", idle, "bare FastAPI")
    failed, loaded = stopped_under_load(tag, options)
    ends: Samples = {"failed": failed, "answered": loaded}
    rows += pairs("containers", f"{server}, requests at SIGTERM", "requests", ends, "answered")
    return rows


def memory(container: Container) -> float:
    """What its processes hold, in megabytes; what they share is counted once."""
    return float(container.python(MEMORY)) / 1e3


def stopped_under_load(tag: str, options: Options) -> tuple[list[float], list[float]]:
    """Requests on connections that were accepted: those without a whole answer, and those with one.

    Not with wrk, which can't tell them from the connections that are refused once the server is gone.
    """
    failed, answered = [], []
    for _ in range(options.rounds):
        with Container(tag) as container:
            while not answers(container.url + ITEM):
                time.sleep(0.01)
            # Not through the engine's proxy, which accepts whether or not somebody listens.
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
    """One request after the other, each on a connection of its own."""
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
