"""Tests that an updated service can be locked, installed, checked and started."""

from pathlib import Path
from typing import Any

import pytest

from harness import owners, running
from harness.clones import commit, git
from harness.containers import Container, build, docker, unique
from harness.matrix import ROOT, values
from harness.owners import live_in
from harness.pages import service_section, shell
from harness.updates import follow, hook, is_new, lock_again, make_environment, move_on, page_shell, start
from harness.variants import variants

pytestmark = pytest.mark.update

PYTHON = values("python_version")[0]
CHECKS = ("pytest", "ruff check", "ruff format --check", "mypy .")


def resolve(service: Path) -> None:
    """Choose between the markers as an owner might: take the template's lines, and add the owner's again."""
    conflicts = owners.conflicts(service)
    for name in conflicts:
        side = "--ours" if name == "README.md" else "--theirs"
        git(service, "checkout", side, "--", name)
    if "pyproject.toml" in conflicts:
        owners.add_a_dependency(service)
        owners.change_a_pin(service)
    if "app/main.py" in conflicts:
        owners.include_the_route(service / "app/main.py")
        owners.exclude_the_example(service / "app/main.py")


def updated_and_locked(history: Path, service: Path, ref: str, package_manager: str) -> Path:
    """Copy a service of an older commit, edit, lock and update it, and repair it as the page says."""
    start(history, service, ref, package_manager=package_manager)
    live_in(service)
    if package_manager == "uv":
        running.run("uv lock", service)
        commit(service, "Lock")
    owners.update(service)
    resolve(service)
    lock_again(service)
    commit(service, "Update from copier-fastapi")
    return service


def older_commits(*package_managers: str, number: int) -> list[Any]:
    if why := owners.why_no_history():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=why))]
    commits = owners.evenly_spaced(owners.commits_that_render_anew(), number)
    return [pytest.param(ref, manager) for ref in commits for manager in package_managers]


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(("ref", "package_manager"), variants(older_commits("uv", "pip", number=2), 2))
def test_an_updated_service_passes_its_own_checks(
    history: Path, tmp_path: Path, ref: str, package_manager: str
) -> None:
    service = updated_and_locked(history, tmp_path / "orders-api", ref, package_manager)
    make_environment(service)
    for check in CHECKS:
        running.run(check, service)


def first_with_a_dockerfile() -> list[Any]:
    for parameters in older_commits("uv", number=10**6):
        if parameters.marks or git(ROOT, "ls-tree", parameters.values[0], "template/Dockerfile.jinja"):
            return [parameters]
    raise AssertionError("no commit has a Dockerfile")


@pytest.mark.docker
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize(("ref", "package_manager"), first_with_a_dockerfile())
def test_the_image_of_an_updated_service_serves_the_owners_route(
    history: Path, tmp_path: Path, ref: str, package_manager: str
) -> None:
    service = updated_and_locked(history, tmp_path / "orders-api", ref, package_manager)
    tag = unique("updated")
    build(service, tag)
    try:
        with Container(tag) as container:
            container.wait_until_healthy()
            assert container.get("/orders/5").json() == {"number": 5}
            assert container.python("import os; print(os.environ['ORDERS_LIMIT'])") == "10"
    finally:
        docker("image", "rm", "--force", tag)


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_an_update_can_be_followed_on_the_page(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    move_on(copier_fastapi)
    for block in page_shell("Take what is new"):
        done = follow(block, service, copier_fastapi)
        assert done.returncode == 0, done.stderr
    assert is_new(service)
    assert git(service, "status", "--porcelain") == ""


@pytest.mark.project
@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_a_service_is_updated_as_its_own_page_says(
    copier_fastapi: Path, tmp_path: Path, package_manager: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", package_manager=package_manager)
    move_on(copier_fastapi)
    [block] = shell(service_section(service, "Update"))
    done = follow(block, service, copier_fastapi)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert is_new(service)
    # The last command lists what conflicts.
    (service / ".editorconfig").write_text("ours\n")
    commit(service, "Ours")
    move_on(copier_fastapi, "# newer in the template")
    assert follow(block, service, copier_fastapi).stdout == ".editorconfig\n"


@pytest.fixture
def conflicting_locks(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service whose owner limits a dependency, which the template has since moved to a newer version."""
    parts = copier_fastapi / "includes/parts.jinja"
    lock = copier_fastapi / "includes/generated/uv.lock.jinja"
    newest = parts.read_text(), lock.read_text()
    owners.replace(parts, r"'pydantic-settings>=([\d.]+)'", r"'pydantic-settings>=\1.0'")
    owners.replace(lock, r'(name = "pydantic-settings", specifier = ">=[\d.]+)"', r'\1.0"')
    commit(copier_fastapi, "An older version")
    service = start(copier_fastapi, tmp_path / "orders-api")
    running.run("uv add --no-sync 'pydantic-settings<99' tenacity", service)
    commit(service, "Ours")
    parts.write_text(newest[0])
    lock.write_text(newest[1])
    commit(copier_fastapi, "A newer version")
    return service


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_a_conflict_in_the_lock_is_resolved_as_the_page_says(
    conflicting_locks: Path, copier_fastapi: Path
) -> None:
    service = conflicting_locks
    owners.update(service)
    show, repair = page_shell("Resolve a conflict")
    assert follow(show, service, copier_fastapi).stdout.split() == ["pyproject.toml", "uv.lock"]
    git(service, "checkout", "--ours", "--", "pyproject.toml")
    done = follow(repair, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    running.run("uv lock --check", service)
    assert 'name = "tenacity"' in (service / "uv.lock").read_text()
    assert hook(service).returncode == 0
