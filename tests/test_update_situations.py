"""Tests that the page has every situation in which Copier stops, with what to do."""

import re
import shutil
from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, git, run
from harness.owners import files
from harness.pages import page
from harness.updates import copier_update, follow, is_new, move_on, page_shell, page_text, start

pytestmark = pytest.mark.update


def relative(template: Path, service: Path) -> None:
    start(template, service)
    owners.replace(service / owners.ANSWERS_FILE, "^_src_path: .*$", "_src_path: ../copier-fastapi-of-old")
    commit(service, "The path of an older version")


def dirty_template(template: Path, service: Path) -> None:
    owners.replace(template / "template/.editorconfig", "^root = true$", "# not committed\nroot = true")
    with pytest.warns(UserWarning, match="Dirty template changes included automatically"):
        start(template, service)
    git(template, "checkout", "--quiet", ".")


def template_without_git(template: Path, service: Path) -> None:
    plain = shutil.copytree(template, template.parent / "plain", ignore=shutil.ignore_patterns(".git"))
    start(plain, service)


def template_out_of_git(template: Path, service: Path) -> None:
    start(template, service)
    shutil.rmtree(template / ".git")


def removed_answers(template: Path, service: Path) -> None:
    start(template, service)
    (service / owners.ANSWERS_FILE).unlink()
    commit(service, "No answers")
    (service / "README.md").write_text("Ours.\n")
    commit(service, "And life goes on")


def service_without_git(template: Path, service: Path) -> None:
    start(template, service)
    shutil.rmtree(service / ".git")


def uncommitted_changes(template: Path, service: Path) -> None:
    start(template, service)
    (service / "README.md").write_text("Ours.\n")


def newer_than_released(template: Path, service: Path) -> None:
    git(template, "tag", "v1.0.0")
    move_on(template, "# after the release")
    start(template, service, "HEAD")


SITUATIONS = {
    "The answers file is gone": removed_answers,
    "The service has uncommitted changes": uncommitted_changes,
    "The service is not in git": service_without_git,
    "The template is no longer where it was": relative,
    "The template had uncommitted changes when it was copied": dirty_template,
    "The template was copied from a folder that is not in git": template_without_git,
    "The template is no longer in git": template_out_of_git,
    "The service is newer than the newest release": newer_than_released,
}


def test_the_page_has_every_bad_situation() -> None:
    titles = re.findall(r"^### (.*)$", page("docs/troubleshoot-updates.md"), re.MULTILINE)
    assert {title for title in titles if title != "An answer was changed by hand"} == SITUATIONS.keys()


@pytest.mark.parametrize("title", SITUATIONS)
def test_copier_stops_with_the_sentence_of_the_page_and_changes_nothing(
    copier_fastapi: Path, tmp_path: Path, title: str
) -> None:
    service = tmp_path / "orders-api"
    SITUATIONS[title](copier_fastapi, service)
    before = files(service)
    done = copier_update(service)
    assert done.returncode == 1
    sentence = re.sub(r"<[A-Z]+>", r"\\S+", re.escape(page_text(title)))
    assert re.fullmatch(sentence, done.stderr.strip().splitlines()[-1]), done.stderr
    assert files(service) == before


@pytest.mark.parametrize("title", [title for title in SITUATIONS if page_shell(title)])
def test_what_the_page_says_gets_the_service_updated(
    copier_fastapi: Path, tmp_path: Path, title: str
) -> None:
    service = tmp_path / "orders-api"
    SITUATIONS[title](copier_fastapi, service)
    move_on(copier_fastapi)
    readme = (service / "README.md").read_text()
    [block] = page_shell(title)
    done = follow(block, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert is_new(service)
    assert owners.conflicts(service) == set()
    assert (service / "README.md").read_text() == readme


@pytest.mark.parametrize("absolute", [False, True])
def test_the_path_of_a_clone_may_be_relative_when_it_is_copied(
    copier_fastapi: Path, tmp_path: Path, absolute: bool
) -> None:
    source = copier_fastapi if absolute else copier_fastapi.name
    done = run("copier", "copy", "--defaults", str(source), "orders-api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    owners.own(tmp_path / "orders-api")
    move_on(copier_fastapi)
    assert copier_update(tmp_path / "orders-api").returncode == 0
    assert is_new(tmp_path / "orders-api")


def test_an_address_is_recorded_as_it_was_given(copier_fastapi: Path, tmp_path: Path) -> None:
    address = f"git+{copier_fastapi.as_uri()}"
    done = run("copier", "copy", "--defaults", address, "orders-api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"_src_path: {address}\n" in (tmp_path / "orders-api" / owners.ANSWERS_FILE).read_text()


@pytest.fixture
def changed_by_hand(copier_fastapi: Path, tmp_path: Path) -> Path:
    service = start(copier_fastapi, tmp_path / "orders-api")
    owners.replace(service / owners.ANSWERS_FILE, "^server: .*$", "server: gunicorn")
    commit(service, "Another server")
    return service


def test_an_answer_changed_by_hand_makes_none_of_its_files(changed_by_hand: Path) -> None:
    assert copier_update(changed_by_hand).returncode == 0
    assert not (changed_by_hand / "gunicorn.conf.py").exists()


def test_an_answer_changed_by_hand_is_changed_again_as_the_page_says(
    changed_by_hand: Path, copier_fastapi: Path, tmp_path: Path
) -> None:
    [block] = page_shell("An answer was changed by hand")
    done = follow(block, changed_by_hand, copier_fastapi)
    assert done.returncode == 0, done.stderr
    new = owners.copy(copier_fastapi, tmp_path / "new", project_name="orders-api", server="gunicorn")
    assert files(changed_by_hand) == files(new)
