"""Sends bodies that are too large, as a client does that doesn't read before it has sent everything."""

import asyncio

PIECE = bytes(2**18)
# What is sent before each body.
HEADERS = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"


async def send_bodies(port: int, path: str, count: int, size: int, chunked: bool) -> list[int]:
    """Send bodies at the same time. Return the status of each, or 0 for a connection that was closed."""
    return [*await asyncio.gather(*(send_body(port, path, size, chunked) for _ in range(count)))]


async def send_body(port: int, path: str, size: int, chunked: bool) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    try:
        writer.write(HEADERS.format(path=path, framing=framing).encode())
        for _ in range(size // len(PIECE)):
            writer.write(piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
    except ConnectionError:
        # The response may have come before.
        pass
    try:
        line = await asyncio.wait_for(reader.readline(), 60)
    except ConnectionError:
        line = b""
    finally:
        writer.transport.abort()
    return int(line.split()[1]) if line else 0
