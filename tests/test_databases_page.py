"""Tests that docs/databases.md can be followed with each database, by running its blocks unchanged."""

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness.clones import ENVIRONMENT, commit, git, run
from harness.containers import composed, docker, unique
from harness.matrix import DEFAULTS, values
from harness.pages import blocks, page, part, shell
from tests.conftest import Render, RenderTo

TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL"}

# A migration as somebody would write it by hand. The page has Alembic write another one.
EXPANDS = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("items", sa.Column("price", sa.Integer(), server_default="0", nullable=False))
"""


def below(title: str) -> str:
    """Return what stands below a heading of the page, up to the next one of any level."""
    return part(page("docs/databases.md"), title)


def test_every_command_of_the_page_is_in_a_section_that_a_test_runs() -> None:
    assert TITLES.keys() == {*values("database")} - {"none"}
    typed = ("Change a model", "Deploy it", "A change while the service runs", *TITLES.values())
    assert shell(page("docs/databases.md")) == [
        block
        for title in re.findall(r"^##+ (.*)$", page("docs/databases.md"), re.MULTILINE)
        if title in typed
        for block in shell(below(title))
    ]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def typed(script: str, service: Path, **environment: str) -> str:
    """Run commands that must succeed, and return what they print."""
    done = run("bash", "-ec", script, cwd=service, env=ENVIRONMENT | environment)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def in_git(service: Path) -> Path:
    git(service, "init", "--quiet")
    commit(service, "Start from copier-fastapi")
    return service


# A change of a model


@pytest.fixture
def development(request: pytest.FixtureRequest, render: Render) -> Iterator[tuple[Path, dict[str, str]]]:
    """A service in git, and the variables with the address of its database for development."""
    service = in_git(render(database=request.param))
    address = re.search(
        r"^export (DATABASE_URL)=(.*:)(\d+)(/.*)$", (service / "DEVELOPMENT.md").read_text(), re.M
    )
    if not address:
        yield service, {}
        return
    port = free_port()
    with composed(service, "compose.yaml", DATABASE_HOST_PORT=port) as project:
        project.compose("up", "--detach", "--wait", "database")
        yield service, {address[1]: f"{address[2]}{port}{address[4]}"}


@pytest.mark.project
@pytest.mark.parametrize(
    "development",
    ["sqlite", *(pytest.param(name, marks=pytest.mark.docker) for name in ("postgresql", "mysql"))],
    indirect=True,
)
def test_a_model_is_changed_as_the_page_says(
    development: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    service, environment = development
    version = str(DEFAULTS["python_version"])
    if run("uv", "python", "find", "--no-project", "--no-python-downloads", version, cwd=tmp_path).returncode:
        pytest.skip(f"this machine has no Python {version}")
    for language, block in blocks(below("Change a model")):
        if language == "diff":
            (tmp_path / "edit.diff").write_text(block)
            git(service, "apply", str(tmp_path / "edit.diff"))
        else:
            assert language == "shell"
            typed(block, service, **environment)
    changed = git(service, "show", "--name-only", "--format=", "HEAD").split()
    [migration] = [name for name in changed if name.startswith("migrations/versions/")]
    assert {*changed} == {"app/items.py", "app/models.py", "tests/test_items.py", migration}
    # The migration adds the column with its default, and nothing else.
    text = (service / migration).read_text()
    assert text.count("add_column(") == text.count("drop_column(") == text.count('server_default="0"') == 1


# A deployed service


class Deployed:
    """Runs a service in production as its pages and docs/databases.md say, on a free port."""

    def __init__(self, service: Path, database: str) -> None:
        self.service = service
        self.database = database
        self.name = service.name
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {"HOST_PORT": port}

    def typed(self, block: str) -> str:
        return typed(block.replace("orders-api", self.name), self.service, **self.environment)

    def request(self, method: str, path: str, **options: object) -> httpx2.Response:
        return httpx2.request(method, self.url + path, timeout=30, **options)  # type: ignore[arg-type]

    def ready(self) -> int:
        return self.request("GET", "/health/ready").status_code

    def created(self, name: str) -> str:
        """Create an item and return its path."""
        response = self.request("POST", "/items", json={"name": name})
        assert response.status_code == 201, response.text
        return response.headers["Location"]

    def items(self) -> object:
        return self.request("GET", "/items").json()["items"]

    def release(self) -> str:
        """Return the commit of the image that runs."""
        label = '{{ index .Config.Labels "org.opencontainers.image.revision" }}'
        return docker("inspect", "--format", label, f"{self.name}-production-app-1").strip()

    def remove(self) -> None:
        compose = ("compose", "--file=compose.prod.yaml", "down", "--volumes", "--timeout=5")
        docker(*compose, cwd=self.service, environment={"TAG": "unused"})
        for image in {*docker("image", "ls", "--quiet", f"--filter=reference={self.name}").split()}:
            docker("rmi", "--force", image)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-page")) for name in TITLES],
)
def deployed(
    request: pytest.FixtureRequest,
    render_to: RenderTo,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    service = render_to(tmp_path_factory.mktemp("deployed") / unique("orders"), database=request.param)
    deployed = Deployed(in_git(service), request.param)
    secrets = re.search(r"^```shell\n(mkdir .*?)^```$", (service / "DEPLOYMENT.md").read_text(), re.M | re.S)
    assert bool(secrets) == (request.param != "sqlite")
    try:
        if secrets:
            deployed.typed(secrets[1])
        for block in shell(below("Deploy it")):
            deployed.typed(block)
        yield deployed
    finally:
        deployed.remove()
        shutil.rmtree(service / "secrets", ignore_errors=True)


@pytest.mark.docker
def test_an_item_comes_back_from_a_backup(deployed: Deployed) -> None:
    backup, restore = shell(below(TITLES[deployed.database]))
    lamp = deployed.created("lamp")
    before = deployed.items()
    deployed.typed(backup)
    assert deployed.request("DELETE", lamp).status_code == 204
    deployed.created("made after the backup")
    deployed.typed(restore)
    assert deployed.items() == before
    assert deployed.request("GET", lamp).json()["name"] == "lamp"
    # The service can still write.
    deployed.created("cable")


@pytest.mark.docker
def test_a_release_answers_before_and_after_the_migration_of_the_next(deployed: Deployed) -> None:
    migrate, roll_back = shell(below("A change while the service runs"))
    [deploy] = shell(below("Deploy it"))
    old = deployed.release()
    (deployed.service / "migrations" / "versions" / "0002_price.py").write_text(EXPANDS)
    commit(deployed.service, "Items have a price")
    new = git(deployed.service, "rev-parse", "HEAD").strip()
    assert "Running upgrade 0001 -> 0002" in deployed.typed(migrate)
    assert (deployed.release(), deployed.ready()) == (old, 200)
    deployed.created("a lamp of the old release")
    deployed.typed(deploy)
    assert (deployed.release(), deployed.ready()) == (new, 200)
    deployed.typed(roll_back)
    assert (deployed.release(), deployed.ready()) == (old, 200)
    deployed.created("another lamp of the old release")
