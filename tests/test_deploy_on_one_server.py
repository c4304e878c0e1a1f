"""Tests that docs/deploy-on-one-server.md can be followed, with a service of each proxy."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from harness import owners
from harness.acme import free_subnet
from harness.clones import commit, git
from harness.containers import docker, unique
from harness.development import in_git
from harness.matrix import values
from harness.pages import page, section, service_section, shell
from harness.ports import reserved_port
from harness.running import run
from harness.waiting import until
from tests.conftest import RenderTo

PAGE = page("docs/deploy-on-one-server.md")
SECTIONS = ("Before the first release", "Release", "Go back", "Every day")
MOVE = "Move to a proxy"
# tests/test_three_containers.py follows the first, and tests/test_proxies.py the other.
ELSEWHERE = ("More than one container", "Change a password")


def test_every_command_of_the_page_is_in_a_section_that_a_test_follows() -> None:
    followed = (*SECTIONS, *ELSEWHERE, MOVE)
    assert shell(PAGE) == [block for title in followed for block in shell(section(PAGE, title))]


def test_the_page_and_the_service_have_the_same_commands(
    render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = render_to(tmp_path_factory.mktemp("same") / "orders-api", proxy="caddy")
    [release, rollback, _, _] = shell(service_section(service, "Deploy"))
    assert release == shell(section(PAGE, "Release"))[0]
    assert [rollback] == shell(section(PAGE, "Go back"))
    assert shell(section(PAGE, "Before the first release")) == shell(
        service_section(service, "Once on the server")
    )


class Reader:
    """Types the commands of the page on a server whose name is localhost, at ports that are free."""

    def __init__(self, service: Path, ports: list[int], name: str) -> None:
        self.service = service
        self.ports = ports
        self.name = name

    def type(self, block: str) -> str:
        script = block.replace("orders-api", self.name).replace("DOMAIN=api.example.com", "DOMAIN=localhost")
        script = script.replace("https://api.example.com", f"https://localhost:{self.ports[1]}")
        return run(script.replace("curl", "curl --silent --show-error --insecure"), self.service)

    def succeeds(self, block: str) -> bool:
        """Type a block, and tell whether its commands succeed."""
        try:
            self.type(block)
        except AssertionError:
            return False
        return True

    def logs(self) -> str:
        """Return the end of all logs, which say why there is no response."""
        return docker("compose", "--file=compose.prod.yaml", "logs", "--tail=40", cwd=self.service)

    def type_all(self, title: str) -> list[str]:
        return [self.type(block) for block in shell(section(PAGE, title))]

    def serving(self) -> list[str]:
        """Return the tags of the containers that run the service."""
        labels = {"project": f"{self.name}-production", "service": "app"}
        filters = [f"--filter=label=com.docker.compose.{label}={value}" for label, value in labels.items()]
        names = docker("ps", "--format={{.Image}}", *filters)
        return [image.partition(":")[2] for image in names.split() if image.startswith(f"{self.name}:")]


@contextmanager
def reading(service: Path) -> Iterator[Reader]:
    """Yield a reader with free ports. All that was started is removed at the end."""
    name = service.name
    with ExitStack() as held:
        ports = [held.enter_context(reserved_port()) for _ in range(3)]
        assert all(ports)
        (service / ".env").write_text(
            f"HTTP_PORT={ports[0]}\nHTTPS_PORT={ports[1]}\nHOST_PORT={ports[2]}\nPROXY_SUBNET={free_subnet()}\n"
        )
        try:
            yield Reader(service, [port for port in ports if port], name)
        finally:
            down = ("--profile=*", "down", "--volumes", "--timeout=5", "--rmi=local")
            docker(
                "compose",
                "--file=compose.prod.yaml",
                *down,
                cwd=service,
                environment={"TAG": "1", "DOMAIN": "x"},
            )
            for image in {*docker("image", "ls", "--quiet", f"--filter=reference={name}").split()}:
                docker("rmi", "--force", image)


@pytest.fixture(params=[value for value in values("proxy") if value != "none"])
def reader(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    # The longest that is allowed: the names of its containers are longer than DNS allows.
    name = unique("orders").ljust(50, "s")
    service = render_to(tmp_path_factory.mktemp("server") / name, proxy=request.param, database="sqlite")
    with reading(in_git(service)) as reader:
        yield reader


@pytest.mark.docker
def test_a_first_release_that_fails_says_that_nothing_serves(reader: Reader) -> None:
    reader.type_all("Before the first release")
    with pytest.raises(AssertionError, match="missing; there is no earlier release, so nothing serves\n"):
        reader.type("deploy/release missing")


@pytest.mark.docker
def test_a_server_gets_its_first_release_the_next_and_the_one_before(reader: Reader) -> None:
    reader.type_all("Before the first release")
    release, answers = shell(section(PAGE, "Release"))
    first = git(reader.service, "rev-parse", "HEAD").strip()
    assert reader.type(release).endswith(f"{first} serves\n")
    try:
        until(lambda: reader.succeeds(answers), "the service answers")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{reader.logs()}") from error
    (reader.service / "README.md").write_text("# Orders\n")
    commit(reader.service, "Say what it is")
    second = git(reader.service, "rev-parse", "HEAD").strip()
    reader.type(release)
    assert reader.serving() == [second]
    reader.type_all("Go back")
    assert reader.serving() == [first]
    assert reader.type(answers) == '{"status":"ok"}'
    [printed] = reader.type_all("Every day")
    assert f"{reader.name}:{first}" in printed
    assert '"level":"INFO"' in printed
    assert "Recreate" not in printed
    assert reader.serving() == [first]
    # Neither git nor a build sees what deploy/release writes.
    assert git(reader.service, "status", "--porcelain") == ""


@pytest.mark.docker
def test_a_service_with_data_moves_to_a_proxy_and_keeps_its_rows(repository: Path, tmp_path: Path) -> None:
    service = owners.own(owners.copy(repository, tmp_path / unique("orders"), database="postgresql"))
    with reading(service) as reader:
        for title in ("Once on the server", "Deploy"):
            reader.type(shell(service_section(service, title))[0])
        url = f"http://127.0.0.1:{reader.ports[2]}"
        created = httpx2.post(f"{url}/items", json={"name": "lamp"}, trust_env=False)
        assert created.status_code == 201
        owners.update(service, proxy="caddy")
        assert owners.conflicts(service) == set()
        commit(service, "Have a proxy")
        [moved] = reader.type_all(MOVE)
        assert moved.endswith(" serves\n")

        def read() -> httpx2.Response | None:
            """Return the row, as soon as the proxy has a certificate."""
            try:
                url = f"https://localhost:{reader.ports[1]}{created.headers['location']}"
                return httpx2.get(url, verify=False, trust_env=False)
            except httpx2.TransportError:
                return None

        found = until(read, "a response over HTTPS")
    assert (found.status_code, found.json()) == (200, created.json())
