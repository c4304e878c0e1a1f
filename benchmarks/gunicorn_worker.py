"""Compares the ASGI workers that a service could run under Gunicorn with plain Uvicorn, for decision 2.

Gunicorn's C parser (gunicorn_h1c) is left out: the version that Gunicorn asks for is not on the index.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Row, pairs
from benchmarks.load import LoadedServer, measure_in_turn, needs_wrk, pinned
from benchmarks.services import BARE, installed
from harness.ports import reserved_port
from harness.running import variables

GUNICORN = ["gunicorn", "bare:fastapi", "--workers=1", "--no-control-socket", "--log-level=warning"]
# Services run the first one.
SIDES = {
    "uvicorn-worker": [*GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker"],
    "Gunicorn's asgi worker": [*GUNICORN, "--worker-class=asgi", "--asgi-loop=uvloop"],
    "Uvicorn": ["uvicorn", "bare:fastapi", "--no-access-log", "--log-level=warning"],
}


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    # Only its packages are used.
    service = installed(folder / "service", server="gunicorn")
    shutil.copy(BARE, folder)

    @contextmanager
    def serving(command: list[str]) -> Iterator[tuple[str, int]]:
        with reserved_port() as port:
            assert port
            own = ["--port", str(port)] if command[0] == "uvicorn" else [f"--bind=127.0.0.1:{port}"]
            url = f"http://127.0.0.1:{port}/items/5?q=x"
            with pinned([*command, *own], folder, variables(service), url) as pid:
                yield url, pid

    sides = {name: LoadedServer(partial(serving, command)) for name, command in SIDES.items()}
    counts, _, tails = measure_in_turn(sides, options)
    _, *against = SIDES
    return [
        *pairs("gunicorn_worker", "one worker", "requests per CPU second", counts, *against),
        *pairs("gunicorn_worker", "one worker, p99", "ms", tails, *against),
    ]
