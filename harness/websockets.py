"""Opens WebSockets of a running service."""

from websockets.sync.client import ClientConnection, connect

from harness.running import DEADLINE, Process


def connected(process: Process, path: str, **headers: str) -> ClientConnection:
    """Open a WebSocket until the end of a `with` block. `X_Request_ID="a"` sends the header X-Request-ID.

    Raise `InvalidStatus`, which has the response, if the service refuses to open it.
    """
    url = str(process.client.base_url.copy_with(scheme="ws", path="/")).rstrip("/")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    # No proxy of this machine is asked, and no ping keeps the WebSocket open.
    return connect(
        f"{url}{path}", additional_headers=sent, open_timeout=DEADLINE, ping_interval=None, proxy=None
    )
