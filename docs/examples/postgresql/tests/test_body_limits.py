from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import Request, Response
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient
from limited_service import started
from starlette.middleware.base import RequestResponseEndpoint as CallNext

from app.service import Service

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
    monkeypatch: pytest.MonkeyPatch,
    framed: Callable[[bytes], Body],
    path: str,
    size: int,
    status: int,
) -> None:
    transport = ASGITransport(started(monkeypatch).app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post(path, content=framed(b"x" * size))
    assert response.status_code == status
    expected = size if status == 200 else {"detail": "Content Too Large"}
    assert response.json() == expected


def test_a_body_over_the_limit_is_a_413_behind_middleware_too() -> None:
    service = Service()

    @service.middleware("http")
    async def pass_on(request: Request, call_next: CallNext) -> Response:
        return await call_next(request)

    @service.post("/bodies")
    async def count(request: Request) -> int:
        return len(await request.body())

    with TestClient(service) as client:
        response = client.post("/bodies", content=b"x" * (2**20 + 1))
    assert response.status_code == 413
    assert response.json() == {"detail": "Content Too Large"}


def test_a_variable_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    client = started(monkeypatch, MAX_BODY_SIZE="2KiB")
    assert client.post("/bodies", content=b"x" * 2048).status_code == 200
    assert client.post("/bodies", content=b"x" * 2049).status_code == 413


def test_a_body_that_nobody_reads_changes_no_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    response = started(monkeypatch).post("/nowhere", content=b"x" * (2**20 + 1))
    assert response.status_code == 404


def test_a_body_over_the_limit_has_an_access_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    started(monkeypatch).post("/bodies", content=b"x" * (2**20 + 1))
    [record] = [r for r in caplog.records if r.name == "access"]
    assert record.getMessage() == "POST /bodies 413"
