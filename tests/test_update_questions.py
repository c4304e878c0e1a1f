"""A new question of the template reaches services that exist without adding a file to them."""

from pathlib import Path

import pytest
import yaml

from harness import owners
from harness.clones import commit
from harness.pages import blocks, page, section
from harness.updates import copier_update, start

pytestmark = pytest.mark.update

EDITOR_SETTINGS = "template/{{ with_editor }}/.vscode/settings.json"


def documented_default() -> str:
    """Return the default that the page on releases has for a question which adds files."""
    [block] = [
        text for language, text in blocks(section(page("docs/releasing.md"), "Never")) if language == "yaml"
    ]
    question: dict[str, dict[str, str]] = yaml.safe_load(block)
    return next(iter(question.values()))["default"]


@pytest.fixture
def with_a_question(copier_fastapi: Path) -> Path:
    """The template with a question `editor` whose default adds a file, as the next release would have it."""
    configuration = copier_fastapi / "copier.yml"
    text = configuration.read_text().replace(
        "cache, layout, observability", "cache, editor, layout, observability"
    )
    question = yaml.safe_dump(
        {
            "editor": {"type": "str", "choices": ["vscode", "none"], "default": documented_default()},
            "with_editor": {"when": False, "default": "{{ '.' if editor == 'vscode' }}"},
        },
        sort_keys=False,
    )
    configuration.write_text(text.replace("# Structure\n", f"{question}\n# Structure\n"))
    (copier_fastapi / EDITOR_SETTINGS).parent.mkdir(parents=True)
    (copier_fastapi / EDITOR_SETTINGS).write_text("{}\n")
    return copier_fastapi


def has_the_file(service: Path) -> bool:
    return (service / ".vscode/settings.json").exists()


def test_a_service_that_exists_gets_no_file_by_a_new_question(
    copier_fastapi: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    template: Path = request.getfixturevalue("with_a_question")
    commit(template, "A question")
    assert copier_update(service).returncode == 0
    assert "editor: none\n" in (service / owners.ANSWERS_FILE).read_text()
    assert not has_the_file(service)
    commit(service, "Update")
    # And it stays so.
    (template / EDITOR_SETTINGS).write_text('{"a": 1}\n')
    commit(template, "Change the file")
    assert copier_update(service).returncode == 0
    assert not has_the_file(service)


def test_a_service_that_exists_gets_the_file_when_its_owner_asks(
    copier_fastapi: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    service = start(copier_fastapi, tmp_path / "orders-api")
    commit(request.getfixturevalue("with_a_question"), "A question")
    assert copier_update(service, "--data", "editor=vscode").returncode == 0
    assert has_the_file(service)


def test_a_new_copy_gets_the_file_and_keeps_it(with_a_question: Path, tmp_path: Path) -> None:
    commit(with_a_question, "A question")
    service = start(with_a_question, tmp_path / "orders-api")
    assert has_the_file(service)
    (with_a_question / EDITOR_SETTINGS).write_text('{"a": 1}\n')
    commit(with_a_question, "Change the file")
    assert copier_update(service).returncode == 0
    assert (service / ".vscode/settings.json").read_text() == '{"a": 1}\n'
