"""Tests that every answer can become every other one, in services that people have changed."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import owners, running
from harness.clones import commit, git
from harness.matrix import MATRIX, Answers, combinations, facts, label, refusal, values
from harness.owners import files, live_in, lost_lines
from harness.updates import LOCKS, lock_again, make_environment
from harness.variants import variants

pytestmark = pytest.mark.update


@dataclass(frozen=True)
class Change:
    """Names an answer that becomes another one, with answers to the other questions that go with both."""

    question: str
    old: Any
    new: Any
    others: tuple[tuple[str, Any], ...]

    @property
    def before(self) -> Answers:
        return {"project_name": "orders-api", **dict(self.others), self.question: self.old}

    @property
    def after(self) -> Answers:
        return self.before | {self.question: self.new}

    def __str__(self) -> str:
        return f"{self.question}-{self.old}-{self.new}"


def files_are_alike(question: str) -> bool:
    """Tell whether the choices of a question differ only within files that all of them have."""
    return len({tuple(sorted(folders(question, value))) for value in values(question)}) == 1


def folders(question: str, value: Any) -> set[str]:
    return {name for name, fact in facts(**{question: value}).items() if fact == "."}


def in_a_cycle(question: str, old: Any, new: Any) -> bool:
    """Tell whether a choice follows another, so that each is the old one once and the new one once."""
    found = values(question)
    return found.index(new) == (found.index(old) + 1) % len(found)


def changes() -> Iterator[Change]:
    """Yield every ordered pair of choices of every question, or a cycle where all have the same files."""
    for question in MATRIX:
        rest = [name for name in MATRIX if name != question]
        for old, new in itertools.permutations(values(question), 2):
            if files_are_alike(question) and not in_a_cycle(question, old, new):
                continue
            others = next(
                answers
                for answers in combinations(*rest)
                if not refusal(answers | {question: old}) and not refusal(answers | {question: new})
            )
            yield Change(question, old, new, tuple(others.items()))


CHANGES = list(changes())
# Each choice once as the old answer and once as the new one.
CYCLE = [change for change in CHANGES if in_a_cycle(change.question, change.old, change.new)]
# From the default of each question to another choice comes first.
CYCLE.sort(key=lambda change: change.old != values(change.question)[0])
FROM_DEFAULTS = len(MATRIX)
OTHERS = [change for change in CHANGES if change not in CYCLE]


# The only changes that cause a conflict in the service of a typical owner, or of an owner who wrote nothing:
# the code that owners were told to move conflicts with the code of the package.
CONFLICTS = {"layout-single-file-package": {"app/main.py"}}


def in_groups(found: list[Change]) -> list[Any]:
    return [
        pytest.param(change, id=str(change), marks=pytest.mark.xdist_group(str(change))) for change in found
    ]


Copied = Callable[[Answers], Path]


@pytest.fixture(scope="session")
def copied(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Copied:
    """Put a service with these answers into git. Each set of answers is rendered once."""
    rendered: dict[str, Path] = {}

    def copied(answers: Answers) -> Path:
        key = label(answers)
        if key not in rendered:
            folder = tmp_path_factory.mktemp("copied") / "orders-api"
            rendered[key] = owners.own(owners.copy(repository, folder, **answers))
        return rendered[key]

    return copied


@pytest.mark.parametrize("change", variants(in_groups([*CYCLE, *OTHERS]), len(CYCLE)))
def test_another_answer_makes_the_same_service_as_a_new_copy(
    copied: Copied, tmp_path: Path, change: Change
) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    owners.update_as_told(service, **{change.question: change.new})
    to_merge = CONFLICTS.get(str(change), set())
    assert owners.conflicts(service) == to_merge
    made, new = files(service), files(copied(change.after))
    assert made.keys() == new.keys()
    assert [name for name in new if made[name] != new[name] and name not in to_merge] == []


# Files that a choice has and other choices lack, and that an owner has edited or is likely to edit.
EDITED = {
    ("package_manager", "uv"): {"uv.lock"},
    ("package_manager", "pip"): {"requirements.txt", "requirements-dev.txt"},
    ("server", "gunicorn"): {"gunicorn.conf.py"},
    ("server", "granian"): {"granian_server.py"},
    ("database", "sqlite"): {"app/models.py", "migrations/versions/0001_items.py"},
    ("database", "postgresql"): {"app/models.py", "migrations/versions/0001_items.py"},
    ("database", "mysql"): {"app/models.py", "migrations/versions/0001_items.py"},
    ("cache", "redis"): {"app/cache.py"},
    ("observability", "opentelemetry"): {"app/redaction.py"},
    ("proxy", "caddy"): {"deploy/caddy/Caddyfile"},
    ("proxy", "traefik"): {"deploy/traefik/service.yaml"},
    ("kubernetes", "yes"): {
        "deploy/kubernetes/base/kustomization.yaml",
        "deploy/kubernetes/base/deployment.yaml",
        "deploy/kubernetes/overlays/production/kustomization.yaml",
    },
    ("ci", "github"): {".github/workflows/ci.yml", ".github/workflows/release.yml", "renovate.json"},
    ("ci", "gitlab"): {".gitlab-ci.yml", "renovate.json"},
    ("layout", "single-file"): {"main.py"},
    ("layout", "package"): {"app/main.py", "app/settings.py", "app/items.py"},
}


def at_risk(change: Change) -> set[str]:
    return EDITED.get((change.question, change.old), set()) - EDITED.get((change.question, change.new), set())


@pytest.mark.parametrize("change", in_groups([change for change in CHANGES if at_risk(change)]))
def test_an_answer_that_would_delete_an_edited_file_is_refused_and_changes_nothing(
    copied: Copied, tmp_path: Path, change: Change
) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    for name in at_risk(change):
        (service / name).write_text((service / name).read_text() + "\n")
    commit(service, "Ours")
    before = files(service)
    with pytest.raises(ValueError, match=r"this would delete .*, with your edits") as refused:
        owners.update(service, **{change.question: change.new})
    assert all(name in str(refused.value) for name in at_risk(change))
    assert files(service) == before


# One change for each service before it
BEFORE = list({label(change.before): change for change in CHANGES if at_risk(change)}.values())


@pytest.mark.parametrize("change", in_groups(BEFORE))
def test_the_same_answers_again_are_never_refused(copied: Copied, tmp_path: Path, change: Change) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    owners.update(service, **change.before)
    assert files(service) == files(copied(change.before))


@pytest.mark.parametrize("change", variants(in_groups(CYCLE), FROM_DEFAULTS))
def test_another_answer_keeps_what_a_typical_owner_wrote_and_rarely_conflicts(
    copied: Copied, tmp_path: Path, change: Change
) -> None:
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    written = live_in(service, owners.TYPICAL)
    moved = owners.update_as_told(service, **{change.question: change.new})
    assert owners.conflicts(service) == CONFLICTS.get(str(change), set())
    assert owners.with_markers(service) == owners.conflicts(service)
    # Files that the owner was told to move or to delete are not lost by the update.
    assert lost_lines(written, files(service)).keys() <= set(moved)


def test_at_most_one_change_of_seven_meets_a_conflict() -> None:
    assert len(CONFLICTS) <= len(CYCLE) / 7
    assert CONFLICTS.keys() <= {str(change) for change in CYCLE}


@pytest.mark.parametrize("change", variants(in_groups(CYCLE), FROM_DEFAULTS))
def test_another_answer_keeps_what_an_owner_of_another_kind_wrote(
    copied: Copied, tmp_path: Path, change: Change
) -> None:
    """Check that edits in places of the template's own are not lost. They may conflict."""
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    written = live_in(service)
    moved = owners.update_as_told(service, **{change.question: change.new})
    lost = lost_lines(written, files(service))
    # Other files for which the new answer has no place are deleted, as the message before the update says.
    without_place = files(copied(change.before)).keys() - files(copied(change.after)).keys()
    assert lost.keys() <= without_place | set(moved)
    assert lost.keys() - set(moved) <= set(owners.deleted(service))
    assert owners.with_markers(service) == owners.conflicts(service)


# The tests are only collected, because a service with a database server needs that server to run them.
CHECKS = ("ruff check", "ruff format --check", "mypy .", "pytest --collect-only --quiet")
# What they read, and what decides with which packages. Ruff has nothing to change in any page of a service,
# which other tests show.
READ_BY_CHECKS = re.compile(r"(app|tests|migrations)/.*|[^/]*\.(py|toml|ini)|\.python-version")


def read_by_checks(service: Path) -> owners.Files:
    return {
        name: text for name, text in files(service).items() if READ_BY_CHECKS.fullmatch(name) or name in LOCKS
    }


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("change", variants(in_groups(CYCLE), 3))
def test_a_typical_service_passes_its_checks_after_another_answer(
    copied: Copied, tmp_path: Path, change: Change
) -> None:
    if str(change) in CONFLICTS or "single-file" in (change.old, change.new):
        pytest.skip("the owner has to merge or to move files first")
    if missing := running.missing_python(str((dict(change.others) | change.after)["python_version"])):
        pytest.skip(missing)
    service = shutil.copytree(copied(change.before), tmp_path / "orders-api")
    live_in(service, owners.TYPICAL)
    if read_by_checks(copied(change.before)) == read_by_checks(copied(change.after)):
        before = read_by_checks(service)
        owners.update_as_told(service, skip=LOCKS, **{change.question: change.new})
        # The same files have the same results, which the changes of other answers show.
        assert read_by_checks(service) == before
        return
    lock_again(service)
    git(service, "commit", "--quiet", "--allow-empty", "--all", "--message", "Lock")
    owners.update_as_told(service, skip=LOCKS, **{change.question: change.new})
    assert owners.conflicts(service) == set()
    lock_again(service)
    make_environment(service)
    for check in CHECKS:
        running.run(check, service)
    if change.after["database"] in {"none", "sqlite"} and change.after["cache"] == "none":
        running.run("pytest", service)
