"""Opens WebSockets (RFC 6455) of a running service."""

import base64
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from harness.running import DEADLINE, Process

TEXT, CLOSE, PING = 1, 8, 9


class Closed(Exception):
    """Raised where the server closes the WebSocket: with a code and a reason, or without a word (1006)."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket:
    """A WebSocket, or the response of a server that refused to open one."""

    def __init__(
        self, connection: socket.socket, stream: BinaryIO, path: str, headers: dict[str, str]
    ) -> None:
        self.connection = connection
        self.stream = stream
        sent = {
            "Host": "127.0.0.1",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        self.status = int(self._line().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value

    def _line(self) -> str:
        return self.stream.readline().decode().rstrip("\r\n")

    def body(self) -> str:
        """Return the body of a refusal."""
        return self.stream.read(int(self.headers.get("content-length", -1))).decode()

    def send(self, text: str) -> None:
        self._frame(TEXT, text.encode())

    def receive(self) -> str:
        """Return the next text. Raise Closed if the server closes the WebSocket instead."""
        while True:
            kind, payload = self._received()
            if kind == TEXT:
                return payload.decode()
            if kind == CLOSE:
                self._frame(CLOSE, payload[:2])
                raise Closed(struct.unpack("!H", payload[:2])[0] if payload else 1005, payload[2:].decode())
            assert kind == PING, kind

    def close(self) -> None:
        """Close the WebSocket, and wait until the server has agreed."""
        self._frame(CLOSE, struct.pack("!H", 1000))
        while self._received()[0] != CLOSE:
            pass

    def _frame(self, kind: int, payload: bytes) -> None:
        assert len(payload) < 126
        # With a mask of zeros, which changes nothing.
        self.connection.sendall(bytes([0x80 | kind, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def _received(self) -> tuple[int, bytes]:
        try:
            head = self.stream.read(2)
        except ConnectionError as error:
            raise Closed from error
        if len(head) < 2:
            raise Closed
        length = head[1]
        if length == 126:
            [length] = struct.unpack("!H", self.stream.read(2))
        return head[0] & 0x0F, self.stream.read(length)


@contextmanager
def connected(process: Process, path: str, **headers: str) -> Iterator[WebSocket]:
    """Ask a service for a WebSocket. `X_Request_ID="a"` sends the header X-Request-ID."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    address = (process.client.base_url.host, process.client.base_url.port)
    with socket.create_connection(address, DEADLINE) as connection, connection.makefile("rb") as stream:
        yield WebSocket(connection, stream, path, sent)
