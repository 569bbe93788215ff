"""Fetches videos from addresses that a client names, and only from where a stranger may send the service.

A name is resolved once, every address that it has must be public, and the connection goes to exactly the address
that was checked: a name server that answers differently the second time (DNS rebinding) changes nothing. Each
redirect is checked as if it were the client's. Proxy settings of the environment are not used.

A server that sends a byte now and then keeps every single read below its time limit, so the time of the whole fetch
is watched from outside: `FetchStopper` shuts the connection down, whatever is being waited for.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from lstfe.errors import UserError

MAX_URL_LENGTH = 2048
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 256 * 1024
_SILENCE_S = 10.0  # of one read, one write, one connection
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What the standard library takes for global: site-local, NAT64 of a network's own, IPv4-compatible; all lead inside.
_INSIDE = tuple(ipaddress.ip_network(text) for text in ("fec0::/10", "64:ff9b:1::/48", "::/96"))
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".localdomain", ".home.arpa")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


class FetchError(UserError):
    """An address may not be fetched from, or nothing could be fetched there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchLimits:
    """Bounds on one fetch."""

    max_bytes: int
    timeout_s: float
    """From the first connection to the last byte."""
    allow_private: bool = False


class FetchStopper:
    """Ends a fetch from another thread, at once, also while it waits for the other side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._reason: str | None = None

    def stop(self, reason: str) -> None:
        """Shut the connection down; the fetch raises FetchError of this reason."""
        with self._lock:
            self._reason = self._reason or reason
            if self._connection is not None:
                _shut_down(self._connection)

    def raise_if_stopped(self, parts: SplitResult) -> None:
        """Raise FetchError where the fetch is to end."""
        if self._reason is not None:
            raise FetchError(f"{_shown(parts)}: {self._reason}")

    def watch(self, connection: socket.socket | None) -> None:
        """Take the connection that is used from now on, or None."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            # A descriptor of our own: the one of a connection that is closed meanwhile may be another's already.
            self._connection = None if connection is None else connection.dup()


def check_url(url: str, *, allow_private: bool = False) -> SplitResult:
    """Check what can be said of an address without asking anyone; raises FetchError."""
    if len(url) > MAX_URL_LENGTH or not url.isascii() or any(character <= " " for character in url):
        raise FetchError(f"url: expected at most {MAX_URL_LENGTH} visible ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise FetchError("url: not an address, expected http://HOST/PATH or https://HOST/PATH") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise FetchError("url: expected http://HOST/PATH or https://HOST/PATH")
    if "@" in parts.netloc:
        raise FetchError("url: holds a user or a password; give an address that needs none")
    if allow_private:
        return parts
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(_LOCAL_NAMES):
        raise _not_public()
    if (address := _literal(name)) is not None and not is_public(address):
        raise _not_public()
    return parts


def name_of(url: str) -> str:
    """Return the last part of an address's path, without query and suffix: what a video is called by."""
    return Path(unquote(urlsplit(url).path)).stem


def is_public(address: Address) -> bool:
    """Say whether an address is one of the open internet, also where an IPv4 address hides in an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            hidden = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None or any(address in network for network in _INSIDE):
            return False
        if hidden is not None:
            return is_public(hidden)
    return address.is_global and not address.is_multicast


def fetch_video(
    url: str,
    destination: Path,
    limits: FetchLimits,
    *,
    stopper: FetchStopper | None = None,
    resolve: Resolve | None = None,
) -> int:
    """Write what an address holds to `destination`; return its bytes. Raises FetchError, which names no query."""
    stopper = stopper or FetchStopper()
    too_slow = f"not fetched within {limits.timeout_s:g} s; try again"
    watchdog = threading.Timer(limits.timeout_s, stopper.stop, (too_slow,))
    watchdog.daemon = True
    watchdog.start()
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            parts = check_url(url, allow_private=limits.allow_private)
            target = _fetch_once(parts, destination, limits, stopper, resolve or _resolve)
            if isinstance(target, int):
                return target
            url = urljoin(url, target)
    finally:
        watchdog.cancel()
        stopper.watch(None)
    raise FetchError(f"{_shown(parts)}: more than {_MAX_REDIRECTS} redirects")


def _fetch_once(
    parts: SplitResult, destination: Path, limits: FetchLimits, stopper: FetchStopper, resolve: Resolve
) -> int | str:
    """Return the bytes that were received, or where to ask instead."""
    connection = _connect(parts, limits, stopper, resolve)
    try:
        stopper.raise_if_stopped(parts)  # before there was a connection to shut down
        response = _ask(connection, parts)
        stopper.raise_if_stopped(parts)
        if response.status in _REDIRECTS:
            return response.getheader("Location") or ""
        if response.status != 200:
            raise FetchError(f"{_shown(parts)}: answered {response.status}, expected 200")
        return _receive(response, destination, parts, limits, stopper)
    except TimeoutError:
        stopper.raise_if_stopped(parts)
        raise FetchError(f"{_shown(parts)}: silent for {_SILENCE_S:g} s; try again") from None
    except (OSError, http.client.HTTPException) as error:
        stopper.raise_if_stopped(parts)
        raise FetchError(f"{_shown(parts)}: broke off ({type(error).__name__}); try again") from None
    finally:
        connection.close()


def _connect(
    parts: SplitResult, limits: FetchLimits, stopper: FetchStopper, resolve: Resolve
) -> http.client.HTTPConnection:
    host, is_tls = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError):
        raise FetchError(f"{_shown(parts)}: no such host") from None
    if not limits.allow_private and not all(is_public(_parsed(address)) for address in addresses):
        raise _not_public()
    for address in addresses:
        stopper.raise_if_stopped(parts)
        try:
            raw = _open(address, port, stopper)
            if is_tls:  # the certificate is checked against the name, whatever the address
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        except (OSError, ssl.SSLError):
            continue
        connection = http.client.HTTPConnection(host, port, timeout=_SILENCE_S)
        connection.sock = raw
        return connection
    stopper.raise_if_stopped(parts)
    raise FetchError(f"{_shown(parts)}: no connection; is the address right?")


def _open(address: str, port: int, stopper: FetchStopper) -> socket.socket:
    family, kind, protocol, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    raw = socket.socket(family, kind, protocol)
    try:
        raw.settimeout(_SILENCE_S)
        stopper.watch(raw)  # before it connects, which may take its time too
        raw.connect(target)
    except BaseException:
        raw.close()
        raise
    return raw


def _shut_down(connection: socket.socket) -> None:
    # Both ways: what still arrives is then refused by the system, and not read for ever.
    with contextlib.suppress(OSError):  # not connected yet, or no more
        connection.shutdown(socket.SHUT_RDWR)


def _ask(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc,
        "Accept": "video/*, application/octet-stream, */*",
        "Connection": "close",
    }
    connection.request("GET", target, headers=headers | {"Accept-Encoding": "identity"})
    return connection.getresponse()


def _receive(
    response: http.client.HTTPResponse,
    destination: Path,
    parts: SplitResult,
    limits: FetchLimits,
    stopper: FetchStopper,
) -> int:
    too_large = FetchError(f"{_shown(parts)}: larger than {limits.max_bytes} bytes; cut it into pieces")
    announced = response.length
    if announced is not None and announced > limits.max_bytes:
        raise too_large
    received = 0
    with destination.open("xb") as file:
        while chunk := response.read1(_CHUNK_BYTES):
            received += len(chunk)
            if received > limits.max_bytes:
                raise too_large
            stopper.raise_if_stopped(parts)
            file.write(chunk)
    stopper.raise_if_stopped(parts)  # a connection that was shut down reads like one that came to its end
    if announced is not None and received < announced:
        raise FetchError(f"{_shown(parts)}: broke off after {received} of {announced} bytes; try again")
    return received


def _resolve(host: str, port: int) -> Sequence[str]:
    found: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _parsed(address: str) -> Address:
    return ipaddress.ip_address(address.partition("%")[0])


def _literal(host: str) -> Address | None:
    """Read a host as an address, also in the forms that only the resolver knows (127.1, 0x7f000001)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _shown(parts: SplitResult) -> str:
    """Return an address without its query, which may be a secret."""
    return f"{parts.scheme}://{parts.hostname}{parts.path}"[:200]


def _not_public() -> FetchError:
    return FetchError(
        "url: its host is private, local or reserved, which this service does not fetch from; upload the file instead"
    )
