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
UNREAD_S = 0.6
MAX_CONNECTIONS = 4
LARGE = 16 * 2**20  # more than the kernel keeps for a client that does not read
START = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Echo: a request's body, or each message of a stream; at /large more than fits, in pieces or as one."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while scope["path"] == "/large":
            await send({"type": "websocket.send", "bytes": bytes(2**20)})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/large":
        size = int(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for left in range(LARGE - size, -1, -size):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": left > 0})
        return
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(server: tuple[uvicorn.Server, int]) -> int:
    return server[1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[uvicorn.Server, int]]:
    """A server with few connections that have little time for a header, and to read; and its port."""
    monkeypatch.setattr("deploy.service.connections.HEADER_S", HEADER_S)
    protocol = bounded_protocol(MAX_CONNECTIONS, unread_s=UNREAD_S)
    config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield server, listener.getsockname()[1]
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


def ask_for_much(port: int, size: int, **headers: str) -> socket.socket:
    """Ask for an answer larger than what is read of it, in pieces of `size` bytes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    client.sendall(f"GET /large?{size} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
    return client


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    ("size", "headers"),
    [(2**20, {}), (LARGE, {}), (LARGE, {"Connection": "close"}), (2**20, UPGRADE)],
    ids=["pieces", "one answer", "last answer", "stream"],
)
def test_a_client_that_does_not_read_is_cut_off(
    server: tuple[uvicorn.Server, int], wait_for: Callable[..., Any], size: int, headers: dict[str, str]
) -> None:
    state = server[0].server_state
    with ask_for_much(server[1], size, **headers):
        wait_for(lambda: len(state.connections) == 1)
        begun = time.monotonic()
        wait_for(lambda: not state.connections, seconds=20)
        assert time.monotonic() - begun > UNREAD_S / 2
        wait_for(lambda: not state.tasks)


def test_a_client_that_reads_slowly_gets_all_of_its_answer(port: int) -> None:
    found = 0
    with ask_for_much(port, LARGE, Connection="close") as client:
        client.settimeout(20)
        begun = time.monotonic()
        while piece := client.recv(2**20 if time.monotonic() - begun > 3 * UNREAD_S else 512):
            found += len(piece)
            time.sleep(UNREAD_S / 20 if len(piece) <= 512 else 0)
    assert found > LARGE


def test_a_client_that_asks_for_nothing_more_is_not_cut_off(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}", proxy=None) as stream:
        time.sleep(3 * UNREAD_S)
        stream.send("still here")
        assert stream.recv(timeout=20) == "still here"
