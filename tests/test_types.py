"""Tests that pyright and ty, which editors use, have no complaint about a service, as mypy has none."""

from collections.abc import Iterator

import pytest

from harness.matrix import DEFAULTS, Answers, covering, label, values
from harness.running import run
from harness.variants import variants
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

CHECKERS = {
    "pyright": "uv tool run pyright@1.1.414 --pythonpath .venv/bin/python --warnings",
    "ty": "uv tool run ty@0.0.107 check --python .venv --error-on-warning",
}
SUCCESS = {"pyright": "0 errors, 0 warnings, 0 informations", "ty": "All checks passed!"}

PAIRS = covering("server", "database", "cache", "layout", "workers", "observability", "kubernetes")


# A few services that have every choice. Pyright takes ten times as long as ty.
EACH_CHOICE: list[Answers] = [
    {"server": "uvicorn", "database": "postgresql", "cache": "redis", "workers": 2, "kubernetes": "yes"},
    {"server": "gunicorn", "database": "mysql", "observability": "opentelemetry"},
    {"server": "granian", "database": "sqlite"},
    {"server": "fastapi", "layout": "single-file"},
]


def test_the_services_that_pyright_reads_have_every_choice() -> None:
    for question in ("server", "database", "cache", "layout", "workers", "observability", "kubernetes"):
        assert {(DEFAULTS | answers)[question] for answers in EACH_CHOICE} == set(values(question))


def checked() -> Iterator[object]:
    for checker, services, first in (("ty", PAIRS, len(PAIRS) // 2), ("pyright", EACH_CHOICE, 2)):
        cases = []
        for answers in services:
            group = pytest.mark.xdist_group(f"types-{label(answers)}")
            cases.append(pytest.param(checker, answers, id=f"{checker}-{label(answers)}", marks=group))
        yield from variants(cases, first)


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
