"""Tests that the pages on databases can be followed with each database."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness.clones import commit, git
from harness.containers import docker, unique
from harness.development import development, in_git
from harness.matrix import Answers, label
from harness.pages import page, part, section, service_section, shell
from harness.ports import reserved_port
from harness.running import run
from harness.stacks import DATA_ONCE, DATABASE_SERVERS, DATABASES, make_secrets
from harness.steps import follow, steps
from harness.variants import variants
from tests.conftest import Render, RenderTo

USE = page("docs/databases.md")
OPERATE = page("docs/operate-databases.md") + page("docs/back-up-and-restore.md")

# The sections whose commands are run here with each database.
FOLLOWED = (
    "Deploy",
    "A change while the service runs",
    "Make a backup at once",
    "Keep copies elsewhere",
    "The restore drill",
    "Restore the database",
    "Restore on a new server",
)

# It needs no container.
ALONE: Answers = {"database": "sqlite", "cache": "none"}

# A migration as somebody would write it by hand. The page has Alembic write another one.
EXPANDS = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("items", sa.Column("price", sa.Integer(), server_default="0", nullable=False))
"""
FAILS = """
from alembic import op

revision = "AFTER"
down_revision = "BEFORE"


def upgrade() -> None:
    op.execute("ALTER TABLE nowhere ADD price INTEGER")
"""


def test_every_step_of_the_page_on_use_is_in_the_section_that_a_test_follows() -> None:
    assert steps(USE) == steps(section(USE, "Change a model"))


def test_every_command_of_the_page_on_operation_is_in_a_section_that_a_test_runs() -> None:
    assert [step.text for step in steps(OPERATE)] == [
        block
        for title in re.findall(r"^##+ (.*)$", OPERATE, re.MULTILINE)
        if title in FOLLOWED
        for block in shell(part(OPERATE, title))
    ]


# A change of a model


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(
    "answers",
    variants(
        (
            pytest.param(answers, id=label(answers), marks=[] if answers == ALONE else pytest.mark.docker)
            for answers in DATA_ONCE
            if answers["database"] in DATABASES
        ),
        2,
    ),
)
def test_a_model_is_changed_as_the_page_says(answers: Answers, render: Render) -> None:
    service = in_git(render(**answers))
    with development(service, answers) as environment:
        follow(section(USE, "Change a model"), service, **environment)
    changed = git(service, "show", "--name-only", "--format=", "HEAD").split()
    [migration] = [name for name in changed if name.startswith("migrations/versions/")]
    assert {*changed} == {"app/items.py", "app/models.py", "tests/test_items.py", migration}
    # The migration adds the column with its default, and nothing else.
    text = (service / migration).read_text()
    assert text.count("add_column(") == text.count("drop_column(") == text.count('server_default="0"') == 1


# A deployed service


class Deployed:
    """Runs a service in production as its pages and those on databases say, on this port."""

    def __init__(self, service: Path, database: str, port: int) -> None:
        self.service = service
        self.database = database
        self.name = service.name
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {"HOST_PORT": str(port)}

    def typed(self, block: str) -> str:
        return run(block.replace("orders-api", self.name), self.service, **self.environment)

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

    def lose(self) -> None:
        """Remove all containers and volumes."""
        down = ("down", "--volumes", "--timeout=5", "--rmi=local")
        compose = ("compose", "--file=compose.prod.yaml", "--profile=*", *down)
        docker(*compose, cwd=self.service, environment={"TAG": "unused"})

    def remove(self) -> None:
        self.lose()
        for image in {*docker("image", "ls", "--quiet", f"--filter=reference={self.name}").split()}:
            docker("rmi", "--force", image)


@pytest.fixture(
    scope="module",
    params=variants(
        pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-page")) for name in reversed(DATABASES)
    ),
)
def deployed(
    request: pytest.FixtureRequest,
    render_to: RenderTo,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    service = render_to(tmp_path_factory.mktemp("deployed") / unique("orders"), database=request.param)
    with reserved_port() as port:
        assert port
        deployed = Deployed(in_git(service), request.param, port)
        try:
            secrets = make_secrets(service)
            assert bool(secrets) == (request.param in DATABASE_SERVERS)
            for block in shell(part(OPERATE, "Deploy")):
                deployed.typed(block)
            yield deployed
        finally:
            deployed.remove()
            shutil.rmtree(service / "secrets", ignore_errors=True)


def operated(title: str) -> str:
    """Return the commands of a section on operation."""
    [block] = shell(part(OPERATE, title))
    return block


@pytest.mark.docker
def test_an_item_comes_back_from_a_backup(deployed: Deployed) -> None:
    lamp = deployed.created("lamp")
    before = deployed.items()
    deployed.typed(operated("Make a backup at once"))
    assert deployed.request("DELETE", lamp).status_code == 204
    deployed.created("made after the backup")
    deployed.typed(operated("Restore the database"))
    assert deployed.items() == before
    assert deployed.request("GET", lamp).json()["name"] == "lamp"
    # The service can still write.
    deployed.created("cable")


@pytest.mark.docker
def test_an_item_comes_back_on_a_new_server_from_a_copy(deployed: Deployed) -> None:
    deployed.created("candle")
    before = deployed.items()
    deployed.typed(operated("Make a backup at once"))
    assert " is in the new database, and the constraints hold." in deployed.typed(
        operated("The restore drill")
    )
    deployed.typed(operated("Keep copies elsewhere"))
    assert git(deployed.service, "status", "--porcelain", "--", "backups") == ""
    deployed.lose()
    deployed.typed(operated("Restore on a new server"))
    assert deployed.items() == before


@pytest.mark.docker
def test_the_commands_of_the_services_own_page_are_those_of_the_page_on_operation(deployed: Deployed) -> None:
    own = [
        line for block in shell(service_section(deployed.service, "Back up")) for line in block.splitlines()
    ]
    lines = {
        line for title in FOLLOWED for block in shell(part(OPERATE, title)) for line in block.splitlines()
    }
    assert own
    assert [line for line in own if line not in lines] == []


@pytest.mark.docker
def test_a_release_answers_before_and_after_the_migration_of_the_next(deployed: Deployed) -> None:
    migrate, roll_back = shell(part(OPERATE, "A change while the service runs"))
    [deploy] = shell(part(OPERATE, "Deploy"))
    old = deployed.release()
    (deployed.service / "migrations" / "versions" / "0002_price.py").write_text(EXPANDS)
    commit(deployed.service, "Items have a price")
    new = git(deployed.service, "rev-parse", "HEAD").strip()
    assert "Running upgrade 0001 -> 0002" in deployed.typed(migrate)
    assert (deployed.release(), deployed.ready()) == (old, 200)
    deployed.created("a lamp of the old release")
    deployed.typed(deploy)
    assert (deployed.release(), deployed.ready()) == (new, 200)
    # The service's own page has the same way back, in one line.
    [own] = [
        block for block in shell(service_section(deployed.service, "Deploy")) if block.startswith("TAG=$")
    ]
    for block, release in ((own, old), (deploy, new), (roll_back, old)):
        deployed.typed(block)
        assert (deployed.release(), deployed.ready()) == (release, 200)
    deployed.created("another lamp of the old release")


@pytest.mark.docker
def test_a_release_whose_migration_fails_leaves_the_one_before_serving(deployed: Deployed) -> None:
    [deploy, *_] = shell(service_section(deployed.service, "Deploy"))
    old = deployed.release()
    versions = deployed.service / "migrations" / "versions"
    newest = max(file.name for file in versions.glob("*.py"))[:4]
    text = FAILS.replace("BEFORE", newest)
    (versions / f"{int(newest) + 1:04}_fails.py").write_text(text.replace("AFTER", f"{int(newest) + 1:04}"))
    commit(deployed.service, "A migration that fails")
    try:
        with pytest.raises(AssertionError, match="nowhere"):
            deployed.typed(deploy)
        assert (deployed.release(), deployed.ready()) == (old, 200)
        deployed.created("a lamp after the failure")
    finally:
        git(deployed.service, "reset", "--quiet", "--hard", "HEAD~1")
