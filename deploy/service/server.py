"""Runs the service with uvicorn: one process, a clean end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from deploy.service.app import build_app
from deploy.service.connections import bounded_protocol
from deploy.service.service import Service
from deploy.service.settings import ServeSettings, SettingError

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What is left of requests when work has been drained, in seconds.
_LAST_ANSWERS_S = 5


def serve(settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and return; a second signal returns at once.

    Raises UserError for settings, a port or a spool that cannot be used.
    """
    # ONNX Runtime has threads of its own, which deploy/onnx_backend.py counts by this variable.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads_per_worker)
    service = Service(settings)
    try:
        listener = _listen(settings)
    except SettingError:
        service.stop()
        raise
    host, port = listener.getsockname()[:2]
    print(f"serving http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    config = uvicorn.Config(
        build_app(service),
        http=bounded_protocol(settings.max_connections, unread_s=settings.stream_idle_s),
        log_config=None,
        access_log=False,  # addresses and queries of clients are nobody's business
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        ws_max_size=settings.max_image_bytes,
        ws_max_queue=4,
        # Pings are answered only while frames are read; silence has a limit of its own.
        ws_ping_interval=None,
    )
    _Server(config, service).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Drains before it shuts down; the listening socket stays open meanwhile, so that /readyz can say so."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Turn the first signal into an orderly end; uvicorn itself would raise it again at last."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        try:
            await self._service.drain()
        finally:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the service whatever ended the server: uvicorn leaves it out when it is forced."""
        await super().shutdown(sockets)
        if self.force_exit:
            self._service.stop()


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
        # Connections inherit it. asyncio sets it only where a socket names its protocol, which this one does not;
        # without it the second part of an answer waits some 40 ms for the client to acknowledge the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise SettingError(
            f"{settings.host}:{settings.port}: cannot be listened at ({error.strerror}); give another --port"
        ) from None
