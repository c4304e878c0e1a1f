"""Tests that a conflict keeps both sides, and is seen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import owners, running
from harness.clones import commit, git, run
from harness.matrix import values
from harness.updates import copier_update, follow, hook, is_new, move_on, page_shell, start

pytestmark = pytest.mark.update


@pytest.fixture
def conflicting(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service whose update will conflict: its owner and the template changed the same line."""
    service = start(copier_fastapi, tmp_path / "orders-api")
    owners.replace(service / ".editorconfig", "^root = true$", "root = true  # ours")
    (service / "CODEOWNERS").write_text("ours\n")
    commit(service, "Ours")
    owners.replace(copier_fastapi / "template/.editorconfig", "^root = true$", "root = true  # theirs")
    (copier_fastapi / "template/CODEOWNERS").write_text("theirs\n")
    commit(copier_fastapi, "Theirs")
    return service


def test_a_conflict_keeps_both_sides_and_git_refuses_the_commit(conflicting: Path) -> None:
    assert copier_update(conflicting).returncode == 0
    assert owners.conflicts(conflicting) == {".editorconfig", "CODEOWNERS"}
    for name in (".editorconfig", "CODEOWNERS"):
        text = (conflicting / name).read_text()
        assert "ours" in text
        assert "theirs" in text
    assert run("git", "commit", "--message", "Too early", cwd=conflicting).returncode != 0


def test_the_scheduled_job_fails_on_a_conflict_and_names_the_files(
    conflicting: Path, copier_fastapi: Path
) -> None:
    [job] = page_shell("Update without anybody there")
    done = follow(job, conflicting, copier_fastapi)
    assert done.returncode != 0
    assert done.stdout.split() == [".editorconfig", "CODEOWNERS"]


def test_the_scheduled_job_asks_nothing_and_succeeds_without_a_conflict(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    [job] = page_shell("Update without anybody there")
    done = follow(job, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert is_new(service)


def test_check_update_says_with_its_exit_code_whether_there_is_anything_new(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    assert run("copier", "check-update", "--quiet", cwd=service).returncode == 0
    move_on(copier_fastapi)
    assert run("copier", "check-update", "--quiet", cwd=service).returncode == 2


def stage(service: Path) -> None:
    git(service, "add", "--all")


def stage_and_commit(service: Path) -> None:
    commit(service, "With markers")


@pytest.mark.parametrize("then", [lambda service: None, stage, stage_and_commit])
def test_the_hook_refuses_the_markers_of_an_update(conflicting: Path, then: Callable[[Path], None]) -> None:
    copier_update(conflicting)
    then(conflicting)
    done = hook(conflicting)
    assert done.returncode != 0
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {".editorconfig", "CODEOWNERS"}


def test_the_hook_passes_once_they_are_resolved(conflicting: Path) -> None:
    copier_update(conflicting)
    git(conflicting, "checkout", "--ours", "--", ".editorconfig", "CODEOWNERS")
    stage(conflicting)
    assert hook(conflicting).returncode == 0


def test_the_hook_passes_in_a_new_service_of_every_package_manager(repository: Path, tmp_path: Path) -> None:
    for package_manager in values("package_manager"):
        service = owners.copy(repository, tmp_path / package_manager, package_manager=package_manager)
        assert hook(owners.own(service)).returncode == 0


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_prek_refuses_the_commit_of_markers_and_git_alone_does_not(conflicting: Path) -> None:
    running.run("uv sync --locked --quiet\nprek install", conflicting)
    copier_update(conflicting)
    git(conflicting, "add", "--all")
    refused = run("git", "commit", "--message", "With markers", cwd=conflicting)
    assert refused.returncode != 0
    assert "conflict markers" in refused.stderr
    assert "Failed" in refused.stderr
    git(conflicting, "commit", "--quiet", "--no-verify", "--message", "With markers")
    with pytest.raises(AssertionError, match=r"\.editorconfig:1:<<<<<<<"):
        running.run("prek run --all-files", conflicting)
