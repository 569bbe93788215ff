from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from websockets.sync.client import connect

from deploy.service.connections import bounded_protocol

HEADER_S = 0.4
MAX_CONNECTIONS = 4
START = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Echo: a request's body, or each message of a stream."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with few connections that have little time for a header."""
    monkeypatch.setattr("deploy.service.connections.HEADER_S", HEADER_S)
    protocol = bounded_protocol(MAX_CONNECTIONS)
    config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def drip(port: int, first: bytes, *, seconds: float) -> float | None:
    """Send `first`, then a byte now and then; return after how many seconds the server closed, None if it did not."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.05)
        try:
            connection.sendall(first)
            while time.monotonic() - begun < seconds:
                connection.sendall(b"x")
                try:
                    if connection.recv(4096) == b"":
                        return time.monotonic() - begun
                except TimeoutError:
                    continue
        except OSError:
            return time.monotonic() - begun
    return None


@pytest.mark.parametrize(
    "first",
    [b"POST / HTTP/1.1\r\nX: ", START + b"Content-Length: 0\r\n\r\nPOST", START.replace(b"/ ", b"/early ") +
     b"Content-Length: 99999\r\n\r\n"],
    ids=["first request", "next request", "body that was answered already"],
)  # fmt: skip
def test_a_header_that_never_ends_is_given_up(port: int, first: bytes) -> None:
    closed_after = drip(port, first, seconds=20)
    assert closed_after is not None
    assert closed_after >= HEADER_S


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        assert connection.recv(1) == b""


def test_a_long_upload_and_a_silent_stream_go_on(port: int) -> None:
    upload = START + b"Content-Length: 99999\r\n\r\n"
    assert drip(port, upload, seconds=3 * HEADER_S) is None
    with connect(f"ws://127.0.0.1:{port}", proxy=None) as stream:
        for _ in range(2):
            time.sleep(2 * HEADER_S)
            stream.send("still here")
            assert stream.recv(timeout=20) == "still here"


def test_one_connection_after_the_other_can_be_used_again(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(3):
        connection.request("POST", "/", b"body")
        assert connection.getresponse().read() == b"body"
        time.sleep(HEADER_S / 2)
    connection.close()


def test_one_connection_too_many_is_told_so_and_others_go_on(port: int, wait_for: Callable[..., Any]) -> None:
    streams = [connect(f"ws://127.0.0.1:{port}", proxy=None) for _ in range(MAX_CONNECTIONS)]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert connection.recv(4096) == b""
    for stream in streams:
        stream.send("still here")
        assert stream.recv(timeout=20) == "still here"
        stream.close()

    def is_answered() -> bool:
        one = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        one.request("POST", "/", b"body")
        status = one.getresponse().status
        one.close()
        return status == 200

    wait_for(is_answered)
