"""Runs the page with the questions in Chromium, served from a path below the root as many hosts do."""

import functools
import gzip
import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

# Below which the page is served.
PREFIX = "/some/path/"
# What hosts of static files compress.
COMPRESSED = {"text/html", "text/css", "text/javascript", "application/json", "application/wasm"}
# Milliseconds that Copier may take in a browser on a busy machine.
PATIENCE = 120_000


@functools.cache
def chromium() -> str | None:
    """Return the path of Chromium, or nothing where this machine has none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, and stop it at the end."""
    with sync_playwright() as playwright:
        # Root can't use its sandbox, and nothing but our own page is opened.
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


class Host(SimpleHTTPRequestHandler):
    """Serves files as usual hosts do: compressed where it helps, and not again where nothing changed."""

    def send_head(self) -> Any:
        file = Path(self.translate_path(self.path))
        file = file / "index.html" if file.is_dir() else file
        kind = self.guess_type(file)
        if kind not in COMPRESSED or not file.is_file():
            return super().send_head()
        tag = f'"{file.stat().st_mtime_ns}"'
        unchanged = self.headers["If-None-Match"] == tag
        body = b"" if unchanged else compressed(file)
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", tag)
        if not unchanged:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)


@functools.cache
def compressed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes())


class Site:
    """Serves a folder below `PREFIX`. Keeps the paths that were asked for, and the number of bytes sent.

    Another folder can take the place of the first while it serves.
    """

    def __init__(
        self, folder: Path, handler: type[SimpleHTTPRequestHandler] = SimpleHTTPRequestHandler
    ) -> None:
        site = self
        self.folder = folder
        self.asked: list[str] = []
        self.sent = 0

        class Handler(handler):  # type: ignore[valid-type,misc]
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(site.folder))

            def translate_path(self, path: str) -> str:
                site.asked.append(path)
                inside = path.startswith(PREFIX)
                local = path.removeprefix(PREFIX.rstrip("/")) if inside else "/nowhere"
                return str(super().translate_path(local))

            def copyfile(self, source: Any, outputfile: Any) -> None:
                body = source.read()
                site.sent += len(body)
                outputfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{PREFIX}"

    def __enter__(self) -> "Site":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def is_ready(page: Page) -> Page:
    """Wait until Copier renders in the page."""
    page.wait_for_selector("body[data-ready]", timeout=PATIENCE)
    return page


def is_kept(page: Page) -> Page:
    """Wait until the page works without a network."""
    page.evaluate("navigator.serviceWorker.ready")
    return page


def has_rendered(page: Page, answers: str) -> Page:
    """Wait until the files are those of the answers in a link, such as `database=mysql`."""
    page.wait_for_selector(f'body[data-rendered="{answers}"]', timeout=PATIENCE)
    return page
