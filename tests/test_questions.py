"""Tests what the questions accept, what they refuse, and their defaults."""

import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.matrix import (
    ASKED,
    CONFIGURATION,
    FACTS,
    MATRIX,
    QUESTIONS,
    Answers,
    choices,
    combinations,
    default,
    refusal,
    values,
)
from tests.conftest import Render, RenderTo


def answers_of(service: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = yaml.safe_load((service / ".copier-answers.yml").read_text())
    return recorded


Refused = Callable[..., str]


@pytest.fixture
def refused(render: Render, tmp_path: Path) -> Refused:
    """Return the sentence with which Copier refuses these answers, before it writes anything."""

    def refused(**answers: Any) -> str:
        with pytest.raises(ValueError, match=r"Validation error|Invalid choice|invalid literal") as error:
            render("refused", **answers)
        assert not (tmp_path / "refused").exists()
        return str(error.value)

    return refused


def test_nothing_in_the_template_needs_trust() -> None:
    assert not CONFIGURATION.keys() & {"_tasks", "_migrations", "_jinja_extensions", "_external_data"}


def test_every_answer_has_a_default(render: Render) -> None:
    answers = answers_of(render())
    assert ASKED.keys() <= answers.keys()
    assert answers["python_version"] == "3.14"
    assert answers["server"] == "uvicorn"
    assert answers["workers"] == 1
    assert answers["description"] == ""


def test_the_first_choice_that_is_shown_is_the_default() -> None:
    for name, question in ASKED.items():
        if "choices" in question:
            assert next(iter(choices(name))) == default(name), name


def test_the_name_is_that_of_the_folder(render: Render) -> None:
    assert answers_of(render("billing"))["project_name"] == "billing"


@pytest.mark.parametrize("folder", ["My Service", "fastapi", "con", "a--b", "日本語"])
def test_a_folder_with_no_valid_name_makes_my_service(render: Render, folder: str) -> None:
    assert answers_of(render(folder))["project_name"] == "my-service"


@pytest.mark.parametrize("name", ["orders-api", "test", "class", "a", "x1", "a" * 50])
def test_a_valid_name_becomes_the_name_of_the_project(render: Render, name: str) -> None:
    service = render(project_name=name)
    assert tomllib.loads((service / "pyproject.toml").read_text())["project"]["name"] == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My-Svc", "begin with a letter from a to z"),
        ("-a", "begin with a letter from a to z"),
        ("123abc", "begin with a letter from a to z"),
        ("../x", "begin with a letter from a to z"),
        ("日本語", "begin with a letter from a to z"),
        ("", "begin with a letter from a to z"),
        ("\N{CYRILLIC SMALL LETTER A}", "begin with a letter from a to z"),
        ("a-", "end with a letter or a digit"),
        ("a--b", "a-z, 0-9, single dashes"),
        ("a\n", "a-z, 0-9, single dashes"),
        ("a b", "a-z, 0-9, single dashes"),
        ("a_b", "a-z, 0-9, single dashes"),
        ("aB", "a-z, 0-9, single dashes"),
        ("a" * 51, "at most 50 characters"),
        ("con", "reserved by Windows: type con-api"),
        ("nul", "reserved by Windows: type nul-api"),
        ("com1", "reserved by Windows: type com1-api"),
        ("lpt9", "reserved by Windows: type lpt9-api"),
    ],
)
def test_a_name_that_is_no_project_name_is_refused(refused: Refused, name: str, sentence: str) -> None:
    assert refused(project_name=name).endswith(f": {sentence}")


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "starlette", "pydantic", "granian", "pytest", "ruff"])
def test_the_name_of_a_dependency_is_refused(refused: Refused, name: str) -> None:
    assert refused(project_name=name).endswith(": a package has it: try adding -api")


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "nul\0", "a\u2028b", "\x7f", "bell\x07"])
def test_a_description_with_a_line_break_or_a_control_character_is_refused(
    refused: Refused, text: str
) -> None:
    assert refused(description=text).endswith(": one line, no control characters")


def test_a_description_of_more_than_200_characters_is_refused(refused: Refused) -> None:
    assert refused(description="a" * 201).endswith(": at most 200 characters, not 201")


@pytest.mark.parametrize("workers", [1, 2, 64, "8"])
def test_workers_from_1_to_64_are_accepted(render: Render, workers: int | str) -> None:
    assert answers_of(render(workers=workers))["workers"] == int(workers)


@pytest.mark.parametrize("workers", [0, 65, -1, 2.5, True, "1_0"])
def test_other_numbers_of_workers_are_refused(refused: Refused, workers: object) -> None:
    assert refused(workers=workers).endswith(": a whole number from 1 to 64")


def test_workers_are_a_number(refused: Refused) -> None:
    assert "'two'" in refused(workers="two")


@pytest.mark.parametrize("name", [name for name in ASKED if "choices" in ASKED[name]])
def test_a_choice_that_does_not_exist_is_refused(refused: Refused, name: str) -> None:
    assert "Invalid choice" in refused(**{name: "nonsense"})


def test_an_answer_to_no_question_is_refused_by_the_fixture(render: Render) -> None:
    with pytest.raises(AssertionError, match="databse"):
        render(databse="postgresql")


# The questions of which two choices may refuse each other, with the number of pairs that are refused.
REFUSED = {
    ("database", "layout"): len(values("database")) - 1,
    ("cache", "layout"): len(values("cache")) - 1,
    ("database", "kubernetes"): 1,
}


@pytest.mark.parametrize(("questions", "count"), REFUSED.items(), ids=map("-".join, REFUSED))
def test_the_matrix_leaves_out_only_what_copier_refuses(
    refused: Refused, questions: tuple[str, str], count: int
) -> None:
    pairs = [
        dict(zip(questions, answers, strict=True)) for answers in itertools.product(*map(values, questions))
    ]
    allowed = list(combinations(*questions))
    assert len(allowed) == len(pairs) - count
    for answers in pairs:
        if answers not in allowed:
            assert refusal(answers) in refused(**answers)


def test_the_matrix_leaves_out_no_pair_of_other_questions() -> None:
    assert REFUSED.keys() == {
        (one, other)
        for one, other in itertools.combinations(MATRIX, 2)
        for answers in itertools.product(values(one), values(other))
        if refusal(dict(zip((one, other), answers, strict=True)))
    }


# Names in --data


def test_the_names_that_data_may_have_are_those_of_the_questions() -> None:
    assert QUESTIONS["questions"]["default"] == [*ASKED]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("databse", "database"),
        ("workes", "workers"),
        ("cahce", "cache"),
        ("name", "project_name"),
        ("python", "python_version"),
        ("package-manager", "package_manager"),
        ("with_database", "database"),
    ],
)
def test_a_name_that_is_no_question_is_refused_with_the_nearest(
    render_to: RenderTo, tmp_path: Path, name: str, nearest: str
) -> None:
    with pytest.raises(ValueError, match=f"there is no question {name}, did you mean {nearest}\\?$"):
        render_to(tmp_path / "orders-api", unchecked={name: "x"})
    assert not (tmp_path / "orders-api").exists()


def test_a_name_that_is_like_no_question_is_refused_with_all_of_them(
    render_to: RenderTo, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"there is no question jjj: the questions are project_name, .*kubernetes, ci"
    ):
        render_to(tmp_path / "orders-api", unchecked={"jjj": "x"})


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_computed_value_can_not_be_given(render_to: RenderTo, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no question {name}"):
        render_to(tmp_path / "orders-api", unchecked={name: "."})


# The layout, which is asked after the questions whose answers need a package


@pytest.mark.parametrize("answer", [{"database": "sqlite"}, {"cache": "redis"}])
def test_with_a_database_or_a_cache_the_layout_is_a_package(render: Render, answer: Answers) -> None:
    service = render(**answer)
    assert (service / "app" / "main.py").exists()


@pytest.mark.parametrize("answer", [{"database": "postgresql"}, {"cache": "redis"}])
def test_a_single_file_has_no_place_for_a_database_or_a_cache(refused: Refused, answer: Answers) -> None:
    assert "need layout=package" in refused(layout="single-file", **answer)


# Kubernetes, which is asked after the database


def test_sqlite_is_refused_for_pods_with_what_to_answer(refused: Refused) -> None:
    sentence = (
        "SQLite is a file on one server, which pods can't share: "
        "answer database=postgresql or database=mysql too"
    )
    assert refused(database="sqlite", kubernetes="yes").endswith(f": {sentence}")


@pytest.mark.parametrize("name", ["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
def test_a_name_that_yaml_reads_as_something_else_is_refused_for_pods(refused: Refused, name: str) -> None:
    assert f": {name} is a word of YAML" in refused(project_name=name, kubernetes="yes")


def test_a_name_that_begins_like_a_word_of_yaml_is_a_name(render: Render) -> None:
    service = render(project_name="nullable", kubernetes="yes")
    assert "\n  name: nullable\n" in (service / "deploy/kubernetes/base/service.yaml").read_text()


@pytest.mark.parametrize("database", [name for name in values("database") if name != "sqlite"])
def test_pods_may_have_any_other_database_or_none(render: Render, database: str) -> None:
    service = render(database=database, kubernetes="yes")
    assert answers_of(service)["kubernetes"] == "yes"
    assert (service / "deploy/kubernetes/base/migration.yaml").exists() == (database != "none")
