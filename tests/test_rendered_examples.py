"""Tests the two services in docs/examples, which README links to."""

import shlex
import shutil
from pathlib import Path

import pytest

from harness.matrix import ROOT, Answers
from harness.pages import page
from tests.conftest import RenderTo
from tests.test_playground import files, without_source

FOLDER = ROOT / "docs" / "examples"
EXAMPLES: dict[str, Answers] = {
    "default": {},
    "postgresql": {
        "database": "postgresql",
        "cache": "redis",
        "observability": "opentelemetry",
        "proxy": "caddy",
        "server": "gunicorn",
        "workers": 2,
    },
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_copier_renders(
    render_to: RenderTo, tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Compare with the folder. `pytest --update-snapshots` accepts the files as they are rendered now."""
    rendered = without_source(files(render_to(tmp_path / "orders-api", **EXAMPLES[name])))
    if request.config.getoption("--update-snapshots"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        for path, (content, executable) in rendered.items():
            file = FOLDER / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if executable else 0o644)
    assert files(FOLDER / name) == rendered


def test_there_is_no_other_example() -> None:
    assert {folder.name for folder in FOLDER.iterdir()} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_release_publishes_the_same_answers(name: str) -> None:
    workflow = page(".github/workflows/release.yml").replace("\\\n", "")
    [line] = [line for line in workflow.splitlines() if line.strip().startswith(f"render {name}")]
    words = shlex.split(line)
    given = dict(words[number + 1].split("=") for number, word in enumerate(words) if word == "--data")
    assert given == {question: str(value) for question, value in EXAMPLES[name].items()}
