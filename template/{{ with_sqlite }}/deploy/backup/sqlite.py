"""Copies SQLite's database for engine.sh: dump FILE TABLES, load FILE, new, or check."""

import hashlib
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

DATABASE = Path(os.environ["DATABASE_URL"].removeprefix("sqlite:///"))

NAMES = r"""
SELECT name FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY name
"""


def opened(file: Path, mode: str) -> closing[sqlite3.Connection]:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    # A text that is no UTF-8 is a row too.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    return closing(connection)


def tables(connection: sqlite3.Connection) -> str:
    """Return a line for each table: its rows, and a checksum of them that doesn't depend on their order."""
    lines = []
    for (name,) in connection.execute(NAMES).fetchall():
        rows = checksum = 0
        quoted = name.replace('"', '""')
        for row in connection.execute(f'SELECT * FROM "{quoted}"'):
            rows += 1
            checksum += int.from_bytes(hashlib.sha256(repr(row).encode()).digest()[:8])
        lines.append(f"{name}\t{rows}\t{checksum}\n")
    return "".join(lines)


def dump(file: Path, lines: Path) -> None:
    """Copy the database at one moment, while others write."""
    with opened(DATABASE, "rw") as source, opened(file, "rwc") as copy:
        # From its first read on, a transaction sees no changes. The copy is made in it too.
        source.execute("BEGIN")
        lines.write_text(tables(source))
        source.backup(copy)
        # One file, which no other has to be kept with.
        copy.execute("PRAGMA journal_mode = DELETE")


def load(file: Path) -> None:
    """Replace the database by the copy."""
    new = DATABASE.with_name(f"{DATABASE.name}.new")
    shutil.copyfile(file, new)
    with new.open("rb+") as written:
        os.fsync(written.fileno())
    for suffix in ("-wal", "-shm"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    new.replace(DATABASE)


def check() -> None:
    with opened(DATABASE, "ro") as connection:
        problems = connection.execute("PRAGMA integrity_check").fetchall()
        problems += connection.execute("PRAGMA foreign_key_check").fetchall()
        if problems != [("ok",)]:
            sys.exit(f"The database is broken: {problems}")
        print(tables(connection), end="")


def main(command: str, *files: str) -> None:
    if command == "dump":
        dump(*map(Path, files))
    elif command == "load":
        load(*map(Path, files))
    elif command == "check":
        check()
    elif DATABASE.exists():
        sys.exit(f"{DATABASE} is not new.")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"{DATABASE}: {error}")
