"""Update or check the generated files, which also keep the pins and the moment of the last time."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lock import LockError
from lock.generate import REQUIREMENTS, RESERVED_NAMES, UV_LOCK, generate
from lock.uv import pins_of, uv_version

_MOMENT = re.compile(r"(?<=the index as of )\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def update(repository: Path, *, upgrade: bool = False) -> None:
    """Lock again and write what changed; the pins stay unless `upgrade`."""
    started = time.monotonic()
    before = committed(repository)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files = generate(repository, now, [] if upgrade else pins_of(before.get(UV_LOCK, "")))
    moment = moment_of(before)
    # A later moment alone is no news.
    if moment and {path: _MOMENT.sub(moment, text, count=1) for path, text in files.items()} == before:
        files = before
    for path, text in files.items():
        if text != before.get(path):
            (repository / path).write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path}")
    print(f"{time.monotonic() - started:.0f} s")


def check(repository: Path) -> None:
    """Raise LockError unless locking again, as of the moment of the last time, gives the same files."""
    before = committed(repository)
    moment = moment_of(before)
    if moment is None:
        raise LockError(f"{UV_LOCK} is missing or was not written by make lock: run make lock.")
    files = generate(repository, moment, pins_of(before[UV_LOCK]))
    differing = [path for path, text in files.items() if text != before.get(path)]
    theirs, ours = _format(files[UV_LOCK]), _format(before[UV_LOCK])
    if differing and theirs != ours:
        raise LockError(
            f"{uv_version()} writes lock format {theirs}, the template's lock has {ours}: run make lock with "
            "this uv and commit the result by itself, or go back to the uv that was used before."
        )
    if differing:
        raise LockError(
            f"{', '.join(differing)}: not what locking again gives. Run make lock and commit the result."
        )


def committed(repository: Path) -> dict[str, str]:
    """Return the texts of the generated files that there are, by their paths."""
    paths = [path for path in (UV_LOCK, REQUIREMENTS, RESERVED_NAMES) if (repository / path).exists()]
    return {path: (repository / path).read_text(encoding="utf-8") for path in paths}


def moment_of(files: Mapping[str, str]) -> str | None:
    """Return when the index was asked for these files."""
    found = _MOMENT.search(files.get(UV_LOCK, ""))
    return found[0] if found else None


def _format(lock: str) -> str:
    fields = (re.search(rf"^{name} = (\d+)$", lock, re.MULTILINE) for name in ("version", "revision"))
    return ".".join(found[1] if found else "0" for found in fields)
