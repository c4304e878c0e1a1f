"""A cache that the service can do without, and whose entries never outlive a change.

An entry could outlive a change if a reader loaded it before the change and stored it after.
So a reader first takes a lease on the key and stores only if its lease is still there, and a
change removes lease and entry and keeps the key marked until its transaction is over.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import Depends
from fastapi.requests import HTTPConnection
from opentelemetry import metrics
from opentelemetry.instrumentation.redis import RedisInstrumentor
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from app.settings import Settings

logger = logging.getLogger(__name__)
reads = metrics.get_meter(__name__).create_counter(
    "cache.reads",
    unit="{read}",
    description="Reads by their result: hit, miss, or loaded without the cache.",
)
Parsed = TypeVar("Parsed")

# Seconds. MARK_LIVES must exceed the longest transaction: if a mark expired earlier, a reader
# could keep an entry from before the change.
ENTRY_LIVES = 60
LEASE_LIVES = 10
MARK_LIVES = 60
RETRY_AFTER = 1

# Connections of a worker. More would not make one server faster.
POOL_SIZE = 20

# A key's value is an entry (this prefix and the text), a reader's lease, or the count of changes in progress.
ENTRY = "="
LEASE = "lease "

KEEP_ENTRY = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
return 1
"""
BEGIN_CHANGE = """
local changes = tonumber(redis.pcall('GET', KEYS[1])) or 0
redis.call('SET', KEYS[1], changes + 1, 'EX', ARGV[1])
return 1
"""
END_CHANGE = """
local changes = tonumber(redis.pcall('GET', KEYS[1])) or 0
if changes > 1 then
    redis.call('SET', KEYS[1], changes - 1, 'EX', ARGV[1])
else
    redis.call('DEL', KEYS[1])
end
return 1
"""


class Cache:
    """Keeps entries by key. While the server does not answer, everything is loaded without it."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.keep_entry = client.register_script(KEEP_ENTRY)
        self.begin_change = client.register_script(BEGIN_CHANGE)
        self.end_change = client.register_script(END_CHANGE)
        self.away = False
        self.next_try = 0.0
        self.outdated: set[str] = set()
        self.removing: asyncio.Task[None] | None = None

    async def read(
        self,
        key: str,
        load: Callable[[], Awaitable[str]],
        parse: Callable[[str], Parsed],
    ) -> Parsed:
        """Parse the entry, or else what `load` returns, and keep that unless a change began meanwhile.

        An entry for which `parse` raises a ValueError is replaced.
        """
        if self.outdated or time.monotonic() < self.next_try:
            reads.add(1, {"cache.result": "without"})
            return parse(await load())
        found: str | None = await self.ask(self.get(key))
        if found and found.startswith(ENTRY):
            with suppress(ValueError):
                parsed = parse(found.removeprefix(ENTRY))
                reads.add(1, {"cache.result": "hit"})
                return parsed
        elif self.away or (found and (found.startswith(LEASE) or found.isdecimal())):
            reads.add(1, {"cache.result": "without"})
            return parse(await load())
        if found is not None:
            # A lease or a mark that another process stored meanwhile may go, too: without its
            # lease a reader keeps nothing, and the end of a change removes any entry.
            await self.ask(self.client.delete(key))
        reads.add(1, {"cache.result": "miss"})
        lease = f"{LEASE}{uuid4()}"
        leased = await self.ask(self.client.set(key, lease, nx=True, ex=LEASE_LIVES))
        loaded = await load()
        if leased:
            entry = ENTRY + loaded
            await self.ask(self.keep_entry([key], [lease, entry, ENTRY_LIVES]))
        return parse(loaded)

    async def get(self, key: str) -> Any:
        """Return the value of the key, or an empty text if the value is of a type that the cache never stores."""
        try:
            return await self.client.get(key)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return ""

    @asynccontextmanager
    async def changing(self, key: str) -> AsyncGenerator[None]:
        """Keep the key without an entry: enter before the transaction begins, leave after its commit."""
        await self.ask(self.begin_change([key], [MARK_LIVES]))
        try:
            yield
        finally:
            # Without a mark too: the server may be back, with an entry from before the commit.
            if not await self.ask(self.end_change([key], [MARK_LIVES])):
                self.remove_later(key)

    def remove_later(self, key: str) -> None:
        self.outdated.add(key)
        if not self.removing or self.removing.done():
            self.removing = asyncio.create_task(self.remove_outdated())

    async def remove_outdated(self) -> None:
        """Remove the entries that were changed while the server did not answer, once it does."""
        while keys := tuple(self.outdated):
            if await self.ask(self.client.delete(*keys)) is None:
                await asyncio.sleep(RETRY_AFTER)
            else:
                self.outdated.difference_update(keys)

    async def ask(self, question: Awaitable[Any]) -> Any:
        """Return the server's answer, or None if there is none, which is logged once."""
        try:
            answer = await question
        except RedisError as error:
            if not self.away:
                logger.warning("No cache, continuing without it: %s", error)
            self.away = True
            self.next_try = time.monotonic() + RETRY_AFTER
            return None
        if self.away:
            logger.warning("The cache answers again.")
            self.away = False
        return answer

    async def close(self) -> None:
        if self.removing:
            self.removing.cancel()
        await self.client.aclose()


class ByAddress(Connection):
    """Resolves the server's name before it connects.

    A resolution within uvloop's connect goes on after `socket_connect_timeout`, and its failure
    would be logged each time: https://github.com/MagicStack/uvloop/issues/437.
    """

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            await asyncio.get_running_loop().getaddrinfo(self.host, self.port)
        await super()._connect()  # type: ignore[no-untyped-call]


class ByAddressWithTLS(ByAddress, SSLConnection):
    """Does the same where `CACHE_URL` begins with `rediss:`."""


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncGenerator[Cache]:
    """Open the cache. It is connected to when it is needed, so the service starts without it."""
    pool = BlockingConnectionPool.from_url(
        str(settings.cache_url.get_secret_value()),
        # Requests wait for a free connection: a busy cache is not one that does not answer.
        max_connections=POOL_SIZE,
        timeout=None,
        decode_responses=True,
        # Bytes that are not UTF-8 become \x, which no JSON has, and not an error.
        encoding_errors="backslashreplace",
        # Waiting for the server must not take much longer than loading without it.
        socket_connect_timeout=0.25,
        socket_timeout=0.25,
        retry=Retry(NoBackoff(), 1),
    )
    encrypted = issubclass(pool.connection_class, SSLConnection)
    pool.connection_class = ByAddressWithTLS if encrypted else ByAddress
    client = Redis.from_pool(pool)
    # A span for each command, without its values.
    RedisInstrumentor.instrument_client(client)
    cache = Cache(client)
    try:
        yield cache
    finally:
        await cache.close()


# A dependency is `async`, because FastAPI runs the others in a thread.
async def get_cache(connection: HTTPConnection) -> Cache:
    cache: Cache = connection.state.cache
    return cache


CacheDep = Annotated[Cache, Depends(get_cache)]
