"""Waiting for a condition, and never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, deadline: float = 60) -> T:
    """The condition's first true answer; fails after `deadline` seconds, saying what was awaited."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {deadline} seconds: {what}")
