"""Owners take a year of releases with the commands of the page on updates.

`pytest tests/test_update_year.py --all-commits -rP` prints the conflicts of each owner with each release.
"""

from pathlib import Path

import pytest

from harness import owners, running
from harness.owners import files
from harness.releases import NEW_FILES, NEWEST, SERVERS, YEAR
from harness.updates import make_environment, page_shell
from harness.variants import variants
from harness.years import EACH, OWNERS, Life, live

pytestmark = [pytest.mark.update, pytest.mark.project, pytest.mark.usefixtures("newest_python")]

# The owners and releases that stand for the rest, unless --all-commits asks for each.
SAMPLED_OWNERS = {"untouched, with the template's lock", "typical", "a bot pins in pyproject.toml"}
SAMPLED_RELEASES = ("v1.4.0", "v2.0.1")

CHECKS = ("ruff check", "ruff format --check", "mypy .")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "life" in metafunc.fixturenames:
        everything = metafunc.config.getoption("all_commits")
        parameters = [
            pytest.param(owner, id=owner.name, marks=pytest.mark.xdist_group(owner.name))
            for owner in OWNERS
            if everything or owner.name in SAMPLED_OWNERS
        ]
        parameters = variants(parameters, len(OWNERS) if everything else 2)
        metafunc.parametrize("life", parameters, indirect=True, scope="module")


@pytest.fixture(scope="module")
def life(request: pytest.FixtureRequest, year: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The year of an owner."""
    taken = EACH if request.config.getoption("all_commits") else SAMPLED_RELEASES
    return live(request.param, year, tmp_path_factory.mktemp("life"), taken)


def test_conflicts_are_rare_for_those_who_edit_and_none_for_others(life: Life) -> None:
    for step in life.steps:
        print(f"{life.owner}: {step.release.tag}, {step.release.changes}: {', '.join(step.conflicts) or '-'}")
    assert len(life.conflicts) <= life.owner.conflicts, life.conflicts


def test_no_line_of_the_owner_is_lost(life: Life) -> None:
    assert {step.release.tag: step.lost for step in life.steps if step.lost} == {}


def test_no_version_in_the_lock_goes_backwards(life: Life) -> None:
    assert {step.release.tag: step.backwards for step in life.steps if step.backwards} == {}


def test_the_lock_is_what_the_service_asks_for(life: Life) -> None:
    assert {step.release.tag: step.problem for step in life.steps if step.problem} == {}


def test_a_new_question_adds_no_file(life: Life) -> None:
    assert files(life.service).keys() & NEW_FILES == set()


def test_a_new_service_has_the_files_of_the_new_questions(year: Path, tmp_path: Path) -> None:
    service = owners.copy(year, tmp_path / "orders-api", NEWEST.tag)
    assert files(service).keys() >= NEW_FILES
    assert "caddy:2" in (service / "compose.yaml").read_text()


def test_a_service_that_nobody_edited_is_as_a_new_copy(life: Life) -> None:
    """Only a lock that its owner keeps may differ."""
    own = {"uv.lock"} if life.owner.keeps_lock else set()
    different = {step.release.tag: step.unlike_a_new_copy - own for step in life.steps}
    assert {tag: names for tag, names in different.items() if names} == {}


def test_the_service_passes_its_checks_at_the_end(life: Life) -> None:
    make_environment(life.service)
    for check in CHECKS:
        running.run(check, life.service)
    # A service with a database server needs that server for its tests.
    needs_servers = life.owner.answers == SERVERS
    running.run("pytest --collect-only --quiet" if needs_servers else "pytest", life.service)


def test_owners_type_what_the_page_says() -> None:
    assert page_shell("Take what is new")[0] == "copier update --defaults --skip uv.lock\nuv lock\n"


def test_the_year_has_six_dates_of_the_index() -> None:
    assert len(YEAR) == 15
    assert len({release.moment for release in YEAR if release.pins}) == 6
