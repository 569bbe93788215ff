from __future__ import annotations

from pathlib import Path

import pytest

from deploy.service.settings import ServeSettings, SettingError, load_settings


def test_without_anything_said_only_this_machine_is_served() -> None:
    settings = load_settings({})
    assert settings == ServeSettings()
    assert settings.is_loopback
    assert settings.num_workers >= 1


def test_the_command_line_goes_before_the_environment() -> None:
    environment = {"LSTFE_SERVE_PORT": "9000", "LSTFE_SERVE_MAX_FRAMES": "7", "LSTFE_SERVE_SPOOL": "here"}
    settings = load_settings(environment, port=9001, host=None)
    assert (settings.port, settings.max_frames, settings.spool) == (9001, 7, Path("here"))


@pytest.mark.parametrize(("name", "other"), [("bundle", "pointer"), ("pointer", "bundle")])
def test_a_model_on_the_command_line_goes_before_either_in_the_environment(name: str, other: str) -> None:
    environment = {"LSTFE_SERVE_BUNDLE": "a", "LSTFE_SERVE_POINTER": "b"}
    settings = load_settings(environment, **{name: Path("mine"), other: None})
    assert (getattr(settings, name), getattr(settings, other)) == (Path("mine"), None)
    with pytest.raises(SettingError, match="expected one of them"):
        load_settings({}, bundle=Path("a"), pointer=Path("b"))


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("yes", True), ("0", False), ("False", False), ("", False)]
)
def test_switches_are_read_from_words(text: str, value: bool) -> None:
    assert load_settings({"LSTFE_SERVE_NO_AUTH": text}).no_auth is value


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LSTFE_SERVE_PORTS": "1"}, "LSTFE_SERVE_PORTS: no such setting"),
        ({"LSTFE_SERVE_PORT": "x"}, "LSTFE_SERVE_PORT: 'x', expected int"),
        ({"LSTFE_SERVE_PORT": "65536"}, "expected at most 65535"),
        ({"LSTFE_SERVE_MAX_FRAMES": "0"}, "LSTFE_SERVE_MAX_FRAMES: 0, expected at least 1"),
        ({"LSTFE_SERVE_DRAIN_S": "-1"}, "expected at least 0"),
        ({"LSTFE_SERVE_JOB_TIMEOUT_S": "inf"}, "LSTFE_SERVE_JOB_TIMEOUT_S"),
        ({"LSTFE_SERVE_NO_AUTH": "maybe"}, "'maybe', expected 1 or 0"),
        ({"LSTFE_SERVE_BUNDLE": "a", "LSTFE_SERVE_POINTER": "b"}, "expected one of them"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_settings(environment)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("x", False),
    ],
)
def test_loopback_is_known_by_its_addresses(host: str, is_loopback: bool) -> None:
    assert ServeSettings(host=host).is_loopback is is_loopback


def test_tokens_are_no_part_of_what_is_printed() -> None:
    assert "sesame" not in repr(ServeSettings(tokens="open-sesame-open-sesame"))
