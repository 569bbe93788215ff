from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnx_runtime_leaves_no_trace_of_reporting_its_use(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(tmp_path)}
    # Where it reports, it keeps the number of its session in the temporary folder.
    program = "import deploy.onnx_backend"
    subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], env=environment, check=True
    )
    assert list(tmp_path.iterdir()) == []
