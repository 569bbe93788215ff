"""What an operator may set: command line over environment (LSTFE_SERVE_NAME) over the defaults below."""

from __future__ import annotations

import ipaddress
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from lstfe.errors import UserError

PREFIX = "LSTFE_SERVE_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class SettingError(UserError):
    """A setting of the service has a value that it cannot have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """Settings of the service; sizes in bytes, times in seconds, pictures in pixels."""

    host: str = "127.0.0.1"
    """Address to listen at; any other than loopback needs a token or `no_auth`."""
    port: int = 8700
    """0 takes a free one, which is printed."""
    allowed_hosts: str = ""
    """Names that a request's Host may have, separated by commas; empty: any with tokens, loopback's without."""

    bundle: Path | None = None
    """A bundle that is served for good; without it the champion that `pointer` names is followed."""
    pointer: Path | None = None
    """champion.json: version, bundle, run_id."""
    backend: str = "onnx"
    """What runs the network, as in `lstfe detect`."""
    poll_s: float = 1.0
    """How often the pointer is looked at."""
    reload_after_s: float = 30.0
    """When a bundle that could not be loaded is tried again, though the pointer has not changed."""

    token_file: Path | None = None
    """One bearer token a line; lines with # are comments."""
    tokens: str = field(default="", repr=False)
    """Bearer tokens separated by commas, from the environment alone: a command line can be read by others."""
    no_auth: bool = False
    """Listen beyond loopback without a token."""

    workers: int = 0
    """Threads that run the network, each for one frame at a time; 0 = one a core."""
    threads_per_worker: int = 1
    """Threads inside one run of the network; docs/benchmarks/service.md has what was measured."""
    spool: Path | None = None
    """Folder of uploads and results; None: a new one under the system's temporary folder."""

    max_upload_bytes: int = 512 * 1024**2
    """Of one request, also of all videos that its addresses name."""
    max_videos_per_job: int = 16
    max_frames: int = 20_000
    """Of one video."""
    max_duration_s: float = 1800.0
    """Of one video, by its frame count and rate."""
    max_side_px: int = 8192
    """Longest side of a frame."""
    max_frame_px: int = 16 * 1024**2
    """Width x height of a frame."""
    max_image_bytes: int = 16 * 1024**2
    """Of one JPEG or PNG of a stream."""
    max_queued_jobs: int = 64
    """Jobs that wait; one more is answered 429."""
    running_jobs: int = 2
    """Jobs whose frames take turns; the others wait."""
    max_kept_jobs: int = 256
    """Finished jobs whose results are kept; the oldest is forgotten first."""
    keep_results_s: float = 3600.0
    """How long results are kept."""
    max_streams: int = 16
    """Open streams; one more is answered 429."""
    max_pending_frames: int = 8
    """Frames of a stream that may wait for the network before no more are read from its socket."""
    max_requests: int = 256
    """Requests in the works at once; one more is answered 503."""
    max_connections: int = 512
    """Open connections, streams among them; one more is answered 503 and closed."""

    request_timeout_s: float = 30.0
    """Of any request but an upload."""
    upload_timeout_s: float = 600.0
    """To receive an upload."""
    fetch_timeout_s: float = 300.0
    """To fetch one address."""
    job_timeout_s: float = 3600.0
    """From a job's start to its end."""
    stream_idle_s: float = 60.0
    """How long a stream may be silent, and how long any client may read nothing of what waits for it."""
    drain_s: float = 30.0
    """How long running work may go on after SIGTERM."""

    allow_private_urls: bool = False
    """Fetch from private, loopback and link-local addresses too."""

    def __post_init__(self) -> None:
        may_be_zero = {"port", "workers", "max_queued_jobs", "max_streams", "drain_s"}
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            least = 0 if name in may_be_zero else 1 if isinstance(value, int) else 0.001
            if not least <= value < float("inf"):
                raise SettingError(f"{_variable(name)}: {value}, expected at least {least}")
        if self.port > 65535:
            raise SettingError(f"{_variable('port')}: {self.port}, expected at most 65535")
        if self.bundle is not None and self.pointer is not None:
            raise SettingError("both a bundle and a pointer to the champion are given, expected one of them")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def num_workers(self) -> int:
        """Threads that run the network."""
        return self.workers or available_cores()


def load_settings(environment: Mapping[str, str] | None = None, /, **given: Any) -> ServeSettings:
    """Read the settings from the environment; `given` values that are not None go before.

    Raises SettingError for a value of the wrong type and for a variable that is no setting.
    """
    environment = os.environ if environment is None else environment
    hints = get_type_hints(ServeSettings)
    known = {_variable(name): name for name in hints}
    if unknown := sorted(name for name in environment if name.startswith(PREFIX) and name not in known):
        raise SettingError(f"{unknown[0]}: no such setting; docs/serving.md lists them")
    values = {
        name: _parsed(variable, environment[variable], hints[name])
        for variable, name in known.items()
        if environment.get(variable, "") != ""
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    # Two ways to say which model: the environment's must not stand beside the command line's.
    if chosen.keys() & {"bundle", "pointer"}:
        values.pop("bundle", None)
        values.pop("pointer", None)
    return ServeSettings(**(values | chosen))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _parsed(variable: str, text: str, hint: Any) -> Any:
    kind = next(kind for kind in get_args(hint) if kind is not types.NoneType) if get_args(hint) else hint
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise SettingError(f"{variable}: {text!r}, expected 1 or 0")
        return text.lower() in _TRUE
    try:
        return kind(text)
    except ValueError:
        # The value of `tokens` can be any text, so that no secret gets here.
        raise SettingError(f"{variable}: {text!r}, expected {kind.__name__}") from None
