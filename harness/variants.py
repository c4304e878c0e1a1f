"""Marks tests that show once more, with another database or forge, what others show: `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet

VARIANT = pytest.mark.variant


def variants(cases: Iterable[Any], first: int = 1) -> list[ParameterSet]:
    """Return the cases of a test, and mark all but the first of them."""
    found = [case if isinstance(case, ParameterSet) else pytest.param(case) for case in cases]
    return found[:first] + [
        pytest.param(*case.values, id=case.id, marks=[*case.marks, VARIANT]) for case in found[first:]
    ]
