"""Writes and reads items without a pause, as users of Locust, and records each request and its response.

Each user has items of its own, so that it knows how each of them must be read. The records are lines of JSON
in the file that `RECORDS` names. `COUNTED` is 1 if the service counts its items.
"""

import itertools
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant

records = Path(os.environ["RECORDS"]).open("a", buffering=1)  # noqa: SIM115
counted = os.environ["COUNTED"] == "1"
created = 0


class Owner(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """Creates, changes and reads items, one request after the other."""

    wait_time = constant(0)
    connection_timeout = network_timeout = 60.0
    numbers = itertools.count()

    def on_start(self) -> None:
        self.items: list[int] = []

    def send(self, method: str, path: str, **values: Any) -> Any:
        """Send a request, and record it with its response. The status 0 is a connection that broke."""
        sent = time.time()
        body = {"json": {"name": values["name"]}} if method != "GET" else {}
        with self.client.request(method, path, catch_response=True, **body) as response:
            response.success()
        answer = None
        if 200 <= response.status_code < 300:
            answer = response.json()
        record = {
            "sent": sent,
            "seconds": time.time() - sent,
            "method": method,
            "status": response.status_code,
        }
        records.write(json.dumps({**record, **values, "response": answer}) + "\n")
        return answer

    def create(self) -> None:
        global created
        if item := self.send("POST", "/items", name=uuid.uuid4().hex):
            created += 1
            self.items.append(item["id"])

    def change(self) -> None:
        if self.items:
            item = self.items[next(self.numbers) % len(self.items)]
            self.send("PATCH", f"/items/{item}", item=item, name=uuid.uuid4().hex)

    def read(self) -> None:
        if self.items:
            item = self.items[next(self.numbers) % len(self.items)]
            self.send("GET", f"/items/{item}", item=item)

    def count(self) -> None:
        if counted:
            self.send("GET", "/items/all/count", at_least=created)

    # How often each is chosen.
    tasks = {create: 2, change: 2, read: 1, count: 1}  # noqa: RUF012
