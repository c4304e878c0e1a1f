"""A service that counts the bytes of bodies, for the tests of its limits."""

import pytest
from fastapi import APIRouter, Request
from fastapi.testclient import TestClient

from app.service import Service

DEFAULTS = {"MAX_BODY_SIZE": "1MiB", "ALLOWED_HOSTS": "*", "API_DOCS": "true"}


def started(monkeypatch: pytest.MonkeyPatch, **variables: str) -> TestClient:
    """Start the service with these variables changed, and return a client of it."""
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
    # The variables are read when the service starts.
    with client:
        return client
