"""Measures where the CPU time of a request goes, for `GET /items/5?q=x` and for a row written.

py-spy looks at the stacks of a server many times a second, while the load of `throughput` or `database` runs.
A sample belongs to the part of the innermost frame that has a part. Compiled code and the standard library
have none, so they belong to the part that calls them. py-spy has to be root.
"""

import os
import re
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks import throughput
from benchmarks.comparing import Options, Row, alternate, pairs
from benchmarks.database import POST_ITEMS, prepared, serving, started
from benchmarks.load import Load, Start, cores, cpu_seconds, needs_wrk, wrk
from benchmarks.services import BARE, bare_command, installed, own_command
from harness.matrix import values

# It pauses the server for each sample. Without that, it fails to read many of the deep stacks.
PY_SPY = ("uv", "tool", "run", "--quiet", "--from=py-spy==0.4.3", "py-spy", "record")
HOW = ("--format=raw", "--threads", "--rate=100")
# How many times longer the load is while py-spy looks.
LONGER = 5

# Each part, with what the paths of its files begin with.
PARTS = {
    "Uvicorn, the event loop, and what asyncpg receives": ("uvicorn/", "asyncio/runners.py"),
    # `context` is OpenTelemetry's, which FastAPI asks.
    "FastAPI, Starlette, Pydantic": ("fastapi/", "pydantic/", "starlette/", "context/", "app/validation.py"),
    "id and access line": ("app/access_log.py", "app/logs.py", "app/open_streams.py", "app/request_log.py"),
    "unhandled errors": ("app/errors.py",),
    "limits of bodies and hosts": ("app/limits.py", "starlette/middleware/body_limit.py"),
    "the endpoint": ("app/items.py", "bare.py"),
    "the service's time limit and queue": ("app/database.py", "app/engine.py"),
    "SQLAlchemy's ORM": ("sqlalchemy/ext/asyncio/", "sqlalchemy/orm/"),
    "SQLAlchemy's Core and pool": ("sqlalchemy/",),
    # asyncmy is compiled, and reads from streams.
    "the driver, and SQLAlchemy's adapter": (
        *("aiosqlite/", "asyncpg/", "asyncmy/", "asyncio/streams.py"),
        *("sqlalchemy/connectors/", "sqlalchemy/dialects/", "sqlalchemy/util/concurrency"),
    ),
}
PART_OF = {path: part for part, paths in PARTS.items() for path in paths}
WHOLE = "in all"


@dataclass
class ProfiledServer:
    """Profiles a server under load once a round, and keeps each part's per cent of its CPU time."""

    start: Start
    script: Path | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)

    def measure(self, folder: Path, seconds: float) -> float:
        """Run the server, and return the CPU time of a request without py-spy, in microseconds."""
        with self.start() as (url, pid):
            load = partial(self.load, url, pid)
            load(1)
            cost = 1_000_000 / load(seconds).per_cpu_second
            used = main_thread_and_others(pid)
            given = [f"--pid={pid}", f"--duration={round(seconds * LONGER)}", f"--output={folder / 'stacks'}"]
            command = ["taskset", "-c", cores()[1], *PY_SPY, *HOW, *given]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as py_spy:
                load(seconds * LONGER)
                output, _ = py_spy.communicate()
            if py_spy.returncode:
                raise SystemExit(output.decode())
            used = [after - before for after, before in zip(main_thread_and_others(pid), used, strict=True)]
        parts = dict.fromkeys(PARTS, 0.0)
        for own, samples in zip(used, samples_of(folder / "stacks"), strict=True):
            for part, count in samples.items():
                parts[part] += own * count / samples.total()
        self.rounds.append({part: 100 * seconds / sum(parts.values()) for part, seconds in parts.items()})
        return cost

    def load(self, url: str, pid: int, seconds: float) -> Load:
        script = [str(self.script), uuid.uuid4().hex] if self.script else []
        return wrk(url, seconds, pid, *script)


def main_thread_and_others(pid: int) -> list[float]:
    """Return the CPU seconds of the main thread, and of all other threads.

    py-spy also counts a thread that waits for the core, so that two of its samples can be of one moment.
    """
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    main = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return [main, cpu_seconds(pid) - main]


def samples_of(stacks: Path) -> tuple[Counter[str], Counter[str]]:
    """Count the samples of each part, of the main thread and of all other threads."""
    main, others = Counter[str](), Counter[str]()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        samples = main if "MainThread" in thread else others
        samples[part_of(frames)] += int(count)
    return main, others


def part_of(frames: list[str]) -> str:
    """Return the part of the innermost frame that has a part."""
    for frame in reversed(frames):
        file = re.search(r"\((.+):\d+\)$", frame)
        found = [path for path in PART_OF if file and file[1].startswith(path)]
        if found:
            return PART_OF[max(found, key=len)]
    return next(iter(PARTS))


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    rows, columns = [], {}
    for case in ("uvicorn", *values("database")):
        if case != "none" and options.wanted(case):
            with servers(case, folder) as sides:
                measured = {
                    name: partial(side.measure, folder, options.seconds) for name, side in sides.items()
                }
                costs = alternate(measured, options.rounds)
            [row] = pairs("cpu_time", case, "µs of CPU time per request", costs, *list(sides)[1:])
            rows.append(row)
            columns[f"{case}: service - {row.against} = more"] = differences(row, *sides.values())
    lines = [["in % of the other's CPU time", *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(column[name] for column in columns.values())] for name in (*PARTS, WHOLE)]
    print("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return rows


@contextmanager
def servers(case: str, folder: Path) -> Iterator[dict[str, ProfiledServer]]:
    """Yield the service and the application that it is compared with, for Uvicorn or for a database."""
    if case == "uvicorn":
        service, elsewhere = installed(folder / case), folder / f"{case}-bare"
        elsewhere.mkdir()
        shutil.copy(BARE, elsewhere)
        own = partial(throughput.serving, partial(own_command, service, case), service)
        bare = partial(throughput.serving, partial(bare_command, service, case, "fastapi"), elsewhere)
        yield {"service": ProfiledServer(own), "bare FastAPI": ProfiledServer(bare)}
        return
    with started(case, folder) as url:
        service, elsewhere = prepared(case, url, folder)
        yield {
            name: ProfiledServer(
                partial(serving, service, application, url, elsewhere, "/items/1"), POST_ITEMS
            )
            for name, application in (("service", ""), ("ORM's defaults", "orm"))
        }


def differences(row: Row, service: ProfiledServer, other: ProfiledServer) -> dict[str, str]:
    """Format how much more each part costs than in the other application, whose whole is 100.

    Each side's shares are those of all rounds. Only the whole depends on how fast the machine was in a round.
    """
    found = {}
    for part in PARTS:
        ours = [row.ratio() * shares[part] for shares in service.rounds]
        theirs = [shares[part] for shares in other.rounds]
        more = [one - another for one, another in zip(ours, theirs, strict=True)]
        found[part] = cell(mean(ours), mean(theirs), more)
    return found | {WHOLE: cell(100 * row.ratio(), 100, [100 * ratio - 100 for ratio in row.ratios()])}


def cell(ours: float, theirs: float, more: list[float]) -> str:
    return f"{ours:.1f} - {theirs:.1f} = {ours - theirs:+.1f} ({min(more):+.1f} to {max(more):+.1f})"
