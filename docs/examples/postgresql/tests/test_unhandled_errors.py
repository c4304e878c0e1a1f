import pytest
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from httpx2 import ASGITransport, AsyncClient

from app.logs import JsonFormatter
from app.service import Service


def client_of(service: Service) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(service), base_url="http://test")


async def test_an_error_is_a_500_with_the_request_id_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service()

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError

    async with client_of(service) as client:
        response = await client.get("/", headers={"X-Request-ID": "abc-123"})
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error"}
    assert response.headers["X-Request-ID"] == "abc-123"
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "RuntimeError" in JsonFormatter().format(record)


async def test_a_handler_of_ones_own_for_exceptions_responds() -> None:
    service = Service()

    @service.exception_handler(Exception)
    async def respond(_: object, error: Exception) -> JSONResponse:
        return JSONResponse({"problem": str(error)}, 500)

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError("broken")

    async with client_of(service) as client:
        response = await client.get("/")
    assert response.json() == {"problem": "broken"}
    assert "X-Request-ID" in response.headers


async def test_a_500_has_the_headers_of_cors() -> None:
    service = Service()
    service.add_middleware(CORSMiddleware, allow_origins=["https://example.com"])

    @service.get("/")
    async def fail() -> None:
        raise RuntimeError

    async with client_of(service) as client:
        response = await client.get("/", headers={"Origin": "https://example.com"})
    assert response.status_code == 500
    assert response.headers["Access-Control-Allow-Origin"] == "https://example.com"
