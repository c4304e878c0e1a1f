"""Tests the files of the pipelines with linters and schemas, for every combination."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clones import git, run
from harness.matrix import ENVIRONMENT, Answers, facts, rendered
from harness.pages import page, rows, section
from harness.steps import steps
from harness.workflows import filled

# The pages on a new service.
STARTS = ("docs/getting-started.md", "docs/getting-started-postgresql.md")

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


def test_on_gitlab_a_token_has_an_environment_that_no_job_has_which_runs_code_of_others(
    files: dict[str, list[Path]],
) -> None:
    """A variable without an environment is in every job, also where it is protected."""
    for file in files[".gitlab-ci.yml"]:
        jobs = {name: job for name, job in yaml.safe_load(file.read_text()).items() if isinstance(job, dict)}
        places = {name: job["environment"] for name, job in jobs.items() if "environment" in job}
        assert places == {"deploy": "production", "update": {"name": "update", "action": "access"}}
        assert not re.search(r"pytest|prek|uv sync|pip install", str(jobs["update"]["script"]))
    rows_of_page = {cells[0]: cells[2] for cells in rows(page("docs/ci.md"), "name")}
    for name in ("`DEPLOY_KEY`", "`DEPLOY_KNOWN_HOSTS`"):
        assert rows_of_page[name].endswith("with the environment `production`")


def test_the_branch_of_an_update_writes_no_cache_that_a_release_reads(files: dict[str, list[Path]]) -> None:
    for file in files["ci.yml"]:
        jobs = yaml.safe_load(file.read_text())["jobs"]
        written = [
            str(step["with"][name])
            for job in jobs.values()
            for step in job["steps"]
            for name in ("cache", "cache-to", "enable-cache")
            if name in step.get("with", {})
        ]
        assert len(written) == 2
        for expression in written:
            assert filled(expression, {"inputs.ref": "update-from-the-template"}) in {"", "false"}
            assert filled(expression, {"inputs.ref": ""}) in {"pip", "true", "type=gha,mode=max"}


def test_an_image_is_named_latest_after_the_scan(files: dict[str, list[Path]]) -> None:
    for file in files["release.yml"]:
        publish = yaml.safe_load(file.read_text())["jobs"]["publish"]["steps"]
        names = [step.get("name") for step in publish]
        assert names[-3:] == [
            "Scan, and fail on what can be fixed",
            "Attest where the image comes from",
            "Name it latest",
        ]
        assert ":latest" not in str(publish[:-1])
    for file in files[".gitlab-ci.yml"]:
        pipeline = yaml.safe_load(file.read_text())
        stages = pipeline["stages"]
        assert stages.index(pipeline["latest"]["stage"]) > stages.index(pipeline["scan"]["stage"])
        assert ":latest" not in str(pipeline["publish"])


def test_each_commit_of_the_main_branch_is_released(files: dict[str, list[Path]]) -> None:
    for file in files["release.yml"]:
        group = yaml.safe_load(file.read_text())["concurrency"]
        assert group == {"group": "release", "cancel-in-progress": False, "queue": "max"}
    for file in files[".gitlab-ci.yml"]:
        [_, of_main] = yaml.safe_load(file.read_text())["workflow"]["rules"]
        assert of_main["auto_cancel"] == {"on_new_commit": "none"}


def test_a_new_service_is_on_the_branch_that_is_released(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    message = yaml.safe_load(page("copier.yml"))["_message_after_copy"]
    for name, text in {"message": message, **{name: page(name) for name in STARTS}}.items():
        [command] = re.findall(r"git init [^&\n]*", text)
        folder = tmp_path / Path(name).name
        folder.mkdir()
        # Without the user's settings, git's own default is another branch.
        run(*command.split(), cwd=folder)
        released = yaml.load(files["release.yml"][0].read_text(), yaml.BaseLoader)["on"]["push"]["branches"]
        assert [git(folder, "symbolic-ref", "--short", "HEAD").strip()] == released


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
