"""Peak memory is a process's own: not what the one that started it has had."""

from __future__ import annotations

import subprocess
import sys

from deploy.peak_memory import peak_mib


def test_the_peak_stays_when_memory_is_given_back() -> None:
    block = bytearray(b"x") * (200 * 2**20)
    assert len(block) == 200 * 2**20
    del block
    assert peak_mib() > 200


def test_a_small_process_of_a_large_one_has_a_small_peak() -> None:
    started_by_a_large_one = (
        "import subprocess, sys\n"
        "block = bytearray(b'x') * (300 * 2**20)\n"
        "code = 'from deploy.peak_memory import peak_mib; print(peak_mib())'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", started_by_a_large_one], capture_output=True, text=True, check=True
    )
    assert 1 < float(result.stdout) < 150
