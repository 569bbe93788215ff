"""What tests of many parts share: a tiny rendered data set, as received and prepared, a tiny network, a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from websockets.sync.client import ClientConnection, connect

from lstfe.config import (
    BackboneConfig,
    HeadConfig,
    ModelConfig,
    PrepareConfig,
    ProposalConfig,
    RelationConfig,
    RenderConfig,
    SelectionConfig,
)
from lstfe.data.prepare import prepare_data_set
from lstfe.data.rendering.renderer import render_data_set

if TYPE_CHECKING:  # torch takes seconds to load, and many tests do without
    from lstfe.model.detector import LSTFENet

TINY_RENDER = RenderConfig(
    num_train_videos=2,
    num_val_videos=1,
    num_test_videos=1,
    num_frames=16,
    image_size=(64, 96),
    drone_size_px=(10.0, 24.0),
    drone_speed_px=(0.5, 2.0),
    num_branches=1,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: processes that share the files then end about together.

    Those that start Prefect in the process come last: its threads register work for the end of Python, which fails in
    processes forked later (Prefect 3), so that the workers of a training's loader end with an error.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    number = Counter(item.path for item in items)
    with_prefect = {item.path for item in items if "prefect_server" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path in with_prefect, -slow[item.path], -number[item.path]))


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Return a maker of files and folders that all processes of a run share, so read only.

    make_once(name, make) calls make(path) in the process that asks first; the others wait for it.
    """
    base = tmp_path_factory.getbasetemp()  # of a process of pytest-xdist: a folder in that of the whole run
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def once(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                with tempfile.TemporaryDirectory(dir=shared) as unfinished:
                    make(Path(unfinished, name))
                    Path(unfinished, name).rename(shared / name)
        return shared / name

    return once


@pytest.fixture(scope="session")
def on_the_cpu() -> Iterator[None]:
    """Bits are promised on the CPU only: machines with a GPU test the same thing."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_raw(make_once: MakeOnce) -> Path:
    """A raw data set, shared, so read only: 2 train, 1 val, 1 test videos of 16 frames, 64x96 pixels."""
    return make_once("raw", lambda folder: render_data_set(TINY_RENDER, folder))


@pytest.fixture(scope="session")
def tiny_prepared(tiny_raw: Path, make_once: MakeOnce) -> Path:
    """The same data set, prepared; shared, so read only."""
    return make_once("prepared", lambda folder: prepare_data_set(tiny_raw, folder, PrepareConfig()))


TINY_MODEL = ModelConfig(
    image_short_side=64,
    image_long_side=96,
    backbone=BackboneConfig(
        name="resnet18", width=16, feature_stride=8, feature_channels=24, layer4=False, reduce_channels=16
    ),
    proposals=ProposalConfig(
        anchor_sizes=(8.0, 16.0, 32.0),
        anchor_ratios=(0.5, 1.0),
        pre_nms_top_k=200,
        current_top_k=20,
        reference_top_k=10,
        anchors_per_image=32,
    ),
    selection=SelectionConfig(num_frames=2),
    relation=RelationConfig(embedding=32, num_groups=4),
    head=HeadConfig(roi_size=3, rois_per_image=16, detections_per_frame=20),
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., ModelConfig]:
    """Return the tiny network's configuration, keys of a section replaced: tiny(alignment={"num_blocks": 2})."""

    def build(**sections: dict[str, Any]) -> ModelConfig:
        changed = {name: replace(getattr(TINY_MODEL, name), **keys) for name, keys in sections.items()}
        return replace(TINY_MODEL, **changed)

    return build


@pytest.fixture(scope="session")
def build_model() -> Callable[..., LSTFENet]:
    """Return a builder of networks of two categories, with random weights also where training starts from zero."""

    def build(config: ModelConfig = TINY_MODEL, *, seed: int = 0) -> LSTFENet:
        import torch

        from lstfe.model.detector import LSTFENet

        torch.manual_seed(seed)
        model = LSTFENet(config, 3)
        randomise(model, seed)
        return model

    return build


def randomise(model: LSTFENet, seed: int) -> None:
    """Give every part an influence: offsets of about a cell, attention that differs, detections apart."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("backbone", "reduce", "fc0")):
                continue
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            # Location gates stay near their initial 0.01: sin(100 log(|dx| / w + 0.001)) turns the rounding
            # of equal centers into visible differences, which tests of two ways of computing would see.
            small = ".location." in name or "box_deltas" in name
            gain = 0.1 if small else 4.0 if name.startswith("proposal_network.objectness") else 1.0
            parameter.normal_(std=gain / fan_in**0.5, generator=generator)
            if name.endswith("location.linear.bias"):
                parameter.add_(0.5)
        # Two labels that want opposite things: whatever the features, one of them beats the background.
        classes = model.head.class_logits
        classes.bias.zero_()
        classes.weight.mul_(0.3)
        classes.weight[0] = 0
        classes.weight[2] = -classes.weight[1]


# ----------------------------------------------------------------------------------------------- a browser

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_BROWSER_OPTIONS = (
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
_BROWSER_SECONDS = 60.0


@dataclass(frozen=True)
class BrowserPage:
    """A page that was loaded to its end."""

    evaluate: Callable[[str], Any]
    """Run an expression of JavaScript in it and return its value, that of a promise when it is settled."""
    complaints: Callable[[], list[str]]
    """What the console shows as error or warning, exceptions, and requests that failed, so far."""
    requests: Callable[[], list[str]]
    """Addresses that were asked for, the page's own included, so far; no `data:` ones."""
    choose_file: Callable[[str, Path], None]
    """Give a file to the input that a CSS selector names."""


class Browser:
    """A running Chromium, headless, through its DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def open(self, page: Path | str, *, width: int, is_dark: bool = False) -> BrowserPage:
        """Load a local file, or an address, in a window of a phone's or a desk's width."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        self._call("Page.navigate", session, url=page.as_uri() if isinstance(page, Path) else page)
        while not self._of(session, "Page.loadEventFired"):
            self._events.append(json.loads(self._socket.recv(timeout=_BROWSER_SECONDS)))
        return BrowserPage(
            evaluate=lambda code: self._evaluate(session, code),
            complaints=lambda: self._complaints(session),
            requests=lambda: [
                params["request"]["url"]
                for params in self._of(session, "Network.requestWillBeSent")
                if not params["request"]["url"].startswith("data:")
            ],
            choose_file=lambda selector, path: self._choose_file(session, selector, path),
        )

    def _choose_file(self, session: str, selector: str, path: Path) -> None:
        root = self._call("DOM.getDocument", session)["root"]["nodeId"]
        node = self._call("DOM.querySelector", session, nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", session, files=[str(path)], nodeId=node)

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
            answer = json.loads(self._socket.recv(timeout=_BROWSER_SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._events.append(answer)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium from the PATH, or the one that LSTFE_BROWSER names; skips where there is none."""
    program = os.environ.get("LSTFE_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip(
            "no Chromium in PATH: `apt-get install chromium` (.ci/run does it as root), or name one in LSTFE_BROWSER"
        )
    profile = tmp_path_factory.mktemp("browser")
    # Chromium refuses its sandbox to root; the pages are our own.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (profile / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *sandbox, f"--user-data-dir={profile}", *_BROWSER_OPTIONS], stdout=log, stderr=log
        )
    try:
        with connect(_address(process, profile), max_size=None, proxy=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=_BROWSER_SECONDS)


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Wait until the browser has written where it listens."""
    deadline = time.monotonic() + _BROWSER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (OSError, ValueError):
            time.sleep(0.05)
            continue
        return f"ws://127.0.0.1:{port}{path}"
    raise AssertionError(f"the browser did not start: {(profile / 'log').read_text()[-2000:]}")
