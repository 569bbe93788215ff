"""A real browser, headless, through its DevTools protocol: what a page does there and what it complains about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "about:blank",
)
_SECONDS = 60.0


@dataclass(frozen=True)
class BrowserPage:
    """A page that was loaded to its end."""

    evaluate: Callable[[str], Any]
    """Run an expression of JavaScript in it and return its value, that of a promise when it is settled."""
    complaints: Callable[[], list[str]]
    """What the console shows as error or warning, exceptions, and requests that failed, so far."""
    requests: Callable[[], list[str]]
    """Addresses that were asked for, the page's own included, so far; no `data:` ones."""


class Browser:
    """A running Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def open(self, path: Path, *, width: int, is_dark: bool = False) -> BrowserPage:
        """Load a local file in a window of a phone's or a desk's width."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        self._call("Page.navigate", session, url=path.as_uri())
        while not self._of(session, "Page.loadEventFired"):
            self._events.append(json.loads(self._socket.recv(timeout=_SECONDS)))
        return BrowserPage(
            evaluate=lambda code: self._evaluate(session, code),
            complaints=lambda: self._complaints(session),
            requests=lambda: [
                params["request"]["url"]
                for params in self._of(session, "Network.requestWillBeSent")
                if not params["request"]["url"].startswith("data:")
            ],
        )

    def _evaluate(self, session: str, code: str) -> Any:
        result = self._call(
            "Runtime.evaluate", session, expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def _complaints(self, session: str) -> list[str]:
        self._evaluate(session, "0")  # whatever was said before has then arrived
        console = self._of(session, "Runtime.consoleAPICalled")
        return [
            *(str(params["args"]) for params in console if params["type"] in ("error", "warning", "assert")),
            *(str(params["exceptionDetails"]) for params in self._of(session, "Runtime.exceptionThrown")),
            *(str(params["entry"]) for params in self._of(session, "Log.entryAdded")),
            *(str(params) for params in self._of(session, "Network.loadingFailed")),
        ]

    def _of(self, session: str, method: str) -> list[dict[str, Any]]:
        return [
            event["params"]
            for event in self._events
            if event.get("sessionId") == session and event.get("method") == method
        ]

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=_SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._events.append(answer)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium from the PATH, or the one that LSTFE_BROWSER names; skips where there is none."""
    program = os.environ.get("LSTFE_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(
            "no Chromium in PATH: `apt-get install chromium` (.ci/run does it as root), or name one in LSTFE_BROWSER"
        )
    profile = tmp_path_factory.mktemp("browser")
    # Chromium refuses its sandbox to root; the pages are our own.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (profile / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *sandbox, f"--user-data-dir={profile}", *_OPTIONS], stdout=log, stderr=log
        )
    try:
        with connect(_address(process, profile), max_size=None, proxy=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Wait until the browser has written where it listens."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (OSError, ValueError):
            time.sleep(0.05)
            continue
        return f"ws://127.0.0.1:{port}{path}"
    raise AssertionError(f"the browser did not start: {(profile / 'log').read_text()[-2000:]}")
