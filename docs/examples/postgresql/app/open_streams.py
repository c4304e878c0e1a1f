"""Ends open event streams and WebSockets when the server is told to stop: it would wait for them."""

import asyncio
import signal
import threading
from typing import Any

# The header that a response of server-sent events has.
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
# Seconds after which a WebSocket is ended that doesn't notice that the server has closed it.
PATIENCE = 5


class OpenStreams:
    """Keeps the tasks of the event streams and WebSockets that are open."""

    def __init__(self) -> None:
        self.tasks: dict[asyncio.Task[Any], float] = {}
        self.ending = False

    def add(self, task: asyncio.Task[Any], patience: float) -> None:
        self.tasks[task] = patience
        if self.ending:
            self.cancel(task)

    def remove(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def end(self) -> None:
        self.ending = True
        for task in self.tasks:
            self.cancel(task)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        asyncio.get_running_loop().call_later(self.tasks[task], task.cancel)

    async def end_at_once(self) -> None:
        """End what the server has left open, and wait until each stream has its access line."""
        self.ending = True
        left = [*self.tasks]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1)
        # Tests start the same application again.
        self.ending = False

    def has_ended(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether a task was cancelled here, and not for another reason."""
        return self.ending and task in self.tasks

    def end_when_the_server_stops(self) -> None:
        """Listen to the signals that stop the server, before the server does."""
        # Tests run the application in other threads, which get no signals.
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            of_the_server = signal.getsignal(number)

            def stop(*arguments: Any, of_the_server: Any = of_the_server) -> None:
                loop.call_soon_threadsafe(self.end)
                of_the_server(*arguments)

            if callable(of_the_server):
                signal.signal(number, stop)
