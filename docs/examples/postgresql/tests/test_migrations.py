import pytest
from alembic import command
from alembic.config import Config

from app.schema import revisions


def test_the_models_are_what_the_migrations_make() -> None:
    command.check(Config(toml_file="pyproject.toml"))


@pytest.mark.skipif(not revisions()[0], reason="there is no migration yet")
def test_the_newest_migration_can_be_undone() -> None:
    migrations = Config(toml_file="pyproject.toml")
    command.downgrade(migrations, "-1")
    command.upgrade(migrations, "head")
