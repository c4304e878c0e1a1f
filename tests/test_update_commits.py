"""Tests that services of older commits take the working tree's template, whatever their owners did."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness import owners
from harness.clones import git
from harness.matrix import Answers, covering, label
from harness.owners import files, live_in, lost_lines
from harness.years import answers_of

pytestmark = pytest.mark.update

# The number of older commits that are tested, unless --all-commits asks for each.
SAMPLED = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "updated" not in metafunc.fixturenames:
        return
    if why := owners.why_no_history():
        metafunc.parametrize(
            "updated", [pytest.param(None, marks=pytest.mark.skip(reason=why))], indirect=True
        )
        return
    commits = owners.commits_that_render_anew()
    if not metafunc.config.getoption("all_commits"):
        commits = owners.evenly_spaced(commits, SAMPLED)
    # Each commit has the default answers and, in turn, one of the combinations that cover all pairs.
    others = itertools.cycle(covering())
    lives = [(ref, answers) for ref in commits for answers in ({}, next(others))]
    parameters = [
        pytest.param(life, id=f"{life[0]}-{label(life[1])}", marks=pytest.mark.xdist_group(f"{life}"))
        for life in lives
    ]
    metafunc.parametrize("updated", parameters, indirect=True, scope="module")


@dataclass
class Updated:
    """Holds a service's files before and after its update, and what the template rendered then and now."""

    service: Path
    answers: Answers
    then: owners.Files
    before: owners.Files
    after: owners.Files
    now: owners.Files
    written: dict[str, list[bytes]]

    @property
    def deleted(self) -> set[str]:
        """Return the files that the owner deleted."""
        return self.then.keys() - self.before.keys()

    def changed_by_owner(self, name: str) -> bool:
        return self.before.get(name) != self.then.get(name)

    def changed_by_template(self, name: str) -> bool:
        return self.now.get(name) != self.then.get(name)


@pytest.fixture(scope="module")
def updated(
    request: pytest.FixtureRequest, history: Path, tmp_path_factory: pytest.TempPathFactory
) -> Updated:
    """A service copied from an older commit, edited, and updated to the working tree's template."""
    ref, answers = request.param
    folder = tmp_path_factory.mktemp("updated")
    answers = {"project_name": "orders-api", **offered_then(history, ref, answers)}
    service = owners.own(owners.copy(history, folder / "orders-api", ref, **answers))
    then = files(service)
    written = live_in(service)
    before = files(service)
    owners.update(service)
    # A question that the commit didn't have may have another default in a new copy.
    now = files(owners.copy(history, folder / "now", "HEAD", **answers_of(service)))
    return Updated(service, answers, then, before, files(service), now, written)


def offered_then(history: Path, ref: str, answers: Answers) -> Answers:
    """Return those of the answers whose questions and choices the commit had."""
    questions = yaml.safe_load(git(history, "show", f"{ref}:copier.yml"))
    if "PyYAML" in repr(questions) and answers.get("server") == "fastapi":
        # Python 3.15 and `fastapi run` were refused together until PyYAML had a wheel.
        answers = {
            name: answer for name, answer in answers.items() if (name, answer) != ("python_version", "3.15")
        }
    return {
        name: answer
        for name, answer in answers.items()
        if name in questions and f"'{answer}'" in repr(questions[name].get("choices", f"'{answer}'"))
    }


def test_no_line_of_the_owner_is_lost(updated: Updated) -> None:
    assert lost_lines(updated.written, updated.after) == {}


def test_what_the_owner_deleted_stays_deleted(updated: Updated) -> None:
    assert updated.deleted
    assert updated.deleted & updated.after.keys() == set()


def test_what_only_the_template_changed_is_as_in_a_new_copy(updated: Updated) -> None:
    for name in updated.now.keys() | updated.then.keys():
        if not updated.changed_by_owner(name):
            assert updated.after.get(name) == updated.now.get(name), name


def test_what_only_the_owner_changed_is_untouched(updated: Updated) -> None:
    for name, text in updated.before.items():
        if not updated.changed_by_template(name) and name != owners.ANSWERS_FILE:
            assert updated.after.get(name) == text, name


def test_a_conflict_is_where_both_changed_a_file_and_git_knows_it(updated: Updated) -> None:
    conflicts = owners.conflicts(updated.service)
    assert owners.with_markers(updated.service) == conflicts
    for name in conflicts:
        assert updated.changed_by_owner(name), name
        assert updated.changed_by_template(name), name


# The modules beside a single file, which have moved before the first release. CHANGELOG.md says so to owners.
BESIDE = ("access_log.py", "errors.py", "logging.json", "logs.py", "request_log.py", "service.py")
MOVED = {name: f"app/{name}" for name in BESIDE}
# It also ends WebSockets now.
MOVED |= dict.fromkeys(("app/event_streams.py", "event_streams.py"), "app/open_streams.py")


def test_every_file_of_an_older_commit_still_has_its_place(updated: Updated) -> None:
    for name in updated.then.keys() - updated.now.keys():
        assert MOVED.get(name) in updated.now, name


def test_an_update_leaves_no_file_that_nobody_made(updated: Updated) -> None:
    assert updated.after.keys() <= updated.before.keys() | updated.now.keys()


def test_a_service_that_nobody_edited_is_as_a_new_copy(
    updated: Updated, history: Path, tmp_path: Path
) -> None:
    service = tmp_path / "orders-api"
    for name, text in updated.then.items():
        (service / name).parent.mkdir(parents=True, exist_ok=True)
        (service / name).write_bytes(text)
    owners.own(service)
    owners.update(service)
    assert files(service) == updated.now


def test_a_sample_of_commits_has_the_first_and_the_newest() -> None:
    assert owners.evenly_spaced("abcdefghij", 4) == ["a", "d", "g", "j"]
    assert owners.evenly_spaced("abc", 4) == ["a", "b", "c"]
