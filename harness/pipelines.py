"""Gives the jobs of a pipeline free ports of this machine, and removes what they leave on its engine."""

import functools
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.acme import free_subnet
from harness.clones import commit, git
from harness.containers import docker, unique
from harness.development import PORTS, with_ports
from harness.ports import reserved_port
from harness.production import is_unused
from harness.waiting import until

# Stands for ssh to a server: what is to be run there is run in a folder here, without the job's variables.
SSH = """#!/bin/bash
echo "$@" >> "$SERVER.log"
cd "$SERVER" || exit
exec env --ignore-environment PATH="$PATH" COMPOSE_PROJECT_NAME="$COMPOSE_PROJECT_NAME" bash -c "${@: -1}"
"""


@dataclass
class Machine:
    """Knows the ports of a pipeline, the commit that it is for, and with what its compose projects begin."""

    environment: dict[str, str]
    sha: str
    project: str


@contextmanager
def machine(service: Path, folder: Path) -> Iterator[Machine]:
    """Yield what the jobs of a service's pipeline need, with `folder` for their checkouts.

    As its owner could, the service takes the ports of its own machine in `.env.example`. curl finds a service
    at the ports that the pipeline names. Containers, networks, volumes and images are removed at the end.
    """
    folder.mkdir()
    with ExitStack() as held:
        names = (*PORTS, "HTTP_PORT", "HTTPS_PORT")
        ports = {name: str(held.enter_context(reserved_port())) for name in names}
        example = service / ".env.example"
        with_ports(example, ports)
        if git(service, "status", "--porcelain"):
            commit(service, "Take other ports")
        here = "127.0.0.1"
        found = {f"{here}:8000": ports["HOST_PORT"], "localhost:443": ports["HTTPS_PORT"]}
        (folder / ".curlrc").write_text(
            "".join(f'connect-to = "{address}:{here}:{port}"\n' for address, port in found.items())
        )
        own = {name: ports[name] for name in ("HOST_PORT", "HTTP_PORT", "HTTPS_PORT")}
        started = Machine(
            {**own, "PROXY_SUBNET": free_subnet(), "CURL_HOME": str(folder), "DOCKER_CONFIG": str(folder)},
            git(service, "rev-parse", "HEAD").strip(),
            unique("pipeline"),
        )
        try:
            yield started
        finally:
            for checkout in folder.glob("*/checkout"):
                remove_containers(checkout, f"{started.project}-{checkout.parent.name}", started.sha)
            for image in {*docker("image", "ls", "--quiet", f"--filter=reference=*:{started.sha}").split()}:
                until(functools.partial(is_unused, image), "the image's containers are removed")
                docker("rmi", "--force", image)


def remove_containers(checkout: Path, project: str, tag: str) -> None:
    """Remove the containers, networks and volumes of a job, and the images that it built for itself."""
    files = ("compose.yaml", "compose.prod.yaml")
    for file in [file for file in files if (checkout / file).exists()]:
        docker(
            "compose", f"--project-name={project}", f"--file={file}", "--profile=*", "down", "--volumes",
            "--remove-orphans", "--timeout=5", "--rmi=local", cwd=checkout,
            environment={"TAG": tag, "DOMAIN": "localhost"},
        )  # fmt: skip


def serving(project: str) -> list[tuple[str, str]]:
    """Return the image of each container that serves in a compose project, and the revision that it is of."""
    revision = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    containers = docker(
        "ps",
        "--quiet",
        f"--filter=label=com.docker.compose.project={project}",
        "--filter=label=com.docker.compose.service=app",
    ).split()
    inspected = [docker("inspect", f"--format={{{{.Config.Image}}}} {revision}", each) for each in containers]
    return [(image, revision) for image, revision in map(str.split, inspected)]


def server(service: Path, folder: Path, found: Machine) -> str:
    """Make a server with the image of the commit and the settings of the service, and a command for it.

    Return the name of the image. The command is `ssh` in `folder`/bin, and what it gets is in server.log.
    """
    production = yaml.safe_load((service / "compose.prod.yaml").read_text())
    name = str(production["name"]).removesuffix("-production")
    place = folder / "server" / name
    place.mkdir(parents=True)
    own = {
        variable: value for variable, value in found.environment.items() if re.search("PORT|SUBNET", variable)
    }
    settings = {"DOMAIN": "localhost", **own}
    (place / ".env").write_text("".join(f"{variable}={value}\n" for variable, value in settings.items()))
    docker("build", f"--tag={name}:{found.sha}", ".", cwd=service)
    tool = folder / "bin" / "ssh"
    tool.parent.mkdir()
    tool.write_text(SSH)
    tool.chmod(0o755)
    found.environment["SERVER"] = str(folder / "server")
    return f"{name}:{found.sha}"
