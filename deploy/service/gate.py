"""What every request passes before and after its route: access, the number of requests, time, metrics, headers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.service.access import OPEN_PATHS, AccessError
from deploy.service.service import Service

_log = logging.getLogger(__name__)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
# Labels of metrics; a method is any word, and each label is kept for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS", "any"})
CLIENT_KEY = "lstfe.client"
"""Where the scope names the client that `Access` recognised."""
RETRY_AFTER_S = 2


class Gate:
    """ASGI middleware; answers by itself what does not get in."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._serve(exchange, receive)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope.get("method", "WS") if route != "unmatched" else "any"
            if method not in _METHODS:
                method = "other"
            self._service.metrics.requests.labels(method, route, str(exchange.status)).observe(
                time.perf_counter() - exchange.begun
            )
            if exchange.status in (401, 403, 408, 413, 421, 422, 429, 503):
                self._service.metrics.rejected.labels(str(exchange.status)).inc()

    async def _serve(self, exchange: _Exchange, receive: Receive) -> None:
        service, scope = self._service, exchange.scope
        try:
            scope[CLIENT_KEY] = service.access.check(scope["path"], Headers(scope=scope))
        except AccessError as error:
            headers = [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
            await exchange.refuse(error.status, str(error), headers)
            return
        if scope["type"] == "websocket":  # counted and timed by the stream itself
            await self._app(scope, receive, exchange.send)
            return
        if scope["path"] not in OPEN_PATHS and service.num_requests >= service.settings.max_requests:
            await exchange.refuse(503, "too many requests at once; try again", _retry_after())
            return
        service.num_requests += 1
        is_upload = scope["method"] == "POST"
        limit = service.settings.upload_timeout_s if is_upload else service.settings.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                await self._app(scope, receive, exchange.send)
        except TimeoutError:
            await exchange.refuse(
                408, f"not complete within {limit:g} s; try again", [(b"connection", b"close")]
            )
        except ClientDisconnect:  # in the middle of an upload; nobody is there to be answered
            exchange.status = 499
        except Exception as error:
            _log.exception("%s %s", scope["method"], getattr(scope.get("route"), "path", "unmatched"))
            await exchange.refuse(500, f"internal error ({type(error).__name__}); it is in the service's log")
        finally:
            service.num_requests -= 1


class _Exchange:
    """A request and what was answered so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.status = 0
        self.begun = time.perf_counter()
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            present = {name.lower() for name, _ in message.get("headers", [])}
            added = [(name, value) for name, value in _HEADERS if name not in present]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)

    async def refuse(self, status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer with an error, unless an answer has begun; then only its end can be refused."""
        if self.status:
            return
        kind = "http.response" if self.scope["type"] == "http" else "websocket.http.response"
        if kind.startswith("websocket") and kind not in self.scope.get("extensions", {}):
            self.status = status
            await self._send({"type": "websocket.close", "code": 1008, "reason": detail})
            return
        body = json.dumps({"detail": detail}).encode()
        fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": f"{kind}.start", "status": status, "headers": [*fixed, *headers]})
        await self.send({"type": f"{kind}.body", "body": body})


def _retry_after() -> list[tuple[bytes, bytes]]:
    return [(b"retry-after", str(RETRY_AFTER_S).encode())]
