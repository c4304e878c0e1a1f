"""Owners who take the template's releases for a year, with the commands of the page on updates."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

from harness import owners, running
from harness.clones import commit, git
from harness.matrix import Answers
from harness.owners import added_lines, conflicts, files, lost_lines
from harness.releases import FIRST, NEWEST, PIP, SERVERS, YEAR, Release, lock, locked
from harness.updates import LOCKS, compile_commands, start

# Between two releases, owners and bots work on the day before the second of them.
DAY = timedelta(days=1)

Work = Callable[[Path, datetime, int], None]


@dataclass(frozen=True)
class Owner:
    """An owner with answers, who edits the service at the start and works between two releases."""

    name: str
    answers: Answers = field(default_factory=dict)
    edits: tuple[owners.Edit, ...] = ()
    work: Work = lambda service, moment, number: None
    # The releases after the first that the owner takes, if not all.
    takes: tuple[str, ...] = ()
    # The updates of a year that may meet a conflict.
    conflicts: int = 0
    # Whether the owner leaves the lock out of updates and locks again, as the page says.
    keeps_lock: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Step:
    """An update to a release, and what came of it."""

    release: Release
    conflicts: set[str]
    lost: dict[str, list[bytes]]
    backwards: dict[str, tuple[Version, Version]]
    new: set[str]
    # What the command that locks again, or that checks the lock, printed when it failed.
    problem: str
    # The files that differ from those of a new copy, for an owner who changes nothing.
    unlike_a_new_copy: set[str]


@dataclass(frozen=True)
class Life:
    """A year of an owner, and the service at its end."""

    owner: Owner
    service: Path
    steps: list[Step]

    @property
    def conflicts(self) -> dict[str, set[str]]:
        return {step.release.tag: step.conflicts for step in self.steps if step.conflicts}


# What owners do between two releases


def add(service: Path, moment: datetime, requirement: str, *, development: bool = False) -> None:
    """Add a dependency with uv, or by hand to the end of a list, and lock."""
    if (service / "uv.lock").exists():
        lock(service, moment, f"uv add --no-sync {'--dev ' if development else ''}'{requirement}'")
        return
    own = "    # The service's own:\n"
    runtime, dev, rest = (service / "pyproject.toml").read_text().split(own)
    line = f'    "{requirement}",\n'
    runtime_own, development_own = ("", line) if development else (line, "")
    (service / "pyproject.toml").write_text(f"{runtime}{own}{runtime_own}{dev}{own}{development_own}{rest}")
    lock_again(service, moment)


def lock_again(service: Path, moment: datetime) -> None:
    """Lock as the page says after an update, with the index as of a moment."""
    if (service / "uv.lock").exists():
        lock(service, moment)
        return
    for command in compile_commands(service):
        lock(service, moment, f"{command} --quiet")


ADDED = (
    ("anyio", "coverage"),
    ("zstandard", "zipp"),
    ("orjson", "freezegun"),
    ("babel", "pytest-randomly"),
    ("tenacity", "hypothesis"),
    ("httpx", "rich"),
    ("email-validator", "aiofiles"),
)


def add_two_dependencies(service: Path, moment: datetime, number: int) -> None:
    """Add one to each list, before every second release, from all over the alphabet."""
    if number % 2 == 0:
        runtime, development = ADDED[number // 2]
        add(service, moment, runtime)
        add(service, moment, development, development=True)


def add_the_dependencies_of_a_typical_owner(service: Path, moment: datetime, number: int) -> None:
    if number == 0:
        add(service, moment, "tenacity")
        add(service, moment, "freezegun", development=True)


def move_all_pins(service: Path, moment: datetime, number: int) -> None:
    """Do what Renovate's lockFileMaintenance does."""
    if (service / "uv.lock").exists():
        lock(service, moment, "uv lock --upgrade")
        return
    for command in compile_commands(service):
        lock(service, moment, f"{command} --quiet --upgrade")


def move_two_pins(service: Path, moment: datetime, number: int) -> None:
    """Do what a bot does that is told of two packages."""
    lock(service, moment, "uv lock --upgrade-package fastapi --upgrade-package ruff")


REQUIREMENT = re.compile(r'^(    "([\w-]+)(?:\[[\w,]+\])?)(?:(?:>=|==)[\w.]+)?(?=[";])', re.MULTILINE)


def pin_in_pyproject(service: Path, moment: datetime, number: int) -> None:
    """Do what Renovate's rangeStrategy=pin does: each requirement becomes the newest version."""
    pyproject = service / "pyproject.toml"
    # Renovate reads the lists of dependencies, and no other settings of uv.
    lists, tools, rest = pyproject.read_text().partition("\n[tool.")
    pyproject.write_text(REQUIREMENT.sub(r"\1", lists) + tools + rest)
    move_all_pins(service, moment, number)
    versions = {name: max(each) for name, each in locked(service).items()}
    pinned = REQUIREMENT.sub(lambda found: f"{found[1]}=={versions[found[2]]}", lists)
    pyproject.write_text(pinned + tools + rest)
    lock(service, moment)


TYPICAL = tuple(edit for edit in owners.TYPICAL if edit is not owners.add_own_dependencies)

OWNERS = (
    Owner("untouched"),
    Owner("untouched, with the template's lock", keeps_lock=False),
    Owner("untouched, PostgreSQL, Redis and Granian", SERVERS),
    Owner("typical", edits=TYPICAL, conflicts=1, work=add_the_dependencies_of_a_typical_owner),
    Owner(
        "typical, PostgreSQL, Redis and Granian",
        SERVERS,
        edits=TYPICAL,
        conflicts=1,
        work=add_the_dependencies_of_a_typical_owner,
    ),
    Owner(
        "typical, in one step",
        edits=TYPICAL,
        conflicts=1,
        work=add_the_dependencies_of_a_typical_owner,
        takes=(NEWEST.tag,),
    ),
    Owner("adds dependencies", work=add_two_dependencies, conflicts=1),
    Owner("adds dependencies, pip", PIP, work=add_two_dependencies, conflicts=1),
    Owner("a bot moves all pins", work=move_all_pins),
    Owner("a bot moves fastapi and ruff", work=move_two_pins),
    # Where a floor rises, the template and the bot change the same line: in two releases.
    Owner("a bot pins in pyproject.toml", work=pin_in_pyproject, conflicts=2),
)


# The year

EACH = tuple(release.tag for release in YEAR[1:])


def answers_of(service: Path) -> Answers:
    recorded: dict[str, Any] = yaml.safe_load((service / owners.ANSWERS_FILE).read_text())
    return {name: answer for name, answer in recorded.items() if not name.startswith("_")}


def still_there(written: dict[str, list[bytes]], now: owners.Files) -> dict[str, list[bytes]]:
    """Return the lines that an owner wrote and has not removed since."""
    kept = {}
    for name, lines in written.items():
        if left := Counter(lines) & Counter(now.get(name, b"").splitlines()):
            kept[name] = list(left.elements())
    return kept


def together(some: dict[str, list[bytes]], others: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    return {name: some.get(name, []) + others.get(name, []) for name in some.keys() | others.keys()}


def backwards(
    before: dict[str, set[Version]], after: dict[str, set[Version]]
) -> dict[str, tuple[Version, Version]]:
    """Return the packages whose newest locked version became older."""
    return {
        name: (max(before[name]), max(after[name]))
        for name in before.keys() & after.keys()
        if max(after[name]) < max(before[name])
    }


def settle(service: Path) -> None:
    """Resolve conflicts by keeping the owner's side."""
    if found := conflicts(service):
        git(service, "checkout", "--ours", "--", *sorted(found))


def problem_of_the_lock(service: Path, moment: datetime) -> str:
    """Lock again and check the lock; return what was printed if either failed."""
    try:
        lock_again(service, moment)
        if (service / "uv.lock").exists():
            running.run("uv lock --check", service)
    except AssertionError as failed:
        return str(failed)
    return ""


def unlike(service: Path, template: Path, tag: str, folder: Path) -> set[str]:
    """Return the files in which a service differs from a new copy with its answers."""
    new = files(owners.copy(template, folder / "orders-api", tag, **answers_of(service)))
    shutil.rmtree(folder)
    now = files(service)
    return {name for name in now.keys() | new.keys() if now.get(name) != new.get(name)}


def live(owner: Owner, year: Path, folder: Path, taken: Sequence[str] = EACH) -> Life:
    """Copy a service of the first release, and take others one after another as they are tagged."""
    template = folder / "copier-fastapi"
    git(year.parent, "clone", "--quiet", "--no-tags", str(year), str(template))
    service = folder / "orders-api"

    def publish(release: Release) -> None:
        git(template, "tag", release.tag, git(year, "rev-parse", f"{release.tag}^{{commit}}").strip())

    publish(FIRST)
    start(template, service, **owner.answers)
    written: dict[str, list[bytes]] = {}
    steps = []
    tags = owner.takes or taken
    for number, release in enumerate(release for release in YEAR if release.tag in tags):
        before = files(service)
        if number == 0:
            for edit in owner.edits:
                edit(service)
        owner.work(service, release.moment - DAY, number)
        git(service, "add", "--all")
        git(service, "commit", "--quiet", "--allow-empty", "--message", "Ours")
        now = files(service)
        written = still_there(together(written, added_lines(before, now)), now)
        written = {name: lines for name, lines in written.items() if name not in LOCKS}
        versions = locked(service)
        publish(release)
        owners.update(service, skip=LOCKS if owner.keeps_lock else ())
        found = conflicts(service)
        after = files(service)
        different = set() if written else unlike(service, template, release.tag, folder / "new")
        settle(service)
        problem = problem_of_the_lock(service, release.moment) if owner.keeps_lock else ""
        steps.append(
            Step(
                release,
                found,
                lost_lines(written, after),
                backwards(versions, locked(service)),
                after.keys() - now.keys(),
                problem,
                different,
            )
        )
        commit(service, f"Update to {release.tag}")
    return Life(owner, service, steps)
