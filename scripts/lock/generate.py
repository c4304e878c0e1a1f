"""Make the generated files anew."""

import re
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

from lock import LockError, templates
from lock.locking import lock_for
from lock.table import read_tables
from lock.uv import Pins, Uv, find_python, uv_version

UV_LOCK = "includes/generated/uv.lock.jinja"
REQUIREMENTS = "includes/generated/requirements.jinja"
RESERVED_NAMES = "includes/generated/reserved_names.jinja"

_HOSTS = {"pypi.org", "files.pythonhosted.org"}


def generate(repository: Path, moment: str, pins: Pins) -> dict[str, str]:
    """Return the text of each generated file by its path, from the index as of `moment` (ISO 8601).

    Pins stay where they fit. Raises LockError where uv finds no solution, a package lacks wheels, or the
    template can't say what uv locks.
    """
    oldest, *newer = read_tables(repository)
    uv = Uv(moment, find_python([oldest, *newer][-1].python))
    # The oldest Python's lock is for newer ones too, so it has a version of everything that they need.
    locked = [lock_for(uv, oldest, pins)]
    with ThreadPoolExecutor(cpu_count()) as executor:
        locked += executor.map(lambda table: lock_for(uv, table, locked[0].pins), newer)
    names = sorted({name for each in locked for name, _ in each.pins})
    files = {
        UV_LOCK: templates.uv_lock(repository, locked, moment),
        REQUIREMENTS: templates.requirements(locked),
        RESERVED_NAMES: templates.reserved_names(names),
    }
    require_official_index(files[UV_LOCK])
    requirements = {name for each in locked for name in each.table.requirements}
    print(f"{len(locked)} Pythons, {len(requirements)} requirements, {len(names)} packages")
    print(f"{uv_version()} ran {len(uv.runs)} times")
    for path, text in files.items():
        print(f"{path}: {len(text.encode()) / 1000:.0f} kB, {text.count('{% if ')} conditions")
    return files


def require_official_index(lock: str) -> None:
    """Raise LockError where a lock would send its users anywhere but to PyPI."""
    others = set(re.findall(r'"https?://([^/"]+)', lock)) - _HOSTS
    if others:
        raise LockError(f"The lock names {', '.join(sorted(others))}: lock with the public index only.")
