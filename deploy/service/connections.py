"""What a connection must do: it is one of a limited number, sends its header in time, and reads what it asked for.

Uvicorn waits for ever for the rest of a header, for the first byte of a connection, and for a client to read its
answer, also where the answer was given up and the connection is to be closed. Requests, uploads and streams have limits
of their own elsewhere; nothing here touches them.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
import termios

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 10.0
"""From a connection, or from the first byte of a further request on it, to the end of the header."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


_LOOKS = 20
"""At what waits for a client, within the time that it has to read some of it."""


def bounded_protocol(max_connections: int, *, unread_s: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol for at most so many open connections, streams included.

    A connection is cut off once its client has read nothing for `unread_s` seconds of what waits for it.
    """

    class BoundedProtocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            _ReadWatch(transport, self.loop, unread_s).look()
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


class _ReadWatch:
    """Cuts off a client that reads nothing; goes on when a connection becomes a stream, which has another protocol."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._transport, self._loop, self._seconds = transport, loop, seconds
        self._num_waiting, self._since = 0, loop.time()

    def look(self) -> None:
        """See whether anything was read, and look again later, until the connection is gone."""
        num_waiting, now = _num_waiting(self._transport), self._loop.time()
        if num_waiting == 0 or num_waiting != self._num_waiting:
            self._num_waiting, self._since = num_waiting, now
        elif now - self._since >= self._seconds:
            self._transport.abort()  # closing would wait until everything is read
            return
        if num_waiting or not self._transport.is_closing():
            self._loop.call_later(self._seconds / _LOOKS, self.look)


def _num_waiting(transport: asyncio.Transport) -> int:
    """Return how many bytes the client has not taken yet: ours and, on Linux, the kernel's for this connection.

    The kernel may hold some megabytes. While a slow client reads these, ours stay as they are.
    """
    number, connection = transport.get_write_buffer_size(), transport.get_extra_info("socket")
    if sys.platform != "linux" or connection is None or connection.fileno() < 0:
        return number
    queued: int = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return number + queued
