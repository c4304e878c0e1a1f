"""Tests what the page shows and gives, without a browser: files, changes, the command, the archive."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import build_playground
import copier
import pytest

from harness.clones import git
from harness.matrix import ASKED, Answers, choices
from harness.updates import move_on
from playground.engine import Playground, unpack

URL = "https://example.com/copier-fastapi"


@pytest.fixture
def playground(template: Path) -> Playground:
    """The page's engine with the default answers."""
    playground = Playground(str(template), URL, "v1.2.3")
    playground.answer({})
    return playground


def question(state: dict[str, Any], name: str) -> dict[str, Any]:
    return next(question for question in state["questions"] if question["name"] == name)


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Return the content of each file, and whether it can be executed."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.rglob("*")
        if path.is_file()
    }


def without_source(found: dict[str, tuple[bytes, bool]]) -> dict[str, tuple[bytes, bool]]:
    """Leave out where the template is, which the page writes with the address of the repository."""
    lines = found[".copier-answers.yml"][0].splitlines()
    kept = [line for line in lines if not line.startswith((b"_src_path", b"_commit"))]
    return found | {".copier-answers.yml": (b"\n".join(kept) + b"\n", False)}


SAMPLES: list[Answers] = [
    {},
    {"project_name": "orders-api", "description": 'It\'s "for" $orders', "workers": "4", "server": "granian"},
    {"database": "mysql", "cache": "redis", "proxy": "traefik", "ci": "gitlab", "package_manager": "pip"},
    {"layout": "single-file", "kubernetes": "yes", "python_version": "3.11"},
]


@pytest.mark.parametrize("answers", SAMPLES, ids=lambda answers: "-".join(answers) or "default")
def test_the_archive_has_what_copier_writes(
    playground: Playground, template: Path, tmp_path: Path, answers: Answers
) -> None:
    state = playground.answer(answers)
    name = answers.get("project_name", "my-service")
    written = tmp_path / "written" / name
    copier.run_copy(str(template), written, data=answers, defaults=True, quiet=True)
    unpack(playground.archive(), str(tmp_path / "archive"))
    archived = files(tmp_path / "archive" / name)
    assert without_source(archived) == without_source(files(written))
    assert {file["path"] for file in state["files"] if file["change"] != "removed"} == archived.keys()


@pytest.mark.parametrize("answers", SAMPLES, ids=lambda answers: "-".join(answers) or "default")
def test_the_command_writes_what_the_archive_has(
    playground: Playground, template: Path, tmp_path: Path, answers: Answers
) -> None:
    command = playground.answer(answers)["command"].replace(URL, str(template))
    assert command.startswith("uvx copier copy ")
    line = command.replace("uvx copier", f"{sys.executable} -m copier", 1)
    subprocess.run(["bash", "-e", "-c", line], cwd=tmp_path, check=True)
    [written] = tmp_path.iterdir()
    unpack(playground.archive(), str(tmp_path / "archive"))
    assert without_source(files(tmp_path / "archive" / written.name)) == without_source(files(written))


@pytest.mark.parametrize("tagged", [None, "HEAD", "HEAD~1"])
def test_with_any_tag_the_command_writes_the_files_of_the_commit_that_is_built(
    copier_fastapi: Path, tmp_path: Path, tagged: str | None
) -> None:
    move_on(copier_fastapi, "# built")
    if tagged:
        git(copier_fastapi, "tag", "v1.0.0", tagged)
    commit, ref = build_playground.described(copier_fastapi), build_playground.asked_for(copier_fastapi)
    playground = Playground(str(copier_fastapi), str(copier_fastapi), commit, ref)
    state = playground.answer({})
    assert "# built" in playground.tree[".editorconfig"].content.decode()
    newest = git(copier_fastapi, "rev-parse", "HEAD").strip()
    assert (f"--vcs-ref {newest}" in state["command"]) == (tagged == "HEAD~1")
    line = state["command"].replace("uvx copier", f"{sys.executable} -m copier", 1)
    written = tmp_path / "written"
    written.mkdir()
    subprocess.run(["bash", "-e", "-c", line], cwd=written, check=True)
    unpack(playground.archive(), str(tmp_path / "archive"))
    assert files(tmp_path / "archive" / "my-service") == files(written / "my-service")


def test_a_service_from_the_archive_knows_where_its_updates_are(playground: Playground) -> None:
    with zipfile.ZipFile(io.BytesIO(playground.archive())) as archive:
        lines = archive.read("my-service/.copier-answers.yml").decode().splitlines()
    assert f"_src_path: {URL}" in lines
    assert "_commit: v1.2.3" in lines


def test_the_questions_are_those_of_copier(playground: Playground) -> None:
    state = playground.answer({})
    assert [question["name"] for question in state["questions"]] == [*ASKED]
    for asked in state["questions"]:
        assert asked["label"].endswith("?") or "? " in asked["label"]
        if "choices" in ASKED[asked["name"]]:
            assert [choice["value"] for choice in asked["choices"]] == [*choices(asked["name"])]
            assert [choice["label"] for choice in asked["choices"]] == [*ASKED[asked["name"]]["choices"]]
        assert (asked["value"], asked["problem"]) == (asked["default"], "")


@pytest.mark.parametrize(
    ("answers", "name", "problem"),
    [
        ({"project_name": "Orders API"}, "project_name", "begin with a letter from a to z"),
        ({"workers": "99"}, "workers", "a whole number from 1 to 64"),
        ({"workers": "many"}, "workers", "a whole number, in digits"),
        ({"database": "sqlite", "kubernetes": "yes"}, "kubernetes", "SQLite is a file on one server"),
        ({"server": "hypercorn"}, "server", "'hypercorn' is not in ['uvicorn'"),
    ],
)
def test_a_refused_answer_has_the_sentence_of_its_validator_and_changes_no_file(
    playground: Playground, answers: Answers, name: str, problem: str
) -> None:
    before = playground.tree
    state = playground.answer(answers)
    assert question(state, name)["problem"].startswith(problem)
    assert question(state, name)["value"] == answers[name]
    assert state["problem"] == question(state, name)["problem"]
    assert playground.tree == before
    assert playground.answer({})["problem"] == ""


def test_a_choice_that_does_not_go_with_another_answer_says_why(playground: Playground) -> None:
    plain = question(playground.answer({}), "kubernetes")["choices"]
    assert [choice["refusal"] for choice in plain] == ["", ""]
    refused = question(playground.answer({"database": "sqlite"}), "kubernetes")["choices"]
    assert refused[0]["refusal"] == ""
    assert refused[1]["refusal"].startswith("SQLite is a file on one server")


def test_a_question_that_copier_would_not_ask_is_not_asked(playground: Playground) -> None:
    assert question(playground.answer({}), "layout")["asked"] is True
    assert question(playground.answer({"database": "mysql"}), "layout")["asked"] is False


def text(lines: list[dict[str, Any]], without: str) -> str:
    """Return a file as it was before or is now, from the lines that are shown of both."""
    return "\n".join(
        "".join(value for _, value in line["tokens"]) for line in lines if line["change"] != without
    )


def test_each_line_that_an_answer_changes_is_marked_and_no_other(playground: Playground) -> None:
    before = playground.tree
    state = playground.answer({"database": "postgresql", "server": "gunicorn"})
    changes = {file["path"]: file["change"] for file in state["files"]}
    now = playground.tree
    assert {path for path, change in changes.items() if change == "added"} == now.keys() - before.keys()
    assert {path for path, change in changes.items() if change == "removed"} == before.keys() - now.keys()
    assert changes["gunicorn.conf.py"] == "added"
    assert changes["tests/test_main.py"] == ""
    for path, change in changes.items():
        lines = playground.show(path)
        assert text(lines, "added").rstrip("\n") == shown(before, path)
        assert text(lines, "removed").rstrip("\n") == shown(now, path)
        marked = [line for line in lines if line["change"]]
        assert bool(marked) == bool(change)
    [counted] = [file for file in state["files"] if file["path"] == "app/items.py"]
    lines = playground.show("app/items.py")
    assert counted["added"] == sum(line["change"] == "added" for line in lines) > 0
    assert counted["removed"] == sum(line["change"] == "removed" for line in lines) > 0


def shown(tree: dict[str, Any], path: str) -> str:
    return tree[path].content.decode().rstrip("\n") if path in tree else ""


def test_the_words_of_a_language_are_told_apart(playground: Playground) -> None:
    tokens = [tuple(token) for line in playground.show("app/main.py") for token in line["tokens"]]
    assert ("kn", "from") in tokens
    assert ("kn", "import") in tokens
