"""Tests that pyright and ty, which editors use, have no complaint about a service, as mypy has none."""

from collections.abc import Iterator

import pytest

from harness.matrix import DEFAULTS, Answers, covering, label
from harness.running import run
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

CHECKERS = {
    "pyright": "uv tool run pyright@1.1.414 --pythonpath .venv/bin/python --warnings",
    "ty": "uv tool run ty@0.0.107 check --python .venv --error-on-warning",
}
SUCCESS = {"pyright": "0 errors, 0 warnings, 0 informations", "ty": "All checks passed!"}

PAIRS = covering("server", "database", "cache", "layout", "workers", "observability", "kubernetes")


def with_each_choice(services: list[Answers]) -> Iterator[Answers]:
    """Yield a few of the services that have every choice. Pyright takes ten times as long as ty."""
    missing = {choice for answers in services for choice in answers.items()}
    while missing:
        best = max(services, key=lambda answers: len(answers.items() & missing))
        missing -= best.items()
        yield best


def checked() -> Iterator[object]:
    for checker, services in (("ty", PAIRS), ("pyright", list(with_each_choice(PAIRS)))):
        for answers in services:
            group = pytest.mark.xdist_group(f"types-{label(answers)}")
            yield pytest.param(checker, answers, id=f"{checker}-{label(answers)}", marks=group)


@pytest.mark.parametrize(("checker", "answers"), list(checked()))
def test_a_type_checker_has_no_complaint_about_a_service(
    installed: RenderTo, checker: str, answers: Answers
) -> None:
    service = installed(**DEFAULTS | answers)
    assert SUCCESS[checker] in run(CHECKERS[checker], service)


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_a_wrong_type_and_knows_the_packages(installed: RenderTo, checker: str) -> None:
    service = installed(**DEFAULTS)
    (service / "app/wrong.py").write_text("from fastapi import FastAPI\n\nnumber: int = FastAPI().title\n")
    with pytest.raises(AssertionError, match=r"(?s)app/wrong\.py:3.*\bstr\b"):
        run(CHECKERS[checker], service)
