"""Write the locks that the template renders; `--help` says what else it can do, docs/lock.md how it works."""

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lock_matrix import PROJECT_NAME, Combination, combinations, environment
from lock_templates import (
    merged_locks,
    merged_requirements,
    package_block,
    requirement_blocks,
    reserved_names,
)
from lock_uv import Locked, LockError, lock_all, packages, uv_version
from lock_wheels import packages_without_wheel

REPOSITORY = Path(__file__).resolve().parent.parent

UV_LOCK = "template/{% if package_manager == 'uv' %}uv.lock{% endif %}.jinja"
REQUIREMENTS = "includes/requirements.jinja"
RESERVED_NAMES = "includes/reserved_names.jinja"

# Built from source where there is no wheel, and why that is fine. An entry that is not needed is an error.
WITHOUT_WHEEL: dict[tuple[str, str], str] = {}

_HOSTS = {"pypi.org", "files.pythonhosted.org"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the locks that the template renders, one for all answers."
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--upgrade", action="store_true", help="move every pin to the newest release")
    group.add_argument(
        "--check", action="store_true", help="write nothing; fail where the files are not up to date"
    )
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check(REPOSITORY)
        else:
            update(REPOSITORY, upgrade=arguments.upgrade)
    except LockError as error:
        sys.exit(str(error))


def update(repository: Path, *, upgrade: bool = False) -> None:
    """Lock again and write what changed; the pins stay unless `upgrade`."""
    started = time.monotonic()
    before = _committed(repository)
    files = generate(repository, _now(), {} if upgrade else _pins(before))
    moment = _moment(before)
    # A later moment alone is no news.
    if moment and {path: _at(moment, text) for path, text in files.items()} == before:
        files = before
    for path, text in files.items():
        if text != before.get(path):
            (repository / path).write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path}")
    print(f"{time.monotonic() - started:.0f} s")


def check(repository: Path) -> None:
    """Raise LockError unless locking again, as of the moment of the last time, gives the same files."""
    committed = _committed(repository)
    moment = _moment(committed)
    if moment is None:
        raise LockError(f"{UV_LOCK} is missing or was not written by scripts/lock.py: run make lock.")
    files = generate(repository, moment, _pins(committed))
    differing = [path for path, text in files.items() if text != committed.get(path)]
    if not differing:
        return
    theirs, ours = _format(files[UV_LOCK]), _format(committed[UV_LOCK])
    if theirs != ours:
        raise LockError(
            f"{uv_version()} writes lock format {theirs}, the template's lock has {ours}: run make lock with "
            "this uv and commit the result by itself, or go back to the uv that was used before."
        )
    raise LockError(
        f"{', '.join(differing)}: not what locking again gives. Run make lock and commit the result."
    )


def generate(repository: Path, moment: str, pins: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The texts of all generated files by path, from the index as it was at `moment` (ISO 8601).

    Raises LockError where uv finds no solution, a package lacks wheels, or the merged templates don't render
    exactly what uv wrote.
    """
    found = combinations(repository)
    locked, superset = lock_all(found, moment, pins)
    require_official_index(superset)
    _require_same_versions(found, locked)
    require_wheels(found, locked)
    names = sorted({name for name, _ in packages(superset)} - {PROJECT_NAME})
    files = {
        UV_LOCK: merged_locks(found, locked, moment),
        REQUIREMENTS: merged_requirements(found, locked),
        RESERVED_NAMES: reserved_names(names),
    }
    _require_exact(repository, files, found, locked)
    _report(files, found, locked, names)
    return files


# The committed files, and what they tell about the last time


def _committed(repository: Path) -> dict[str, str]:
    paths = [path for path in (UV_LOCK, REQUIREMENTS, RESERVED_NAMES) if (repository / path).exists()]
    return {path: (repository / path).read_text(encoding="utf-8") for path in paths}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_MOMENT = re.compile(r"(?<=the index as of )\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def _moment(files: Mapping[str, str]) -> str | None:
    found = _MOMENT.search(files.get(UV_LOCK, ""))
    return found[0] if found else None


def _at(moment: str, text: str) -> str:
    return _MOMENT.sub(moment, text, count=1)


def _pins(files: Mapping[str, str]) -> dict[str, list[str]]:
    """The locked versions by package, which need no place of their own: the lock's template has them all."""
    pins: dict[str, list[str]] = {}
    for name, version in packages(files.get(UV_LOCK, "")):
        if not name.startswith("{{"):
            pins.setdefault(name, []).append(version)
    return pins


def _format(lock: str) -> str:
    version, revision = (
        re.search(rf"^{field} = (\d+)$", lock, re.MULTILINE) for field in ("version", "revision")
    )
    return f"{version[1] if version else '?'}.{revision[1] if revision else 0}"


# What must hold before anything is written


def require_official_index(lock: str) -> None:
    """Raise LockError where a lock would send its users anywhere but to PyPI."""
    others = set(re.findall(r'"https?://([^/"]+)', lock)) - _HOSTS
    if others:
        raise LockError(f"The lock names {', '.join(sorted(others))}: lock with the public index only.")


def _require_same_versions(found: Sequence[Combination], locked: Sequence[Locked]) -> None:
    for combination, texts in zip(found, locked, strict=True):
        ours = {
            name_and_version
            for name_and_version in packages(texts.uv_lock)
            if name_and_version[0] != PROJECT_NAME
        }
        theirs = {
            (str(block.key[0]), str(block.key[1])) for block in requirement_blocks(texts.development)[1]
        }
        if ours != theirs:
            raise LockError(
                f"uv.lock and requirements-dev.txt pin different versions for {_answers(combination)}: "
                f"{sorted(ours ^ theirs)}."
            )


def require_wheels(found: Sequence[Combination], locked: Sequence[Locked]) -> None:
    """Raise LockError where an offered Python has to build a package and nothing says why that is fine."""
    requirements: dict[str, set[str]] = {}
    wheels: dict[str, dict[str, set[str]]] = {}
    for combination, texts in zip(found, locked, strict=True):
        version = str(combination.answers["python_version"])
        pinned = requirements.setdefault(version, set())
        pinned.update(
            block.lines[0].removesuffix(" \\") for block in requirement_blocks(texts.development)[1]
        )
        files = wheels.setdefault(version, {})
        for block in texts.uv_lock.split("\n[[package]]\n")[1:]:
            name = package_block(block).key[0]
            files.setdefault(name, set()).update(re.findall(r'/([^/"]+\.whl)"', block))
    missing = {
        (name, version)
        for version, pinned in requirements.items()
        for name in packages_without_wheel(version, pinned, wheels[version])
    }
    for name, version in sorted(missing):
        print(
            f"no wheel: {name} on Python {version} ({WITHOUT_WHEEL.get((name, version), 'no reason given')})"
        )
    if unexplained := missing - WITHOUT_WHEEL.keys():
        listed = ", ".join(f"{name} on Python {version}" for name, version in sorted(unexplained))
        raise LockError(
            f"No wheel for every platform: {listed}. Depend on something else, don't offer that combination, "
            "or say in WITHOUT_WHEEL of scripts/lock.py why a build is fine."
        )
    if needless := WITHOUT_WHEEL.keys() - missing:
        listed = ", ".join(f"{name} on Python {version}" for name, version in sorted(needless))
        raise LockError(f"{listed}: has wheels now, or is not locked any more. Remove it from WITHOUT_WHEEL.")


def _require_exact(
    repository: Path, files: Mapping[str, str], found: Sequence[Combination], locked: Sequence[Locked]
) -> None:
    jinja = environment(repository)
    uv_lock, requirements = (jinja.from_string(files[path]) for path in (UV_LOCK, REQUIREMENTS))
    for combination, texts in zip(found, locked, strict=True):
        rendered = Locked(
            uv_lock.render(combination.answers, project_name=PROJECT_NAME),
            requirements.render(combination.answers, development=False),
            requirements.render(combination.answers, development=True),
        )
        if rendered != texts:
            raise LockError(
                f"The merged template doesn't render what uv wrote for {_answers(combination)}: "
                "this is a mistake in scripts/lock_merge.py or lock_templates.py."
            )


def _answers(combination: Combination) -> str:
    return ", ".join(f"{name}={answer}" for name, answer in combination.answers.items())


def _report(
    files: Mapping[str, str], found: Sequence[Combination], locked: Sequence[Locked], names: Sequence[str]
) -> None:
    questions = ", ".join(found[0].answers)
    print(f"{len(found)} combinations of {questions}; {len(names)} packages; {uv_version()}")
    sizes = [[len(text.encode()) for text in vars(texts).values()] for texts in locked]
    for path, rendered in (
        (UV_LOCK, [size[:1] for size in sizes]),
        (REQUIREMENTS, [size[1:] for size in sizes]),
    ):
        flat = [size for each in rendered for size in each]
        conditions = files[path].count("{% if ") + files[path].count("{% else ")
        print(
            f"{path}: {len(files[path].encode()) / 1000:.0f} kB, {conditions} conditions; "
            f"renders {min(flat) / 1000:.0f} to {max(flat) / 1000:.0f} kB"
        )


if __name__ == "__main__":
    main()
