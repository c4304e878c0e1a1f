"""Runs a server on one core, and puts it under load with wrk on another."""

import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Samples, alternate

CONNECTIONS = 32
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def cores() -> tuple[str, str]:
    """Return the core of the server, and the core of everything else."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise SystemExit("Throughput needs two cores: one for the server, one for wrk.")
    return str(mine[0]), str(mine[1])


def needs_wrk() -> None:
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not on this machine. On Debian or Ubuntu: apt-get install {package}")


@dataclass
class Load:
    """Holds what wrk measured. `p99` is the 99th percentile, in milliseconds.

    `per_cpu_second` is the rate that the server would reach if no other program used its core. On a machine
    that other programs share, it stays the same when `rate` does not.
    """

    rate: float
    per_cpu_second: float
    p99: float


def wrk(
    url: str,
    seconds: float,
    server: int | Callable[[], float],
    *script: str,
    connections: int = CONNECTIONS,
    header: str = "",
) -> Load:
    """Request a URL, or what a Lua script requests. `script` is the script's path and its arguments.

    `server` is the server's process id, or a function that returns the CPU seconds that it has used.
    """
    spent = partial(cpu_seconds, server) if isinstance(server, int) else server
    used = spent()
    lua = [f"--script={script[0]}", url, "--", *script[1:]] if script else [url]
    if header:
        lua = [f"--header={header}", *lua]
    text = subprocess.run(
        [
            *("taskset", "-c", cores()[1], "wrk", "-t1", f"-c{connections}", "--latency"),
            # Slower responses have no place in wrk's latencies.
            "--timeout=30s",
            *(f"-d{round(seconds)}", *lua),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    used = spent() - used
    count = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if not count or not rate or not p99 or "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"unusable run:\n{text}")
    return Load(float(rate[1]), int(count[1]) / used, float(p99[1]) * UNITS[p99[2]])


def cpu_seconds(session: int) -> float:
    """Return the CPU seconds that a server and all that it started have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def pinned(command: list[str], folder: Path, env: dict[str, str], url: str) -> Iterator[int]:
    """Run a server on its own core, and yield its process id once it responds.

    Its log goes to a file, because a program that reads it would need a core.
    """
    server_core, _ = cores()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        server = subprocess.Popen(
            ["taskset", "-c", server_core, *command],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 60
            while not answers(url):
                if server.poll() is not None or time.monotonic() > end:
                    errors.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not start:\n{errors.read().decode()}")
                time.sleep(0.05)
            yield server.pid
        finally:
            server.terminate()
            server.wait(60)


# Runs a server, and yields the URL to request and the server's process id.
Start = Callable[[], AbstractContextManager[tuple[str, int]]]


@dataclass
class LoadedServer:
    """Measures a server under load once a round, and keeps the rate and the p99 of each round.

    `script` is a Lua script that sends other requests. It gets a prefix that no other run has.
    """

    start: Start
    script: Path | None = None
    rates: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def measure(self, seconds: float) -> float:
        """Run the server, warm it up for a second, and return its requests per CPU second."""
        with self.start() as (url, pid):
            for duration in (1, seconds):
                script = [str(self.script), uuid.uuid4().hex] if self.script else []
                load = wrk(url, duration, pid, *script)
        self.rates.append(load.rate)
        self.tails.append(load.p99)
        return load.per_cpu_second


def measure_in_turn(sides: Mapping[str, LoadedServer], options: Options) -> tuple[Samples, Samples, Samples]:
    """Measure all sides in turn. Return their requests per CPU second, their rates and their p99s."""
    counts = alternate(
        {name: partial(side.measure, options.seconds) for name, side in sides.items()}, options.rounds
    )
    rates = {name: side.rates for name, side in sides.items()}
    tails = {name: side.tails for name, side in sides.items()}
    return counts, rates, tails
