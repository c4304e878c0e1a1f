"""Tests what the page on other platforms says that the image needs, and does with what they set."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import HARDENED, Container, DockerError, build, docker, unique
from harness.matrix import values
from harness.pages import codes, page, rows
from harness.waiting import until
from tests.conftest import Render, RenderTo

pytestmark = [pytest.mark.docker, pytest.mark.project]

PAGE = page("docs/elsewhere.md")
PORTS = {codes(name)[0]: text.partition(";")[0] for name, text in rows(PAGE, "`server`")}
# What a proxy sends that adds to what a client has sent.
FORWARDED = {
    "X-Forwarded-For": "203.0.113.1, 203.0.113.2",
    "X-Forwarded-Proto": "https",
    "Host": "a.example.com",
}

ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=30)
connection.request("GET", "{path}", headers={headers})
response = connection.getresponse()
print(response.status, response.getheader("Location"))
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(server, marks=pytest.mark.xdist_group(f"elsewhere-{server}"))
        for server in values("server")
    ],
)
def container(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Container]]:
    """A server and its container, with the variables that a platform sets."""
    server = request.param
    service = render_to(tmp_path_factory.mktemp("elsewhere") / "orders-api", server=server)
    tag = unique("image")
    variables = ("--env=PORT=8080", "--env=FORWARDED_ALLOW_IPS=*", "--env=ALLOWED_HOSTS=a.example.com")
    try:
        build(service, tag)
        with Container(tag, *HARDENED, "--memory=256m", *variables) as container:
            yield server, container
    finally:
        docker("image", "rm", "--force", tag)


def ask(container: Container, port: str, path: str) -> str:
    """Return the status of a response and where it leads to, or "" while nothing listens."""
    try:
        return container.python(ASK.format(port=port, path=path, headers=FORWARDED))
    except DockerError as error:
        if "ConnectionRefusedError" not in str(error):
            raise
        return ""


def test_the_page_has_every_server() -> None:
    assert [*PORTS] == values("server")


def test_the_page_has_the_memory_limits_of_compose(render: Render) -> None:
    limits = []
    for database in ("none", "postgresql"):
        compose = (render(database, database=database) / "compose.prod.yaml").read_text()
        limits += re.findall(r"MEMORY_LIMIT:-(\d+)M\}$", compose.partition("  app:\n")[2], re.MULTILINE)[:1]
    [row] = [row for row in rows(PAGE, "what") if row[0] == "memory"]
    assert re.findall(r"(\d+) MB", row[1]) == limits


def test_a_server_listens_where_the_page_says_if_the_platform_sets_a_port(
    container: tuple[str, Container],
) -> None:
    server, running = container
    [port] = PORTS[server].split()
    until(lambda: ask(running, port, "/health/ready") == "200 None", f"a response on {port}")
    [other] = {"8000", "8080"} - {port}
    assert ask(running, other, "/health/ready") == ""


def test_the_client_is_the_first_forwarded_address_if_every_proxy_is_trusted(
    container: tuple[str, Container],
) -> None:
    server, running = container
    until(lambda: ask(running, PORTS[server], "/items/5") == "200 None", "a response")

    def lines() -> list[dict[str, object]]:
        records = [json.loads(line) for line in running.logs().splitlines() if line.startswith("{")]
        return [record for record in records if record.get("path") == "/items/5"]

    until(lines, "the line of the request")
    assert lines()[0]["client"] == "203.0.113.1"


def test_a_redirect_has_the_scheme_of_the_proxy(container: tuple[str, Container]) -> None:
    server, running = container
    until(lambda: ask(running, PORTS[server], "/health/ready") == "200 None", "a response")
    assert ask(running, PORTS[server], "/items/5/") == "307 https://a.example.com/items/5"


def test_a_migration_that_fails_ends_with_another_code_than_0(render_to: RenderTo, tmp_path: Path) -> None:
    service = render_to(tmp_path / "orders-api", database="postgresql")
    [command] = re.findall(r"^\| migrations \| `([^`]+)`", PAGE, re.MULTILINE)
    # Nothing listens there.
    (tmp_path / "url").write_text("postgresql://app:app@127.0.0.1:1/app\n")
    secret = (f"--volume={tmp_path / 'url'}:/url:ro", "--env=DATABASE_URL_FILE=/url")
    tag = unique("image")
    try:
        build(service, tag)
        with Container(tag, *HARDENED, *secret, command=tuple(command.split())) as container:
            assert container.wait() != 0
            # The file was read.
            assert "127.0.0.1" in container.logs()
    finally:
        docker("image", "rm", "--force", tag)
