"""Waits for a condition, and never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, deadline: float = 60) -> T:
    """Return the condition's first true value. Fail after `deadline` seconds, and say what was awaited."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {deadline} seconds: {what}")
