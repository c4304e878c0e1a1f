"""Stands in for the API of GitHub or GitLab, and records what is sent to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Call:
    """Keeps a request: its method, its path with the query, its headers and its body."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Forge:
    """Records the calls. `requests` are the open requests to merge, which a GET returns."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    # Whether this forge refuses drafts, as GitHub does for private repositories of some plans.
    without_drafts: bool = False

    def answer(self, call: Call) -> tuple[int, Any]:
        if call.path.startswith("/v2/"):
            # A registry that lets everybody in and has no image.
            return 200 if call.path == "/v2/" else 404, {}
        if call.method == "GET":
            return 200, self.requests
        if self.without_drafts and '"draft":true' in call.body.replace(" ", ""):
            return 422, {"message": "Draft pull requests are not supported in this repository."}
        return 201, {"number": 7, "iid": 7}

    def written(self) -> list[Call]:
        """Return the calls that change something."""
        return [call for call in self.calls if call.method != "GET"]


@contextmanager
def forge() -> Iterator[Forge]:
    """Yield a forge that listens on this machine, directly and as an HTTP proxy."""
    found = Forge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            address = urlsplit(self.path)
            path = f"{address.path}?{address.query}" if address.query else address.path
            call = Call(self.command, path, dict(self.headers), self.rfile.read(size).decode())
            found.calls.append(call)
            code, answer = found.answer(call)
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any

        def log_message(self, format: str, *arguments: Any) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
