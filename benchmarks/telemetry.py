"""Measures what OpenTelemetry costs the default service, with a collector and without."""

import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.comparing import Options, Row, pairs
from benchmarks.load import LoadedServer, Start, measure_in_turn, needs_wrk, wrk
from benchmarks.services import installed, own_command
from benchmarks.throughput import serving
from harness.otlp import receiver
from harness.ports import reserved_port

OFF = "without OpenTelemetry"
NO_TRACES = {"OTEL_TRACES_EXPORTER": "none"}
NO_METRICS = {"OTEL_METRICS_EXPORTER": "none"}
NO_LOGS = {"OTEL_LOGS_EXPORTER": "none"}
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}

# What is sent, with the variables for it and the least share of requests that is meant to be left.
CASES: dict[str, tuple[dict[str, str], float | None]] = {
    "metrics": (NO_TRACES | NO_LOGS, None),
    "traces, 5 % of them": (SAMPLED | NO_METRICS | NO_LOGS, None),
    "metrics, and 5 % of the traces": (SAMPLED | NO_LOGS, 0.75),
    "metrics and all traces": (NO_LOGS, None),
    "metrics, all traces and logs": ({}, None),
}
UNSET = "chosen, and no endpoint"
# Requests before the memory is measured for the first time, when all queues are full, and for the last.
FIRST, LAST = 20_000, 120_000
# How long wrk sends at a time.
SECONDS = 4


def measure(folder: Path, options: Options) -> list[Row]:
    needs_wrk()
    off = installed(folder / "off", server="uvicorn")
    chosen = installed(folder / "chosen", server="uvicorn", observability="opentelemetry")
    return [*cost(off, chosen, options), *without_a_collector(off, chosen)]


def cost(off: Path, chosen: Path, options: Options) -> list[Row]:
    own = partial(own_command, chosen, "uvicorn")
    with receiver(keeps=False) as collector:
        sides = {
            OFF: LoadedServer(partial(serving, partial(own_command, off, "uvicorn"), off)),
            UNSET: LoadedServer(partial(serving, own, chosen)),
        }
        for name, (variables, _) in CASES.items():
            sent = variables | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            sides[name] = LoadedServer(partial(serving, own, chosen, **sent))
        counts, _, _ = measure_in_turn(sides, options)
    rows = []
    for name, reach in [(UNSET, 0.97), *((name, reach) for name, (_, reach) in CASES.items())]:
        compared = {name: counts[name], OFF: counts[OFF]}
        rows += pairs("telemetry", name, "requests per CPU second", compared, OFF, reach=reach)
    return rows


def without_a_collector(off: Path, chosen: Path) -> list[Row]:
    """Compare a collector that refuses or hangs with one that answers. All signals are sent."""
    before = run(partial(serving, partial(own_command, off, "uvicorn"), off))
    with receiver(keeps=False) as answering, receiver(keeps=False) as hanging, reserved_port() as port:
        hanging.answers.clear()
        urls = {"answers": answering.url, "refuses": f"http://127.0.0.1:{port}", "hangs": hanging.url}
        own = partial(own_command, chosen, "uvicorn")
        runs = {
            name: run(partial(serving, own, chosen, OTEL_EXPORTER_OTLP_ENDPOINT=url))
            for name, url in urls.items()
        }
    rows = []
    for name, found in runs.items():
        case = f"the collector {name}"
        counts = {name: [found.per_cpu_second], "answers": [runs["answers"].per_cpu_second]}
        memory = {f"after {LAST:,} requests": [found.last], f"after {FIRST:,}": [found.first]}
        ends = {name: [found.end], OFF: [before.end]}
        if name != "answers":
            rows += pairs("telemetry", case, "requests per CPU second", counts, "answers")
        rows += pairs("telemetry", case, "MB", memory, f"after {FIRST:,}", reach=1.05)
        rows += pairs("telemetry", f"{case}, SIGTERM to the end", "s", ends, OFF)
    return rows


@dataclass
class Run:
    """Holds the rate under load, the memory in MB at two moments, and the seconds from SIGTERM to the end."""

    per_cpu_second: float
    first: float
    last: float
    end: float


def run(start: Start) -> Run:
    with start() as (url, pid):
        send(url, pid, FIRST)
        first = memory(pid)
        per_cpu_second = send(url, pid, LAST - FIRST)
        last = memory(pid)
        begun = time.perf_counter()
    return Run(per_cpu_second, first, last, time.perf_counter() - begun)


def send(url: str, pid: int, requests: float) -> float:
    """Send at least this many requests, and return those of the last load per CPU second."""
    while requests > 0:
        load = wrk(url, SECONDS, pid)
        requests -= load.rate * SECONDS
    return load.per_cpu_second


def memory(pid: int) -> float:
    """Return the megabytes that a process holds."""
    held = re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert held
    return int(held[1]) / 1e3
