from __future__ import annotations

from pathlib import Path

import pytest

from deploy.service.access import Access, AccessError
from deploy.service.settings import ServeSettings, SettingError

TOKEN = "a-token-of-the-first-client"
OTHER = "a-token-of-the-other-client"


def status_of(access: Access, path: str = "/v1/videos", **headers: str) -> int:
    try:
        access.check(path, {"host": "127.0.0.1:8700"} | headers)
    except AccessError as error:
        return error.status
    return 200


def test_loopback_needs_no_token_unless_one_is_set() -> None:
    assert status_of(Access(ServeSettings())) == 200
    assert status_of(Access(ServeSettings(tokens=TOKEN))) == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "camera.example"])
def test_other_addresses_are_refused_without_a_token(host: str) -> None:
    with pytest.raises(SettingError, match="a token is needed"):
        Access(ServeSettings(host=host))
    assert not Access(ServeSettings(host=host, no_auth=True)).needs_token
    assert Access(ServeSettings(host=host, tokens=TOKEN)).needs_token


def test_each_token_is_a_client_of_its_own() -> None:
    access = Access(ServeSettings(tokens=f"{TOKEN}, {OTHER}"))
    headers = {"host": "any.example"}
    clients = [
        access.check("/x", headers | {"authorization": f"Bearer {token}"}) for token in (TOKEN, OTHER, TOKEN)
    ]
    assert clients[0] == clients[2] != clients[1]
    assert TOKEN not in "".join(clients)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer \udcff"],
)
def test_anything_but_a_token_is_refused(header: str) -> None:
    assert status_of(Access(ServeSettings(tokens=TOKEN)), authorization=header) == 401


def test_the_scheme_is_written_as_one_likes() -> None:
    assert status_of(Access(ServeSettings(tokens=TOKEN)), authorization=f"bearer {TOKEN}") == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json"])
def test_health_and_pages_need_no_token(path: str) -> None:
    assert status_of(Access(ServeSettings(tokens=TOKEN)), path) == 200


def test_tokens_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# cameras\n{TOKEN}\n\n{OTHER}\n")
    access = Access(ServeSettings(token_file=file))
    assert status_of(access, authorization=f"Bearer {OTHER}") == 200
    assert status_of(access, authorization="Bearer # cameras") == 401


@pytest.mark.parametrize(
    ("content", "message"), [("", "no token in it"), ("short", "too weak"), ("# x", "no token")]
)
def test_a_file_without_a_good_token_is_refused_without_showing_it(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(SettingError, match=message) as caught:
        Access(ServeSettings(token_file=file))
    assert "short" not in str(caught.value)
    with pytest.raises(SettingError, match="cannot be read"):
        Access(ServeSettings(token_file=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8700", 200), ("[::1]:8700", 200), ("127.0.0.1", 200), ("evil.example:8700", 421), ("", 421)],
)
def test_a_name_that_only_points_here_is_not_answered(host: str, status: int) -> None:
    assert status_of(Access(ServeSettings()), host=host) == status


def test_with_tokens_or_names_of_its_own_other_hosts_are_answered() -> None:
    headers = {"host": "camera.example:443", "authorization": f"Bearer {TOKEN}"}
    assert status_of(Access(ServeSettings(tokens=TOKEN)), **headers) == 200
    named = Access(ServeSettings(tokens=TOKEN, allowed_hosts="Camera.example"))
    assert status_of(named, **headers) == 200
    assert status_of(named, **headers | {"host": "other.example"}) == 421


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8700", 200),
        ("http://127.0.0.1:9999", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_sites_are_not_answered(origin: str, status: int) -> None:
    assert status_of(Access(ServeSettings()), origin=origin) == status
