"""Tests what each proxy lets through to the service, and what it adds and leaves out."""

import json
import re
import socket
import ssl
from collections.abc import Iterator

import pytest

from harness.containers import DockerError, docker
from harness.matrix import Answers, label
from harness.pages import page, section, service_section, shell
from harness.production import DOMAIN, Production, production
from harness.running import run
from harness.waiting import until
from tests.conftest import RenderTo

pytestmark = pytest.mark.docker

STACKS: list[Answers] = [
    {"proxy": "caddy", "server": "granian", "database": "mysql"},
    {"proxy": "traefik", "server": "uvicorn", "database": "postgresql", "cache": "redis"},
]


@pytest.fixture(
    scope="module",
    params=[pytest.param(a, id=label(a), marks=pytest.mark.xdist_group(f"proxy-{label(a)}")) for a in STACKS],
)
def server(
    request: pytest.FixtureRequest, render_to: RenderTo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    service = render_to(tmp_path_factory.mktemp("server") / "orders-api", **request.param)
    with production(service, request.param) as started:
        yield started


def lines(server: Production, service: str) -> list[str]:
    return server.compose("logs", "--no-color", "--no-log-prefix", service).splitlines()


def access_line(server: Production, request_id: str) -> dict[str, object]:
    """Return the service's log line of a request."""

    def found() -> dict[str, object] | None:
        texts = [line for line in lines(server, "app") if request_id in line and '"access"' in line]
        return json.loads(texts[0]) if texts else None

    return until(found, f"the line of {request_id}")


# HTTPS


def test_the_authority_gives_a_certificate_for_the_domain(server: Production) -> None:
    with server.client() as client:
        response = client.get(
            f"{server.url}/health/ready", headers={"Host": DOMAIN}, extensions={"sni_hostname": DOMAIN}
        )
    # The client trusts no other authority.
    assert response.json() == {"status": "ok"}


def test_http_is_redirected_to_https(server: Production) -> None:
    response = server.request("GET", "/items?limit=5", url=server.http_url)
    assert response.status_code in {301, 308}
    assert response.headers["location"] == f"https://{DOMAIN}/items?limit=5"


def test_http2_is_spoken_and_http3_offered(server: Production) -> None:
    context = server.authority.client_context()
    context.set_alpn_protocols(["h2"])
    host, port = server.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
    assert "h3=" in server.request("GET", "/health/live").headers["alt-svc"]


def test_a_redirect_of_the_service_keeps_https_and_the_name(server: Production) -> None:
    response = server.request("GET", "/items/", X_Forwarded_Host="evil.example", X_Forwarded_Proto="http")
    assert response.status_code == 307
    assert response.headers["location"] == f"https://{DOMAIN}/items"


def test_a_host_that_is_not_the_domain_does_not_reach_the_service(server: Production) -> None:
    for url in (server.url, server.http_url):
        response = server.request("GET", "/items/", url=url, Host="evil.example", X_Request_ID="evil-host-1")
        assert "x-request-id" not in response.headers
        assert "evil.example" not in response.headers.get("location", "")
        assert (response.status_code, response.content) in ((404, response.content), (200, b""))


def test_the_response_has_the_headers_of_a_service_on_the_internet(server: Production) -> None:
    headers = server.request("GET", "/items").headers
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert {"server", "via", "x-powered-by"} & {*headers} == set()


ENCODINGS = {"caddy": ["gzip", "zstd"], "traefik": ["gzip", "zstd", "br"]}


def test_a_long_response_is_compressed_as_the_client_asks(server: Production) -> None:
    for encoding in ENCODINGS[server.answers["proxy"]]:
        with server.client() as client:
            request = client.build_request(
                "GET", f"{server.url}/openapi.json", headers={"Host": DOMAIN, "Accept-Encoding": encoding}
            )
            request.extensions["sni_hostname"] = DOMAIN
            response = client.send(request, stream=True)
            assert response.headers["content-encoding"] == encoding
            response.close()
    assert (
        server.request("GET", "/openapi.json", Accept_Encoding="gzip").json()["info"]["title"] == "orders-api"
    )


def test_a_body_above_the_limit_is_a_413(server: Production) -> None:
    response = server.request("POST", "/items", json={"name": "x" * 2_000_000})
    # Granian closes the connection after its response, which a proxy that still sends may not see any more.
    assert response.status_code in ({413, 502} if server.answers["server"] == "granian" else {413})
    assert server.request("GET", "/health/ready").status_code == 200


def test_headers_above_the_limit_are_a_431_and_those_below_reach_the_service(server: Production) -> None:
    assert server.request("GET", "/items", X_Long="x" * 20 * 1024).status_code == 200
    assert server.request("GET", "/items", X_Long="x" * 64 * 1024).status_code == 431


# What is in the service's log


def own_addresses(server: Production) -> set[str]:
    """Return this machine's addresses in the proxy's networks, which a client on it calls from."""
    [proxy] = server.containers("proxy")
    return {
        *docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}", proxy).split()
    }


def test_the_service_logs_the_address_of_the_client(server: Production) -> None:
    server.request("GET", "/items", X_Request_ID="client-address")
    assert access_line(server, "client-address")["client"] in own_addresses(server)


@pytest.mark.parametrize(
    "forged",
    [
        {"X_Forwarded_For": "203.0.113.7"},
        {"X_Forwarded_For": "203.0.113.7", "X_Forwarded_Proto": "http", "X_Real_IP": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7;proto=http;host=evil.example"},
    ],
    ids=" ".join,
)
def test_what_a_client_says_of_its_address_is_ignored(server: Production, forged: dict[str, str]) -> None:
    name = "forged-" + "-".join(forged).replace("_", "").lower()
    response = server.request("GET", "/items/", X_Request_ID=name, **forged)
    assert response.headers["location"].startswith(f"https://{DOMAIN}/")
    assert access_line(server, name)["client"] in own_addresses(server)


def test_the_proxy_logs_json_without_queries_and_headers(server: Production) -> None:
    server.request("GET", "/items?limit=5&token=secret", Authorization="Bearer secret", Cookie="a=secret")
    found = until(
        lambda: [line for line in lines(server, "proxy") if "/items" in line], "a line of the proxy"
    )
    assert all(isinstance(json.loads(line), dict) for line in lines(server, "proxy"))
    assert "secret" not in "\n".join(lines(server, "proxy"))
    assert found


# Networks


def test_nothing_but_the_proxy_has_a_port_on_the_server(server: Production) -> None:
    published = {
        service: docker("inspect", "--format={{json .HostConfig.PortBindings}}", *server.containers(service))
        for service in server.compose("ps", "--services").split()
    }
    assert [service for service, ports in published.items() if ports.strip() not in {"{}", "null"}] == [
        "proxy"
    ]


def test_the_proxy_does_not_reach_the_database(server: Production) -> None:
    """Try from a container in the proxy's network, by the address that the service uses."""
    [database] = server.containers("database")
    [app] = server.containers("app")
    address = docker(
        "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", database
    ).strip()
    port = {"postgresql": 5432, "mysql": 3306}[server.answers["database"]]
    connect = f"import socket; socket.create_connection(('{address}', {port}), 3); print('connected')"
    assert docker("exec", app, "python", "-c", connect) == "connected\n"
    network = f"{server.environment['COMPOSE_PROJECT_NAME']}_proxy"
    with pytest.raises(DockerError, match=r"timed out|unreachable"):
        docker("run", "--rm", f"--network={network}", server.base, "python", "-c", connect)


def test_the_database_has_no_way_out(server: Production) -> None:
    [database] = server.containers("database")
    [app] = server.containers("app")
    assert not default_route(database)
    assert default_route(app)


def default_route(container: str) -> bool:
    """Tell whether a container has a route to addresses outside of its networks."""
    routes = docker("exec", container, "cat", "/proc/net/route").splitlines()[1:]
    return any(route.split()[1] == "00000000" for route in routes)


def test_the_proxy_has_one_capability_and_a_root_that_is_read_only(server: Production) -> None:
    [proxy] = server.containers("proxy")
    host = json.loads(docker("inspect", "--format={{json .HostConfig}}", proxy))
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in host["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert host["Memory"] == 256 * 1024 * 1024
    assert host["PidsLimit"] == 256
    assert host["SecurityOpt"] == ["no-new-privileges:true"]


# The command of the service's own page


def test_the_command_of_the_page_starts_the_proxy_again(server: Production) -> None:
    [command] = [block for block in shell(service_section(server.service, "Deploy")) if "recreate" in block]
    [proxy], app = server.containers("proxy"), server.containers("app")
    run(command, server.service, **server.environment)
    assert server.containers("proxy") != [proxy]
    assert server.containers("app") == app
    until(server.is_ready, "the service is ready")


# Passwords, as docs/change-a-password.md changes them

PASSWORDS = {"postgresql": "PostgreSQL", "mysql": "MySQL", "redis": "The cache"}


def test_every_password_has_a_section() -> None:
    titles = re.findall("^## (.*)$", page("docs/change-a-password.md"), re.MULTILINE)
    assert titles == [*PASSWORDS.values()]


@pytest.mark.parametrize("question", ["database", "cache"])
def test_a_password_is_changed_and_no_request_is_lost(server: Production, question: str) -> None:
    answer = server.answers.get(question, "none")
    if answer == "none":
        pytest.skip("this service has no cache")
    secrets = server.service / "secrets"
    before = {name: (secrets / name).read_text() for name in (f"{question}_password", f"{question}_url")}
    with server.traffic() as traffic:
        for block in shell(section(page("docs/change-a-password.md"), PASSWORDS[answer])):
            run(block, server.service, **server.environment)
    assert traffic.lost == []
    assert traffic.missing(lambda path: server.request("GET", path)) == []
    for name, text in before.items():
        assert (secrets / name).read_text() != text
    assert (secrets / f"{question}_password").read_text().strip() in (secrets / f"{question}_url").read_text()
    # The old password opens nothing, and the new one is used.
    assert [line for line in lines(server, "app") if '"level":"ERROR"' in line] == []
    assert connects(server, (secrets / f"{question}_url").read_text().strip())
    assert not connects(server, before[f"{question}_url"].strip())
    # The container of the backups has the new one too.
    assert "Backup " in server.compose("exec", "--no-TTY", "backup", "bash", "/opt/backup/backup.sh", "now")


# Opens a connection with the address in the first argument.
CONNECT = {
    "postgresql": "import asyncpg\nasync def main(url): await asyncpg.connect(url)",
    "mysql": "import asyncmy\nasync def main(url): await asyncmy.connect("
    "host='database', user='app', db='app', password=url.split(':')[2].split('@')[0])",
    "redis": "import redis.asyncio\nasync def main(url): await redis.asyncio.from_url(url).ping()",
}


def connects(server: Production, url: str) -> bool:
    """Tell whether the service's container can open a connection with this address."""
    script = f"import asyncio, sys, {CONNECT[url.partition(':')[0]][7:]}\nasyncio.run(main(sys.argv[1]))"
    [app] = server.containers("app")
    try:
        docker("exec", app, "python", "-c", script, url)
    except DockerError as error:
        if not re.search(r"password|WRONGPASS|Access denied", str(error)):
            raise
        return False
    return True


# Requests that are smuggled

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
AMBIGUOUS = {
    "two lengths": f"Content-Length: 4\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "a length that is no number": f"Content-Length: +{len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "an unknown encoding": f"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n{SMUGGLED}",
    "two encodings": f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "a space before the colon": f"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n{SMUGGLED}",
}


def raw(server: Production, text: str) -> str:
    """Send a text over TLS, and return all that comes back until the connection ends or is silent."""
    host, port = server.url.removeprefix("https://").split(":")
    context = server.trust()
    with (
        socket.create_connection((host, int(port)), timeout=2) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
    ):
        secure.sendall(text.encode())
        received = b""
        try:
            while part := secure.recv(65536):
                received += part
        except (TimeoutError, ssl.SSLError, ConnectionError):
            pass
    return received.decode(errors="replace")


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_a_request_with_an_ambiguous_length_is_refused(server: Production, kind: str) -> None:
    received = raw(server, f"POST /items HTTP/1.1\r\nHost: {DOMAIN}\r\n{AMBIGUOUS[kind]}")
    assert re.findall(r"HTTP/1\.[01] (\d+)", received)[:1] in (["400"], ["501"])
    assert "/smuggled" not in "\n".join(lines(server, "app"))


def test_of_a_length_and_chunks_only_the_chunks_count(server: Production) -> None:
    text = f"Content-Length: {5 + len(SMUGGLED)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
    received = raw(server, f"POST /items HTTP/1.1\r\nHost: {DOMAIN}\r\n{text}")
    # The body is empty. Whatever follows is the same client's next request, or is never read.
    assert re.findall(r"HTTP/1\.[01] (\d+)", received)[0] in {"400", "422"}
    assert received.count("HTTP/1.1 ") <= 2
