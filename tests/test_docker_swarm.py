"""Tests the page on Docker Swarm: its stack is deployed, updated under load, and rolled back."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import httpx2
import pytest

from harness.containers import DockerError, Project, build, docker, unique
from harness.matrix import Answers
from harness.pages import page, section, shell
from harness.ports import reserved_port
from harness.running import run
from harness.stacks import Load, Stack, make_secrets
from harness.steps import Step, steps, take
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = [
    pytest.mark.docker,
    pytest.mark.project,
    pytest.mark.usefixtures("newest_python"),
    pytest.mark.xdist_group("docker-swarm"),
]

PAGE = page("docs/docker-swarm.md")
# The page's name of the stack and its network, and of the image.
NAME = "orders"
IMAGE = "orders-api"
REQUESTS = ("POST /items", "GET /items", "GET /health/ready")

# Images that differ from the first release in one layer.
RELEASES = {
    "second": "LABEL release=second",
    "unready": "USER root\nRUN sed -i s,/health/ready,/health/away, app/health.py\nUSER 10001:10001",
}


@contextmanager
def swarm() -> Iterator[None]:
    """Make this engine a Swarm of one machine, unless it is one already. No other test run does meanwhile."""
    with filelock.FileLock(Path(tempfile.gettempdir()) / "copier-fastapi-swarm.lock"):
        if docker("info", "--format", "{{ .Swarm.LocalNodeState }}").strip() == "active":
            yield
            return
        [init, _] = shell(section(PAGE, "Once"))[0].splitlines()
        # A machine with several addresses has to choose one.
        docker(*init.removeprefix("docker ").split(), "--advertise-addr=127.0.0.1")
        try:
            yield
        finally:
            docker("swarm", "leave", "--force")


class Deployment(NamedTuple):
    """Keeps a stack of the page that runs under other names, and a client of its proxy."""

    service: Path
    name: str
    image: str
    stack: Stack

    def renamed(self, text: str) -> str:
        """Return commands of the page with the names of this test."""
        return text.replace(IMAGE, self.image).replace(NAME, self.name)

    def run(self, commands: str, tag: str) -> str:
        # The images are built, and the tag is not that of a commit.
        lines = [line for line in self.renamed(commands).splitlines() if "rev-parse" not in line]
        lines = [line for line in lines if not line.startswith("docker build ")]
        return run("\n".join(lines), self.service, TAG=tag, IMAGE=self.image)

    def deploy(self, tag: str) -> str:
        """Take the steps of the page's section."""
        return self.run(shell(section(PAGE, "Deploy"))[0], tag)

    def spec(self, path: str) -> Any:
        """Return a part of what Swarm knows about the service, by its path in the format language."""
        return json.loads(
            docker("service", "inspect", "--format", f"{{{{ json {path} }}}}", f"{self.name}_app")
        )

    def release(self) -> str:
        return str(self.spec(".Spec.TaskTemplate.ContainerSpec.Image")).rpartition(":")[2]

    def running(self) -> list[str]:
        """Return the tags of the tasks that run."""
        printed = docker(
            *("service", "ps", "--filter=desired-state=running", "--format={{ .Image }} {{ .CurrentState }}"),
            f"{self.name}_app",
        )
        tasks = [line.split() for line in printed.splitlines()]
        return [image.rpartition(":")[2] for image, state, *_ in tasks if state == "Running"]


def on_this_machine(deployment: Deployment, text: str, http: int, https: int) -> str:
    """Return a file of the page with the names and ports of the test, and with less patience."""
    changes = {
        "published: 80,": f"published: {http},",
        "published: 443,": f"published: {https},",
        f"  {NAME}:\n": f"  {deployment.name}:\n",
        f"[{NAME}]": f"[{deployment.name}]",
        "api.example.com {": "http:// {",
        "start_period: 30s": "start_period: 10s",
        "interval: 5s": "interval: 1s",
        "retries: 12": "retries: 2",
        "order: start-first": "order: start-first\n        monitor: 1s",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def deployment(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The page's stack with two replicas, and a database beside it."""
    answers: Answers = {"server": "uvicorn", "database": "postgresql", "cache": "none"}
    service = render_to(tmp_path_factory.mktemp("swarm") / "orders-api", **answers)
    make_secrets(service)
    # Swarm makes longer names of it, which may have 63 characters.
    name = unique("s")
    with ExitStack() as held:
        held.enter_context(swarm())
        http, https = (held.enter_context(reserved_port()) for _ in range(2))
        assert http
        assert https
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        url = f"http://127.0.0.1:{http}"
        client = held.enter_context(httpx2.Client(base_url=url, limits=limits, timeout=60, trust_env=False))
        stack = Stack(Project(service, "compose.prod.yaml", {}), client, answers)
        deployment = Deployment(service, name, unique("image"), stack)
        held.callback(remove, deployment)
        build(service, f"{deployment.image}:first")
        for tag, lines in RELEASES.items():
            folder = tmp_path_factory.mktemp(tag)
            (folder / "Dockerfile").write_text(f"FROM {deployment.image}:first\n{lines}\n")
            build(folder, f"{deployment.image}:{tag}")
        for action, file, text in steps(section(PAGE, "Once")):
            if action == "Create":
                take(Step(action, file, on_this_machine(deployment, text, http, https)), service)
        [_, network] = shell(section(PAGE, "Once"))[0].splitlines()
        run(deployment.renamed(network), service)
        start_database(deployment)
        deployment.deploy("first")
        until(lambda: stack.status("/health/ready") == 200, "a response through the proxy")
        yield deployment


def start_database(deployment: Deployment) -> None:
    """Start a database that the tasks reach by the name which the secret has."""
    password = deployment.service / "secrets/database_password"
    name = f"{deployment.name}-database"
    docker(
        *("run", "--detach", f"--name={name}", f"--network={deployment.name}", "--network-alias=database"),
        *("--env=POSTGRES_USER=app", "--env=POSTGRES_PASSWORD_FILE=/run/secrets/database_password"),
        *(f"--volume={password}:/run/secrets/database_password:ro", "--tmpfs=/var/lib/postgresql"),
        "postgres:18",
    )

    def ready() -> bool:
        try:
            docker("exec", name, *["pg_isready", "--quiet", "--host", "127.0.0.1", "--username", "app"])
        except DockerError:
            return False
        return True

    until(ready, "a ready database")


def remove(deployment: Deployment) -> None:
    """Remove all that the test made on the engine, in whatever state it is."""

    def found(kind: str, *filters: str) -> list[str]:
        options = [f"--filter={text}" for text in filters]
        return docker(kind, "ls", "--quiet", *(["--all"] if kind == "container" else []), *options).split()

    docker("stack", "rm", "--detach=false", deployment.name)
    label = f"label=com.docker.stack.namespace={deployment.name}"
    until(lambda: not found("container", label), "the end of the tasks")
    for kind, filters in (
        ("container", f"name={deployment.name}-database"),
        ("network", f"name={deployment.name}"),
        ("volume", label),
    ):
        for identifier in found(kind, filters):
            docker(kind, "rm", "--force", identifier)
    for identifier in set(docker("image", "ls", "--quiet", f"--filter=reference={deployment.image}").split()):
        docker("image", "rm", "--force", identifier)


def lost(load: Load) -> list[object]:
    """Return the failed requests of a load. Raise if a kind of request was never sent."""
    assert all(load.statuses(request) for request in REQUESTS)
    return [answer for answer in load.answers if answer.status not in {200, 201}]


def test_two_replicas_serve(deployment: Deployment) -> None:
    until(lambda: deployment.running() == ["first"] * 2, "two tasks")
    deployment.stack.store()()


def test_the_service_has_the_address_and_scheme_from_the_proxy_alone(deployment: Deployment) -> None:
    sent = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    response = deployment.stack.client.get("/items/", headers=sent)
    assert (response.status_code, response.headers["Location"].partition(":")[0]) == (307, "http")
    logs = docker("service", "logs", "--raw", f"{deployment.name}_app")
    assert '"path":"/items/"' in logs
    assert "203.0.113.9" not in logs


def test_a_release_that_never_gets_ready_is_rolled_back_and_loses_no_request(deployment: Deployment) -> None:
    before = deployment.release()
    with Load(deployment.stack, *REQUESTS) as load, pytest.raises(AssertionError) as failed:
        deployment.deploy("unready")
    # Only the last command of the page says so.
    assert 'grep ":$TAG"\nended with 1:' in str(failed.value)
    assert deployment.spec(".UpdateStatus.State") == "rollback_completed"
    # The page says how to find out why. Without --tail, the engine's logs of a service may never end.
    [_, look, _] = shell(section(PAGE, "Deploy"))
    shown = deployment.run(look, "unused")
    assert '"State":"rollback_completed"' in shown
    assert f"{deployment.image}:unready" in shown
    assert "/health/ready" in shown
    assert deployment.release() == before
    assert deployment.running() == [before] * 2
    assert lost(load) == []


def test_a_release_and_the_way_back_lose_no_request(deployment: Deployment) -> None:
    [*_, back] = shell(section(PAGE, "Deploy"))
    with Load(deployment.stack, *REQUESTS) as load:
        printed = deployment.deploy("second")
        assert printed.endswith(f"{deployment.image}:second\n")
        assert deployment.running() == ["second"] * 2
        deployment.run(back, "unused")
    assert deployment.running() == ["first"] * 2
    assert lost(load) == []
