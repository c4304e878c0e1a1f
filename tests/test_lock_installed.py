"""Install rendered locks, and change them with the commands that owners have (docs/lock.md)."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from lock.table import read_tables
from lock.uv import find_python
from lock.wheels import WITHOUT_WHEEL

from harness.matrix import ROOT, choices
from harness.owners import replace
from harness.variants import variants
from tests.conftest import Render

pytestmark = pytest.mark.project

Uv = Callable[..., str]

# Every Python, server, database and cache at least once, and `fastapi` with the newest Python too.
SAMPLE = [
    {"python_version": "3.11", "server": "granian", "database": "mysql", "cache": "redis"},
    {"python_version": "3.14", "server": "uvicorn"},
    {"python_version": "3.15", "server": "fastapi", "database": "postgresql", "cache": "redis"},
    {"python_version": "3.12", "server": "fastapi", "database": "sqlite"},
    {"python_version": "3.13", "server": "gunicorn", "database": "postgresql", "cache": "redis"},
]


def sampled(first: int) -> pytest.MarkDecorator:
    """Test the sample. All but the first are variants."""
    return pytest.mark.parametrize(
        "answers", variants(SAMPLE, first), ids=lambda answers: "-".join(answers.values())
    )


@pytest.fixture(scope="module")
def interpreter() -> str:
    """Return an interpreter that is no older than what a service locks for, which uv asks for."""
    return find_python(read_tables(ROOT)[-1].python)


@pytest.fixture
def uv(interpreter: str) -> Uv:
    """Run uv in a service; the error is what uv says."""

    def run(*arguments: str | Path, cwd: Path, **variables: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment |= {"UV_PYTHON": interpreter, **{name: str(value) for name, value in variables.items()}}
        result = subprocess.run(["uv", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def builds_to_develop(python_version: str) -> bool:
    """Return whether a tool for development has to be built for this Python."""
    return any(version == python_version for _, version in WITHOUT_WHEEL)


@pytest.mark.parametrize("question", ["python_version", "server", "database", "cache"])
def test_the_sample_has_every_choice(question: str) -> None:
    assert {answers.get(question, "none") for answers in SAMPLE} == choices(question).keys()


@sampled(5)
def test_uv_installs_from_wheels_only(render: Render, uv: Uv, answers: Mapping[str, str]) -> None:
    service, python = render(**answers), answers["python_version"]
    groups = ["--no-dev"] if builds_to_develop(python) else []
    uv("sync", "--locked", "--no-build", *groups, cwd=service, UV_PYTHON=python)
    uv("pip", "check", cwd=service, UV_PYTHON=service / ".venv")


@sampled(1)
def test_pip_installs_from_wheels_only(render: Render, uv: Uv, answers: Mapping[str, str]) -> None:
    service, python = render(**answers, package_manager="pip"), answers["python_version"]
    uv("venv", "--seed", cwd=service, UV_PYTHON=python)
    files = ["requirements.txt"] + ["requirements-dev.txt"] * (not builds_to_develop(python))
    for file in files:
        pip = [".venv/bin/python", "-m", "pip", "install", "--no-compile", "--require-hashes"]
        pip += ["--only-binary", ":all:"]
        installed = subprocess.run([*pip, "-r", file], cwd=service, capture_output=True, text=True)
        assert installed.returncode == 0, installed.stderr
    uv("pip", "check", cwd=service, UV_PYTHON=service / ".venv")


@sampled(1)
def test_the_oldest_releases_that_the_ranges_allow_work(
    render: Render, uv: Uv, answers: Mapping[str, str]
) -> None:
    python = answers["python_version"]
    if builds_to_develop(python):
        pytest.skip(f"a tool has no wheel for Python {python}")
    # A database server is not everywhere, so its service is without it here.
    databases = {"database": answers["database"]} if answers.get("database") == "sqlite" else {}
    service = render(python_version=python, server=answers["server"], **databases)
    (service / "uv.lock").unlink()
    oldest = {"UV_PYTHON": python, "UV_RESOLUTION": "lowest-direct"}
    uv("run", "pytest", cwd=service, **oldest)
    uv("run", "mypy", ".", cwd=service, **oldest)


@pytest.mark.parametrize("name", ["a", "fastapi-0", "pydantic-core0", "uvloo0", "zz9"])
def test_uv_puts_any_name_where_the_template_puts_it(render: Render, uv: Uv, name: str) -> None:
    service = render("renamed", project_name="orders-api")
    replace(service / "pyproject.toml", 'name = "orders-api"', f'name = "{name}"')
    uv("lock", cwd=service)
    assert (service / "uv.lock").read_text() == (render("named", project_name=name) / "uv.lock").read_text()


def difference(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that went and the lines that came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


@pytest.mark.parametrize("python_version", ["3.11", "3.14"])
def test_a_package_that_an_owner_adds_changes_only_its_own_lines(
    render: Render, uv: Uv, python_version: str
) -> None:
    service = render(python_version=python_version)
    before = (service / "uv.lock").read_text()
    uv("add", "--no-sync", "tenacity", cwd=service)
    gone, came = difference(before, (service / "uv.lock").read_text())
    assert not gone
    assert came
    assert all("tenacity" in line or line.startswith("version = ") for line in came)


def test_an_owner_adds_a_package_for_pip_with_the_command_in_the_file(render: Render, uv: Uv) -> None:
    service = render(package_manager="pip")
    replace(
        service / "pyproject.toml", "    # The service's own:", '    # The service\'s own:\n    "tenacity",'
    )
    for name in ("requirements.txt", "requirements-dev.txt"):
        before = (service / name).read_text()
        command = before.splitlines()[1].removeprefix("#    uv ").split()
        uv(*command, cwd=service)
        gone, came = difference(before, (service / name).read_text())
        assert not gone
        assert came[0].startswith("tenacity==")
        assert all(re.match("    --hash=", line) for line in came[1:])
