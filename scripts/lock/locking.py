"""Lock the requirements for one Python, together and each alone."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from lock import LockError
from lock.conditions import Conditional, conditions
from lock.pieces import Key, Pieces, lock_pieces, requirement_pieces
from lock.table import Table
from lock.uv import Pins, Uv, lock_of
from lock.wheels import require_wheels


@dataclass(frozen=True)
class Locked:
    """Hold what uv locks for one Python."""

    table: Table
    pins: list[tuple[str, str]]
    head: str
    root: str
    packages: dict[Key, list[Conditional]]
    requirements: dict[Key, list[Conditional]]


def lock_for(uv: Uv, table: Table, pins: Pins) -> Locked:
    """Lock with these versions where they fit; raise LockError where it can't be done."""
    pyproject = table.pyproject(table.dependencies.values(), table.development.values())
    together = uv.lock(pyproject, lock_of(pins), offline=False)
    # Where forks are present, uv may write them in another order than when it finds them. That order stays.
    together = uv.lock(pyproject, together)
    head, root, packages = lock_pieces(together)
    pinned = [(name, str(version)) for name, version, part in packages if not part]

    def pyproject_with(names: Iterable[str]) -> str:
        return table.pyproject(table.requirements[name] for name in sorted(names))

    @functools.cache
    def packages_with(names: frozenset[str]) -> Pieces:
        return lock_pieces(uv.lock(pyproject_with(names), together))[2]

    @functools.cache
    def requirements_with(names: frozenset[str]) -> Pieces:
        options = "--universal --generate-hashes --no-annotate"
        return requirement_pieces(uv.compile(pyproject_with(names), table.python, options, pinned))

    requirements = requirements_with(frozenset(table.requirements))
    if different := {key[:2] for key in packages} ^ {key[:2] for key in requirements}:
        raise LockError(f"uv.lock and requirements.txt pin different versions: {sorted(different)}.")
    require_wheels(uv, table, {key[0]: text.split(" \\\n")[0] for key, text in requirements.items()})
    return Locked(
        table,
        pinned,
        head,
        root,
        conditions(packages_with, table, table.always | table.always_in_development),
        conditions(requirements_with, table, table.always),
    )
