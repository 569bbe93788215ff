"""Who may ask: bearer tokens, and protection of a service on loopback from web pages in the same machine's browser."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from deploy.service.settings import ServeSettings, SettingError

_MIN_LENGTH = 16
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
"""What needs no token: whether the service is well, and pages that hold no data."""


class AccessError(Exception):
    """A request that is not let in; `status` is 401, 403 or 421."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """Decides by a request's headers alone; keeps hashes of the tokens, never the tokens."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises SettingError where the service could be reached by others without a token."""
        self._hashes = [_hash(token) for token in read_tokens(settings)]
        if not (self._hashes or settings.is_loopback or settings.no_auth):
            raise SettingError(
                f"host {settings.host}: others can reach it, so a token is needed: set LSTFE_SERVE_TOKENS or "
                "--token-file, or say --no-auth"
            )
        named = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
        is_bare_loopback = settings.is_loopback and not self._hashes
        self._hosts = named or ({*_LOOPBACK_NAMES, settings.host} if is_bare_loopback else None)

    @property
    def needs_token(self) -> bool:
        """Whether requests need a bearer token."""
        return bool(self._hashes)

    def check(self, path: str, headers: Mapping[str, str]) -> str:
        """Return an opaque name of the client, the same for the same token; raises AccessError."""
        host = headers.get("host", "").lower()
        # Another site's page can make a browser send requests here; a name that it lets point here, too.
        if self._hosts is not None and _host_name(host) not in self._hosts:
            raise AccessError(421, "this service does not answer to that host name")
        origin = headers.get("origin")
        if origin is not None and _site(origin) != host:
            raise AccessError(403, "requests from pages of other sites are not answered")
        if path in OPEN_PATHS or not self._hashes:
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = _hash(token.strip())
        # All are compared, so that the time says nothing of which one came near.
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if scheme.lower() != "bearer" or not any(matches):
            raise AccessError(401, "a bearer token is needed: Authorization: Bearer TOKEN")
        return given.hex()


def read_tokens(settings: ServeSettings) -> list[str]:
    """Return the tokens of the settings and of the token file; raises SettingError, which holds none of them."""
    tokens = [token.strip() for token in settings.tokens.split(",") if token.strip()]
    if settings.token_file is not None:
        tokens += _tokens_of(settings.token_file)
        if not tokens:
            raise SettingError(f"{settings.token_file}: no token in it, expected one a line")
    for token in tokens:
        if len(token) < _MIN_LENGTH or not token.isascii() or any(character.isspace() for character in token):
            raise SettingError(
                f"a token is too weak: expected at least {_MIN_LENGTH} visible ASCII characters"
            )
    return tokens


def _tokens_of(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: the token file cannot be read ({type(error).__name__})") from None
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _site(origin: str) -> str | None:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:  # http://[
        return None


def _host_name(host: str) -> str:
    return (host[1:].partition("]")[0]) if host.startswith("[") else host.rpartition(":")[0] or host
