from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from deploy.service.fetching import (
    FetchError,
    FetchLimits,
    FetchStopper,
    check_url,
    fetch_video,
    is_public,
    name_of,
)

LIMITS = FetchLimits(max_bytes=1000, timeout_s=5.0)
HERE = FetchLimits(max_bytes=1000, timeout_s=5.0, allow_private=True)


class Answers(BaseHTTPRequestHandler):
    """Answers by path, and remembers what was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']} {self.path}")
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif kind == "bytes":
            self._send(b"x" * int(rest), int(rest))
        elif kind == "unsaid":
            self._send(b"x" * int(rest), None)
        elif kind == "cut":
            self._send(b"x" * 10, 100)
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self.send_error(404)

    def _send(self, content: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """A web server on loopback; returns its address."""
    Answers.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.1.2.3", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1",
     "fec0::1", "feff::1", "64:ff9b:1::a00:1", "::7f00:1", "::10.0.0.1", "::8.8.8.8"],
)  # fmt: skip
def test_addresses_that_are_not_of_the_open_internet_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["", "video.mp4", "file:///etc/passwd", "ftp://example.com/a", "http://", "http:///a", "http://user:pw@example.com/",
     "http://example.com:0/", "http://example.com:99999/", "http://[::1", "http://exa mple.com/", "http://a\nb/",
     "http://example.com/\u00e9", "http://example.com/" + "a" * 3000, "gopher://example.com/", "//example.com/a"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(FetchError, match=r"^url: ") as caught:
        check_url(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1",
     "[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "169.254.169.254", "metadata.google.internal", "nas.local"],
)  # fmt: skip
def test_private_hosts_are_refused_before_anybody_is_asked(host: str) -> None:
    with pytest.raises(FetchError, match="private, local or reserved"):
        check_url(f"http://{host}/a.mp4")
    assert check_url(f"http://{host}/a.mp4", allow_private=True).path == "/a.mp4"


def test_a_video_is_called_by_the_last_part_of_its_address() -> None:
    assert name_of("https://example.com/a/clip%20one.mp4?token=secret") == "clip one"
    assert name_of("https://example.com/../../etc/passwd") == "passwd"
    assert name_of("https://example.com") == ""


def test_a_file_is_fetched_whole(site: str, tmp_path: Path) -> None:
    assert fetch_video(f"{site}/bytes/1000", tmp_path / "a", HERE) == 1000
    assert fetch_video(f"{site}/unsaid/999", tmp_path / "b", HERE) == 999
    assert (tmp_path / "a").read_bytes() == b"x" * 1000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/bytes/1001", "larger than 1000 bytes"),
        ("/unsaid/1001", "larger than 1000 bytes"),
        ("/cut", "broke off"),
        ("/nothing?token=secret", "answered 404, expected 200"),
        ("/to/ftp://example.com/", "expected http://"),
    ],
)
def test_what_is_not_whole_or_too_large_is_refused(
    site: str, tmp_path: Path, path: str, message: str
) -> None:
    with pytest.raises(FetchError, match=message) as caught:
        fetch_video(site + path, tmp_path / "a", HERE)
    assert "secret" not in str(caught.value)


def test_a_slow_server_is_given_up(site: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"not fetched within 0\.3 s"):
        fetch_video(
            f"{site}/slow", tmp_path / "a", FetchLimits(max_bytes=1000, timeout_s=0.3, allow_private=True)
        )
    assert time.monotonic() - begun < 3


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "header": (HEAD + b"X-A: ", b"a", 0.02),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    "chunk size": (CHUNKED, b"0", 0.02),
    "trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX-A: ", b"a", 0.02),
    "body": (HEAD + b"\r\n", b"", 0.02),
}


@pytest.fixture(params=ENDLESS)
def endless_site(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that never comes to an end, and is never silent; returns its address."""
    first, then, pause_s = ENDLESS[request.param]
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection = listener.accept()[0]
        with connection:
            connection.recv(4096)
            try:
                connection.sendall(first)
                for _ in itertools.count():
                    connection.sendall(then)
                    time.sleep(pause_s)
            except OSError:
                return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    listener.close()


def test_a_server_that_keeps_one_waiting_is_given_up(endless_site: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    limits = FetchLimits(max_bytes=10**9, timeout_s=0.3, allow_private=True)
    with pytest.raises(FetchError, match=r"/a: not fetched within 0\.3 s"):
        fetch_video(endless_site, tmp_path / "a", limits)
    assert time.monotonic() - begun < 3


def test_a_fetch_is_stopped_at_once_whatever_it_waits_for(endless_site: str, tmp_path: Path) -> None:
    stopper = FetchStopper()
    timer = threading.Timer(0.2, stopper.stop, ("cancelled",))
    timer.start()
    begun = time.monotonic()
    limits = FetchLimits(max_bytes=10**9, timeout_s=60.0, allow_private=True)
    with pytest.raises(FetchError, match="/a: cancelled"):
        fetch_video(endless_site, tmp_path / "a", limits, stopper=stopper)
    assert time.monotonic() - begun < 3


def test_a_fetch_that_was_stopped_before_it_began_asks_nobody(site: str, tmp_path: Path) -> None:
    stopper = FetchStopper()
    stopper.stop("cancelled")
    with pytest.raises(FetchError, match="cancelled"):
        fetch_video(f"{site}/bytes/5", tmp_path / "a", HERE, stopper=stopper)
    assert Answers.asked == []


def test_redirects_are_followed_a_few_times(site: str, tmp_path: Path) -> None:
    assert fetch_video(f"{site}/to//bytes/5", tmp_path / "a", HERE) == 5
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch_video(f"{site}/to/" * 8 + "/bytes/5", tmp_path / "b", HERE)


def test_a_redirect_to_a_private_address_is_refused(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.service.fetching.is_public", lambda address: str(address) == "127.0.0.1")
    monkeypatch.setattr(
        "deploy.service.fetching._literal", lambda host: None if "127" in host else _private(host)
    )
    with pytest.raises(FetchError, match="private, local or reserved"):
        fetch_video(f"{site}/to/http://169.254.169.254/latest", tmp_path / "a", LIMITS)
    assert len(Answers.asked) == 1


def _private(host: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(host)


def resolver(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["fe80::1%eth0"]])
def test_a_name_with_any_private_address_is_refused(site: str, tmp_path: Path, addresses: list[str]) -> None:
    url = site.replace("127.0.0.1", "camera.example")
    with pytest.raises(FetchError, match="private, local or reserved"):
        fetch_video(f"{url}/bytes/5", tmp_path / "a", LIMITS, resolve=resolver(*addresses))
    assert Answers.asked == []


def test_the_connection_goes_to_the_address_that_was_checked(site: str, tmp_path: Path) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url = site.replace("127.0.0.1", "camera.example")  # which no resolver of this machine knows
    fetch_video(f"{url}/bytes/5", tmp_path / "a", HERE, resolve=resolve)
    assert asked == ["camera.example"], "asked once, so that there is no second answer"
    assert Answers.asked[0].startswith("camera.example:")


def test_a_host_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise OSError

    with pytest.raises(FetchError, match=r"http://camera\.example/a: no such host"):
        fetch_video("http://camera.example/a?token=secret", tmp_path / "a", LIMITS, resolve=resolve)
