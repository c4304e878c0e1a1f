"""Sends requests of every kind, well meant or not, to services in production on each database."""

import asyncio
import socket
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.containers import unique
from harness.stacks import CACHED, DATABASES, POOL_SIZE, WORKERS, Stack, in_group
from harness.variants import variants
from harness.waiting import until

pytestmark = pytest.mark.docker

Deployment = Callable[[str], Stack]

EACH_DATABASE = variants((in_group({"database": database}, database) for database in DATABASES), 2)
EACH_SERVICE = [in_group({"database": database}, database) for database in CACHED]

# Abandoned requests for each database.
GIVEN_UP = 4_000
AT_ONCE = 32


@pytest.mark.parametrize("database", variants(EACH_SERVICE, 2))
def test_schemathesis_finds_no_response_that_the_openapi_document_does_not_name(
    deployment: Deployment, database: str, tmp_path: Path
) -> None:
    stack = deployment(database)
    options = [
        "--max-examples=25",
        "--seed=20260101",
        "--no-color",
        "--continue-on-failure",
        "--generation-database=none",
        # In a 405, Starlette names the methods of only one of the routes that have the path.
        "--exclude-checks=allow_header_conformance",
    ]
    schemathesis = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            *options,
            f"{stack.client.base_url}/openapi.json",
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert schemathesis.returncode == 0, schemathesis.stdout[-6000:]
    assert stack.lines('"exception"') == 0


def characters() -> Iterator[str]:
    """Yield the first and the last character of each Unicode category, without lone surrogates."""
    found: dict[str, list[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        found.setdefault(unicodedata.category(character), []).append(character)
    for category, members in sorted(found.items()):
        if category != "Cs":
            yield from (members[0], members[-1])


NAMES = [
    *characters(),
    "cafe\u0301",
    "\N{RIGHT-TO-LEFT OVERRIDE}\u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f680 \U0001f1f3\U0001f1f4",
    "\ufeff\ufffe\uffff",
    "a\x00b",
    " ",
    "",
    "n" * 200,
    "\U0001f680" * 200,
    "n" * 10_000,
    "'; DROP TABLE items; --",
    '" OR ""="',
    "%s %(name)s :name ${name} {name} \\",
    "NULL",
    "null",
]


@pytest.mark.parametrize("database", EACH_DATABASE)
def test_a_text_is_stored_as_given_or_refused(deployment: Deployment, database: str) -> None:
    stack = deployment(database)
    refused = []
    for text in NAMES:
        # The ending makes the name unique.
        item = {"name": text + unique("")[-13:-1] if len(text) < 100 and text else text, "description": text}
        created = stack.ask("POST", "/items", json=item)
        if created.status_code == 422:
            refused.append(text)
            continue
        assert created.status_code == 201, (text, created.text)
        read = stack.ask("GET", created.headers["location"]).json()
        assert {**item, "id": read["id"]} == read == created.json()
        assert stack.ask("DELETE", created.headers["location"]).status_code == 204
    assert refused == ["\x00", "a\x00b", "", "n" * 10_000]


# Bodies that a JSON parser may accept, with values that no response and no database can hold.
NO_TEXT = [
    rb'{"name": "\ud800"}',
    rb'{"name": "a", "description": "\udfff"}',
    rb'{"name": "a\ud800b\udc00\ud800"}',
    rb'{"name": "a", "description": ["\ud800"]}',
    b'{"name": NaN}',
    b'{"name": "a", "description": NaN}',
    b'{"name": Infinity, "description": -Infinity}',
    b"NaN",
    rb'"\ud800"',
    rb'["\ud800", NaN]',
]
# Bodies that are not JSON, or too much of it.
NO_JSON = [
    b'{"name": "\xff"}',
    b'{"name": "\xed\xa0\x80"}',
    b"[" * 100_000,
    b'{"name": ' + b"9" * 10_000 + b"}",
    b"{",
    b"\x00",
    b"",
]


@pytest.mark.parametrize("database", EACH_DATABASE)
def test_a_body_that_holds_no_text_is_refused(deployment: Deployment, database: str) -> None:
    stack = deployment(database)
    path = stack.ask("POST", "/items", json={"name": unique("item")}).headers["location"]
    headers = {"content-type": "application/json"}
    for method, target in (("POST", "/items"), ("PATCH", path)):
        for body in NO_TEXT:
            answer = stack.ask(method, target, content=body, headers=headers)
            assert answer.status_code == 422, (method, body, answer.text)
            assert answer.json()["detail"]
        for body in NO_JSON:
            answer = stack.ask(method, target, content=body, headers=headers)
            assert answer.status_code in {400, 422}, (method, body[:100], answer.text)
            assert answer.json()["detail"]


@pytest.mark.parametrize("database", EACH_SERVICE)
def test_no_path_and_no_query_causes_an_error_of_the_server(deployment: Deployment, database: str) -> None:
    stack = deployment(database)
    hostile = ["%00", "%ff", "%ed%a0%80", "NaN", "-1", "9" * 30, "9" * 5000, "%27%3b--", "1e3", "%0a", "é"]
    for text in hostile:
        for path in (f"/items/{text}", f"/items/5?q={text}", f"/items?after={text}", f"/items?limit={text}"):
            assert stack.ask("GET", path).status_code < 500, path


@pytest.mark.parametrize("database", EACH_DATABASE)
def test_clients_that_go_away_in_the_middle_of_a_request_cost_no_connection(
    deployment: Deployment, database: str
) -> None:
    stack = deployment(database)
    path = stack.ask("POST", "/items", json={"name": unique("item")}).headers["location"]
    asyncio.run(give_up_many(stack, path))
    everybody = [200] * WORKERS * POOL_SIZE
    # Abandoned requests are still in the queue, and may make new ones wait for longer than their time limit.
    until(lambda: stack.at_once(len(everybody), "/items") == everybody, "the end of the queue", 120)
    for _ in range(5):
        assert stack.at_once(len(everybody), "/items") == everybody
        assert stack.at_once(len(everybody), path) == everybody
    written = [stack.ask("POST", "/items", json={"name": unique("item")}) for _ in range(WORKERS * POOL_SIZE)]
    assert {answer.status_code for answer in written} == {201}
    if database == "postgresql":
        states = [
            state
            for [state] in stack.sql(
                "SELECT state FROM pg_stat_activity WHERE usename = 'app' AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
        ]
        assert 0 < len(states) <= WORKERS * POOL_SIZE
        assert {*states} == {"idle"}
    if database == "mysql":
        threads = stack.sql(
            "SELECT command FROM performance_schema.processlist WHERE user = 'app' AND id <> connection_id()"
        )
        # MySQL has one pool for reads and another one for writes.
        assert 0 < len(threads) <= 2 * WORKERS * POOL_SIZE
        assert threads == [["Sleep"]] * len(threads)


async def give_up_many(stack: Stack, path: str) -> None:
    """Send many requests, and close each connection at a different moment before the response."""
    port = stack.client.base_url.port
    assert port
    numbers = iter(range(GIVEN_UP))

    async def give_up() -> None:
        for number in numbers:
            body = b'{"name": "%s"}' % unique("item").encode()
            length = len(body) + (100 if number % 5 == 4 else 0)
            head = b"Host: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length
            request = (
                b"GET /items HTTP/1.1\r\nHost: test\r\n\r\n",
                b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode(),
                b"POST /items HTTP/1.1\r\n" + head + body,
                b"PATCH %s HTTP/1.1\r\n" % path.encode() + head + body,
                # A body that never ends.
                b"POST /items HTTP/1.1\r\n" + head + body,
            )[number % 5]
            await send_and_go(port, request, number)

    await asyncio.gather(*[give_up() for _ in range(AT_ONCE)])


async def send_and_go(port: int, request: bytes, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if number % 2:
        # Closing the connection then resets it.
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(request)
    await writer.drain()
    if number % 3 == 0:
        # Wait for the first byte of a response, if there is one.
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(1), 0.005 * (number % 7))
    writer.close()
