import errno

import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.types import Message, Receive, Scope, Send

from app.errors import Unavailable
from app.logs import JsonFormatter
from app.service import Service


async def test_a_missing_dependency_is_a_503_that_says_so() -> None:
    service = Service()

    @service.post("/orders")
    async def create() -> None:
        raise Unavailable("The warehouse does not answer.")

    async with AsyncClient(
        transport=ASGITransport(service), base_url="http://test"
    ) as client:
        response = await client.post("/orders")
    assert response.status_code == 503
    assert response.json() == {"detail": "The warehouse does not answer."}
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 503), (errno.ENOENT, 400)]
)
async def test_an_upload_for_which_there_is_no_space_is_a_503_with_one_line(
    caplog: pytest.LogCaptureFixture, number: int, status: int
) -> None:
    service = Service()

    @service.post("/uploads")
    async def upload(body: dict[str, int]) -> None:
        pass

    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        """Fails as a form does whose file can't be written."""

        async def fail() -> Message:
            raise OSError(number, "Not written")

        await service(scope, fail, send)

    transport = ASGITransport(full)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/uploads", content=b"x")
    assert response.status_code == status
    lines = [r for r in caplog.records if r.name == "app.errors"]
    assert len(lines) == (status == 503)
    assert not any("Traceback" in JsonFormatter().format(line) for line in lines)
