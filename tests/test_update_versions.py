"""Tests that tags decide which version a service gets."""

from pathlib import Path

import pytest

from harness import owners
from harness.clones import git, run
from harness.pages import blocks, page, section
from harness.updates import copier_update, follow, is_new, move_on, start

pytestmark = pytest.mark.update


def test_without_a_tag_the_newest_commit_is_taken(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    owners.update(service)
    assert is_new(service)


def test_with_a_tag_a_later_commit_waits_for_the_next_tag(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    owners.update(service)
    assert not is_new(service)
    git(copier_fastapi, "tag", "v1.0.1")
    owners.update(service)
    assert is_new(service)


def test_a_later_commit_is_taken_when_it_is_asked_for(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    done = copier_update(service, "--vcs-ref", "HEAD")
    assert done.returncode == 0, done.stderr
    assert is_new(service)


def test_a_service_from_before_the_first_tag_moves_to_it(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    git(copier_fastapi, "tag", "v1.0.0")
    owners.update(service)
    assert is_new(service)
    assert "_commit: v1.0.0\n" in (service / owners.ANSWERS_FILE).read_text()


def test_a_prerelease_is_taken_only_when_it_is_asked_for(copier_fastapi: Path, tmp_path: Path) -> None:
    git(copier_fastapi, "tag", "v1.0.0")
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    git(copier_fastapi, "tag", "v2.0.0rc1")
    owners.update(service)
    assert not is_new(service)
    assert copier_update(service, "--prereleases").returncode == 0
    assert is_new(service)


def test_the_commands_of_the_page_make_a_release(copier_fastapi: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(published))
    git(copier_fastapi, "remote", "add", "origin", str(published))
    git(copier_fastapi, "branch", "--move", "--force", "main")
    [(_, block)] = blocks(section(page("docs/releasing.md"), "Make a release"))
    done = follow(block, copier_fastapi, copier_fastapi)
    assert done.returncode == 0, done.stderr
    done = run("copier", "copy", "--defaults", f"git+{published.as_uri()}", "orders-api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_commit: v1.0.0\n" in (tmp_path / "orders-api" / owners.ANSWERS_FILE).read_text()
