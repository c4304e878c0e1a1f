"""The question `ci` takes no workflow from an owner who has some, whatever is answered and when."""

from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, run
from harness.owners import conflicts, files
from harness.updates import copier_update, start

pytestmark = pytest.mark.update

# What owners have who chose a place for their service before the template did.
OWN = {
    ".github/workflows/ci.yml": "name: Ours\n",
    ".github/workflows/release.yml": "name: Our release\n",
    ".github/workflows/update.yml": "name: Our update\n",
    ".gitlab-ci.yml": "stages: [ours]\n",
    "renovate.json": '{"extends": ["ours"]}\n',
}


def write_own(folder: Path) -> None:
    for name, text in OWN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def untouched(service: Path) -> set[str]:
    """Return the owner's files that an update left as they were."""
    return {name for name, text in OWN.items() if (service / name).read_text() == text}


@pytest.fixture
def older(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service with workflows of its owner, made before the question was there. The template has it now."""
    configuration = copier_fastapi / "copier.yml"
    text = configuration.read_text()
    configuration.write_text(owners.without_question(text, "ci", "none"))
    commit(copier_fastapi, "Before the question")
    service = start(copier_fastapi, tmp_path / "orders-api")
    assert "\nci:" not in (service / owners.ANSWERS_FILE).read_text()
    write_own(service)
    commit(service, "Ours")
    configuration.write_text(text)
    commit(copier_fastapi, "The question")
    return service


@pytest.fixture
def service(copier_fastapi: Path, tmp_path: Path) -> Path:
    """A service with workflows of its owner, who answered `none`."""
    service = start(copier_fastapi, tmp_path / "orders-api", ci="none")
    write_own(service)
    commit(service, "Ours")
    return service


@pytest.mark.parametrize("options", [(), ("--data", "ci=none")], ids=["defaults", "none"])
def test_an_update_that_brings_the_question_leaves_an_owners_workflows_alone(
    older: Path, options: tuple[str, ...]
) -> None:
    before = files(older)
    assert copier_update(older, *options).returncode == 0
    after = files(older)
    assert "\nci: none\n" in after[owners.ANSWERS_FILE].decode()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        owners.ANSWERS_FILE
    }


BROUGHT = {
    "github": OWN.keys() - {".gitlab-ci.yml"},
    "gitlab": {".gitlab-ci.yml", "renovate.json"},
}


@pytest.mark.parametrize("ci", BROUGHT)
def test_an_answer_that_brings_a_file_which_an_owner_has_keeps_the_owners_lines_in_a_conflict(
    service: Path, ci: str
) -> None:
    assert copier_update(service, "--data", f"ci={ci}").returncode == 0
    assert conflicts(service) == BROUGHT[ci]
    assert untouched(service) == OWN.keys() - BROUGHT[ci]
    for name in BROUGHT[ci]:
        assert (service / name).read_text().startswith(f"<<<<<<< before updating\n{OWN[name]}=======\n")


@pytest.mark.parametrize("ci", BROUGHT)
def test_an_answer_to_the_new_question_keeps_the_owners_lines_too(older: Path, ci: str) -> None:
    assert copier_update(older, "--data", f"ci={ci}").returncode == 0
    assert conflicts(older) == BROUGHT[ci]
    assert untouched(older) == OWN.keys() - BROUGHT[ci]


def test_the_same_answer_again_is_not_refused_for_workflows_of_the_owner(service: Path) -> None:
    before = files(service)
    assert copier_update(service, "--data", "ci=none").returncode == 0
    assert files(service) == before


def test_a_copy_into_a_folder_with_workflows_overwrites_none_without_being_told_to(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "orders-api"
    write_own(folder)
    copied = run("copier", "copy", "--defaults", str(copier_fastapi), str(folder), cwd=tmp_path)
    # Copier asks before it overwrites a file, and here is nobody to answer.
    assert "Interactive session required" in copied.stderr
    assert untouched(folder) == OWN.keys()


def test_a_copy_into_a_folder_with_a_project_brings_no_workflows(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "orders-api"
    write_own(folder)
    (folder / "pyproject.toml").write_text("")
    # It overwrites the project, and has nothing to put in the place of the workflows.
    copied = run(
        "copier", "copy", "--defaults", "--overwrite", str(copier_fastapi), str(folder), cwd=tmp_path
    )
    assert copied.returncode == 0, copied.stderr
    assert untouched(folder) == OWN.keys()
