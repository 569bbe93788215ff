"""How a command of this project ends: exit codes, one-line errors, and SIGTERM as an orderly exit.

| code | meaning | what then |
|---|---|---|
| 0 | done | |
| 1 | a bug of ours, with a traceback | report it |
| 2 | the user can mend it | read the line |
| 75 | the network failed | the flow tries again |
| 79 | a training was told to stop (SIGTERM) and saved (lstfe/training/stop.py) | the same command goes on |
| 130 | Ctrl-C; a training has saved | the same command goes on |
| 143 | ended by SIGTERM; a training goes on from its last checkpoint | |
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn
from urllib.error import URLError

from lstfe.errors import UserError

USER_ERROR = 2
"""The user can mend it; the message says how."""
TEMPORARY_FAILURE = 75
"""The network failed (EX_TEMPFAIL of sysexits.h): the same command may work later, so the flow retries."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NETWORK_ERRORS = (URLError, ConnectionError, TimeoutError)


_EXTRAS = {
    "service": (
        "anyio",
        "fastapi",
        "h11",
        "prometheus_client",
        "python_multipart",
        "starlette",
        "uvicorn",
    ),
    "project": (
        *(
            "dvc",
            "fsspec",
            "httpx",
            "matplotlib",
            "mlflow",
            "onnx",
            "onnxscript",
            "orjson",
            "pandas",
            "prefect",
        ),
        *("psutil", "safetensors", "scipy", "scmrepo", "simplejpeg", "sqlalchemy", "torch", "torchvision"),
    ),
    "tensorrt": ("pycuda", "tensorrt"),
}
"""Extra of pyproject.toml -> the modules that it brings; without any, `lstfe detect` and `lstfe bench` run."""


class StageError(RuntimeError):
    """A stage failed; its own message is already in the output."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_command(command: Callable[[], None]) -> NoReturn:
    """Run `command` and exit: 0 when done, else a line on stderr and a code; own bugs keep a traceback."""
    # A plain SIGTERM ends Python at once: no finally block, so children and MLflow runs would be left behind.
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for package in ("lstfe", "deploy", "pipelines"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        command()
    except (UserError, *_NETWORK_ERRORS) as error:
        _fail(_one_line(error), TEMPORARY_FAILURE if _is_temporary(error) else USER_ERROR)
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if (extra := extra_with(lacking)) is None:
            raise
        _fail(f"{lacking} is not installed and this needs it: pip install 'lstfe[{extra}]'", USER_ERROR)
    except StageError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno in _FULL:
            _fail(f"{error}; free space and run the command again", USER_ERROR)
        if error.errno in _FORBIDDEN:
            _fail(f"{error}; allow it, or name another file or folder", USER_ERROR)
        raise
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(0)


def extra_with(module: str) -> str | None:
    """Return which extra of the package brings a module; None for those that always are there and unknown ones."""
    return next((extra for extra, modules in _EXTRAS.items() if module in modules), None)


def _is_temporary(error: BaseException) -> bool:
    # A UserError raised from within a network error says it better, but is no less temporary.
    return isinstance(error, _NETWORK_ERRORS) or isinstance(error.__context__, _NETWORK_ERRORS)


def _one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"the network failed: {error}; run the command again when it is back"


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _exit_on_sigterm(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)
