"""Break responses on purpose: cut, reset, stalled. They need `SandboxServer`, which passes the transport."""

import asyncio
import socket
import struct

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero: closing sends RST and no FIN."""


class Cut(Response):
    """Sends the head and part of the body, then closes the connection; without `head`, nothing.

    `length` is announced as Content-Length.
    """

    def __init__(
        self, content: bytes = b"", length: int = 0, *, media_type: str, status: int = 200, head: bool = True
    ) -> None:
        super().__init__(content, status, media_type=media_type)
        self.headers["content-length"] = str(length)
        self.head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the part, then break the connection."""
        transport: asyncio.Transport = scope["state"]["transport"]
        if self.head:
            await self._begin(transport, send)
        self._end(transport)
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _begin(self, transport: asyncio.Transport, send: Send) -> None:
        # With no room to buffer, the second send waits until the first has left this process.
        transport.set_write_buffer_limits(high=0)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})

    def _end(self, transport: asyncio.Transport) -> None:
        transport.close()


class Reset(Cut):
    """Ends in the middle with a TCP reset."""

    def _end(self, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        transport.abort()


class Stalled(Cut):
    """Stops in the middle, and keeps the connection open."""

    def _end(self, transport: asyncio.Transport) -> None:
        pass


class WrongLength(Cut):
    """Sends all of the body under a Content-Length that is not its length, then closes the connection."""

    async def _begin(self, transport: asyncio.Transport, _send: Send) -> None:
        # Not through the server, which would enforce the announced length.
        lines = [b"HTTP/1.1 200 OK", *(b": ".join(header) for header in self.raw_headers)]
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + self.body)
