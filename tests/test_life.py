"""Tests the ordinary life of a template: it is copied, it changes, and its services take the changes."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from harness.clones import clone, commit, git, run
from harness.matrix import ASKED


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def repository(pristine: Path, tmp_path: Path) -> Path:
    """A clone of the template that the test may change."""
    git(tmp_path, "clone", "--quiet", str(pristine), "copier-fastapi")
    return tmp_path / "copier-fastapi"


# The example of a service that stores nothing, in template/.
EXAMPLE = "template/{{ with_stateless_package }}/app/items.py.jinja"


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


# With pytest-copie, which puts every exception into its result


@pytest.fixture
def service(copie: Any, repository: Path) -> Any:
    """A service in git, as copied from the repository."""
    result = copie.copy(template_dir=repository)
    assert (result.exit_code, result.exception) == (0, None)
    git(result.project_dir, "init", "--quiet")
    commit(result.project_dir, "Start from copier-fastapi")
    return result


def test_a_copy_has_the_answers_that_were_given(copie: Any, repository: Path) -> None:
    result = copie.copy({"server": "granian", "workers": 4}, template_dir=repository)
    assert (result.exit_code, result.exception) == (0, None)
    assert result.answers["server"] == "granian"
    assert result.answers.keys() == ASKED.keys()
    assert (result.project_dir / "granian_server.py").exists()


def test_a_copy_with_a_wrong_answer_fails_with_a_sentence(copie: Any, repository: Path) -> None:
    result = copie.copy({"workers": 65}, template_dir=repository)
    assert result.exit_code != 0
    assert "a whole number from 1 to 64" in str(result.exception)


@pytest.mark.update
def test_an_update_brings_the_change_and_keeps_the_edit(copie: Any, repository: Path, service: Any) -> None:
    items = service.project_dir / "app" / "items.py"
    edited = items.read_text().replace('prefix="/items"', 'prefix="/orders"')
    items.write_text(edited)
    commit(service.project_dir, "Orders")
    readme = repository / "template" / "README.md.jinja"
    readme.write_text(readme.read_text() + "\nNew in the template.\n")
    commit(repository, "Say something new")

    result = copie.update(service)

    assert (result.exit_code, result.exception) == (0, None)
    assert "New in the template." in (service.project_dir / "README.md").read_text()
    assert items.read_text() == edited
    changed = git(service.project_dir, "status", "--porcelain").split()[1::2]
    assert sorted(changed) == [".copier-answers.yml", "README.md"]


@pytest.mark.update
def test_an_update_leaves_a_deleted_file_deleted(copie: Any, repository: Path, service: Any) -> None:
    git(service.project_dir, "rm", "--quiet", "app/items.py")
    commit(service.project_dir, "No items")
    items = repository / EXAMPLE
    items.write_text(items.read_text() + "# new\n")
    commit(repository, "Change the example")

    result = copie.update(service)

    assert (result.exit_code, result.exception) == (0, None)
    assert not (service.project_dir / "app" / "items.py").exists()


@pytest.mark.update
def test_an_update_to_the_same_template_changes_nothing(copie: Any, service: Any) -> None:
    result = copie.update(service)
    assert (result.exit_code, result.exception) == (0, None)
    assert git(service.project_dir, "status", "--porcelain") == ""


@pytest.mark.update
def test_a_conflict_of_an_edit_and_an_update_is_visible(copie: Any, repository: Path, service: Any) -> None:
    for file, text in (
        (service.project_dir / "app" / "items.py", "mine"),
        (repository / EXAMPLE, "theirs"),
    ):
        file.write_text(file.read_text().replace("An example of a resource", text))
    commit(service.project_dir, "Mine")
    commit(repository, "Theirs")

    result = copie.update(service)

    assert (result.exit_code, result.exception) == (0, None)
    text = (service.project_dir / "app" / "items.py").read_text()
    assert "<<<<<<<" in text
    assert "mine" in text
    assert "theirs" in text


# With the command that people type

Copied = Callable[..., CompletedProcess[str]]


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Copied:
    """Run `copier copy --defaults` of a clone into a folder, with more options."""

    def copied(folder: str, *options: str) -> CompletedProcess[str]:
        return run("copier", "copy", "--defaults", *options, repository, folder, cwd=tmp_path)

    return copied


def test_a_copy_needs_no_trust(copied: Copied, tmp_path: Path) -> None:
    done = copied("orders-api")
    assert done.returncode == 0, done.stderr
    assert "project_name: orders-api" in (tmp_path / "orders-api" / ".copier-answers.yml").read_text()


def test_a_template_with_a_task_would_need_trust(copied: Copied, repository: Path, tmp_path: Path) -> None:
    with (repository / "copier.yml").open("a") as configuration:
        configuration.write('\n_tasks: ["true"]\n')
    commit(repository, "Run a task")
    assert copied("orders-api").returncode == 4
    assert not (tmp_path / "orders-api").exists()


def test_a_copy_into_a_folder_with_files_loses_none_of_them(copied: Copied, tmp_path: Path) -> None:
    folder = tmp_path / "orders-api"
    mine = {"README.md": "mine\n", "notes.txt": "mine too\n", "app/items.py": "mine = 3\n"}
    for name, text in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert copied("orders-api").returncode == 1
    assert {name: text for name, text in everything(folder).items() if name in mine} == mine


def test_a_copy_that_may_overwrite_does(copied: Copied, tmp_path: Path) -> None:
    (tmp_path / "orders-api").mkdir()
    (tmp_path / "orders-api" / "README.md").write_text("mine\n")
    assert copied("orders-api", "--overwrite").returncode == 0
    assert (tmp_path / "orders-api" / "README.md").read_text() != "mine\n"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("project_name=My-Svc", "begin with a letter from a to z"),
        ("description=two\nlines", "one line, no control characters"),
        ("workers=two", "'two'"),
        ("server=hypercorn", "Invalid choice"),
        ("databse=postgresql", "there is no question databse, did you mean database?"),
        ("with_cache=true", "there is no question with_cache"),
    ],
)
def test_a_wrong_answer_is_refused_with_a_sentence_and_nothing_on_disk(
    copied: Copied, tmp_path: Path, answer: str, sentence: str
) -> None:
    done = copied("refused", "--data", answer)
    assert done.returncode == 1
    assert sentence in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "refused").exists()


def test_a_wrong_answer_leaves_a_folder_as_it_was(copied: Copied, tmp_path: Path) -> None:
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "notes.txt").write_text("mine\n")
    assert copied("refused", "--data", "workers=0").returncode == 1
    assert everything(tmp_path / "refused") == {"notes.txt": "mine\n"}
