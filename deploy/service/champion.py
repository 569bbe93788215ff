"""The model in service: which bundle it is, who still uses which version, and how the next one takes over.

A promotion writes champion.json anew. The bundle that it names is opened, checked and warmed up beside the one in
service; then new work gets the new one, and work under way goes on with what it began with. A bundle that cannot
be loaded changes nothing but `fault`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from deploy.bundle import DetectorBuilder, StreamDetector, open_bundle
from lstfe.errors import UserError

_log = logging.getLogger(__name__)
_WARM_UP_FRAMES = 2

Outcome = Literal["loaded", "failed"]


class NotReadyError(UserError):
    """There is no model to serve yet."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What champion.json says."""

    version: str
    """Of the model registry."""
    bundle: Path
    run_id: str | None = None
    promoted_at: str | None = None


@dataclass(frozen=True, slots=True)
class ModelName:
    """What every answer says of the model that gave it."""

    version: str
    """Of the registry; for a bundle given by hand, its own."""
    bundle: str
    """Version that the bundle's manifest states."""
    run_id: str | None
    """Training run."""


class ServedModel:
    """A loaded network; `detector` builds detectors that share it."""

    def __init__(
        self, name: ModelName, label_names: tuple[str, ...], lookahead: int, build: DetectorBuilder
    ) -> None:
        self.name = name
        self.label_names = label_names
        self.lookahead = lookahead
        """Frames that must follow before a frame's detections are there."""
        self.num_users = 0
        self._build = build

    def detector(self, num_frames: int | None) -> StreamDetector:
        """Build a detector for a video of `num_frames`, or for a live stream (None)."""
        return self._build(num_frames)


class Champion:
    """The model in service; `acquire` and `release` count who uses which version."""

    def __init__(
        self,
        *,
        bundle: Path | None,
        pointer: Path | None,
        backend: str,
        poll_s: float,
        reload_after_s: float,
        on_load: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Serve `bundle` for good, or follow the file `pointer`; `on_load` is told of each try."""
        if (bundle is None) == (pointer is None):
            raise UserError("give either a bundle or the champion's pointer file")
        self._bundle, self._pointer, self._backend = bundle, pointer, backend
        self._poll_s, self._reload_after_s = poll_s, reload_after_s
        self._on_load = on_load
        self._lock = threading.Lock()
        self._current: ServedModel | None = None
        self._retired: list[ServedModel] = []
        self._fault: str | None = None
        self._tried: tuple[bytes | None, float] = (None, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lstfe-champion", daemon=True)

    @property
    def name(self) -> ModelName | None:
        """The version that new work gets."""
        current = self._current
        return None if current is None else current.name

    @property
    def fault(self) -> str | None:
        """Why the newest bundle is not in service, or None."""
        return self._fault

    @property
    def versions_in_use(self) -> list[str]:
        """The current version and older ones that still finish their work."""
        with self._lock:
            models = [*self._retired, *([self._current] if self._current else [])]
            return [model.name.version for model in models]

    def start(self) -> None:
        """Load what there is in a thread of its own, and follow the pointer from then on."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def acquire(self) -> ServedModel:
        """Return the model in service, kept loaded until it is released; raises NotReadyError."""
        with self._lock:
            if self._current is None:
                raise NotReadyError(self._fault or "the model is being loaded; try again in a few seconds")
            self._current.num_users += 1
            return self._current

    def release(self, model: ServedModel) -> None:
        """Give a model back; a version that is out of service is freed with its last user."""
        with self._lock:
            model.num_users -= 1
            self._forget_unused()

    def refresh(self) -> None:
        """Look once whether there is another model to serve, and load it."""
        try:
            wanted = self._wanted()
            if wanted is None:
                return
            model = self._load(wanted)
        except Exception as error:  # whatever is wrong with a new bundle, the old one stays in service
            is_ours = isinstance(error, UserError)
            self._fault = str(error) if is_ours else f"{type(error).__name__}: {error}"
            self._on_load("failed")
            _log.error("model not loaded: %s", self._fault, exc_info=None if is_ours else error)
            return
        with self._lock:
            if self._current is not None:
                self._retired.append(self._current)
            self._current, self._fault = model, None
            self._forget_unused()
        self._on_load("loaded")
        _log.info("model version %s in service", model.name.version)

    def _follow(self) -> None:
        self.refresh()
        while not self._stop.wait(self._poll_s):
            self.refresh()

    def _wanted(self) -> Pointer | None:
        """Return what to load, or None where nothing is new."""
        unreadable: OSError | None = None
        try:
            content = self._read()
        except OSError as error:
            # What it says stands for the content: nothing is new while it stays the same.
            content, unreadable = repr(error).encode(), error
        known, tried_at = self._tried
        is_new = content != known
        is_due = self._fault is not None and time.monotonic() - tried_at > self._reload_after_s
        if not (is_new or is_due):
            return None
        self._tried = (content, time.monotonic())
        if self._bundle is not None:
            return Pointer("", self._bundle.resolve())
        if unreadable is not None:
            raise UserError(f"{self._pointer}: cannot be read ({unreadable.strerror}); make it readable")
        if content is None or content == b"":
            raise NotReadyError(f"{self._pointer}: no champion yet; promote a model, or give --bundle DIR")
        try:
            return TypeAdapter(Pointer).validate_json(content)
        except ValidationError as error:
            fault = error.errors()[0]
            raise UserError(
                f"{self._pointer}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; promote a model again"
            ) from None

    def _read(self) -> bytes | None:
        if self._pointer is None:
            return b"fixed"
        try:
            return self._pointer.read_bytes()
        except FileNotFoundError:
            # Gone after a start is no reason to stop: only another champion ends this one's service.
            return b"" if self._current is None else self._tried[0]

    def _load(self, pointer: Pointer) -> ServedModel:
        bundle = open_bundle(pointer.bundle)
        build = bundle.detectors(self._backend)
        model = bundle.config.model
        _warm_up(build(None), (model.image_short_side, model.image_long_side))
        content = bundle.manifest.model_version
        name = ModelName(pointer.version or content, content, pointer.run_id or bundle.manifest.run_id)
        return ServedModel(name, bundle.label_names, bundle.config.inference.lookahead, build)

    def _forget_unused(self) -> None:
        self._retired = [model for model in self._retired if model.num_users > 0]


def _warm_up(detector: StreamDetector, image_size: tuple[int, int]) -> None:
    """Run every graph once: the first run allocates, and shows whether the bundle runs at all."""
    noise = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    for _ in range(_WARM_UP_FRAMES):
        detector.push(noise)
    detector.finish()


def as_answer(name: ModelName | None) -> dict[str, str | None] | None:
    """Return the model's name as JSON has it."""
    return None if name is None else asdict(name)
