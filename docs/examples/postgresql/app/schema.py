"""Whether the database has the tables that this code needs."""

from functools import cache

from alembic.script import ScriptDirectory
from fastapi import HTTPException
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.database import DatabaseDep

REVISION = text("SELECT version_num FROM alembic_version")


async def require_current_schema(database: DatabaseDep) -> None:
    """Raise a 503 unless the newest migration that this code has was run."""
    newest, older = revisions()
    try:
        found = {row.version_num for row in await database.rows(REVISION)}
    except DBAPIError:
        # There is no such table before the first migration.
        found = set()
    # A revision that this code doesn't know comes from a newer release, whose migrations have run.
    if found & older or (newest and not found):
        raise HTTPException(503, "The schema is behind. Run alembic upgrade head.")


@cache
def revisions() -> tuple[set[str], set[str]]:
    """Return the newest revisions of the migrations, and all that those build on."""
    migrations = ScriptDirectory("migrations")
    known = {script.revision for script in migrations.walk_revisions()}
    newest = set(migrations.get_heads())
    return newest, known - newest
