"""A cache for tests."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.exceptions import RedisError

from app.cache import Cache, get_cache, open_cache
from app.main import app
from app.settings import Settings


@pytest.fixture(scope="session", autouse=True)
def cache_url() -> Iterator[None]:
    """Have `CACHE_URL` name the last database of the developer's cache server, not the first."""
    url = os.environ.get("CACHE_URL", "redis://127.0.0.1:6379")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_URL", f"{url}/15")
        yield


@pytest.fixture
async def cache(cache_url: None) -> AsyncIterator[Cache]:
    """An empty cache, which the application uses too."""
    async with open_cache(Settings()) as cache:
        try:
            await cache.client.flushdb()
        except RedisError as error:
            start = "docker compose up --detach --wait cache"
            pytest.exit(f"{error!r}: is the cache started? {start}", 1)
        app.dependency_overrides[get_cache] = lambda: cache
        yield cache
        del app.dependency_overrides[get_cache]
