"""The webhook hears what happened; and nothing fails because it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import notify as notify_module
from pipelines.notify import notify


class _Server:
    def __init__(self, *answers: int) -> None:
        self.received: list[dict[str, Any]] = []
        waiting = list(answers)
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(waiting.pop(0) if waiting else 200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook/secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_module, "_PAUSE_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[_Server]:
    found = _Server()
    yield found
    found.server.shutdown()


def test_without_an_address_nobody_is_told(tmp_path: Path) -> None:
    assert notify(tmp_path, "drift", "all is different") is False


def test_the_webhook_gets_what_happened_as_json(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_WEBHOOK", server.address)

    assert notify(tmp_path, "drift", "all is different", report="a.json") is True

    [content] = server.received
    assert content.pop("time").endswith("+00:00")
    assert content == {
        "event": "drift",
        "message": "all is different",
        "project": tmp_path.name,
        "report": "a.json",
    }


def test_the_environment_comes_before_params_yaml(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("ops: {webhook: 'http://127.0.0.1:9/'}\n")
    monkeypatch.setenv("LSTFE_WEBHOOK", server.address)
    assert notify(tmp_path, "drift", "x") is True

    monkeypatch.delenv("LSTFE_WEBHOOK")
    (tmp_path / "params.yaml").write_text(f"ops: {{webhook: '{server.address}'}}\n")
    assert notify(tmp_path, "drift", "x") is True


def test_a_webhook_that_stumbles_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Server(500, 503)
    monkeypatch.setenv("LSTFE_WEBHOOK", server.address)

    assert notify(tmp_path, "drift", "x") is True
    assert len(server.received) == 3
    server.server.shutdown()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/secret", "file:///etc/secret", "secret"])
def test_a_dead_webhook_costs_a_warning_that_keeps_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("LSTFE_WEBHOOK", address)

    assert notify(tmp_path, "drift", "x") is False
    assert "was not told of drift" in caplog.text
    assert "secret" not in caplog.text


def test_a_broken_params_yaml_does_not_hide_the_failure_that_it_caused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "params.yaml").write_text("gate: {margn: 1}\n")

    assert notify(tmp_path, "flow failed", "x") is False
    assert "no webhook" in caplog.text
