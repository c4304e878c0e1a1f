"""Tests that the workflows of a service for GitHub do on this machine what they do on GitHub's."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.clones import commit
from harness.containers import unique
from harness.development import in_git
from harness.matrix import Answers, label
from harness.pipelines import Machine, machine, server, serving
from harness.variants import variants
from harness.workflows import Runner, StepError, evaluate

pytestmark = [pytest.mark.project, pytest.mark.docker]

SERVICES: list[Answers] = [
    {"database": "sqlite", "proxy": "caddy", "server": "granian"},
    {"database": "postgresql", "cache": "redis"},
    {"database": "mysql", "package_manager": "pip", "server": "gunicorn"},
]

Push = Callable[..., Path]


@pytest.fixture
def pushed(render: Callable[..., Path]) -> Push:
    """Render a service into a repository, as its owner pushes it, with ports that are free."""

    def pushed(**answers: object) -> Path:
        return in_git(render(project_name=unique("ci"), ci="github", **answers))

    return pushed


@contextmanager
def runner(service: Path, folder: Path) -> Iterator[Runner]:
    """Yield a runner for the service, whose containers are removed at the end."""
    with machine(service, folder) as found:
        yield runner_on(found, service, folder)


def runner_on(found: Machine, service: Path, folder: Path) -> Runner:
    values = {
        "github.head_ref": "",
        "github.repository": "You/Orders",
        "github.run_id": "1",
        "github.sha": found.sha,
    }
    return Runner(service, folder, found.project, values, found.environment)


@pytest.mark.parametrize("answers", variants(SERVICES, 2), ids=label)
def test_a_new_service_passes_its_tests_and_its_image_serves(
    pushed: Push, tmp_path: Path, answers: Answers
) -> None:
    service = pushed(**answers)
    with runner(service, tmp_path / "runner") as github:
        github.run("ci.yml", "test")
        github.run("ci.yml", "image")
        [(_, revision)] = serving(f"{github.project}-image")
        assert revision == github.values["github.sha"]


def a_bug(service: Path) -> None:
    file = service / "app" / "items.py"
    file.write_text(file.read_text().replace("status_code=201", "status_code=200"))


def a_wrong_type(service: Path) -> None:
    file = service / "app" / "items.py"
    file.write_text(f"{file.read_text()}\n\nPAGE: int = 'fifty'\n")


def a_column_without_a_migration(service: Path) -> None:
    file = service / "app" / "models.py"
    text = file.read_text()
    [line] = re.findall(r"^    name: Mapped.*\n", text, re.MULTILINE)
    file.write_text(text.replace(line, f"{line}    colour: Mapped[str | None]\n"))


def a_package_that_is_not_locked(service: Path) -> None:
    file = service / "pyproject.toml"
    own = "    # The service's own:\n]\n\n[dependency-groups]"
    text = file.read_text()
    assert text.count(own) == 1
    file.write_text(text.replace(own, own.replace("]\n", '    "sniffio>=1.3",\n]\n', 1)))


def a_conflict(service: Path) -> None:
    file = service / "README.md"
    file.write_text(
        f"{file.read_text()}<<<<<<< before updating\nOurs\n=======\nTheirs\n>>>>>>> after updating\n"
    )


INSTALLS = "Install what is locked"
HOOKS = "Conflict markers, lint, format and types"


@pytest.mark.parametrize(
    ("change", "answers", "step"),
    [
        (a_bug, {}, "Tests"),
        (a_wrong_type, {}, HOOKS),
        (a_column_without_a_migration, {}, "The migrations make the tables of the models"),
        (a_package_that_is_not_locked, {}, INSTALLS),
        (
            a_package_that_is_not_locked,
            {"package_manager": "pip"},
            "The lock has what pyproject.toml asks for",
        ),
        (a_conflict, {}, HOOKS),
    ],
)
def test_a_mistake_fails_the_step_that_is_there_for_it(
    pushed: Push, tmp_path: Path, change: Callable[[Path], None], answers: Answers, step: str
) -> None:
    service = pushed(database="sqlite", **answers)
    change(service)
    commit(service, "A mistake")
    with runner(service, tmp_path / "runner") as github, pytest.raises(StepError) as failed:
        github.run("ci.yml", "test")
    assert failed.value.step == step, failed.value


@pytest.mark.parametrize("answers", [{"database": "sqlite"}, {"proxy": "traefik"}], ids=label)
def test_the_job_that_deploys_releases_the_image_of_the_commit_on_the_server(
    pushed: Push, tmp_path: Path, answers: Answers
) -> None:
    service = pushed(**answers)
    with machine(service, tmp_path / "runner") as found:
        github = runner_on(found, service, tmp_path / "runner")
        wanted = github.workflow("release.yml")["jobs"]["deploy"]["if"]
        assert not evaluate(wanted, github.values)
        github.values |= {
            "vars.DEPLOY_HOST": "deploy@example.test",
            "vars.DEPLOY_KNOWN_HOSTS": "example.test key",
            "secrets.DEPLOY_KEY": "the private key",
        }
        assert evaluate(wanted, github.values)
        image = server(service, tmp_path, found)
        github.preinstalled.append(tmp_path / "bin" / "ssh")
        github.run("release.yml", "deploy")
        assert [name for name, _ in serving(f"{github.project}-deploy")] == [image]
    asked = (tmp_path / "server.log").read_text()
    assert asked.count("deploy@example.test") == 2
    assert "the private key" not in asked
