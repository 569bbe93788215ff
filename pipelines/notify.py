"""A webhook hears of failures, refusals and drift; nothing fails because it is deaf."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lstfe.errors import UserError
from pipelines.operations_config import load_operations
from pipelines.paths import PARAMS

WEBHOOK = "LSTFE_WEBHOOK"
"""Environment variable: the address, which comes before `ops.webhook` of params.yaml."""
_TRIES, _PAUSE_SECONDS, _TIMEOUT_SECONDS = 3, 1.0, 5.0

logger = logging.getLogger(__name__)


def notify(root: Path, event: str, message: str, **details: Any) -> bool:
    """Post {"event", "message", "project", "time", ...} to the webhook, if one is set; return whether it took it."""
    address = os.environ.get(WEBHOOK) or _configured(root)
    if not address:
        return False
    content = {
        "event": event,
        "message": message,
        "project": root.name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **details,
    }
    return _post(address, content)


def _configured(root: Path) -> str | None:
    try:
        return load_operations(root / PARAMS).ops.webhook
    except UserError as error:  # the failure to tell of may be this very one
        logger.warning("no webhook: %s", error)
        return None


def _post(address: str, content: Mapping[str, Any]) -> bool:
    host = urlsplit(address).hostname  # the rest of an address may be a secret
    body = json.dumps(content).encode()
    for attempt in range(_TRIES):
        try:
            request = Request(address, body, {"Content-Type": "application/json"}, method="POST")
            if request.type not in ("http", "https"):
                raise ValueError(f"{request.type}: is no address of a webhook, expected http or https")
            with urlopen(request, timeout=_TIMEOUT_SECONDS):
                return True
        except (OSError, ValueError) as error:
            reason = type(error).__name__ if host else "not an address"
            if attempt + 1 == _TRIES or isinstance(error, ValueError):
                logger.warning("the webhook at %s was not told of %s (%s)", host, content["event"], reason)
                return False
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    return False
