"""Tests that the jobs of a service for GitLab do on this machine what they do in GitLab's pipelines."""

import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.clones import commit
from harness.containers import docker, unique
from harness.development import in_git
from harness.forge import forge
from harness.gitlab import GitLab, JobError, why_no_gitlab
from harness.matrix import Answers, label
from harness.owners import replace
from harness.pipelines import machine, server, serving
from harness.variants import variants
from harness.waiting import until
from tests.conftest import Render

pytestmark = [
    pytest.mark.project,
    pytest.mark.docker,
    pytest.mark.skipif(bool(why_no_gitlab()), reason=why_no_gitlab()),
]

SERVICES: list[Answers] = [
    {"database": "mysql", "cache": "redis", "server": "granian", "package_manager": "pip"},
    {"database": "sqlite", "proxy": "traefik"},
    {"database": "postgresql"},
]
# The ports at which GitLab waits for a service.
LISTENS = {"postgres:18": 5432, "mysql:9": 3306, "valkey/valkey:9": 6379}


@contextmanager
def services(job: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Start the services of a job as GitLab does, and yield its variables with their addresses here."""
    addresses = {}
    names = []
    try:
        for service in job.get("services", []):
            names.append(unique("service"))
            options = [f"--env={name}={value}" for name, value in service.get("variables", {}).items()]
            docker("run", "--detach", f"--name={names[-1]}", *options, service["name"])
            address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", names[-1]).strip()
            at = (address, LISTENS[service["name"]])
            until(functools.partial(listens, at), service["name"], 120)
            addresses[service["alias"]] = address
        yield {
            name: here(value, addresses) for name, value in job["variables"].items() if name.endswith("_URL")
        }
    finally:
        for name in names:
            docker("rm", "--force", "--volumes", name)


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def here(url: str, addresses: dict[str, str]) -> str:
    host = urlsplit(url).hostname
    assert host in addresses, f"{url} names no service of the job"
    return (
        url.replace(f"@{host}", f"@{addresses[host]}") if "@" in url else url.replace(host, addresses[host])
    )


@pytest.mark.parametrize("answers", variants(SERVICES), ids=label)
def test_a_new_service_passes_its_tests_and_its_image_serves(
    render: Render, tmp_path: Path, answers: Answers
) -> None:
    service = in_git(render(project_name=unique("ci"), ci="gitlab", **answers))
    with machine(service, tmp_path / "runner") as found, forge() as registry:
        gitlab = GitLab(service, tmp_path / "runner", found.project, found.environment)
        with services(gitlab.job("test")) as variables:
            gitlab.run("test", **variables)
        address = registry.url.removeprefix("http://")
        gitlab.run(
            "smoke-test",
            CI_REGISTRY=address,
            CI_REGISTRY_IMAGE=f"{address}/orders",
            CI_REGISTRY_USER="gitlab-ci-token",
            CI_REGISTRY_PASSWORD="the token",
        )
        [(_, revision)] = serving(f"{found.project}-smoke-test")
        assert revision == found.sha


def test_a_mistake_fails_the_job(render: Render, tmp_path: Path) -> None:
    service = in_git(render(ci="gitlab"))
    items = service / "app" / "items.py"
    replace(items, "item_id: int, q:", "item_id: str, q:")
    commit(service, "A mistake")
    with pytest.raises(JobError, match=r"FAILED tests/test_items\.py"):
        GitLab(service, tmp_path / "runner", "unused").run("test")


def test_the_job_that_deploys_releases_the_image_of_the_commit_on_the_server(
    render: Render, tmp_path: Path
) -> None:
    service = in_git(render(project_name=unique("ci"), ci="gitlab", database="sqlite", proxy="caddy"))
    key = tmp_path / "key"
    key.write_text("the private key")
    with machine(service, tmp_path / "runner") as found:
        image = server(service, tmp_path, found)
        gitlab = GitLab(service, tmp_path / "runner", found.project, found.environment, [tmp_path / "bin"])
        gitlab.run(
            "deploy", DEPLOY_HOST="deploy@example.test", DEPLOY_KNOWN_HOSTS=str(key), DEPLOY_KEY=str(key)
        )
        assert [name for name, _ in serving(f"{gitlab.project}-deploy")] == [image]
    assert key.stat().st_mode & 0o077 == 0, "ssh refuses a key that others can read"


@pytest.mark.parametrize(
    ("source", "variables", "jobs"),
    [
        ("merge_request_event", {"CI_COMMIT_BRANCH": ""}, ["test", "smoke-test"]),
        ("push", {}, ["test", "smoke-test", "publish", "scan", "latest"]),
        (
            "push",
            {"DEPLOY_HOST": "deploy@example.test"},
            ["test", "smoke-test", "publish", "scan", "latest", "deploy"],
        ),
        ("schedule", {"DEPLOY_HOST": "deploy@example.test"}, ["update"]),
    ],
)
def test_each_pipeline_has_its_jobs(
    render: Render, tmp_path: Path, source: str, variables: dict[str, str], jobs: list[str]
) -> None:
    service = in_git(render(ci="gitlab"))
    gitlab = GitLab(service, tmp_path / "runner", "unused")
    assert gitlab.jobs(CI_PIPELINE_SOURCE=source, **variables) == jobs
