"""Sends a steady stream of requests to a service that keeps items, and records what became of each."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx2

from harness.containers import unique
from harness.waiting import until

# Half of the clients keep their connections, the others open one for each request.
CLIENTS = 16
# Seconds between two requests of a client in a test: the test beside it needs the other core.
PAUSE = 0.16


class Sent(NamedTuple):
    """Records a request. Status 0 is a connection that broke."""

    request: str
    kept: bool
    seconds: float
    status: int
    error: str


class Traffic:
    """Creates, reads and changes items on many connections until the block ends.

    `connect` makes a client with these limits. Each client waits for `pause` seconds between its requests.
    """

    def __init__(self, connect: Callable[[httpx2.Limits], httpx2.AsyncClient], pause: float = PAUSE) -> None:
        self.connect = connect
        self.pause = pause
        self.sent: list[Sent] = []
        # By its path, the name of each item that a 201 has acknowledged, and its possible descriptions.
        self.acknowledged: dict[str, str] = {}
        self.descriptions: dict[str, set[str | None]] = {}
        self.seconds = 0.0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.flow()))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ends.set()
        self.thread.join()

    def more(self, count: int = 100) -> None:
        """Wait until this many requests more are answered."""
        enough = len(self.sent) + count
        until(lambda: len(self.sent) >= enough, "more requests")

    @property
    def lost(self) -> list[Sent]:
        """Return the requests that were not answered as on any other day."""
        return [sent for sent in self.sent if sent.status not in {200, 201}]

    @property
    def longest(self) -> float:
        """Return the seconds of the request that took longest."""
        return max(sent.seconds for sent in self.sent)

    async def flow(self) -> None:
        begin = time.monotonic()
        await asyncio.gather(*(self.client(number, kept=number % 2 == 0) for number in range(CLIENTS)))
        self.seconds = time.monotonic() - begin

    async def client(self, number: int, *, kept: bool) -> None:
        limits = httpx2.Limits(max_keepalive_connections=1 if kept else 0)
        async with self.connect(limits) as client:
            await asyncio.sleep(number * self.pause / CLIENTS)
            while not self.ends.is_set():
                name = unique("item")
                created = await self.send(client, kept, "POST", "/items", json={"name": name})
                if created is not None and created.status_code == 201:
                    path = created.headers["location"]
                    self.acknowledged[path] = name
                    self.descriptions[path] = {None}
                    await self.send(client, kept, "GET", path)
                    self.descriptions[path].add("changed")
                    changed = await self.send(client, kept, "PATCH", path, json={"description": "changed"})
                    if changed is not None and changed.status_code == 200:
                        self.descriptions[path] = {"changed"}
                await self.send(client, kept, "GET", "/items?limit=10")

    async def send(
        self, client: httpx2.AsyncClient, kept: bool, method: str, path: str, **options: Any
    ) -> httpx2.Response | None:
        """Send a request, record it, and wait for the time that a client waits before its next one."""
        begin = time.monotonic()
        response: httpx2.Response | None = None
        problem = ""
        try:
            response = await client.request(method, path, **options)
        except httpx2.TransportError as error:
            problem = repr(error)
        status = response.status_code if response is not None else 0
        text = response.text[:200] if response is not None and status >= 400 else problem
        self.sent.append(Sent(f"{method} {path}", kept, time.monotonic() - begin, status, text))
        await asyncio.sleep(self.pause)
        return response

    def missing(self, get: Callable[[str], httpx2.Response]) -> list[str]:
        """Return the acknowledged items that are not there, or not as they were acknowledged."""
        found = []
        for path, name in self.acknowledged.items():
            item = get(path)
            values = item.json() if item.status_code == 200 else {}
            if values.get("name") != name or values.get("description") not in self.descriptions[path]:
                found.append(f"{path}: {item.status_code} {item.text}")
        return found
