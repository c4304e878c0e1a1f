"""The ASGI workers that a service could run under Gunicorn, against plain Uvicorn: decision 2.

Gunicorn's C parser (gunicorn_h1c) is left out: the version that Gunicorn asks for is not on the index.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.comparing import Options, Row, Samples, alternate, pairs
from benchmarks.load import needs_wrk, pinned, wrk
from benchmarks.services import BARE, installed
from harness.ports import reserved_port
from harness.running import variables

GUNICORN = ["gunicorn", "bare:fastapi", "--workers=1", "--no-control-socket", "--log-level=warning"]
# The first is the one that services run.
SIDES = {
    "uvicorn-worker": [*GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker"],
    "Gunicorn's asgi worker": [*GUNICORN, "--worker-class=asgi", "--asgi-loop=uvloop"],
    "Uvicorn": ["uvicorn", "bare:fastapi", "--no-access-log", "--log-level=warning"],
}


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    # For its packages alone.
    service = installed(folder / "service", server="gunicorn")
    shutil.copy(BARE, folder)
    tails: Samples = {side: [] for side in SIDES}

    def side(name: str, command: list[str]) -> Callable[[], float]:
        def loaded() -> float:
            with reserved_port() as port:
                assert port
                own = ["--port", str(port)] if command[0] == "uvicorn" else [f"--bind=127.0.0.1:{port}"]
                url = f"http://127.0.0.1:{port}/items/5?q=x"
                with pinned([*command, *own], folder, variables(service), url) as pid:
                    wrk(url, 1, pid)
                    load = wrk(url, options.seconds, pid)
            tails[name].append(load.p99)
            return load.per_cpu_second

        return loaded

    counts = alternate({name: side(name, command) for name, command in SIDES.items()}, options.rounds)
    _, *against = SIDES
    return [
        *pairs("gunicorn_worker", "one worker", "requests per CPU second", counts, *against),
        *pairs("gunicorn_worker", "one worker, p99", "ms", tails, *against),
    ]
