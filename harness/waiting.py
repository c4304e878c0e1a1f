"""Waits for a condition, and never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, deadline: float = 60) -> T:
    """Return the condition's first true value. Fail after `deadline` seconds, and say what was awaited."""
    end = time.monotonic() + deadline
    while (begin := time.monotonic()) < end:
        if answer := condition():
            return answer
        # A condition that starts a command leaves most of the time to what it waits for.
        time.sleep(min(1, max(0.1, 2 * (time.monotonic() - begin))))
    raise AssertionError(f"not within {deadline} seconds: {what}")
