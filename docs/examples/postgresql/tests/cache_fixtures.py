"""A cache for tests."""

import os
from collections.abc import AsyncGenerator, Generator
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from redis.exceptions import RedisError

from app.cache import Cache, open_cache
from app.settings import Settings

# Tests use the last of the server's 16 databases, and the processes of pytest-xdist those before it.
LAST = 15 - int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session", autouse=True)
def cache_url() -> Generator[None]:
    """Have `CACHE_URL` name a database of the developer's cache server, but not the developer's."""
    url = urlsplit(os.environ.get("CACHE_URL", "redis://127.0.0.1:6379"))
    # `db` counts more than the path.
    query = urlencode(dict(parse_qsl(url.query)) | {"db": LAST})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_URL", url._replace(query=query).geturl())
        yield


@pytest.fixture
async def cache(cache_url: None) -> AsyncGenerator[Cache]:
    """An empty cache, which the application has too."""
    async with open_cache(Settings.read()) as cache:
        try:
            await cache.client.flushdb()
        except RedisError as error:
            start = "docker compose up --detach --wait cache"
            pytest.exit(f"{error!r}: is the cache started? {start}", 1)
        yield cache
