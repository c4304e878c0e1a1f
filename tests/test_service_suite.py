"""Tests the tests of a service: in any order, each file alone, at the same time, and with a bug to find."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.containers import composed
from harness.matrix import DEFAULTS, Answers, label
from harness.ports import reserved_port
from harness.running import missing_python, run, serving
from harness.stacks import addresses
from harness.variants import variants
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

SEEDS = 4


@dataclass
class Service:
    """Runs commands in a service, with the addresses of its own database and cache."""

    folder: Path
    answers: Answers
    addresses: dict[str, str]

    @property
    def main(self) -> Path:
        """The module of the application."""
        return self.folder / ("main.py" if self.answers["layout"] == "single-file" else "app/main.py")

    def add(self, code: str, tests: str) -> None:
        """Append code to the module of the application, and write a file of tests."""
        self.main.write_text(self.main.read_text() + code)
        (self.folder / "tests/test_added.py").write_text(tests)

    def test(self, *options: str) -> str:
        """Run the service's tests, and return what they print. Raise an AssertionError if one fails."""
        return run(f"pytest {' '.join(options)}", self.folder, **self.addresses)

    def failing_test(self) -> str:
        """Run the added tests, and return what they print when they fail."""
        with pytest.raises(AssertionError, match="ended with 1:") as failed:
            self.test("-p no:randomly tests/test_added.py")
        return str(failed.value)


def sampled(**answers: str) -> object:
    docker = answers.get("database") == "postgresql" or answers.get("cache") == "redis"
    name = label(answers) or "default"
    marks = [pytest.mark.xdist_group(f"suite-{name}"), *([pytest.mark.docker] if docker else [])]
    return pytest.param(DEFAULTS | answers, id=name, marks=marks)


@pytest.fixture(
    scope="module",
    params=variants([sampled(database="sqlite", cache="redis"), sampled(), sampled(database="postgresql")]),
)
def whole(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service to which its owner has added two plugins of pytest, with its database and its cache."""
    answers: Answers = request.param
    if missing := missing_python(answers["python_version"]):
        pytest.skip(missing)
    folder = render_to(tmp_path_factory.mktemp("service") / "orders-api", **answers)
    run("uv add --quiet --dev pytest-randomly pytest-xdist", folder)
    own = {}
    with ExitStack() as held:
        for variable, url in addresses(folder).items():
            name = variable.removesuffix("_URL")
            port = held.enter_context(reserved_port())
            project = composed(folder, "compose.yaml", **{f"{name}_HOST_PORT": str(port)})
            held.enter_context(project).compose("up", "--detach", "--wait", name.lower())
            own[variable] = re.sub(r":\d+(?=/|$)", f":{port}", url)
        yield Service(folder, answers, own)


@pytest.fixture
def service(whole: Service) -> Iterator[Service]:
    """The service, whose edits are undone after the test."""
    run(
        "git init --quiet && git add --all && git -c user.name=x -c user.email=x@x commit -qm x", whole.folder
    )
    yield whole
    run("git reset --quiet --hard && git clean --quiet --force -d && rm -rf .git", whole.folder)


# What every run has


def test_the_tests_pass_in_any_order(whole: Service) -> None:
    for seed in range(1, SEEDS + 1):
        printed = whole.test(f"-p randomly -p no:cacheprovider --randomly-seed={seed}")
        assert f"--randomly-seed={seed}" in printed
        assert re.search(r"\d+ passed in ", printed)


@pytest.mark.parametrize("whole", [sampled(database="sqlite", cache="redis")], indirect=True)
def test_each_file_of_tests_passes_alone(whole: Service) -> None:
    files = sorted(path.name for path in (whole.folder / "tests").glob("test_*.py"))
    assert len(files) > 3
    for file in files:
        whole.test("-p no:randomly", f"tests/{file}")


def test_the_tests_pass_at_the_same_time(whole: Service) -> None:
    assert "2 workers" in whole.test("-n 2")


# What an owner finds out from them

BUG = """

def divide(by: int) -> float:
    return 1 / by


@app.get("/divide/{by}")
async def read_quotient(by: int) -> float:
    return divide(by)
"""
TEST_OF_THE_BUG = """from httpx2 import AsyncClient


async def test_a_quotient(client: AsyncClient) -> None:
    assert (await client.get("/divide/0")).status_code == 200
"""


def test_a_bug_shows_its_traceback_in_the_test_that_fails(service: Service) -> None:
    service.add(BUG, TEST_OF_THE_BUG)
    printed = service.failing_test()
    assert "assert 500 == 200" in printed
    assert "in read_quotient\n    return divide(by)" in printed
    assert "in divide\n    return 1 / by" in printed
    assert "ZeroDivisionError: division by zero" in printed


STATE = """

from typing import Any

from fastapi import Request


@app.get("/state")
async def read_state(request: Request) -> dict[str, str]:
    state: dict[str, Any] = request.scope["state"]
    return {name: type(value).__qualname__ for name, value in state.items()}
"""
TEST_OF_THE_STATE = """import json
from pathlib import Path

from httpx2 import AsyncClient


async def test_the_state(client: AsyncClient) -> None:
    Path("state.json").write_text((await client.get("/state")).text)
"""
# A resource of the owner's, as the docstring of `create_app` has it.
RESOURCE = """from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.datastructures import State

from app.factory import create_app


class Translator:
    pass


@asynccontextmanager
async def open_translator(state: State) -> AsyncGenerator[Translator]:
    assert state.settings
    yield Translator()


app = create_app({"translator": open_translator})
"""


def test_the_state_of_a_request_is_in_tests_what_it_is_in_production(service: Service) -> None:
    service.add(STATE, TEST_OF_THE_STATE)
    has_factory = service.answers["layout"] == "package"
    if has_factory:
        text = service.main.read_text()
        assert text.count("from app.factory import create_app\n") == text.count("app = create_app()\n") == 1
        text = text.replace("from app.factory import create_app\n", "")
        service.main.write_text(text.replace("app = create_app()\n", RESOURCE))
    service.test("-p no:randomly tests/test_added.py")
    in_tests = json.loads((service.folder / "state.json").read_text())
    if service.answers["database"] != "none":
        run("alembic upgrade head", service.folder, **service.addresses)
    with serving(service.folder, **service.addresses) as process:
        assert process.get("/state").json() == in_tests
    expected = {"settings": "Settings"}
    if has_factory:
        expected["translator"] = "Translator"
    if service.answers["database"] != "none":
        expected["database"] = "Database"
    if service.answers["cache"] != "none":
        expected["cache"] = "Cache"
    assert in_tests == expected


OLD = """

import warnings


@app.get("/old")
async def read_old() -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)
"""
TEST_OF_OLD = """from httpx2 import AsyncClient


async def test_old(client: AsyncClient) -> None:
    assert (await client.get("/old")).status_code == 200
"""


def test_a_deprecation_in_an_endpoint_fails_its_test(service: Service) -> None:
    service.add(OLD, TEST_OF_OLD)
    assert "DeprecationWarning: old" in service.failing_test()
