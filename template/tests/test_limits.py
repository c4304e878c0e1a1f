from collections.abc import AsyncIterator, Callable

import pydantic
import pytest
from fastapi import APIRouter, Request
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient

from app.limits import LimitSettings
from app.service import Service

DEFAULTS = {"MAX_BODY_SIZE": "1MiB", "ALLOWED_HOSTS": "*", "API_DOCS": "true"}

Start = Callable[..., TestClient]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a service that counts the bytes of bodies, with these variables changed."""

    def start(**variables: str) -> TestClient:
        for name, value in (DEFAULTS | variables).items():
            monkeypatch.setenv(name, value)
        service = Service()

        router = APIRouter()

        @router.post("/bodies")
        async def count(request: Request) -> int:
            return len(await request.body())

        router.post("/uploads", name="upload", max_body_size=2**21)(count)
        router.get("/things/", name="things")(count)
        service.include_router(router)
        service.get("/health/live", name="live")(count)
        client = TestClient(service, follow_redirects=False)
        # Read when the service starts.
        with client:
            return client

    return start


Body = bytes | AsyncIterator[bytes]


def by_length(body: bytes) -> Body:
    return body


def in_chunks(body: bytes) -> Body:
    async def chunks() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 1000):
            yield body[begin : begin + 1000]

    return chunks()


@pytest.mark.parametrize("framed", [by_length, in_chunks])
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/bodies", 2**20, 200),
        ("/bodies", 2**20 + 1, 413),
        ("/uploads", 2**21, 200),
        ("/uploads", 2**21 + 1, 413),
    ],
)
async def test_a_body_over_the_limit_of_its_route_is_a_413(
    start: Start, framed: Callable[[bytes], Body], path: str, size: int, status: int
) -> None:
    transport = ASGITransport(start().app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post(path, content=framed(b"x" * size))
    assert response.status_code == status
    expected = size if status == 200 else {"detail": "Content Too Large"}
    assert response.json() == expected


def test_a_variable_sets_the_limit(start: Start) -> None:
    client = start(MAX_BODY_SIZE="2KiB")
    assert client.post("/bodies", content=b"x" * 2048).status_code == 200
    assert client.post("/bodies", content=b"x" * 2049).status_code == 413


def test_a_body_that_nobody_reads_changes_no_response(start: Start) -> None:
    response = start().post("/nowhere", content=b"x" * (2**20 + 1))
    assert response.status_code == 404


def test_a_body_over_the_limit_has_an_access_line(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start().post("/bodies", content=b"x" * (2**20 + 1))
    [record] = [r for r in caplog.records if r.name == "access"]
    assert record.getMessage() == "POST /bodies 413"


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/openapi.json"])
@pytest.mark.parametrize(("shown", "status"), [("true", 200), ("false", 404)])
def test_a_variable_shows_or_hides_the_documentation(
    start: Start, page: str, shown: str, status: int
) -> None:
    client = start(API_DOCS=shown)
    assert client.get(page).status_code == status
    assert client.post("/bodies").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("example.com", 307),
        ("example.com:8000", 307),
        ("eu.example.org", 307),
        ("example.org", 400),
        ("example.com.attacker.net", 400),
    ],
)
def test_a_redirect_only_repeats_a_host_that_is_allowed(
    start: Start, host: str, status: int
) -> None:
    client = start(ALLOWED_HOSTS="example.com, *.example.org")
    response = client.get("/things", headers={"Host": host})
    assert response.status_code == status
    assert (host in response.headers.get("Location", "")) == (status == 307)


def test_a_probe_may_name_any_host_because_it_comes_by_address(start: Start) -> None:
    client = start(ALLOWED_HOSTS="example.com")
    headers = {"Host": "10.0.0.1:8000"}
    assert client.get("/health/live", headers=headers).status_code == 200
    assert client.get("/health/live/", headers=headers).status_code == 400


def test_every_host_is_allowed_by_default(start: Start) -> None:
    response = start().get("/things", headers={"Host": "10.0.0.1:8000"})
    assert response.headers["Location"] == "http://10.0.0.1:8000/things/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_SIZE", "much"),
        ("MAX_BODY_SIZE", "-1"),
        ("ALLOWED_HOSTS", "https://example.com"),
        ("ALLOWED_HOSTS", "www.*.com"),
        ("API_DOCS", "perhaps"),
    ],
)
def test_a_wrong_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(pydantic.ValidationError, match=name.lower()):
        LimitSettings()


async def test_no_response_is_taken_for_another_type(client: AsyncClient) -> None:
    for path in ("/", "/nowhere"):
        response = await client.get(path)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
