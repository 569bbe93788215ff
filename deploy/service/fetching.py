"""Fetches videos from addresses that a client names, and only from where a stranger may send the service.

A name is resolved once, every address that it has must be public, and the connection goes to exactly the address
that was checked: a name server that answers differently the second time (DNS rebinding) changes nothing. Each
redirect is checked as if it were the client's. Proxy settings of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
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
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
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
        if address.teredo is not None:
            return False
        if hidden is not None:
            return is_public(hidden)
    return address.is_global and not address.is_multicast


def fetch_video(
    url: str,
    destination: Path,
    limits: FetchLimits,
    *,
    is_cancelled: Callable[[], bool] = lambda: False,
    resolve: Resolve | None = None,
) -> int:
    """Write what an address holds to `destination`; return its bytes. Raises FetchError, which names no query."""
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(_MAX_REDIRECTS + 1):
        parts = check_url(url, allow_private=limits.allow_private)
        connection = _connect(parts, limits, deadline, resolve or _resolve)
        try:
            response = _ask(connection, parts)
            if response.status in _REDIRECTS:
                url = urljoin(url, response.getheader("Location") or "")
                continue
            if response.status != 200:
                raise FetchError(f"{_shown(parts)}: answered {response.status}, expected 200")
            return _receive(response, destination, parts, limits, deadline, is_cancelled)
        except TimeoutError:
            raise _too_slow(parts, limits) from None
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{_shown(parts)}: broke off ({type(error).__name__}); try again") from None
        finally:
            connection.close()
    raise FetchError(f"{_shown(parts)}: more than {_MAX_REDIRECTS} redirects")


def _connect(
    parts: SplitResult, limits: FetchLimits, deadline: float, resolve: Resolve
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
        left = deadline - time.monotonic()
        if left <= 0:
            raise _too_slow(parts, limits)
        try:
            raw = socket.create_connection((address, port), timeout=min(left, 10.0))
            if is_tls:  # the certificate is checked against the name, whatever the address
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        except (OSError, ssl.SSLError):
            continue
        connection = http.client.HTTPConnection(host, port, timeout=min(left, 10.0))
        connection.sock = raw
        return connection
    raise FetchError(f"{_shown(parts)}: no connection; is the address right?")


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
    deadline: float,
    is_cancelled: Callable[[], bool],
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
            if time.monotonic() > deadline:
                raise _too_slow(parts, limits)
            if is_cancelled():
                raise FetchError(f"{_shown(parts)}: cancelled")
            file.write(chunk)
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


def _too_slow(parts: SplitResult, limits: FetchLimits) -> FetchError:
    return FetchError(f"{_shown(parts)}: not fetched within {limits.timeout_s:g} s; try again")
