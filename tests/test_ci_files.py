"""Tests the files of the pipelines with linters and schemas, for every combination."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clones import git
from harness.matrix import ENVIRONMENT, Answers, facts, rendered
from harness.pages import page, section
from harness.steps import steps

FILES = {
    "github": [
        "template/{{ with_github }}/.github/workflows/ci.yml.jinja",
        "template/{{ with_github }}/.github/workflows/release.yml.jinja",
        "template/{{ with_github }}/.github/workflows/update.yml.jinja",
        "template/{{ with_ci }}/renovate.json.jinja",
    ],
    "gitlab": [
        "template/{{ with_gitlab }}/.gitlab-ci.yml.jinja",
        "template/{{ with_ci }}/renovate.json.jinja",
    ],
}


def all_answers() -> list[Answers]:
    """Return every combination, each for GitHub and for GitLab."""
    plain = {tuple(sorted({**answers, "ci": ci}.items())) for answers in rendered() for ci in FILES}
    return [dict(each) for each in sorted(plain, key=str)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every file that a combination makes, each text once: the files by the name that services give them."""
    folder = tmp_path_factory.mktemp("pipelines")
    git(folder, "init", "--quiet")
    texts: dict[str, set[str]] = {}
    for answers in all_answers():
        known = answers | facts(**answers) | {"project_name": "orders-api", "description": ""}
        for name in FILES[answers["ci"]]:
            text = ENVIRONMENT.get_template(name).render(known)
            texts.setdefault(Path(name).name.removesuffix(".jinja"), set()).add(text)
    made: dict[str, list[Path]] = {}
    for name, different in texts.items():
        for number, text in enumerate(sorted(different)):
            # Where each tool looks for such a file.
            place = (
                folder
                / f"service-{number}"
                / (".github/workflows" if name.endswith(".yml") and name[0] != "." else "")
            )
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
            made.setdefault(name, []).append(place / name)
    return made


def checked(*command: str | Path) -> str:
    """Run a tool of the template's own environment, and return what it printed. Raise where it fails."""
    tool, *arguments = map(str, command)
    done = subprocess.run(
        [str(Path(sys.executable).with_name(tool)), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def workflows(files: dict[str, list[Path]]) -> list[Path]:
    return [file for name in ("ci.yml", "release.yml", "update.yml") for file in files[name]]


def test_each_file_differs_with_answers(files: dict[str, list[Path]]) -> None:
    assert {name: len(different) > 1 for name, different in files.items()} == dict.fromkeys(files, True)


def test_zizmor_has_no_finding_in_its_strictest_persona(files: dict[str, list[Path]]) -> None:
    checked("zizmor", "--offline", "--no-progress", "--quiet", "--persona=auditor", *workflows(files))


def test_actionlint_has_no_finding(files: dict[str, list[Path]]) -> None:
    assert checked("actionlint", *workflows(files)) == ""


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("ci.yml", ["vendor.github-workflows"]),
        ("release.yml", ["vendor.github-workflows"]),
        ("update.yml", ["vendor.github-workflows"]),
        (".gitlab-ci.yml", ["vendor.gitlab-ci", "--data-transform=gitlab-ci"]),
        ("renovate.json", ["vendor.renovate"]),
    ],
)
def test_each_file_is_valid_against_its_schema(
    files: dict[str, list[Path]], name: str, schema: list[str]
) -> None:
    builtin, *options = schema
    checked("check-jsonschema", f"--builtin-schema={builtin}", *options, *files[name])


def test_each_job_has_an_end(files: dict[str, list[Path]]) -> None:
    for file in workflows(files):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            assert "timeout-minutes" in job or job["uses"] == "$/.github/workflows/ci.yml"


def actions(file: Path) -> list[str]:
    return re.findall(r"uses: (\S+@.*)", file.read_text())


def test_actions_are_pinned_by_commit_with_their_version(files: dict[str, list[Path]]) -> None:
    """This repository's own workflows use the same commits."""
    own = Path(__file__).parents[1] / ".github/workflows"
    pins: dict[str, set[str]] = {}
    for file in [*workflows(files), *own.glob("*.yml")]:
        for action in actions(file):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{file.name}: {action}"
            pins.setdefault(action.partition("@")[0], set()).add(action)
    assert {name: pin for name, pin in pins.items() if len(pin) > 1} == {}


def test_a_job_holds_a_token_of_the_owner_or_runs_code_of_others_and_never_both(
    files: dict[str, list[Path]],
) -> None:
    """The update's tests run what new packages bring, in a job that may only read."""
    jobs: dict[str, Any] = yaml.safe_load(files["update.yml"][0].read_text())["jobs"]
    assert jobs["test"]["permissions"] == {"contents": "read"}
    assert "secrets" not in jobs["test"]
    for name in ("update", "pull-request"):
        steps = str(jobs[name]["steps"])
        assert not re.search(r"pytest|prek|uv sync|pip install", steps)


def test_the_job_that_the_page_adds_has_no_finding_either(tmp_path: Path) -> None:
    [step] = steps(section(page("docs/ci.md"), "Add a job"))
    assert (step.action, step.file) == ("Create", ".github/workflows/newest.yml")
    git(tmp_path, "init", "--quiet")
    file = tmp_path / step.file
    file.parent.mkdir(parents=True)
    file.write_text(step.text)
    checked("zizmor", "--offline", "--no-progress", "--quiet", "--persona=auditor", file)
    assert checked("actionlint", file) == ""
    checked("check-jsonschema", "--builtin-schema=vendor.github-workflows", file)
    own = Path(__file__).parents[1] / ".github/workflows/ci.yml"
    assert actions(file)[0] in actions(own)
