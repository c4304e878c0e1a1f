"""Tests that the recipes of docs/recipes/ can be followed, each alone and all of them on one service."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness.containers import docker, in_production, unique
from harness.development import development, in_git
from harness.matrix import ROOT, Answers, has, label
from harness.pages import page, section, shell
from harness.running import DEADLINE, Process, run, serving
from harness.steps import follow, steps
from harness.variants import variants
from harness.waiting import until
from harness.websockets import connected
from tests.conftest import Render, RenderTo

FOLDER = "docs/recipes"
INDEX = page(f"{FOLDER}/README.md")
RECIPES = re.findall(r"^\| \[.*\]\(([\w-]+)\.md\)", INDEX, re.MULTILINE)

NEED_A_DATABASE = {"background-task", "command", "oauth2-jwt"}

# The sections that are not for every service, or that need a deployed one or another recipe.
WITH_A_SERVER = "With PostgreSQL or MySQL"
WITHOUT_A_SERVER = "With SQLite, or without a database"
ALONE = "Without resources of your own"
TOGETHER = "After the recipe of the HTTP client"
DEPLOYED = "In production"
# The recipes that have such a section, and the tests that follow it.
DEPLOYED_ELSEWHERE = {"command": Path(__file__), "nginx": ROOT / "tests/test_nginx.py"}
FOR_UVICORN = "```shell\nuv add websockets\n```\n"

# The name of an item whose description takes a while.
SLOW = "slow"

TYPE_CHECKERS = (
    "uv tool run --quiet pyright@1.1.414 --pythonpath .venv/bin/python",
    "uv tool run --quiet ty@0.0.107 check --quiet --python .venv",
)

SERVICES: list[Answers] = [
    {"server": "gunicorn", "database": "mysql", "cache": "redis", "observability": "opentelemetry"}
]
SERVICES += [
    {"server": server, "database": database, "cache": "none"}
    for server in ("uvicorn", "granian")
    for database in ("postgresql", "sqlite")
]
SERVICE_OF_ONE: dict[str, Answers] = {
    recipe: {
        "server": "uvicorn",
        "database": "sqlite" if recipe in NEED_A_DATABASE else "none",
        "cache": "none",
    }
    for recipe in RECIPES
}


def recipe(name: str, answers: Answers, *, alone: bool) -> str:
    """Return the page without the sections that are for other services."""
    text = page(f"{FOLDER}/{name}.md")
    server = has("with_database_server", **answers)
    for title in (WITHOUT_A_SERVER if server else WITH_A_SERVER, TOGETHER if alone else ALONE):
        text = without(text, title)
    if name in DEPLOYED_ELSEWHERE:
        text = without(text, DEPLOYED)
    if answers["server"] == "granian":
        text = text.replace(FOR_UVICORN, "")
    return text


def without(text: str, title: str) -> str:
    return text.replace(section(text, title), "") if f"# {title}\n" in text else text


def test_the_index_names_every_recipe() -> None:
    pages = {path.stem for path in (ROOT / FOLDER).glob("*.md")}
    assert sorted(RECIPES) == sorted(pages - {"README"})


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_of_a_recipe_is_taken_by_a_test(name: str) -> None:
    text = page(f"{FOLDER}/{name}.md")
    followed = steps(recipe(name, SERVICE_OF_ONE[name], alone=True))
    for answers in SERVICES:
        followed += steps(recipe(name, answers, alone=False))
    if place := DEPLOYED_ELSEWHERE.get(name):
        assert f'{name}.md")' in place.read_text()
        followed += steps(section(text, DEPLOYED))
    assert set(followed) == set(steps(text))


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("name", variants(RECIPES, 4))
def test_a_recipe_works_alone(name: str, render: Render) -> None:
    answers = SERVICE_OF_ONE[name]
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        follow(recipe(name, answers, alone=True), service, **environment)
        checks = [block.text for block in steps(INDEX)]
        run("\n".join(checks), service, **environment)


@pytest.fixture
def together(
    request: pytest.FixtureRequest, render: Render
) -> Iterator[tuple[Answers, Path, dict[str, str]]]:
    """A service with all recipes, and the variables with which `docker compose` means its database."""
    answers: Answers = request.param
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        for name in RECIPES:
            follow(recipe(name, answers, alone=False), service, **environment)
        yield answers, service, environment


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(
    "together",
    variants(
        pytest.param(
            answers,
            id=label(answers),
            marks=[pytest.mark.docker] if has("with_database_server", **answers) else [],
        )
        for answers in SERVICES
    ),
    indirect=True,
)
def test_all_recipes_work_together(together: tuple[Answers, Path, dict[str, str]]) -> None:
    answers, service, environment = together
    follow(INDEX, service, **environment)
    run("uv run ruff check\nuv run ruff format --check", service)
    for command in TYPE_CHECKERS:
        run(command, service)
    assert_secrets_are_files_in_production(service)
    make_slow(service / "app/descriptions.py")
    # Nothing listens at this address: errors can't be reported, and requests go on.
    with serving(service, SENTRY_DSN="http://key@127.0.0.1:1/1") as process:
        assert_says_back(process, "hello")
        assert_signs_in(process)
        assert_describes_in_the_background(process)
        assert_refuses_a_large_file(process)
        headers = {"Origin": "http://localhost:5173"}
        response = process.client.get(
            "/reports/daily", headers=headers | {"X-API-Key": "only-for-development"}
        )
        assert response.json() == {"orders": 0}
        assert response.headers["Access-Control-Allow-Origin"] == headers["Origin"]
        # The partner does not exist.
        assert process.get("/rates/EUR").status_code == 503
        # Sentry listens, so each request is a record of `logging`, and still one line of JSON.
        until(
            lambda: process.records(logger="access", path="/reports/daily", status=200), "a line of a request"
        )
        assert process.records(logger="access", method="WEBSOCKET", path="/chat", status=101)
        assert "token=secret" not in process.output()
        # Only Granian waits for no background task when it stops.
        path = describe_slowly(process)
        assert_ends_an_open_stream(process)
    with serving(service) as process:
        described = process.get(path).json()["description"] is not None
        assert described == (answers["server"] != "granian")


def assert_secrets_are_files_in_production(service: Path) -> None:
    file = ["compose", "--file=compose.prod.yaml"]
    printed = docker(*file, "config", "--format=json", cwd=service, environment={"TAG": "unused"})
    configuration = json.loads(printed)
    assert configuration["secrets"]["api_key"]["file"] == str(service / "secrets/api_key")
    for name in ("app", "migrate"):
        secrets = configuration["services"][name]["secrets"]
        assert "api_key" in [secret["source"] for secret in secrets]
        assert len(secrets) == len({secret["source"] for secret in secrets})


def make_slow(module: Path) -> None:
    """Have the description of one item take a while."""
    text = module.read_text()
    slow = f'    __import__("time").sleep(2 if name == "{SLOW}" else 0)\n    return f"All'
    assert text.count('    return f"All') == 1
    module.write_text(text.replace('    return f"All', slow))


def assert_says_back(process: Process, text: str) -> None:
    """Open a WebSocket of the chat, send a message and receive it."""
    with connected(process, "/chat?token=secret") as websocket:
        websocket.send(text)
        assert websocket.recv(DEADLINE) == text


def assert_signs_in(process: Process) -> None:
    user = {"name": "ada", "password": "correct horse"}
    created = process.client.post("/users", json=user)
    assert created.status_code == 201, created.text
    form = {"grant_type": "password", "username": user["name"], "password": user["password"]}
    token = process.client.post("/token", data=form).json()["access_token"]
    assert process.get("/users/me", Authorization=f"Bearer {token}").json() == created.json()
    assert process.get("/users/me", Authorization=f"Bearer {token}x").status_code == 401


def assert_describes_in_the_background(process: Process) -> None:
    path = created(process, "lamp")
    assert process.client.post(f"{path}/description").status_code == 202
    until(lambda: process.get(path).json()["description"] == "All about lamp", "the description")


def describe_slowly(process: Process) -> str:
    """Have an item described for longer than the server takes to stop, and return its path."""
    path = created(process, SLOW)
    assert process.client.post(f"{path}/description").status_code == 202
    return path


def created(process: Process, name: str) -> str:
    """Create an item, and return its path."""
    return str(process.client.post("/items", json={"name": name}).headers["Location"])


def assert_refuses_a_large_file(process: Process) -> None:
    for size, status in ((2**20, 201), (11 * 2**20, 413)):
        response = process.client.post("/uploads", files={"file": b"x" * size})
        assert response.status_code == status, response.text


def assert_ends_an_open_stream(process: Process) -> None:
    """Receive an event, stop the server, and find that it has waited for no more of them."""
    with process.client.stream("GET", "/countdown", params={"start": 3600}) as response:
        lines = response.iter_lines()
        assert next(lines) == 'data: {"left": 3600}'
        stopped = time.monotonic()
        process.stop()
        assert time.monotonic() - stopped < 15
        list(lines)


# In production


@pytest.mark.docker
@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_a_deployed_service_has_its_secret_and_runs_the_command(render_to: RenderTo, tmp_path: Path) -> None:
    answers: Answers = {"server": "uvicorn", "database": "sqlite", "cache": "none"}
    service = in_git(render_to(tmp_path / unique("orders"), **answers))
    with development(service, answers):
        for name in ("secret", "command"):
            follow(recipe(name, answers, alone=False), service)
    # The server has none.
    (service / ".env").unlink()
    text = section(page(f"{FOLDER}/command.md"), DEPLOYED)
    [line] = re.findall(r"^```text\n(.*)\n```$", text, re.MULTILINE)
    with in_production(service) as environment:
        url = f"http://127.0.0.1:{environment['HOST_PORT']}"
        key = (service / "secrets/api_key").read_text().strip()
        with httpx2.Client(base_url=url, timeout=30) as client:
            reports = client.get("/reports/daily", headers={"X-API-Key": key})
            assert reports.json() == {"orders": 0}

            def create() -> str:
                client.post("/items", json={"name": "light", "description": "red"})
                return str(client.post("/items", json={"name": "lamp"}).headers["Location"])

            follow(text, service, **environment)
            for command in (shell(text)[0], line.split(maxsplit=5)[5]):
                path = create()
                printed = run(command.replace("/srv/orders-api", str(service)), service, **environment)
                assert json.loads(printed)["message"] == "Deleted 1 items."
                assert client.get(path).status_code == 404
                assert len(client.get("/items").json()["items"]) == 1
