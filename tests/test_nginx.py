"""Tests the recipe of nginx: a service on one server behind the real nginx, with its configuration."""

import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from websockets.sync.client import connect

from harness.containers import docker, in_production, unique
from harness.development import development, in_git
from harness.matrix import Answers
from harness.pages import page, section, shell
from harness.ports import reserved_port
from harness.running import DEADLINE, run
from harness.steps import Step, steps, take
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = [
    pytest.mark.docker,
    pytest.mark.project,
    pytest.mark.usefixtures("newest_python"),
    pytest.mark.xdist_group("nginx"),
]

PAGE = page("docs/recipes/nginx.md")
DEPLOYED = "In production"
HOST = "api.example.com"
# The address that a client has in these tests. The gateway of a network is another, and so is 127.0.0.1.
CLIENT = "127.0.0.3"
SPOOFED = "203.0.113.9"

# Endpoints that log each call, and break the connection on which they are called.
BREAKING = '''

import logging
import os
import socket
from contextlib import suppress


@app.api_route("/broken", methods=["GET", "POST"])
async def break_connections() -> None:
    """Break all connections to this worker before a response is sent."""
    logging.getLogger("broken").warning("called")
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as connection:
            # The socket that listens has no peer.
            connection.getpeername()
            connection.shutdown(socket.SHUT_RDWR)
'''


class Site(NamedTuple):
    """Keeps where nginx listens, and how to ask the containers behind it."""

    service: Path
    certificates: Path
    challenges: Path
    http: int
    https: int
    variables: dict[str, str]

    def client(self, address: str = CLIENT) -> httpx2.Client:
        """Return a client with this address that trusts only the site's certificate."""
        transport = httpx2.HTTPTransport(verify=self.trust(), local_address=address)
        return httpx2.Client(transport=transport, timeout=DEADLINE, trust_env=False)

    def ask(self, method: str, path: str, *, tls: bool = True, **options: Any) -> httpx2.Response:
        with self.client() as client:
            return self.ask_with(client, method, path, tls=tls, **options)

    def ask_with(
        self, client: httpx2.Client, method: str, path: str, *, tls: bool = True, **options: Any
    ) -> httpx2.Response:
        url = f"https://127.0.0.1:{self.https}" if tls else f"http://127.0.0.1:{self.http}"
        headers = {"Host": HOST} | options.pop("headers", {})
        name = {"sni_hostname": HOST} if tls else {}
        return client.request(method, url + path, headers=headers, extensions=name, **options)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    @property
    def certificate(self) -> Path:
        return self.certificates / f"live/{HOST}/fullchain.pem"

    def logs(self, file: str, service: str) -> str:
        """Return what a container has printed, without the names that Compose puts before the lines."""
        compose = ["compose", f"--file={file}", "logs", "--no-color", "--no-log-prefix", service]
        return docker(*compose, cwd=self.service, environment=self.variables)

    def lines(self, file: str, service: str, **values: Any) -> list[dict[str, Any]]:
        """Wait for lines that are JSON objects with these values, and return them."""

        def found() -> list[dict[str, Any]]:
            lines = self.logs(file, service).splitlines()
            records = [json.loads(line) for line in lines if line.startswith("{")]
            return [record for record in records if values.items() <= record.items()]

        return until(found, f"a line of {service} with {values}")

    def line_of_service(self, **values: Any) -> dict[str, Any]:
        return self.lines("compose.prod.yaml", "app", **values)[-1]

    def line_of_nginx(self, **values: Any) -> dict[str, Any]:
        return self.lines("compose.nginx.yaml", "nginx", **values)[-1]


def make_certificate(folder: Path) -> None:
    """Make the two files that certbot writes, for a name without an authority."""
    live = folder / "live" / HOST
    live.mkdir(parents=True, exist_ok=True)
    options = f"-subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -days 2 -nodes"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    run(f"openssl req -x509 {key} {options} -keyout privkey.pem -out fullchain.pem 2>&1", live)


def on_this_machine(text: str, site: Site) -> str:
    """Return a step with the ports and folders of the test for those of a server."""
    changes = {
        "listen 80;": f"listen {site.http};",
        "listen [::]:80;": f"listen [::]:{site.http};",
        "listen 443 ssl;": f"listen {site.https} ssl;",
        "listen [::]:443 ssl;": f"listen [::]:{site.https} ssl;",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{site.variables['HOST_PORT']};",
        "- /etc/letsencrypt:": f"- {site.certificates}:",
        "- /var/www/acme:": f"- {site.challenges}:",
        "name: nginx\n": f"name: {unique('nginx')}\n",
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def follow_on_this_machine(page: str, site: Site) -> None:
    for action, file, text in steps(page):
        take(Step(action, file, on_this_machine(text, site)), site.service, **site.variables)


@pytest.fixture(scope="module")
def site(render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A deployed service with a WebSocket and a stream, behind nginx as the recipe has it."""
    answers: Answers = {"server": "uvicorn", "database": "none", "cache": "none"}
    service = in_git(render_to(tmp_path_factory.mktemp("nginx") / unique("orders"), **answers))
    with development(service, answers):
        for name in ("websocket", "server-sent-events"):
            for step in steps(page(f"docs/recipes/{name}.md")):
                take(step, service)
    main = service / "app/main.py"
    main.write_text(main.read_text() + BREAKING)
    with ExitStack() as held:
        http, https = (held.enter_context(reserved_port()) for _ in range(2))
        assert http
        assert https
        variables = held.enter_context(in_production(service))
        parent = service.parent
        site = Site(service, parent / "certificates", parent / "challenges", http, https, variables)
        make_certificate(site.certificates)
        (site.challenges / ".well-known/acme-challenge").mkdir(parents=True)
        held.callback(remove_nginx, site)
        follow_on_this_machine(PAGE.partition(f"## {DEPLOYED}\n")[0], site)
        deployment, start, _ = steps(section(PAGE, DEPLOYED))
        # The tag of the image that the test has built.
        given = "export TAG=$(git rev-parse HEAD)"
        assert given in deployment.text
        take(deployment._replace(text=deployment.text.replace(given, "")), service, **variables)
        take(start, service, **variables)
        until(lambda: responds(site), "a response through nginx")
        yield site


def remove_nginx(site: Site) -> None:
    file = site.service / "compose.nginx.yaml"
    if file.exists():
        docker("compose", f"--file={file}", "down", "--timeout=5", cwd=site.service)


def responds(site: Site) -> bool:
    try:
        return site.ask("GET", "/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


# Requests


def test_http_is_redirected_to_https_with_its_method_path_and_query(site: Site) -> None:
    response = site.ask("POST", "/items/5?q=x", tls=False)
    assert (response.status_code, response.headers["Location"]) == (308, f"https://{HOST}/items/5?q=x")


def test_a_file_of_the_certificate_authority_is_served_without_tls(site: Site) -> None:
    (site.challenges / ".well-known/acme-challenge/token").write_text("proof")
    assert site.ask("GET", "/.well-known/acme-challenge/token", tls=False).text == "proof"


def test_a_response_comes_by_https(site: Site) -> None:
    response = site.ask("GET", "/items/5?q=x")
    assert (response.status_code, response.json()) == (200, {"item_id": 5, "q": "x"})


def test_a_response_comes_by_http_2(site: Site) -> None:
    curl = f"curl --silent --show-error --noproxy '*' --http2 --cacert {site.certificate}"
    address = f"--resolve {HOST}:{site.https}:127.0.0.1 https://{HOST}:{site.https}/items/5"
    version = run(f"{curl} --output body --write-out '%{{http_version}}' {address}", site.service.parent)
    assert version == "2"


def test_the_service_has_the_address_of_the_client_whatever_the_client_sends(site: Site) -> None:
    site.ask("GET", "/items/6", headers={"X-Forwarded-For": SPOOFED, "X-Request-ID": "spoofed-for"})
    assert site.line_of_service(request_id="spoofed-for")["client"] == CLIENT
    assert site.line_of_nginx(request_id="spoofed-for")["client"] == CLIENT


def test_a_redirect_of_the_service_keeps_https_whatever_the_client_sends(site: Site) -> None:
    response = site.ask("GET", "/items/5/", headers={"X-Forwarded-Proto": "http"})
    assert (response.status_code, response.headers["Location"]) == (307, f"https://{HOST}/items/5")


def test_a_body_of_the_limit_reaches_the_service_and_a_larger_one_does_not(site: Site) -> None:
    statuses = {}
    for size in (2**20, 2**20 + 1):
        headers = {"X-Request-ID": f"body-{size}"}
        statuses[size] = site.ask("POST", "/items/5", content=b"x" * size, headers=headers).status_code
    assert statuses == {2**20: 405, 2**20 + 1: 413}
    assert site.line_of_service(request_id=f"body-{2**20}")["status"] == 405
    assert f"body-{2**20 + 1}" not in site.logs("compose.prod.yaml", "app")


def test_a_response_has_security_headers_and_no_version(site: Site) -> None:
    for path, status in (("/items/5", 200), ("/nothing", 404)):
        response = site.ask("GET", path)
        assert response.status_code == status
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert response.headers["Server"] == "nginx"


# Connections


def test_a_websocket_goes_through(site: Site) -> None:
    plain = socket.create_connection(("127.0.0.1", site.https), DEADLINE)
    url = f"wss://{HOST}/chat"
    with connect(url, sock=plain, ssl=site.trust(), open_timeout=DEADLINE, proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"


def test_an_event_arrives_before_its_stream_ends(site: Site) -> None:
    url = f"https://127.0.0.1:{site.https}/countdown?start=3600"
    options: dict[str, Any] = {"headers": {"Host": HOST}, "extensions": {"sni_hostname": HOST}}
    with site.client() as client, client.stream("GET", url, **options) as response:
        # The whole stream takes an hour.
        assert next(response.iter_lines()) == 'data: {"left": 3600}'


@pytest.mark.parametrize(("method", "calls"), [("GET", 2), ("POST", 1)])
def test_only_a_request_that_changes_nothing_is_sent_again_after_a_broken_connection(
    site: Site, method: str, calls: int
) -> None:
    before = site.logs("compose.prod.yaml", "app").count('"broken"')
    # A worker of nginx keeps the connection of the first request to the service for the second. Both reach
    # the same worker, because they come on one connection.
    with site.client() as client:
        assert site.ask_with(client, "GET", "/items/5").status_code == 200
        assert site.ask_with(client, method, "/broken").status_code == 502
    site.line_of_nginx(path="/broken", method=method, status=502)
    assert site.logs("compose.prod.yaml", "app").count('"broken"') - before == calls


def test_nginx_closes_an_idle_connection_before_the_service_does(site: Site) -> None:
    assert site.ask("GET", "/items/5").status_code == 200
    # Uvicorn closes it after 5 seconds.
    until(lambda: not open_connections(site), "the end of the idle connections", deadline=4)


def open_connections(site: Site) -> list[str]:
    """Return the connections to the service in its container, without those of the health check."""
    compose = ["compose", "--file=compose.prod.yaml", "exec", "-T", "app"]
    code = "print(open('/proc/net/tcp').read())"
    printed = docker(*compose, "python", "-c", code, cwd=site.service, environment=site.variables)
    rows = [line.split() for line in printed.splitlines()[1:] if line.strip()]
    # Addresses and ports are hexadecimal, and 01 is an established connection.
    loopback = "0100007F"
    return [row[2] for row in rows if row[1].endswith(":1F40") and row[3] == "01" and row[2][:8] != loopback]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: ", id="headers"),
        pytest.param(
            f"POST /items/5 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n1".encode(), id="body"
        ),
    ],
)
def test_a_client_that_sends_only_a_part_is_disconnected(site: Site, sent: bytes) -> None:
    with (
        socket.create_connection(("127.0.0.1", site.https), DEADLINE) as plain,
        site.trust().wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        connection.sendall(sent)
        response = b"".join(iter(lambda: connection.recv(4096), b""))
    assert response == b"" or response.startswith(b"HTTP/1.1 408 ")


def test_no_log_has_a_query(site: Site) -> None:
    site.ask("GET", "/items/7?token=hidden")
    site.ask("POST", "/broken?token=hidden")
    site.line_of_nginx(path="/items/7", method="GET", status=200)
    site.line_of_nginx(path="/broken", status=502)
    assert "hidden" not in site.logs("compose.nginx.yaml", "nginx")


# Changes


def test_a_renewed_certificate_is_served_after_the_command_of_the_page(site: Site) -> None:
    old = ssl.PEM_cert_to_DER_cert(site.certificate.read_text())
    shutil.rmtree(site.certificates / "live")
    make_certificate(site.certificates)
    assert served_certificate(site) == old
    [*_, reload] = shell(section(PAGE, DEPLOYED))
    run(reload, site.service, **site.variables)
    until(lambda: served_certificate(site) != old, "the new certificate")
    assert responds(site)


def served_certificate(site: Site) -> bytes:
    with connected(site) as connection:
        certificate = connection.getpeercert(binary_form=True)
        assert certificate
        return certificate


@contextmanager
def connected(site: Site) -> Iterator[ssl.SSLSocket]:
    """Open a TLS connection whatever the certificate is."""
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", site.https), DEADLINE) as plain,
        anyone.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        yield connection
