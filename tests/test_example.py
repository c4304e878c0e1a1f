"""Tests that a service without the example passes its own checks, with each database and cache."""

import itertools
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from harness import owners
from harness.containers import composed
from harness.matrix import DEFAULTS, Answers, has, label, values
from harness.pages import commands
from harness.ports import reserved_port
from harness.running import run, without_uv_run
from harness.stacks import addresses
from harness.variants import variants
from tests.conftest import RenderTo

pytestmark = [pytest.mark.project, pytest.mark.usefixtures("newest_python")]

CHECKS = "ruff check\nruff format --check\nmypy .\npytest"


def data_combinations() -> Iterator[ParameterSet]:
    """Yield a service that keeps nothing, two that keep something, and then the others."""
    first = [("none", "none"), ("sqlite", "none"), ("postgresql", "redis")]
    others = itertools.product(values("database"), values("cache"))
    for database, cache in dict.fromkeys([*first, *others]):
        data = {"database": database, "cache": cache}
        servers = has("with_database_server", **data) or has("with_cache", **data)
        marks = [pytest.mark.xdist_group(label(data)), *([pytest.mark.docker] if servers else [])]
        yield pytest.param(DEFAULTS | data, id=label(data), marks=marks)


@dataclass
class Service:
    """Runs commands in an installed service, with the addresses of its database and its cache."""

    folder: Path
    answers: Answers
    addresses: dict[str, str]

    def run(self, script: str) -> str:
        return run(script, self.folder, **self.addresses)

    @property
    def has_database(self) -> bool:
        return has("with_database", **self.answers)


@pytest.fixture(scope="module", params=variants(data_combinations(), 3))
def whole(request: pytest.FixtureRequest, installed: RenderTo) -> Iterator[Service]:
    answers: Answers = request.param
    folder = owners.own(installed(**answers))
    lines = commands(folder, "Run")
    start = [line for line in lines if line.startswith("docker compose up")]
    if not start:
        yield Service(folder, answers, {})
        return
    with ExitStack() as held:
        ports = {
            name: str(held.enter_context(reserved_port()))
            for name in ("DATABASE_HOST_PORT", "CACHE_HOST_PORT")
        }
        project = held.enter_context(composed(folder, "compose.yaml", **ports))
        project.compose(*start[0].split()[2:])
        # .env.example has the default ports, which another test run may hold.
        own = {"DATABASE_URL": ports["DATABASE_HOST_PORT"], "CACHE_URL": ports["CACHE_HOST_PORT"]}
        on_own_ports = {
            name: re.sub(r":\d+(?=/|$)", f":{own[name]}", url) for name, url in addresses(folder).items()
        }
        yield Service(folder, answers, on_own_ports)


@pytest.fixture
def service(whole: Service, tmp_path: Path) -> Service:
    """A copy of the service that the test may change."""
    folder = shutil.copytree(whole.folder, tmp_path / "orders-api", symlinks=True)
    return Service(folder, whole.answers, whole.addresses)


def delete_the_example(service: Service) -> None:
    """Delete the example, and everything that is only there for it."""
    owners.delete_the_example(service.folder)
    main = service.folder / "app/main.py"
    owners.remove(main, r'^\n\n@app\.get\("/"\)\n(.*\n)*')
    if service.has_database:
        owners.remove(service.folder / "app/models.py", r"^\n\nclass Item\(Base\):\n(.*\n)*")
        (service.folder / "migrations/versions/0001_items.py").unlink()
    service.run("ruff check --quiet --fix\nruff format --quiet")


def test_no_test_of_the_skeleton_names_the_example(whole: Service) -> None:
    for path in (whole.folder / "tests").glob("*.py"):
        if path.name != "test_items.py":
            assert not re.search(r"/items|\bItem\b|(?<!\.)\bitems\b", path.read_text()), path.name


def test_what_is_left_without_the_example_passes(service: Service) -> None:
    delete_the_example(service)
    service.run(CHECKS)


ROUTER = '''"""{title}."""

from fastapi import APIRouter

router = APIRouter(prefix="/{name}s", tags=["{name}s"])


@router.get("/{{{name}_id}}")
async def read_{name}({name}_id: int) -> dict[str, int]:
    return {{"{name}_id": {name}_id}}
'''

TEST_ROUTER = """from httpx2 import AsyncClient


async def test_{name}s_are_read(client: AsyncClient) -> None:
    assert (await client.get("/{name}s/5")).json() == {{"{name}_id": 5}}
"""

MODELS = """

class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")
"""

AUTHORS = '''"""Authors with their books."""

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from sqlalchemy import bindparam, select

from app import models
from app.database import DatabaseDep

router = APIRouter(prefix="/authors", tags=["authors"])

TITLES = (
    select(models.Book.title)
    .where(models.Book.author_id == bindparam("author_id"))
    .order_by(models.Book.id)
)


class NewAuthor(BaseModel):
    name: str
    titles: list[str] = []


class Author(BaseModel):
    id: int
    name: str


@router.post("", status_code=201)
async def create_author(new: NewAuthor, database: DatabaseDep) -> Author:
    books = [models.Book(title=title) for title in new.titles]
    author = models.Author(name=new.name, books=books)
    async with database.session() as session:
        session.add(author)
    return Author(id=author.id, name=author.name)


@router.get("/{author_id}/titles")
async def read_titles(author_id: int, database: DatabaseDep) -> list[str]:
    rows = await database.rows(TITLES, {"author_id": author_id})
    if not rows:
        raise HTTPException(404)
    return [row.title for row in rows]
'''

TEST_AUTHORS = """from httpx2 import AsyncClient


async def test_an_authors_titles_are_kept(client: AsyncClient) -> None:
    new = {"name": "Ada", "titles": ["Notes", "Letters"]}
    author = (await client.post("/authors", json=new)).json()
    titles = await client.get(f"/authors/{author['id']}/titles")
    assert titles.json() == ["Notes", "Letters"]
    assert (await client.get(f"/authors/{author['id'] + 1}/titles")).status_code == 404
"""


def add_two_resources(service: Service) -> None:
    """Write two resources of the owner's own, with tables and a migration if there is a database."""
    folder = service.folder
    routers = ["authors", "shelves"] if service.has_database else ["books", "shelves"]
    for name in ("book", "shelve"):
        (folder / f"app/{name}s.py").write_text(ROUTER.format(name=name, title=f"The {name}s"))
        (folder / f"tests/test_{name}s.py").write_text(TEST_ROUTER.format(name=name))
    if service.has_database:
        for name in ("app/books.py", "tests/test_books.py"):
            (folder / name).unlink()
        (folder / "app/authors.py").write_text(AUTHORS)
        (folder / "tests/test_authors.py").write_text(TEST_AUTHORS)
        models = folder / "app/models.py"
        imports = "from sqlalchemy import ForeignKey, MetaData, String\n"
        text = re.sub(r"^from sqlalchemy import MetaData\n", imports, models.read_text(), flags=re.MULTILINE)
        text = text.replace(
            "import DeclarativeBase\n", "import DeclarativeBase, Mapped, mapped_column, relationship\n"
        )
        models.write_text(text + MODELS)
    main = (folder / "app/main.py").read_text()
    included = "".join(f"app.include_router({name}.router)\n" for name in routers)
    main = main.replace("from app.factory", f"from app import {', '.join(routers)}\nfrom app.factory")
    (folder / "app/main.py").write_text(main + included)
    if service.has_database:
        service.run(without_uv_run("\n".join(commands(folder, "Migrate"))))
    service.run("ruff check --quiet --fix\nruff format --quiet")


def test_two_resources_can_take_the_place_of_the_example(service: Service) -> None:
    delete_the_example(service)
    add_two_resources(service)
    service.run(CHECKS)
    if service.has_database:
        [migration] = (service.folder / "migrations/versions").glob("*.py")
        assert "fk_books_author_id_authors" in migration.read_text()
