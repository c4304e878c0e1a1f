"""Reserves free ports of this machine, so that several test runs can use it at the same time."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

# Seconds to wait for another test run that has reserved a named port.
PATIENCE = 60.0


@contextmanager
def reserved_port(*ports: int) -> Iterator[int | None]:
    """Yield a free port, or None if all are taken. If ports are named, try only these.

    No other test run on this machine gets the port until the block ends. The system gives none of the ports
    that are tried by default to outgoing connections.
    """
    folder = Path(tempfile.gettempdir()) / "copier-fastapi-ports"
    folder.mkdir(exist_ok=True)
    for port in ports or range(20000 + os.getpid() % 100 * 100, 32000):
        lock = filelock.FileLock(folder / str(port), timeout=PATIENCE if ports else 0)
        try:
            lock.acquire()
        except filelock.Timeout:
            continue
        try:
            # A process that was just killed may hold a named port for a moment longer.
            end = time.monotonic() + (10 if ports else 0)
            while not (free := _is_free(port)) and time.monotonic() < end:
                time.sleep(0.1)
            if free:
                yield port
                return
        finally:
            lock.release()
    yield None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
