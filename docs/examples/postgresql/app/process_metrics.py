"""Measures what an operator asks first of a process: its memory, its CPU time, and the delay of its event loop."""

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

# Pages of memory, in Linux.
STATM = Path("/proc/self/statm")

# Seconds between two looks at the event loop.
INTERVAL = 1

meter = metrics.get_meter(__name__)
delays = meter.create_histogram(
    "asyncio.event_loop.delay",
    unit="s",
    description="How much later than asked for the event loop went on.",
    explicit_bucket_boundaries_advisory=[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5],
)


def memory(_: CallbackOptions) -> Iterable[Observation]:
    if STATM.exists():
        resident = int(STATM.read_text().split()[1])
        yield Observation(resident * os.sysconf("SC_PAGE_SIZE"))


def cpu_time(_: CallbackOptions) -> Iterable[Observation]:
    yield Observation(time.process_time())


meter.create_observable_up_down_counter(
    "process.memory.usage",
    [memory],
    unit="By",
    description="Physical memory in use.",
)
meter.create_observable_counter(
    "process.cpu.time",
    [cpu_time],
    unit="s",
    description="CPU seconds.",
)


async def measure_delays() -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(INTERVAL)
        delays.record(max(0, time.perf_counter() - begin - INTERVAL))
