"""Breaks a rendered service, so that its workers can't start. Each failure has `FAILURE` in its message."""

from pathlib import Path

FAILURE = "no_such_module"

BROKEN_RESOURCE = """
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


@asynccontextmanager
async def open_it(_: object) -> AsyncGenerator[None]:
    raise RuntimeError("no_such_module")
    yield


app = create_app(resources={"it": open_it})
"""


def break_import(service: Path, after: int = 0) -> None:
    """Let the import of the application fail after some seconds."""
    main = service / "app" / "main.py"
    main.write_text(f"{main.read_text()}\nimport time\n\ntime.sleep({after})\nimport {FAILURE}\n")


def break_lifespan(service: Path) -> None:
    """Let the start of the lifespan fail."""
    main = service / "app" / "main.py"
    text = main.read_text().replace("\napp = create_app()\n", BROKEN_RESOURCE)
    assert BROKEN_RESOURCE in text
    main.write_text(text)
