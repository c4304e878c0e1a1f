"""Builds images and runs containers of rendered services on a Docker Engine."""

import functools
import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from harness.ports import reserved_port
from harness.waiting import until

# Hardens a container that is started without Compose as compose.prod.yaml does.
HARDENED = (
    "--read-only",
    "--tmpfs=/tmp:size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=1g",
    "--pids-limit=256",
)


@functools.cache
def why_no_engine() -> str:
    """Return why no Docker Engine can be used, or "" if one responds."""
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "the Docker Engine does not respond"
    return "" if answer.returncode == 0 else f"no Docker Engine responds: {answer.stderr.strip()}"


class DockerError(AssertionError):
    """Says which docker command failed, and what it printed."""


def docker(
    *arguments: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 900,
) -> str:
    """Run a docker command and return what it prints. `environment` is added to that of this process."""
    command = subprocess.run(
        ["docker", *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if command.returncode:
        raise DockerError(f"docker {' '.join(arguments)}\n{command.stdout}")
    return command.stdout


def unique(name: str) -> str:
    """Return a name that no other test run has, for an image, a container, a network or a compose project."""
    return f"copier-fastapi-test-{uuid.uuid4().hex[:12]}-{name}".lower()


def build(service: Path, tag: str, *options: str) -> str:
    """Build the service's image and return what the builder printed."""
    return docker("build", "--progress=plain", f"--tag={tag}", *options, ".", cwd=service)


class Container:
    """Runs a container with port 8000 published on a free port of this machine, and removes it at the end."""

    def __init__(self, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        self.name = unique("container")
        arguments = [f"--name={self.name}", "--publish=127.0.0.1::8000", *options, image, *command]
        try:
            docker("run", "--detach", *arguments)
        except DockerError:
            # Docker creates the container even if it can't start it.
            self.remove()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name)

    def inspect(self, path: str) -> Any:
        """Return a part of what `docker inspect` prints, by its path in the format language."""
        return json.loads(docker("inspect", "--format", f"{{{{json {path}}}}}", self.name))

    @property
    def url(self) -> str:
        port = self.inspect('(index (index .NetworkSettings.Ports "8000/tcp") 0).HostPort')
        return f"http://127.0.0.1:{port}"

    @property
    def own_url(self) -> str:
        """Return the URL of the container's own address, for requests that are under way when it stops.

        The engine's proxy forwards what is sent to `url`. It is ended right after the container, and takes
        along the responses that it has not forwarded yet. It also accepts connections if nobody listens.
        """
        return f"http://{self.inspect('.NetworkSettings.Networks.bridge.IPAddress')}:8000"

    @property
    def health(self) -> str:
        return str(self.inspect(".State.Health.Status"))

    def wait_until_healthy(self, deadline: float = 60) -> Self:
        def healthy() -> bool:
            assert self.inspect(".State.Running"), f"the container has stopped:\n{self.logs()}"
            return self.health == "healthy"

        until(healthy, "a healthy container", deadline)
        return self

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30, **options)

    def python(self, code: str) -> str:
        """Run Python in the container, as its user, and return what it prints."""
        return docker("exec", self.name, "python", "-c", code).strip()

    def logs(self) -> str:
        return docker("logs", self.name)

    def wait(self, deadline: float = 60) -> int:
        """Wait until the container stops by itself, and return its exit code."""
        until(lambda: not self.inspect(".State.Running"), "the end of the container", deadline)
        return int(self.inspect(".State.ExitCode"))

    def stop(self, grace: int = 35) -> int:
        """Stop the container as `docker stop` does, and return its exit code."""
        docker("stop", f"--timeout={grace}", self.name)
        return int(self.inspect(".State.ExitCode"))


@contextmanager
def composed(service: Path, file: str, **environment: str) -> Iterator["Project"]:
    """Yield a compose project with a unique name. Remove it with its volumes and local images at the end."""
    project = Project(service, file, environment)
    try:
        yield project
    finally:
        project.compose("down", "--volumes", "--remove-orphans", "--timeout=5", "--rmi=local")


class Project:
    """Runs the compose project of a rendered service."""

    def __init__(self, service: Path, file: str, environment: dict[str, str]) -> None:
        self.name = unique("project")
        self.service = service
        self.file = file
        self.environment = {"TAG": "unused", **environment}

    def arguments(self, *arguments: str) -> list[str]:
        return ["compose", f"--project-name={self.name}", f"--file={self.file}", *arguments]

    def compose(self, *arguments: str) -> str:
        return docker(*self.arguments(*arguments), cwd=self.service, environment=self.environment)

    def up(self) -> Self:
        """Start all services and wait until they are healthy."""
        self.compose("up", "--detach", "--wait")
        return self

    @property
    def container(self) -> str:
        """Return the id of the app service's container."""
        return self.compose("ps", "--quiet", "app").strip()


@contextmanager
def in_production(service: Path) -> Iterator[dict[str, str]]:
    """Build the service and run it with compose.prod.yaml. Yield the variables for `docker compose`."""
    compose = ["compose", "--file=compose.prod.yaml"]
    with reserved_port() as port:
        environment = {"HOST_PORT": str(port), "TAG": "first"}
        try:
            docker("build", "--quiet", f"--tag={service.name}:first", ".", cwd=service)
            docker(*compose, "up", "--detach", "--wait", cwd=service, environment=environment)
            yield environment
        finally:
            docker(*compose, "down", "--volumes", "--timeout=5", cwd=service, environment=environment)
            for tagged in set(docker("image", "ls", "--quiet", f"--filter=reference={service.name}").split()):
                docker("rmi", "--force", tagged)
