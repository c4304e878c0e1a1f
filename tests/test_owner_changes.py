"""Tests what owners add to a service: tables, columns, settings, and variables of their machine."""

from pathlib import Path

import pytest

from harness.matrix import DEFAULTS
from harness.owners import replace
from harness.running import run
from tests.conftest import Render

pytestmark = [pytest.mark.project, pytest.mark.usefixtures("newest_python")]

NOTE = """

class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"{}))
    changed: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
"""
MIGRATE = "alembic upgrade head\nalembic revision --autogenerate --message change\nalembic upgrade head"


@pytest.fixture
def service(installed: Render) -> Path:
    """A service with SQLite."""
    return installed(**DEFAULTS | {"database": "sqlite"})


def add_notes(service: Path, options: str = "") -> None:
    """Add a table whose rows refer to items, and migrate."""
    models = service / "app/models.py"
    replace(models, "import MetaData, String\n", "import ForeignKey, MetaData, String, func\n")
    replace(models, "from sqlalchemy.orm", "from datetime import datetime\n\nfrom sqlalchemy.orm")
    models.write_text(models.read_text() + NOTE.format(options))
    run(MIGRATE, service)


def sql(service: Path, script: str) -> list[str]:
    """Run statements with the service's own foreign keys, and return the rows of the last one."""
    code = (
        "import sqlite3, sys\n"
        "with sqlite3.connect('app.db') as connection:\n"
        "    connection.execute('PRAGMA foreign_keys = ON')\n"
        "    for statement in sys.argv[1].split(';'):\n"
        "        rows = connection.execute(statement).fetchall()\n"
        "print(*(row[0] for row in rows), sep=chr(0), end='')\n"
    )
    return run(f'python -c "{code}" "{script}"', service).split("\0")


ROWS = "INSERT INTO items (name) VALUES ('lamp'); INSERT INTO notes (item_id) VALUES (1); SELECT 1"


@pytest.mark.parametrize("options", ["", ', ondelete="CASCADE"'], ids=["plain", "cascade"])
def test_a_table_that_sqlite_copies_keeps_the_rows_that_refer_to_it(service: Path, options: str) -> None:
    add_notes(service, options)
    sql(service, ROWS)
    replace(service / "app/models.py", r"String\(200\)", "String(300)")
    run(MIGRATE, service)
    assert "VARCHAR(300)" in sql(service, "SELECT sql FROM sqlite_schema WHERE name = 'items'")[0]
    assert sql(service, "SELECT count(*) FROM notes") == ["1"]
    assert sql(service, "SELECT count(*) FROM items") == ["1"]


def test_a_migration_that_takes_the_row_of_others_changes_nothing_and_says_which(service: Path) -> None:
    add_notes(service)
    sql(service, ROWS)
    run("alembic revision --message gone", service)
    [file] = (service / "migrations/versions").glob("*_gone.py")
    replace(file, r"^def upgrade\(\).*\n", "def upgrade() -> None:\n    op.execute('DELETE FROM items')\n")
    with pytest.raises(AssertionError, match=r"Rows would refer to no row: notes, rowid 1\."):
        run("alembic upgrade head", service)
    assert sql(service, "SELECT count(*) FROM items") == ["1"]


CHANGES = """
from app import models
from app.database import Database


async def test_a_note_has_the_time_of_its_change(database: Database) -> None:
    async with database.session() as session:
        session.add_all([models.Item(name=name) for name in ("lamp", "desk")])
        await session.flush()
        note = models.Note(item_id=1)
        session.add(note)
        await session.flush()
    assert note.changed
    async with database.session() as session:
        found = await session.get(models.Note, note.id)
        assert found
        found.item_id = 2
        await session.flush()
    assert found.changed
"""


def test_a_column_that_the_database_computes_is_known_after_a_change(service: Path) -> None:
    add_notes(service)
    (service / "tests/test_notes.py").write_text(CHANGES)
    run("pytest tests/test_notes.py", service)


def test_another_broken_constraint_is_a_500_and_not_a_name_that_is_taken(service: Path) -> None:
    models = service / "app/models.py"
    replace(models, "import MetaData", "import ForeignKey, MetaData")
    column = '    shelf: Mapped[int] = mapped_column(ForeignKey("items.id"), default=7, nullable=True)\n'
    replace(models, '    __tablename__ = "items"\n', f'    __tablename__ = "items"\n{column}')
    run(MIGRATE, service)
    (service / "tests/test_names.py").write_text(
        "from httpx2 import AsyncClient\n\n\n"
        "async def test_names(client: AsyncClient) -> None:\n"
        "    assert (await client.post('/items', json={'name': 'lamp'})).status_code == 500\n"
    )
    run("pytest tests/test_names.py", service)


# Settings


def add_settings(service: Path, *fields: str) -> None:
    settings = service / "app/settings.py"
    settings.write_text(settings.read_text().rstrip() + "".join(f"\n    {field}" for field in fields) + "\n")


def read(service: Path, name: str, **variables: str) -> str:
    """Return a setting as the service reads it."""
    code = f"from app.settings import Settings; print(Settings.read().{name})"
    return run(f"python -c '{code}'", service, **variables).strip()


def test_an_empty_file_is_no_secret(service: Path, tmp_path: Path) -> None:
    add_settings(service, "api_key: str")
    (tmp_path / "key").write_text("\n")
    with pytest.raises(AssertionError, match="Field required"):
        read(service, "api_key", API_KEY_FILE=str(tmp_path / "key"))
    (tmp_path / "key").write_text("the key\n")
    assert read(service, "api_key", API_KEY_FILE=str(tmp_path / "key")) == "the key"


def test_a_list_comes_from_a_file_as_from_a_variable(service: Path, tmp_path: Path) -> None:
    add_settings(service, "api_keys: list[str]")
    (tmp_path / "keys").write_text('["a", "b"]\n')
    assert read(service, "api_keys", API_KEYS='["a", "b"]') == "['a', 'b']"
    assert read(service, "api_keys", API_KEYS_FILE=str(tmp_path / "keys")) == "['a', 'b']"
    (tmp_path / "keys").write_text("a, b")
    with pytest.raises(AssertionError, match=r"API_KEYS: the file .* can't be read"):
        read(service, "api_keys", API_KEYS_FILE=str(tmp_path / "keys"))


def test_a_file_is_named_in_the_environment_or_in_env(service: Path, tmp_path: Path) -> None:
    add_settings(service, 'api_key: str = "none"')
    (tmp_path / "key").write_text("the key")
    (service / ".env").write_text(f"API_KEY_FILE={tmp_path / 'key'}\n")
    assert read(service, "api_key") == "the key"


def test_a_setting_that_tests_lack_is_one_sentence(service: Path) -> None:
    add_settings(service, "api_key: str")
    with pytest.raises(AssertionError, match="API_KEY: Field required") as failed:
        run("pytest", service)
    assert len(str(failed.value).splitlines()) < 20


@pytest.mark.parametrize("level", ["DEBUG", "ERROR"])
def test_the_tests_pass_with_the_log_level_of_the_developer(service: Path, level: str) -> None:
    run("pytest tests/test_request_log.py tests/test_errors.py", service, LOG_LEVEL=level)


# The cache


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h/3", "redis://h/0?client_name=dev", "rediss://h?db=2&ssl_cert_reqs=none"]
)
def test_tests_use_another_database_of_the_cache_than_the_developer(installed: Render, url: str) -> None:
    service = installed(**DEFAULTS | {"cache": "redis"})
    (service / "tests/test_url.py").write_text(
        "import os\n\n"
        "from redis.asyncio.connection import parse_url\n\n\n"
        "def test_url() -> None:\n"
        "    assert parse_url(os.environ['CACHE_URL'])['db'] == 15\n"
    )
    run("pytest tests/test_url.py", service, CACHE_URL=url)
