"""A client of the application, and fixtures for what it opens."""

import os
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import pytest
from dotenv import load_dotenv
from httpx2 import ASGITransport, AsyncClient
from starlette.types import ASGIApp, Receive, Scope, Send
from websocket_client import WebSocketClient

from app.main import app

# What the developer has set counts in tests too.
load_dotenv()
# But tests name the host "test", and read the OpenAPI document and the log.
os.environ |= {"ALLOWED_HOSTS": "*", "API_DOCS": "true", "LOG_LEVEL": "INFO"}

pytest_plugins = ["cache_fixtures", "database_fixtures"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    # One event loop for all tests, because connections belong to one.
    return "asyncio"


@pytest.fixture
def resources(
    cache: object,
    database: object,
) -> dict[str, object]:
    """The resources of tests, under their names in `request.state`."""
    return {
        "cache": cache,
        "database": database,
    }


@pytest.fixture
async def state(resources: dict[str, object]) -> AsyncGenerator[dict[str, Any]]:
    """What `request.state` has: as in production, but for the resources of tests."""
    async with app.router.lifespan_context(app) as opened:
        yield {**(opened or {}), **resources}


@pytest.fixture
def service(state: dict[str, Any]) -> ASGIApp:
    """The application with the state of tests."""

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": state.copy()}, receive, send)

    return service


@pytest.fixture
async def client(service: ASGIApp) -> AsyncGenerator[AsyncClient]:
    """A client of the application."""
    transport = ASGITransport(service)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def connect(service: ASGIApp) -> Callable[[str], WebSocketClient]:
    """Connects to a WebSocket of the application: `async with connect("/path") as websocket`."""
    return partial(WebSocketClient, service)
