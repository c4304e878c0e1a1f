import pytest
from fastapi.testclient import TestClient
from httpx2 import AsyncClient

from app.main import app


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/openapi.json"])
async def test_the_api_is_documented(client: AsyncClient, page: str) -> None:
    response = await client.get(page)
    assert response.status_code == 200


def test_the_service_starts_and_stops() -> None:
    with TestClient(app) as client:
        assert client.get("/health/live").status_code == 200
