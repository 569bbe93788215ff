"""What a connection must do before it is a request: it is one of a limited number, and sends its header in time.

Uvicorn waits for ever for the rest of a header, and for the first byte of a connection. Requests, uploads and
streams have limits of their own elsewhere; nothing here touches them.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0
"""From a connection, or from the first byte of a further request on it, to the end of the header."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


def bounded_protocol(max_connections: int) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol for at most so many open connections, streams included."""

    class BoundedProtocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.write(_FULL)
                transport.close()
                return
            self._watch_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_header()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_watch()
            super().connection_lost(exc)

        def _watch_header(self) -> None:
            # IDLE: no whole header yet; DONE: answered, and what comes is the rest of a body that nobody wants.
            if self.conn.our_state not in (h11.IDLE, h11.DONE):
                self._end_watch()
            elif self._header_timer is None:
                # Where no byte follows an answer, uvicorn's own time limit closes the connection.
                self._header_timer = self.loop.call_later(HEADER_S, self.timeout_keep_alive_handler)

        def _end_watch(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return BoundedProtocol
