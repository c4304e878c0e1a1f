"""Runs a rendered service in production behind its proxy, with the commands of its own page."""

import functools
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from harness.acme import Authority, authority, free_subnet
from harness.containers import build, docker, unique
from harness.matrix import Answers
from harness.ports import reserved_port
from harness.running import variables
from harness.stacks import make_secrets
from harness.traffic import PAUSE, Traffic
from harness.waiting import until

# A name that no DNS knows, so that only the authority of the tests gives a certificate for it.
DOMAIN = "api.example.test"

# What an owner changes to take certificates from another authority: the file, and what stands where.
OTHER_AUTHORITY = {
    "caddy": ("deploy/caddy/Caddyfile", "\tacme_ca {$ACME_CA}\n", "\tacme_ca_root /etc/caddy/acme.pem\n"),
    "traefik": (
        "compose.prod.yaml",
        "      - --certificatesresolvers.acme.acme.tlschallenge\n",
        "      - --certificatesresolvers.acme.acme.cacertificates=/etc/traefik/dynamic/acme.pem\n",
    ),
}

# Releases that differ from the first in one respect: the lines of a Dockerfile that begins with its image.
RELEASES = {
    "2": "ENV SECOND=1",
    "slow": "USER root\nRUN echo 'import time; time.sleep(3)' >> app/main.py\nUSER 10001:10001",
    "never-ready": "USER root\nRUN sed -i 's#/health/ready#/health/later#' app/*.py\nUSER 10001:10001",
    "has-no-command": 'CMD ["nothing"]',
    "dies": "USER root\nRUN echo 'raise RuntimeError' >> app/main.py\nUSER 10001:10001",
}
MIGRATIONS = {
    "migrates": "op.add_column('items', sa.Column('price', sa.Integer()))",
    "fails": "op.execute('ALTER TABLE nowhere ADD price INTEGER')",
}
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    {}
"""


@dataclass
class Done:
    """Records what `deploy/release` printed, and its exit code."""

    code: int
    output: str


@dataclass
class Production:
    """Controls a service in production: its releases, its containers and its clients."""

    service: Path
    answers: Answers
    environment: dict[str, str]
    authority: Authority
    image: str
    url: str
    http_url: str
    context: ssl.SSLContext | None = field(default=None)

    def begin(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start `deploy/release` in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            ["deploy/release", *arguments],
            cwd=self.service,
            env=variables(self.service) | self.environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self, begun: subprocess.Popen[str]) -> Done:
        """Wait until `deploy/release` and all that it started has ended."""
        output, _ = begun.communicate(timeout=300)
        return Done(begun.returncode, output)

    def release(self, *arguments: str, **more: str) -> Done:
        """Run `deploy/release`."""
        return self.end(self.begin(*arguments, **more))

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose as somebody on the server does, who sets no variable."""
        return docker(
            "compose", "--file=compose.prod.yaml", *arguments, cwd=self.service, environment=self.environment
        )

    def containers(self, *services: str) -> list[str]:
        """Return the ids of the containers of these services, or of all."""
        return self.compose("ps", "--all", "--quiet", *services).split()

    def serving(self) -> str:
        """Return the tag of the image that all containers of the service run."""
        [name] = {
            docker("inspect", "--format={{.Config.Image}}", each).strip() for each in self.containers("app")
        }
        return name.partition(":")[2]

    def remembered(self, name: str) -> str:
        """Return a variable of `.env`."""
        lines = dict(line.split("=", 1) for line in (self.service / ".env").read_text().split())
        return lines.get(name, "")

    # Clients

    def trust(self) -> ssl.SSLContext:
        """Return the settings of a client that trusts the authority alone."""
        self.context = self.context or self.authority.client_context()
        return self.context

    def client(self) -> httpx2.Client:
        """Make a client that reaches this machine under the service's name."""
        return httpx2.Client(verify=self.trust(), trust_env=False, timeout=20)

    def request(
        self, method: str, path: str, *, url: str = "", json: Any = None, **headers: str
    ) -> httpx2.Response:
        with self.client() as client:
            return client.request(
                method,
                (url or self.url) + path,
                json=json,
                headers={
                    "Host": DOMAIN,
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                },
                extensions={"sni_hostname": DOMAIN},
            )

    def is_ready(self) -> bool:
        """Tell whether the service is ready, through the proxy and with its certificate."""
        try:
            return self.request("GET", "/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def traffic(self, pause: float = PAUSE) -> Traffic:
        """Return clients that use the service until the block ends, with these pauses between requests."""

        async def by_name(request: httpx2.Request) -> None:
            request.extensions = {**request.extensions, "sni_hostname": DOMAIN}

        def connect(limits: httpx2.Limits) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                base_url=self.url,
                headers={"Host": DOMAIN},
                event_hooks={"request": [by_name]},
                verify=self.trust(),
                trust_env=False,
                timeout=20,
                limits=limits,
            )

        return Traffic(connect, pause)

    # Images

    @functools.cached_property
    def base(self) -> str:
        """Return the first release's image, which the service's Dockerfile builds."""
        build(self.service, f"{self.image}:1")
        return f"{self.image}:1"

    def make(self, tag: str) -> str:
        """Build another release of the service, and return its tag."""
        migration = MIGRATIONS.get(tag)
        folder = self.service.parent / f"release-{tag}"
        folder.mkdir(exist_ok=True)
        if migration:
            (folder / "0002_price.py").write_text(MIGRATION.format(migration))
        lines = RELEASES.get(tag, "COPY --chmod=go+rX 0002_price.py migrations/versions/")
        (folder / "Dockerfile").write_text(f"FROM {self.base}\n{lines}\n")
        build(folder, f"{self.image}:{tag}")
        return tag


@contextmanager
def production(service: Path, answers: Answers) -> Iterator[Production]:
    """Yield a service whose first release serves at free ports under a name with a certificate.

    All that was started is removed at the end.
    """
    with ExitStack() as held:
        found = held.enter_context(authority(service.parent / "acme"))
        file, line, more = OTHER_AUTHORITY[answers["proxy"]]
        replace(service / file, line, line + more)
        (service / "deploy" / answers["proxy"] / "acme.pem").write_text(found.certificate)
        join(service, found)
        make_secrets(service)
        ports = [held.enter_context(reserved_port()) for _ in range(2)]
        name = unique("production")
        settings = {
            "DOMAIN": DOMAIN,
            "ACME_CA": found.directory,
            "IMAGE": unique("image"),
            "HTTP_PORT": str(ports[0]),
            "HTTPS_PORT": str(ports[1]),
            "PROXY_SUBNET": free_subnet(),
        }
        (service / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        started = Production(
            service,
            answers,
            {"COMPOSE_PROJECT_NAME": name},
            found,
            settings["IMAGE"],
            f"https://127.0.0.1:{ports[1]}",
            f"http://127.0.0.1:{ports[0]}",
        )
        try:
            assert started.base
            first = started.release("1")
            assert first.code == 0, first.output
            until(started.is_ready, "the proxy has a certificate")
            yield started
        finally:
            started.compose(
                "--profile=*", "down", "--volumes", "--remove-orphans", "--timeout=5", "--rmi=local"
            )
            until(functools.partial(is_down, name), "the containers are removed")
            tags = ("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={started.image}")
            # By their tags: another test that runs may have built the same image.
            for tag in docker(*tags).split():
                docker("rmi", "--force", tag)
            shutil.rmtree(service / "secrets", ignore_errors=True)


def is_down(project: str) -> bool:
    """Tell whether no container of a project is left. The engine may still be removing one."""
    return not docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={project}")


def is_unused(image: str) -> bool:
    """Tell whether no container has this image. The engine may still be removing one."""
    return not docker("ps", "--all", "--quiet", f"--filter=ancestor={image}")


def join(service: Path, found: Authority) -> None:
    """Give the proxy a second network, in which the authority can ask it for its proof."""
    file = service / "compose.prod.yaml"
    replace(
        file,
        "    networks:\n      - proxy\n    cap_add",
        f"    networks:\n      proxy:\n      acme:\n        ipv4_address: {found.server}\n    cap_add",
    )
    replace(file, "\nnetworks:\n", f"\nnetworks:\n  acme:\n    name: {found.network}\n    external: true\n")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {old!r} {text.count(old)} times"
    file.write_text(text.replace(old, new))
