"""Export, bundle, runtime and service."""

from __future__ import annotations

import os

# ONNX Runtime reports its use to its maker, from 1.32 on also on Linux, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
