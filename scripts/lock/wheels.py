"""Refuse packages that an offered Python would have to build."""

from collections.abc import Iterable, Mapping

from lock import LockError
from lock.table import Table
from lock.uv import Uv

# Built from source where there is no wheel, and why that is fine. An entry that is not needed is an error.
WITHOUT_WHEEL: dict[tuple[str, str], str] = {}

# Where services run and are written. Debian 12 has glibc 2.36, and uv's oldest macOS is 13.
_PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36", "aarch64-apple-darwin")


def require_wheels(uv: Uv, table: Table, requirements: Mapping[str, str]) -> None:
    """Raise LockError where this Python has to build a package and nothing says why that is fine.

    `requirements` are pinned, by package.
    """
    reasons = {name: why for (name, python), why in WITHOUT_WHEEL.items() if python == table.python}
    for name, why in reasons.items():
        if name not in requirements or not _refusal(uv, table, [requirements[name]]):
            raise LockError(
                f"{name} on Python {table.python}: has wheels now, or is not locked any more. "
                "Remove it from WITHOUT_WHEEL."
            )
        print(f"no wheel: {name} on Python {table.python} ({why})")
    others = {name: line for name, line in requirements.items() if name not in reasons}
    if refusal := _refusal(uv, table, others.values()):
        missing = [name for name, line in others.items() if _refusal(uv, table, [line])]
        raise LockError(
            f"No wheel for every platform: {', '.join(missing)} on Python {table.python}. Depend on "
            "something else, don't offer that combination, or say in WITHOUT_WHEEL of scripts/lock/wheels.py "
            f"why a build is fine.\n{refusal}"
        )


def _refusal(uv: Uv, table: Table, requirements: Iterable[str]) -> str:
    pyproject = table.pyproject(requirements)
    try:
        for platform in _PLATFORMS:
            uv.compile(pyproject, table.python, f"--no-deps --only-binary :all: --python-platform {platform}")
    except LockError as error:
        return str(error)
    return ""
