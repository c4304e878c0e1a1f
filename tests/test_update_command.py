"""Tests `copier update` on the command line: its messages, its refusals, and the commands of the page."""

import re
from pathlib import Path

import pytest

from harness import owners
from harness.clones import commit, git
from harness.matrix import values
from harness.owners import files, lost_lines
from harness.pages import codes, part, rows
from harness.updates import PAGES, copier_update, follow, is_new, move_on, page_shell, page_text, start
from tests.test_update_situations import SITUATIONS

pytestmark = pytest.mark.update


@pytest.mark.parametrize("package_manager", values("package_manager"))
def test_the_messages_say_what_is_at_risk_and_what_to_do(
    copier_fastapi: Path, tmp_path: Path, package_manager: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", package_manager=package_manager)
    done = copier_update(service)
    before, _, after = done.stderr.partition("template version")
    assert "are deleted, with\nyour edits in them" in before
    assert "git diff --diff-filter=D --name-only" in before
    assert "orders-api is updated. Before you commit:" in after
    locks = {"uv": ["uv.lock"], "pip": ["requirements.txt", "requirements-dev.txt"]}[package_manager]
    assert all((service / lock).exists() for lock in locks)
    assert f"git checkout --ours -- {' '.join(locks)}\n" in after
    assert ("  uv lock\n" in after) == (package_manager == "uv")
    assert ("the commands at the top of" in after) == (package_manager == "pip")
    assert max(map(len, (before + after).splitlines())) <= 80


# Below these headings, a test runs each command.
TYPED = {
    "Take what is new",
    "Change an answer",
    "Add a database",
    "Add manifests for Kubernetes",
    "From a single file to a package",
    "Resolve a conflict",
    "Update without anybody there",
    "An answer was changed by hand",
    *SITUATIONS,
}


def test_every_command_of_the_page_is_in_a_section_that_a_test_runs() -> None:
    titles = re.findall(r"^#+ (.*)$", PAGES, re.MULTILINE)
    assert {title for title in titles if page_shell(title)} <= TYPED


# Answers that would delete a file


def test_the_page_lists_what_an_answer_is_refused_for(copier_fastapi: Path) -> None:
    table = rows(part(PAGES, "Change an answer"), "from")
    named = {name for _, _, files in table for name in codes(files)}
    risks = (copier_fastapi / "includes/files_at_risk.jinja").read_text()
    lists = re.findall(r"'(?:files|with_any)': \[(.*?)\]", risks, re.DOTALL)
    assert named == {name for names in lists for name in re.findall(r"'(.*?)'", names)}


def test_an_answer_is_refused_with_the_sentence_of_the_page_until_the_file_is_gone(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", server="gunicorn")
    before = files(service)
    refused = copier_update(service, "--data", "server=uvicorn")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1] == page_text("Change an answer")
    assert files(service) == before
    git(service, "rm", "--quiet", "gunicorn.conf.py")
    git(service, "commit", "--quiet", "--message", "Another server")
    assert copier_update(service, "--data", "server=uvicorn").returncode == 0
    assert '"uvicorn", "app.main:app"' in (service / "Dockerfile").read_text()


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_an_answer_is_changed_as_the_page_says(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", server="gunicorn")
    workers, server, _ = page_shell("Change an answer")
    for block in (workers, server):
        done = follow(block, service, copier_fastapi)
        assert done.returncode == 0, done.stderr
        commit(service, "Another answer")
    answers = (service / owners.ANSWERS_FILE).read_text()
    assert "workers: 4\n" in answers
    assert "server: uvicorn\n" in answers


def test_a_file_of_the_owners_own_with_that_name_stops_no_ordinary_update(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    for name in ("gunicorn.conf.py", "main.py", "requirements.txt"):
        (service / name).write_text("# ours\n")
    commit(service, "Ours")
    move_on(copier_fastapi)
    assert copier_update(service).returncode == 0
    assert is_new(service)
    assert (service / "main.py").read_text() == "# ours\n"


def test_a_copy_into_a_folder_with_such_a_file_is_not_refused_for_it(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    (tmp_path / "orders-api").mkdir()
    (tmp_path / "orders-api/main.py").write_text("# ours\n")
    owners.copy(copier_fastapi, tmp_path / "orders-api", layout="package")
    assert (tmp_path / "orders-api/main.py").read_text() == "# ours\n"


def test_a_folder_with_brackets_in_its_name_protects_its_files_too(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders [old]", server="gunicorn")
    with pytest.raises(ValueError, match=r"this would delete gunicorn\.conf\.py, with your edits"):
        owners.update(service, server="uvicorn")


def test_other_deleted_files_are_listed_and_recovered_as_the_page_says(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    before = (service / "Dockerfile").read_bytes()
    git(copier_fastapi, "rm", "--quiet", "template/Dockerfile.jinja")
    commit(copier_fastapi, "No Dockerfile")
    assert copier_update(service).returncode == 0
    *_, recover = page_shell("Change an answer")
    done = follow(recover, service, copier_fastapi)
    assert done.stdout == "Dockerfile\n"
    assert (service / "Dockerfile").read_bytes() == before


def test_a_file_that_the_template_renames_is_deleted_with_its_edits_as_the_message_says(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    """Show why no rendered file may be renamed, and that these tests notice a loss."""
    service = start(copier_fastapi, tmp_path / "orders-api")
    (service / ".editorconfig").write_text("ours = true\n")
    commit(service, "Ours")
    git(copier_fastapi, "mv", "template/.editorconfig", "template/editor.config")
    commit(copier_fastapi, "Rename")
    owners.update(service)
    assert lost_lines({".editorconfig": [b"ours = true"]}, files(service)) == {
        ".editorconfig": [b"ours = true"]
    }
    assert owners.deleted(service) == [".editorconfig"]
    git(service, "checkout", "HEAD", "--", ".editorconfig")
    assert (service / ".editorconfig").read_text() == "ours = true\n"


# A database for a service that had none


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
def test_a_single_file_gets_a_database_only_as_a_package(copier_fastapi: Path, tmp_path: Path) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", layout="single-file")
    owners.live_in(service, [owners.add_a_route])
    before = files(service)
    [add] = page_shell("Add a database")
    refused = follow(add, service, copier_fastapi)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1] == page_text("Add a database")
    assert files(service) == before
    [move_and_add] = page_shell("From a single file to a package")
    done = follow(move_and_add, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert (service / "app" / "database.py").exists()
    assert owners.deleted(service) == []
    assert owners.conflicts(service) == {"app/main.py"}
    assert "async def read_order" in (service / "app" / "main.py").read_text()


def test_a_service_with_a_database_is_refused_to_become_a_single_file(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api", database="sqlite")
    before = files(service)
    refused = copier_update(service, "--data", "layout=single-file")
    assert refused.returncode == 1
    assert "the other answers need layout=package" in refused.stderr
    assert files(service) == before


@pytest.mark.project
@pytest.mark.usefixtures("newest_python")
@pytest.mark.parametrize("edited", [True, False])
def test_a_database_conflicts_with_endpoints_that_were_changed_and_with_nothing_else(
    copier_fastapi: Path, tmp_path: Path, edited: bool
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    if edited:
        owners.replace(service / "app/items.py", "q=q", "q=q and q.upper()")
        owners.replace(service / "tests/test_items.py", "somequery", "SOMEQUERY")
        commit(service, "Ours")
    [add] = page_shell("Add a database")
    done = follow(add, service, copier_fastapi)
    assert done.returncode == 0, done.stderr
    assert owners.conflicts(service) == ({"app/items.py", "tests/test_items.py"} if edited else set())


# Names in --data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("workes=4", "there is no question workes, did you mean workers?"),
        ("with_database=true", "there is no question with_database, did you mean database?"),
        ("uv_version=0.1.0", "there is no question uv_version"),
    ],
)
def test_a_name_that_is_no_question_is_refused_and_changes_nothing(
    copier_fastapi: Path, tmp_path: Path, data: str, sentence: str
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    before = files(service)
    refused = copier_update(service, "--data", data)
    assert refused.returncode == 1
    assert sentence in refused.stderr.strip().splitlines()[-1]
    assert files(service) == before


def test_an_answer_by_hand_to_no_question_is_refused_before_anything_changes(
    copier_fastapi: Path, tmp_path: Path
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    answers = service / owners.ANSWERS_FILE
    answers.write_text(answers.read_text() + "databse: postgresql\n")
    commit(service, "By hand")
    before = files(service)
    refused = copier_update(service)
    assert refused.returncode == 1
    assert "there is no question databse, did you mean database?" in refused.stderr
    assert files(service) == before
