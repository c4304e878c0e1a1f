"""Sends requests to each server that no HTTP library would send: broken, ambiguous and hostile ones."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from harness.matrix import DEFAULTS, values
from harness.running import Process, serving
from tests.conftest import RenderTo

pytestmark = pytest.mark.project

# A route as an owner would append it. docs/limits.md says that texts need a length.
ROUTE = """

from typing import Annotated

from pydantic import BaseModel, Field


class Reading(BaseModel):
    name: Annotated[str, Field(max_length=100)]
    value: float


@app.post("/readings")
async def keep_reading(reading: Reading) -> Reading:
    return reading
"""
HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
# A server that takes these bytes for a request of their own, and not for a part of a body, logs its path.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
# Seconds in which a server responds, if it does. It may also wait for the rest of a request.
RESPONDS = 5

LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# Headers of a body, and the body. Each is ambiguous, so that a proxy may see another end of the body.
BODIES: dict[str, tuple[bytes, bytes]] = {
    "a length and chunks": (b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": (CHUNKED + LENGTH, b"0\r\n\r\n" + SMUGGLED),
    "two lengths": (b"Content-Length: 0\r\n" + LENGTH, SMUGGLED),
    "two lengths in one header": (b"Content-Length: 0, %d\r\n" % len(SMUGGLED), SMUGGLED),
    "a length with a sign": (b"Content-Length: +0\r\n", SMUGGLED),
    "a negative length": (b"Content-Length: -1\r\n", SMUGGLED),
    "a length in hexadecimal": (b"Content-Length: 0x0\r\n", SMUGGLED),
    "a length that is a word": (b"Content-Length: none\r\n", SMUGGLED),
    "a length above 64 bits": (b"Content-Length: 18446744073709551616\r\n", SMUGGLED),
    "a space before the colon": (b"Content-Length : 0\r\n", SMUGGLED),
    "a folded header": (b"X-Folded: a\r\n Content-Length: 0\r\n", SMUGGLED),
    "an unknown encoding": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunks that are encoded again": (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    "an encoding after a vertical tab": (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "an encoding in HTTP/1.0": (b"X-Version: 1.0\r\n" + CHUNKED + LENGTH, b"0\r\n\r\n" + SMUGGLED),
    "a chunk with a sign": (CHUNKED, b"+0\r\n\r\n" + SMUGGLED),
    "a chunk in hexadecimal with 0x": (CHUNKED, b"0x0\r\n\r\n" + SMUGGLED),
    "a chunk of a negative size": (CHUNKED, b"-1\r\n" + SMUGGLED),
    "a chunk above 64 bits": (CHUNKED, b"fffffffffffffffff\r\n" + SMUGGLED),
    "a chunk that is longer than its size": (CHUNKED, b"1\r\nab" + SMUGGLED),
    "a chunk without its end": (CHUNKED, b"3\r\nabc0\r\n\r\n" + SMUGGLED),
    "chunks with bare line feeds": (CHUNKED, b"1\na\n0\n\n" + SMUGGLED),
}
# Complete requests with a body of JSON.
JSON: dict[str, bytes] = {
    "not a number": b'{"name": "a", "value": NaN}',
    "a float above its range": b'{"name": "a", "value": 1e999}',
    "half a surrogate pair": b'{"name": "\\ud800", "value": 1}',
    "half a surrogate pair in a key": b'{"\\udfff": 1}',
    "bytes that are not UTF-8": b'{"name": "\xff\xfe", "value": 1}',
    "bytes of a UTF-8 surrogate": b'{"name": "\xed\xa0\x80", "value": 1}',
    "a byte order mark": b'\xef\xbb\xbf{"name": "a", "value": 1}',
    "UTF-16": '{"name": "a", "value": 1}'.encode("utf-16"),
    "NUL": b'{"name": "\\u0000", "value": 1}',
    "a bare NUL": b"\x00",
    "nothing": b"",
    "a number of 5,000 digits": b'{"name": "a", "value": ' + b"9" * 5_000 + b"}",
    "100,000 arrays": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "the same key twice": b'{"name": "a", "name": 1, "value": 1}',
}
# Headers that say what the JSON of a complete request is.
TYPES: dict[str, bytes] = {
    "none": b"",
    "an empty one": b"Content-Type:\r\n",
    "no type": b"Content-Type: json\r\n",
    "two types": b"Content-Type: application/json\r\nContent-Type: text/plain\r\n",
    "a form": b"Content-Type: application/x-www-form-urlencoded\r\n",
    "parts without a boundary": b"Content-Type: multipart/form-data\r\n",
    "parts that are not there": b"Content-Type: multipart/form-data; boundary=a\r\n",
    "a character set that nobody knows": b"Content-Type: application/json; charset=nobody\r\n",
    "another character set": b"Content-Type: application/json; charset=utf-16\r\n",
    "a type that is not UTF-8": b"Content-Type: application/\xff\xfe\r\n",
    "5,000 parameters": b"Content-Type: application/json" + b";a=b" * 5_000 + b"\r\n",
    "a kind of JSON": b"Content-Type: application/problem+json\r\n",
    "compressed": b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
}
# Request lines and other beginnings of a request, to which the header Host is added.
BEGINNINGS: dict[str, bytes] = {
    "HTTP/1.0": b"GET /health/live HTTP/1.0\r\n",
    "HTTP/0.9": b"GET /health/live\r\n",
    "HTTP/3.0": b"GET /health/live HTTP/3.0\r\n",
    "HTTP/1.10": b"GET /health/live HTTP/1.10\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an empty line first": b"\r\n\r\nGET /health/live HTTP/1.1\r\n",
    "bare line feeds": b"GET /health/live HTTP/1.1\n",
    "bare carriage returns": b"GET /health/live HTTP/1.1\r",
    "a method that nobody knows": b"FETCH /health/live HTTP/1.1\r\n",
    "a method in small letters": b"get /health/live HTTP/1.1\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n",
    "OPTIONS of everything": b"OPTIONS * HTTP/1.1\r\n",
    "a whole address": b"GET http://localhost/health/live HTTP/1.1\r\n",
    "the address of another host": b"GET http://other.example/health/live HTTP/1.1\r\n",
    "an address without a host": b"GET http:///health/live HTTP/1.1\r\n",
    "a path without a slash": b"GET health HTTP/1.1\r\n",
    "a path that begins with two slashes": b"GET //other.example/items/ HTTP/1.1\r\n",
    "a path that goes up": b"GET /items/../../etc/passwd HTTP/1.1\r\n",
    "a path that goes up, encoded": b"GET /items/%2e%2e%2fetc%2fpasswd HTTP/1.1\r\n",
    "a path with NUL": b"GET /items/\x00 HTTP/1.1\r\n",
    "a path with NUL, encoded": b"GET /items/%00 HTTP/1.1\r\n",
    "a path that is not UTF-8": b"GET /items/\xff\xfe HTTP/1.1\r\n",
    "a path that is not UTF-8, encoded": b"GET /items/%ff%fe HTTP/1.1\r\n",
    "a path with half an encoding": b"GET /items/%f HTTP/1.1\r\n",
    "a path with an encoded line": b"GET /items/%0d%0aX-Injected:%20yes HTTP/1.1\r\n",
    "a redirect with an encoded line": b"GET /items/%0d%0aX-Injected:%20yes/ HTTP/1.1\r\n",
    "a number above 64 bits": b"GET /items/99999999999999999999 HTTP/1.1\r\n",
    "a number below 64 bits": b"GET /items/-99999999999999999999 HTTP/1.1\r\n",
    "a number of 5,000 digits": b"GET /items/" + b"9" * 5_000 + b" HTTP/1.1\r\n",
    "a number in Arabic digits": b"GET /items/%D9%A5 HTTP/1.1\r\n",
    "a float": b"GET /items/1e999 HTTP/1.1\r\n",
    "a query that is not UTF-8": b"GET /items/5?q=%ff%fe HTTP/1.1\r\n",
    "a query with half a surrogate pair": b"GET /items/5?q=%ed%a0%80 HTTP/1.1\r\n",
    "a query of 10,000 names": b"GET /items/5?" + b"&".join([b"q=1"] * 10_000) + b" HTTP/1.1\r\n",
    "a path of 60,000 characters": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n",
}
# Headers of a request for an item.
HEADERS: dict[str, bytes] = {
    "no host": b"",
    "an empty host": b"Host:\r\n",
    "two hosts": HOST + b"Host: other.example\r\n",
    "a host that is no name": b"Host: <script>\r\n",
    "a host with a path": b"Host: localhost/path\r\n",
    "a host that is not UTF-8": b"Host: \xff\xfe\r\n",
    "a port that is none": b"Host: localhost:99999999\r\n",
    "a header with NUL": HOST + b"X-Header: a\x00b\r\n",
    "a header that is not UTF-8": HOST + b"X-Header: \xff\xfe\r\n",
    "a header without a name": HOST + b": value\r\n",
    "a header without a colon": HOST + b"X-Header\r\n",
    "a name with a space": HOST + b"X Header: a\r\n",
    "a name with NUL": HOST + b"X-\x00: a\r\n",
    "a bare carriage return": HOST + b"X-Header: a\rX-Injected: yes\r\n",
    "1,000 headers": HOST + b"".join(b"X-%d: a\r\n" % number for number in range(1_000)),
    "a header of 30,000 bytes": HOST + b"X-Header: " + b"a" * 30_000 + b"\r\n",
    "an id with a line": HOST + b"X-Request-ID: a%0d%0aX-Injected: yes\r\n",
    "an id that is not ASCII": HOST + b"X-Request-ID: \xff\xfe\r\n",
    "an id of 10,000 characters": HOST + b"X-Request-ID: " + b"a" * 10_000 + b"\r\n",
    "a forwarded address that is none": HOST + b"X-Forwarded-For: <script>, ::, 1.2.3\r\n",
    "a forwarded protocol that is none": HOST + b"X-Forwarded-Proto: javascript\r\n",
    "a range that is none": HOST + b"Range: bytes=9-1,-,x\r\n",
    "a protocol that nobody knows": HOST + b"Connection: Upgrade\r\nUpgrade: other\r\n",
    "a WebSocket without a key": HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "an expectation": HOST + b"Expect: 200-ok\r\n",
    "a body of a GET": HOST + b"Content-Length: 2\r\n",
    "an origin that is not UTF-8": HOST + b"Origin: \xff\xfe\r\n",
    "a login that is none": HOST + b"Authorization: Basic \xff\xfe\r\n",
    "an unfinished quote": HOST + b'If-None-Match: "\r\n',
    "a date that is none": HOST + b"If-Modified-Since: tomorrow\r\n",
    "headers that end with the connection": HOST + b"Connection: close, host, x-request-id\r\n",
    "10,000 types that are accepted": HOST + b"Accept: " + b"a/b," * 10_000 + b"\r\n",
    "cookies without end": HOST + b"Cookie: " + b";" * 8_000 + b"\r\n",
}


def requests() -> Iterator[tuple[str, bytes]]:
    """Yield each kind of request, with the bytes to send."""
    for name, (headers, body) in BODIES.items():
        version = b"1.0" if b"1.0" in headers else b"1.1"
        yield f"body: {name}", b"POST /readings HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n" + body
    for name, body in JSON.items():
        headers = HOST + CLOSE + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        yield f"JSON: {name}", b"POST /readings HTTP/1.1\r\n" + headers + body
    body = b'{"name": "a", "value": 1}'
    for name, headers in TYPES.items():
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        yield f"type: {name}", b"POST /readings HTTP/1.1\r\n" + HOST + CLOSE + headers + length + body
    for name, beginning in BEGINNINGS.items():
        yield f"beginning: {name}", beginning + HOST + CLOSE + b"\r\n"
    for name, headers in HEADERS.items():
        yield f"headers: {name}", b"GET /items/5 HTTP/1.1\r\n" + headers + CLOSE + b"\r\n"


REQUESTS = dict(requests())


async def respond(port: int, sent: bytes) -> bytes:
    """Return all that the server sends until it closes the connection or waits for more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(RESPONDS):
            writer.write(sent)
            while read := await reader.read(2**16):
                received += read
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return received


async def respond_to_all(port: int) -> dict[str, bytes]:
    responses = await asyncio.gather(*(respond(port, sent) for sent in REQUESTS.values()))
    return dict(zip(REQUESTS, responses, strict=True))


Responses = tuple[Process, dict[str, bytes]]


EACH_SERVER = [pytest.param(name, marks=pytest.mark.xdist_group(f"raw-{name}")) for name in values("server")]


@pytest.fixture(scope="module", params=EACH_SERVER)
def responses(request: pytest.FixtureRequest, installed: RenderTo) -> Iterator[Responses]:
    """Send all requests to a service under each server."""
    service = installed(**DEFAULTS | {"server": request.param})
    main = service / "app" / "main.py"
    main.write_text(main.read_text() + ROUTE)
    with serving(service) as process:
        workers = process.workers()
        received = asyncio.run(respond_to_all(process.client.base_url.port or 80))
        assert process.workers() == workers
        yield process, received


def test_no_request_is_a_500(responses: Responses) -> None:
    process, received = responses
    assert len(received) == 120
    failed = [name for name, response in received.items() if re.search(rb"^HTTP/1\.\d 5", response, re.M)]
    assert failed == []
    assert not process.records(level="ERROR")


def test_no_bytes_of_a_body_are_taken_for_a_request(responses: Responses) -> None:
    process, _ = responses
    assert not process.records(path="/smuggled")


def test_no_header_is_injected_into_a_response(responses: Responses) -> None:
    _, received = responses
    assert [name for name, response in received.items() if b"\nx-injected" in response.lower()] == []


def test_the_service_serves_on(responses: Responses) -> None:
    process, _ = responses
    assert {answer.status_code for answer in process.get_many(*["/items/5"] * 20)} == {200}
